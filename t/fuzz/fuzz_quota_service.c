/* libraries: quota_parts */
/*
 * What smtpds and qmgr say to quota: logins, MAIL, RESERVE, RELEASE, CHARGES and their
 * settlements, CHARGES_GONE, in any order, well formed or not, against the real quota with a
 * real database. Whatever was said: nobody but who breaks the rules loses its channel, usage is
 * the sum of the charges, and what is reserved is the sum of the reservations, so that a process
 * that was taken over cannot make money of it; nothing is reserved once all is released; and the
 * token of a reservation is for what was reserved.
 *
 * Input: pieces: kind, a choice, length (1 byte), bytes.
 */
#include "quota_world.h"

enum {
    PIECES_MAX = 24,
    IDS = 4,              /* messages of an input */
    RECIPIENTS_MOST = 64, /* of a proper charge */
    INPUTS_BETWEEN = 500,
    SMTPDS = 2,
    TURNS = 3
};

enum kind {
    RAW_SMTPD,
    RAW_QMGR,
    FRAME_SMTPD, /* the choice names the message, the bytes are its body */
    FRAME_QMGR,
    MAIL,
    RESERVE,
    RELEASE,
    CHARGE,
    SETTLE,
    GONE,
    PASSWORD,
    HANG_UP,
    TICK,
    KINDS
};

struct peer_end {
    int fd;
    bool closed;
};

static struct {
    bool running;
    unsigned inputs;
    struct peer_end smtpd[SMTPDS], qmgr;
    char ids[IDS][ID_MAX + 1];
    char ticket[TICKET_MAX];
    size_t ticket_len;
    uint64_t tag, query, reserve_tag;
    struct token_claim claim; /* of the RESERVE with that tag, which is answered in its turn */
    uint32_t batch, charged;
} fuzz;

static const char config_text[] = "myhostname = relay.test\naccounts_enable = yes\n"
                                  "accounts_minfree = 0\nscram_iterations = 4096\n"
                                  "mynetworks_account = acme\n";
static const char plans_text[] =
    "plan small { messages = 1000000\n at_limit = block\n alerts = {1, 50, 100}\n"
    " account_rate = {100000/hour}\n rate_action = queue\n spike_factor = 2\n"
    " spike_minimum = 50\n spike_action = hold }\n";

/* ---- peers ------------------------------------------------------------------------------- */

static int attach(struct slice name, unsigned slot)
{
    int ends[2];
    struct err e;
    if (channel_pair(ends, &e) < 0)
        panic("%s", e.text);
    peer(&world.service, name, slot, 1, ends[1]);
    return ends[0];
}

static void check_token(const struct ipc_reserved *r)
{
    struct token t;
    if (r->tag != fuzz.reserve_tag || r->code)
        return;
    fuzz.claim.owner = SLICE("acme");
    if (token_read(quota.token_key, &fuzz.claim, r->token, &t) < 0 ||
        t.hold != (r->flags & MESSAGE_HELD))
        panic("a token of something else");
}

static void take_frame(const struct ipc_frame *f)
{
    struct ipc_reserved reserved;
    struct ipc_auth_result r;
    struct ipc_charges_query query;
    struct ipc_charged charged;
    if (f->number == IPC_NUMBER_ipc_auth_result && ipc_auth_result_decode(f->body, &r) == 0 &&
        r.ticket.len && r.ticket.len <= sizeof fuzz.ticket) {
        memcpy(fuzz.ticket, r.ticket.ptr, r.ticket.len);
        fuzz.ticket_len = r.ticket.len;
    } else if (f->number == IPC_NUMBER_ipc_charges_query &&
               ipc_charges_query_decode(f->body, &query) == 0) {
        fuzz.query = query.tag;
    } else if (f->number == IPC_NUMBER_ipc_charged && ipc_charged_decode(f->body, &charged) == 0) {
        fuzz.charged = charged.batch;
    } else if (f->number == IPC_NUMBER_ipc_reserved &&
               ipc_reserved_decode(f->body, &reserved) == 0) {
        check_token(&reserved);
    }
}

static void hear(struct peer_end *p)
{
    static char packet[1 << 18];
    ssize_t n;
    while (!p->closed && (n = recv(p->fd, packet, sizeof packet, MSG_DONTWAIT)) >= 0) {
        struct slice rest = slice_make(packet, (size_t)n);
        struct ipc_frame f;
        p->closed = n == 0;
        while (ipc_frame_next(&rest, &f) == 1)
            take_frame(&f);
    }
}

static void turns(void)
{
    for (int i = 0; i < TURNS; i++) {
        world_turn(EVLOOP_NONBLOCK);
        for (int s = 0; s < SMTPDS; s++)
            hear(&fuzz.smtpd[s]);
        hear(&fuzz.qmgr);
    }
}

static void say(struct peer_end *p, struct buf *frame)
{
    if (!p->closed && frame->len &&
        send(p->fd, frame->data, frame->len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EPIPE &&
        errno != EAGAIN && errno != EMSGSIZE)
        panic("send: %s", strerror(errno));
    buf_free(frame);
}

static void say_key(void)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    static char key[TOKEN_KEY];
    ipc_token_key_encode(
        &frame, &(struct ipc_token_key){.key = slice_make(key, sizeof key), .first = fuzz.tag});
    say(&fuzz.qmgr, &frame);
}

/* Who broke the rules comes back as a new process. */
static void reconnect(void)
{
    for (unsigned s = 0; s < SMTPDS; s++)
        if (fuzz.smtpd[s].closed) {
            close(fuzz.smtpd[s].fd);
            fuzz.smtpd[s] = (struct peer_end){attach(SLICE("smtpd"), s), false};
        }
    if (fuzz.qmgr.closed) {
        close(fuzz.qmgr.fd);
        fuzz.qmgr = (struct peer_end){attach(SLICE("qmgr"), 0), false};
        fuzz.query = 0;
        say_key();
    }
    turns();
}

/* ---- what they say ----------------------------------------------------------------------- */

static uint32_t number_at(struct slice s, size_t at)
{
    uint32_t n = 0;
    for (size_t i = 0; i < 4; i++)
        n = n << 8 | (at + i < s.len ? (unsigned char)s.ptr[at + i] : 0);
    return n;
}

static void send_frame(struct peer_end *p, uint16_t number, struct slice body)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    uint32_t len = (uint32_t)body.len;
    uint16_t flags = 0;
    buf_add(&frame, &len, sizeof len);
    buf_add(&frame, &number, sizeof number);
    buf_add(&frame, &flags, sizeof flags);
    if (buf_adds(&frame, body) < 0)
        buf_clear(&frame);
    say(p, &frame);
}

static void send_raw(struct peer_end *p, struct slice bytes)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    if (buf_adds(&frame, bytes) == 0)
        say(p, &frame);
}

static void one_of_smtpd(struct peer_end *p, uint8_t choice, struct slice bytes)
{
    static const uint16_t numbers[] = {
        IPC_NUMBER_ipc_auth_password,  IPC_NUMBER_ipc_auth_scram,
        IPC_NUMBER_ipc_auth_response,  IPC_NUMBER_ipc_auth_abort,
        IPC_NUMBER_ipc_client_account, IPC_NUMBER_ipc_client_certificate,
        IPC_NUMBER_ipc_auth_outside,   IPC_NUMBER_ipc_mail_request,
        IPC_NUMBER_ipc_reserve,        IPC_NUMBER_ipc_release,
        IPC_NUMBER_ipc_limits_request};
    send_frame(p, numbers[choice % (sizeof numbers / sizeof *numbers)], bytes);
}

static void one_of_qmgr(uint8_t choice, struct slice bytes)
{
    static const uint16_t numbers[] = {IPC_NUMBER_ipc_charges, IPC_NUMBER_ipc_charges_gone,
                                       IPC_NUMBER_ipc_account_noticed, IPC_NUMBER_ipc_account_ask,
                                       IPC_NUMBER_ipc_token_key};
    send_frame(&fuzz.qmgr, numbers[choice % (sizeof numbers / sizeof *numbers)], bytes);
}

static struct slice ticket(void)
{
    return slice_make(fuzz.ticket, fuzz.ticket_len);
}

static void say_mail(struct peer_end *p, struct slice bytes)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    ipc_mail_request_encode(&frame, &(struct ipc_mail_request){.tag = ++fuzz.tag,
                                                               .ticket = ticket(),
                                                               .client = SLICE("\x7f\0\0\1"),
                                                               .sender = SLICE("a@acme.test"),
                                                               .size = number_at(bytes, 0)});
    say(p, &frame);
}

static void say_reserve(struct peer_end *p, struct slice id, struct slice bytes)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX), authors = BUF_INIT(4096);
    ipc_author_add(&authors, &(struct ipc_author){.address = SLICE("a@acme.test")});
    fuzz.reserve_tag = fuzz.tag + 1;
    fuzz.claim = (struct token_claim){.id = id,
                                      .sender = SLICE("a@acme.test"),
                                      .recipients = number_at(bytes, 0),
                                      .size = number_at(bytes, 4)};
    ipc_reserve_encode(&frame, &(struct ipc_reserve){.tag = ++fuzz.tag,
                                                     .ticket = ticket(),
                                                     .id = id,
                                                     .client = SLICE("\x7f\0\0\1"),
                                                     .sender = SLICE("a@acme.test"),
                                                     .authors = buf_slice(&authors),
                                                     .recipients = number_at(bytes, 0),
                                                     .size = number_at(bytes, 4)});
    buf_free(&authors);
    say(p, &frame);
}

static void say_release(struct peer_end *p, struct slice id)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    ipc_release_encode(&frame, &(struct ipc_release){.id = id});
    say(p, &frame);
}

static void say_charge(struct slice id, uint8_t choice, struct slice bytes)
{
    static const char *const owners[] = {"acme/web", "acme", "acme/nobody", "other", ""};
    struct buf frame = BUF_INIT(IPC_FRAME_MAX), list = BUF_INIT(4096);
    ipc_charge_add(&list, &(struct ipc_charge){.id = id,
                                               .owner = slice_str(owners[choice / IDS % 5]),
                                               .arrival = 1,
                                               .size = number_at(bytes, 1),
                                               .recipients = number_at(bytes, 5) % RECIPIENTS_MOST,
                                               .flags = bytes.len ? (uint8_t)bytes.ptr[0] : 0});
    ipc_charges_encode(&frame,
                       &(struct ipc_charges){.batch = ++fuzz.batch, .charges = buf_slice(&list)});
    buf_free(&list);
    say(&fuzz.qmgr, &frame);
}

/* The bytes name recipients, one each; no byte: all. */
static void say_settle(struct slice id, uint8_t choice, struct slice bytes)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX), list = BUF_INIT(8192), indices = BUF_INIT(4096);
    for (size_t i = 0; i < bytes.len; i++) {
        buf_addc(&indices, (char)((unsigned char)bytes.ptr[i] % RECIPIENTS_MOST));
        buf_add(&indices, "\0\0\0", 3);
    }
    ipc_settlement_add(&list, &(struct ipc_settlement){.id = id,
                                                       .state = choice / IDS % 2 ? CHARGE_DELIVERED
                                                                                 : CHARGE_REFUNDED,
                                                       .recipients = buf_slice(&indices),
                                                       .address = SLICE("r@dst.test"),
                                                       .reply = SLICE("550 no")});
    ipc_charges_encode(
        &frame, &(struct ipc_charges){.batch = ++fuzz.batch, .settlements = buf_slice(&list)});
    buf_free(&list);
    buf_free(&indices);
    say(&fuzz.qmgr, &frame);
}

static void say_gone(struct slice id)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX), list = BUF_INIT(4096);
    ipc_charge_id_add(&list, &(struct ipc_charge_id){.id = id});
    ipc_charges_gone_encode(&frame,
                            &(struct ipc_charges_gone){.tag = fuzz.query, .ids = buf_slice(&list)});
    fuzz.query = 0;
    buf_free(&list);
    say(&fuzz.qmgr, &frame);
}

static void say_password(struct peer_end *p, struct slice bytes)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    ipc_auth_password_encode(&frame, &(struct ipc_auth_password){.tag = ++fuzz.tag,
                                                                 .authorization = SLICE("Web"),
                                                                 .client = SLICE("\xc0\0\2\1"),
                                                                 .user = SLICE("web"),
                                                                 .password = bytes});
    say(p, &frame);
}

static void ask_for_ticket(void)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    ipc_client_account_encode(
        &frame, &(struct ipc_client_account){.tag = ++fuzz.tag, .client = SLICE("\x7f\0\0\1")});
    fuzz.ticket_len = 0;
    say(&fuzz.smtpd[0], &frame);
    turns();
    if (!fuzz.ticket_len)
        panic("mynetworks_account has no ticket");
}

static void play_one(enum kind kind, uint8_t choice, struct slice bytes)
{
    struct peer_end *p = &fuzz.smtpd[choice >> 7];
    struct slice id = slice_str(fuzz.ids[choice % IDS]);
    switch (kind) {
    case RAW_SMTPD:
        send_raw(p, bytes);
        break;
    case RAW_QMGR:
        send_raw(&fuzz.qmgr, bytes);
        break;
    case FRAME_SMTPD:
        one_of_smtpd(p, choice, bytes);
        break;
    case FRAME_QMGR:
        one_of_qmgr(choice, bytes);
        break;
    case MAIL:
        say_mail(p, bytes);
        break;
    case RESERVE:
        say_reserve(p, id, bytes);
        break;
    case RELEASE:
        say_release(p, id);
        break;
    case CHARGE:
        say_charge(id, choice, bytes);
        break;
    case SETTLE:
        say_settle(id, choice, bytes);
        break;
    case GONE:
        say_gone(id);
        break;
    case PASSWORD:
        say_password(p, slice_first(bytes, 16));
        break;
    case HANG_UP:
        p = choice & 1 ? &fuzz.qmgr : p;
        shutdown(p->fd, SHUT_RDWR);
        p->closed = true;
        break;
    case TICK:
        on_tick(-1, 0, &quota);
        break;
    case KINDS:
        break;
    }
    turns();
    reconnect();
}

/* ---- what must be true --------------------------------------------------------------------- */

static struct party *acme(void)
{
    struct account *a = account_find(&quota, SLICE("acme"));
    if (!a)
        panic("the account is gone");
    return party_find(&quota, a, SLICE(""));
}

static bool is_idle(void *arg)
{
    (void)arg;
    turns();
    for (unsigned i = 0; i < quota.smtpd_count; i++)
        if (quota.smtpds[i]->count)
            return false;
    return book_is_idle(&quota) && verify_waiting(quota.logins->verify) == 0;
}

/* What entries of acme add to its usage; those of an owner that does not exist add nothing. */
static void add_entry(const struct charge *c, struct volume sums[3])
{
    if (c->level_count == 0 || strcmp(c->levels[0].account, "acme") != 0)
        return;
    uint32_t open = 0;
    for (uint32_t i = 0; i < c->recipients; i++) {
        enum charge_state s = c->states[i];
        open += s == CHARGE_RESERVED;
        if (s != CHARGE_REFUNDED) {
            sums[0].messages++;
            sums[0].bytes += c->levels[0].each;
        }
        if (s != CHARGE_RESERVED) {
            sums[s == CHARGE_DELIVERED ? 1 : 2].messages++;
            sums[s == CHARGE_DELIVERED ? 1 : 2].bytes += c->levels[0].each;
        }
    }
    if (open != c->open)
        panic("%u recipients are open, and it says %u", open, c->open);
}

struct charges_seen {
    struct volume sums[3];
};

static bool on_any_charge(struct slice key, struct slice value, void *arg)
{
    struct charges_seen *seen = arg;
    struct charge c;
    const struct entry *x = map_get(&quota.book.open, key);
    if (x && x->dirty)
        panic("a charge that is not written");
    if (charge_decode(value, &c) < 0)
        panic("a charge that cannot be read");
    add_entry(&c, seen->sums);
    free(c.states);
    return true;
}

static void check_usage(void)
{
    struct charges_seen seen = {0};
    struct err e;
    book_apply(&quota);
    if (kv_walk(quota.kv, T_CHARGE, SLICE(""), on_any_charge, &seen, &e) < 0)
        panic("%s", e.text);
    const struct plan_usage *u = &acme()->usage;
    const struct volume have[] = {u->charged, u->delivered, u->refunded};
    for (int i = 0; i < 3; i++)
        if (have[i].messages != seen.sums[i].messages || have[i].bytes != seen.sums[i].bytes)
            panic("usage %d is %llu messages, %llu bytes, of charges %llu, %llu", i,
                  (unsigned long long)have[i].messages, (unsigned long long)have[i].bytes,
                  (unsigned long long)seen.sums[i].messages,
                  (unsigned long long)seen.sums[i].bytes);
}

static void check_reserved(void)
{
    const struct party *p = acme();
    struct volume sum = {0, 0};
    uint32_t reservations = 0;
    list_each(&quota.reserved, n)
    {
        const struct reservation *r = container_of(n, struct reservation, link);
        for (unsigned i = 0; i < r->parties; i++)
            if (r->taken[i].party == p) {
                sum.messages += r->taken[i].volume.messages;
                sum.bytes += r->taken[i].volume.bytes;
                reservations++;
            }
    }
    if (sum.messages != p->pending.messages || sum.bytes != p->pending.bytes ||
        reservations != p->reservations)
        panic("%llu messages are pending, and %llu reserved",
              (unsigned long long)p->pending.messages, (unsigned long long)sum.messages);
}

static void release_all(void)
{
    while (!list_empty(&quota.reserved))
        gate_charged(&quota,
                     slice_str(container_of(quota.reserved.next, struct reservation, link)->id));
    check_reserved();
    if (acme()->pending.messages || acme()->pending.bytes)
        panic("something stays reserved");
    for (unsigned i = 0; i < quota.smtpd_count; i++)
        if (quota.smtpds[i]->reserved)
            panic("an smtpd has reservations that nobody has");
}

/* ---- one input ------------------------------------------------------------------------------- */

static void begin(void)
{
    world_start(config_text, plans_text);
    if (!world_ask("{\"request\":\"account.add\",\"account\":\"acme\",\"plan\":\"small\","
                   "\"reference\":\"owner@acme.test\"}") ||
        !world_ask("{\"request\":\"domain.add\",\"account\":\"acme\",\"domain\":\"acme.test\"}") ||
        !world_ask("{\"request\":\"user.add\",\"account\":\"acme\",\"login\":\"web\","
                   "\"password\":\"secret\"}"))
        panic("%s", world.answer.data);
    fuzz.smtpd[0].closed = fuzz.smtpd[1].closed = fuzz.qmgr.closed = true;
    fuzz.smtpd[0].fd = fuzz.smtpd[1].fd = fuzz.qmgr.fd = -1;
    reconnect();
    fuzz.running = true;
}

/* What the inputs before have left would slow others down. */
static void forget_all(void)
{
    static const enum table tables[] = {T_CHARGE, T_USAGE, T_FAILURE, T_NOTICE, T_HELD};
    struct party *p = acme();
    while (!list_empty(&quota.book.recent))
        book_entry_free(&quota, container_of(quota.book.recent.next, struct entry, link));
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        world_clear(tables[i]);
    p->usage.charged = p->usage.delivered = p->usage.refunded = (struct volume){0, 0};
    fuzz.inputs = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = slice_make((const char *)data, size);
    if (!fuzz.running)
        begin();
    for (int i = 0; i < IDS; i++)
        memcpy(fuzz.ids[i], id_new().text, sizeof fuzz.ids[i]);
    ask_for_ticket();
    for (int i = 0; i < PIECES_MAX && input.len >= 3; i++) {
        enum kind kind = (enum kind)((uint8_t)input.ptr[0] % KINDS);
        uint8_t choice = (uint8_t)input.ptr[1];
        struct slice bytes = slice_first(slice_from(input, 3), (uint8_t)input.ptr[2]);
        input = slice_from(input, 3 + bytes.len);
        play_one(kind, choice, bytes);
        check_reserved();
    }
    for (int p = 0; p < SMTPDS; p++) { /* exchanges that are open end with their channel */
        shutdown(fuzz.smtpd[p].fd, SHUT_RDWR);
        fuzz.smtpd[p].closed = true;
    }
    reconnect();
    world_wait(is_idle, NULL, "an end of what was asked");
    check_usage();
    release_all();
    if (++fuzz.inputs == INPUTS_BETWEEN)
        forget_all();
    return 0;
}
