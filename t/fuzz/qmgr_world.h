/*
 * qmgr and its peers, which say anything. A message for three recipients of two domains is
 * committed over a real channel; an input answers the questions that follow, well or badly; then
 * everything is answered as it should be and time passes, until all mail has ended. The spool is
 * in memory here, and so is the clock (fake_store.h).
 *
 * An input is one byte of options, then pieces: kind, length (2 bytes), bytes.
 */
#ifndef POSTERN_T_QMGR_WORLD_H
#define POSTERN_T_QMGR_WORLD_H

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"

#include "fake_store.h"

enum {
    RECIPIENTS = 3,
    TURNS = 6,      /* until all that follows from one frame has happened */
    HOURS_MAX = 90, /* below maximal_queue_lifetime: nothing expires */
    QUESTIONS_MAX = 64
};

enum kind { ON_ROUTE, ON_RESULT, ON_NOTICE, RAW_ROUTE, RAW_RESULT, RAW_NOTICE, PROPER, OWN_KINDS };

enum {
    NOTICES_OF_SUCCESS = 8
}; /* of world.options, beside the recipients that fail (bits 0 to 2) */

struct other {
    int fd;
    bool closed; /* by qmgr */
    uint64_t questions[QUESTIONS_MAX];
    bool reuse_only[QUESTIONS_MAX]; /* jobs that may not open a connection */
    unsigned count;
};

static struct {
    struct event_base *base;
    struct service service;
    struct qmgr q;
    struct other smtpd, resolve, relay, bounce, quota;
    bool accounts;  /* there is a quota */
    uint32_t batch; /* the last that quota was sent */
    bool committed;
    char id[ID_LEN + 1];
    /* of the message: */
    bool sent[RECIPIENTS], decided[RECIPIENTS];
    uint8_t options;
} world;

/* ---- qmgr and its peers --------------------------------------------------------- */

static void attach(struct other *p, void (*give)(int fd))
{
    int ends[2];
    struct err e;
    if (channel_pair(ends, &e) < 0)
        panic("%s", e.text);
    *p = (struct other){.fd = ends[0]};
    give(ends[1]);
}

static void give_smtpd(int fd)
{
    intake_peer(&world.q, 0, 1, fd);
}
static void give_resolve(int fd)
{
    sites_peer(&world.q, fd);
}
static void give_relay(int fd)
{
    relays_peer(&world.q, 0, 1, fd);
}
static void give_bounce(int fd)
{
    notices_peer(&world.q, fd);
}

static void give_quota(int fd)
{
    charges_peer(&world.q, fd);
}

static void send_frame(struct other *p, struct buf *frame)
{
    if (!p->closed && send(p->fd, frame->data, frame->len, MSG_NOSIGNAL) < 0 && errno != EPIPE)
        panic("send: %s", strerror(errno));
    buf_free(frame);
}

static void relay_ready(void)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    ipc_relay_ready_encode(&frame, &(struct ipc_relay_ready){.jobs = 10});
    send_frame(&world.relay, &frame);
}

static void attach_relay(void)
{
    attach(&world.relay, give_relay);
    relay_ready();
}

static void quota_ready(void)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    ipc_charges_ready_encode(&frame, &(struct ipc_charges_ready){.credit = 8});
    send_frame(&world.quota, &frame);
}

static void attach_quota(void)
{
    attach(&world.quota, give_quota);
    quota_ready();
}

static void charged(uint32_t batch)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    ipc_charged_encode(&frame, &(struct ipc_charged){.batch = batch});
    send_frame(&world.quota, &frame);
}

/* Every account goes from the default pool. */
static void tell_pool(struct slice account)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    ipc_account_pool_encode(&frame, &(struct ipc_account_pool){.account = account});
    send_frame(&world.quota, &frame);
}

static void ask(struct other *p, uint64_t tag, bool reuse_only)
{
    if (p->count == QUESTIONS_MAX)
        return;
    p->reuse_only[p->count] = reuse_only;
    p->questions[p->count++] = tag;
}

static void take_frame(struct other *p, const struct ipc_frame *f)
{
    struct ipc_resolve_request r;
    struct ipc_deliver d;
    struct ipc_notice_request n;
    struct ipc_charges c;
    struct ipc_account_ask a;
    if (f->number == IPC_NUMBER_ipc_resolve_request && ipc_resolve_request_decode(f->body, &r) == 0)
        ask(p, r.tag, false);
    else if (f->number == IPC_NUMBER_ipc_deliver && ipc_deliver_decode(f->body, &d) == 0)
        ask(p, d.job, d.reuse_only != 0);
    else if (f->number == IPC_NUMBER_ipc_notice_request &&
             ipc_notice_request_decode(f->body, &n) == 0)
        ask(p, n.tag, false);
    else if (f->number == IPC_NUMBER_ipc_charges && ipc_charges_decode(f->body, &c) == 0)
        world.batch = c.batch;
    else if (f->number == IPC_NUMBER_ipc_account_ask && ipc_account_ask_decode(f->body, &a) == 0)
        tell_pool(a.account);
    else if (f->number == IPC_NUMBER_ipc_committed)
        world.committed = true;
    else if (f->number == IPC_NUMBER_ipc_refused)
        panic("the message was refused");
}

static void hear(struct other *p)
{
    static char packet[1 << 18];
    ssize_t n;
    while (!p->closed && (n = recv(p->fd, packet, sizeof packet, MSG_DONTWAIT)) >= 0) {
        struct slice rest = slice_make(packet, (size_t)n);
        struct ipc_frame f;
        p->closed = n == 0;
        while (ipc_frame_next(&rest, &f) == 1)
            take_frame(p, &f);
    }
}

static void turn(void)
{
    event_base_loop(world.base, EVLOOP_NONBLOCK);
    store_turn();
    qmgr_turn(&world.q);
    hear(&world.smtpd);
    hear(&world.resolve);
    hear(&world.relay);
    hear(&world.bounce);
    if (world.accounts)
        hear(&world.quota);
}

static void turns(void)
{
    for (int i = 0; i < TURNS; i++)
        turn();
}

/* ---- answers --------------------------------------------------------------------- */

static void proper_route(uint64_t tag)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX), targets = BUF_INIT(1024);
    ipc_target_add(
        &targets,
        &(struct ipc_target){.host = SLICE("mx.test"), .address = SLICE("\x7f\0\0\1"), .port = 25});
    ipc_resolve_reply_encode(&frame, &(struct ipc_resolve_reply){.tag = tag,
                                                                 .status = RESOLVE_OK,
                                                                 .ttl = 60,
                                                                 .nexthop = SLICE("dst.test"),
                                                                 .site = SLICE("mx.test"),
                                                                 .targets = buf_slice(&targets)});
    send_frame(&world.resolve, &frame);
    buf_free(&targets);
}

/* Of the message: SENT for the recipients of the job, but by options some fail. */
static void proper_result(uint64_t job)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX), list = BUF_INIT(4096);
    const struct job *j = world.q.relays.table[(uint32_t)job];
    bool ours = j && strcmp(j->m->id.text, world.id) == 0;
    for (uint32_t k = 0; j && k < j->count; k++) {
        uint32_t i = j->rcpts[k];
        bool fails = ours && i < RECIPIENTS && (world.options >> i & 1);
        ipc_outcome_add(&list,
                        &(struct ipc_outcome){.index = i,
                                              .status = fails ? OUTCOME_FAILED : OUTCOME_SENT,
                                              .stage = fails ? STAGE_RCPT : STAGE_DOT,
                                              .code = fails ? 550 : 250,
                                              .text = SLICE("2.0.0 Ok")});
        if (ours && i < RECIPIENTS)
            world.sent[i] = true;
    }
    ipc_result_encode(&frame, &(struct ipc_result){.job = job,
                                                   .host = SLICE("mx.test"),
                                                   .address = SLICE("127.0.0.1"),
                                                   .port = 25,
                                                   .use_count = 1,
                                                   .outcomes = buf_slice(&list)});
    send_frame(&world.relay, &frame);
    buf_free(&list);
}

static void proper_notice(uint64_t tag)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    ipc_notice_encode(
        &frame, &(struct ipc_notice){.tag = tag, .content = SLICE("Subject: sorry\r\n\r\nno\r\n")});
    send_frame(&world.bounce, &frame);
}

static void answer_all(void)
{
    if (world.batch)
        charged(world.batch);
    turns();
    while (world.resolve.count)
        proper_route(world.resolve.questions[--world.resolve.count]);
    while (world.relay.count)
        proper_result(world.relay.questions[--world.relay.count]);
    while (world.bounce.count)
        proper_notice(world.bounce.questions[--world.bounce.count]);
    turns();
}

/* What a RESULT says that qmgr will take: those recipients need no other. */
static void note_result(struct slice body)
{
    struct ipc_result m;
    struct ipc_outcome o;
    if (ipc_result_decode(body, &m) < 0)
        return;
    struct ipc_cursor list = ipc_list_cursor(m.outcomes);
    while (ipc_outcome_next(&list, &o))
        if (o.index < RECIPIENTS && o.status != OUTCOME_DEFERRED)
            world.decided[o.index] = true;
}

/* A route that returns, discards or fails for good decides for whom it is for. */
static void note_route(struct slice body)
{
    struct ipc_resolve_reply m;
    if (ipc_resolve_reply_decode(body, &m) < 0)
        return;
    if (m.status == RESOLVE_PERMANENT || m.transport == TRANSPORT_ERROR ||
        m.transport == TRANSPORT_DISCARD)
        for (int i = 0; i < RECIPIENTS; i++)
            world.decided[i] = true;
}

static void note(enum kind kind, struct slice body)
{
    if (kind == ON_RESULT)
        note_result(body);
    else if (kind == ON_ROUTE)
        note_route(body);
}

/* The input's words as the answer to an open question. */
static void answer_with(enum kind kind, struct other *p, struct slice bytes)
{
    static const uint16_t numbers[] = {IPC_NUMBER_ipc_resolve_reply, IPC_NUMBER_ipc_result,
                                       IPC_NUMBER_ipc_notice};
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    if (p->count == 0)
        return;
    uint64_t tag = p->questions[--p->count];
    uint32_t len = (uint32_t)(sizeof tag + bytes.len);
    uint16_t number = numbers[kind], flags = 0;
    buf_add(&frame, &len, sizeof len);
    buf_add(&frame, &number, sizeof number);
    buf_add(&frame, &flags, sizeof flags);
    buf_add(&frame, &tag, sizeof tag);
    buf_adds(&frame, bytes);
    struct slice body = slice_from(buf_slice(&frame), IPC_HEADER);
    char *copy = slice_dup(body);
    size_t size = body.len;
    send_frame(p, &frame);
    turns();
    if (!p->closed)
        note(kind, slice_make(copy, size));
    free(copy);
}

static void send_raw(struct other *p, struct slice bytes)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    if (bytes.len && buf_adds(&frame, bytes) == 0)
        send_frame(p, &frame);
    turns();
    if (!p->closed) { /* it may have held any answer */
        struct slice rest = bytes;
        struct ipc_frame f;
        while (ipc_frame_next(&rest, &f) == 1)
            note(f.number == IPC_NUMBER_ipc_result ? ON_RESULT : ON_ROUTE, f.body);
    }
}

/* ---- one input ------------------------------------------------------------------- */

static void reconnect(void)
{
    struct {
        struct other *peer;
        void (*give)(int fd);
    } peers[] = {{&world.resolve, give_resolve}, {&world.bounce, give_bounce}};
    for (size_t i = 0; i < sizeof peers / sizeof *peers; i++)
        if (peers[i].peer->closed) {
            close(peers[i].peer->fd);
            attach(peers[i].peer, peers[i].give);
        }
    if (world.relay.closed) {
        close(world.relay.fd);
        attach_relay();
    }
    if (world.accounts && world.quota.closed) {
        close(world.quota.fd);
        attach_quota();
    }
    turns();
}

/* Kinds from OWN_KINDS on are given to `own`. */
static void play(struct slice input, int pieces, unsigned kinds,
                 void (*own)(unsigned kind, struct slice bytes))
{
    for (int i = 0; i < pieces && input.len >= 3; i++) {
        unsigned kind = (uint8_t)input.ptr[0] % kinds;
        size_t len = (uint8_t)input.ptr[1] | (size_t)(uint8_t)input.ptr[2] << 8;
        struct slice bytes = slice_first(slice_from(input, 3), len);
        struct other *peers[] = {&world.resolve, &world.relay, &world.bounce};
        input = slice_from(input, 3 + bytes.len);
        if (kind == PROPER)
            answer_all();
        else if (kind >= OWN_KINDS)
            own(kind, bytes);
        else if (kind < RAW_ROUTE)
            answer_with((enum kind)kind, peers[kind], bytes);
        else
            send_raw(peers[kind - RAW_ROUTE], bytes);
        reconnect();
    }
}

/* The token that quota gives for it. */
static struct slice reserved(const struct ipc_commit *m, char text[static TOKEN_BYTES])
{
    struct tokens *t = &world.q.tokens;
    const struct token_claim claim = {.id = m->id,
                                      .owner = m->account,
                                      .sender = m->sender,
                                      .recipients = m->recipient_count,
                                      .size = m->body.len};
    const struct token made = {.hold = (uint8_t)(m->flags & (MESSAGE_HOLD | MESSAGE_HOLD_RATE)),
                               .at = (uint32_t)(clock_mono() / CLOCK_SECOND),
                               .serial = t->top + 1};
    if (token_make(t->key, &claim, &made, text) < 0)
        panic("there is no token");
    return slice_make(text, TOKEN_BYTES);
}

/* Commits what *m says beside its ID, arrival and content; returns its ID. */
static struct id commit_one(struct ipc_commit m)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    struct id id = id_new();
    char token[TOKEN_BYTES];
    m.tag = 1;
    m.id = id_slice(&id);
    m.arrival = clock_wall();
    m.sender = SLICE("s@src.test");
    m.body = SLICE("Subject: x\r\n\r\nbody\r\n");
    if (world.accounts && m.account.len)
        m.token = reserved(&m, token);
    ipc_commit_encode(&frame, &m);
    world.committed = false;
    send_frame(&world.smtpd, &frame);
    turns();
    if (!world.committed)
        panic("COMMIT has no answer");
    return id;
}

/* The message that the input is about. */
static void commit(struct ipc_commit m)
{
    static const char *const addresses[RECIPIENTS] = {"a@one.test", "b@one.test", "c@two.test"};
    uint8_t notify = world.options & NOTICES_OF_SUCCESS ? NOTIFY_SUCCESS | NOTIFY_FAILURE : 0;
    struct buf list = BUF_INIT(4096);
    for (int i = 0; i < RECIPIENTS; i++)
        ipc_rcpt_add(&list,
                     &(struct ipc_rcpt){.address = slice_str(addresses[i]), .notify = notify});
    m.recipient_count = RECIPIENTS;
    m.recipients = buf_slice(&list);
    struct id id = commit_one(m);
    memcpy(world.id, id.text, sizeof world.id);
    buf_free(&list);
}

/* Its channel ends, and reconnect makes it another one. */
static void restart_relay(void)
{
    (void)shutdown(world.relay.fd, SHUT_RDWR);
    world.relay.closed = true;
    turns();
}

/* Time passes, every question gets its proper answer. */
static void end_everything(void)
{
    for (int hour = 0; hour < HOURS_MAX && world.q.messages.count; hour++) {
        relay_ready(); /* the input may have said that it drains */
        answer_all();
        now += 3600 * CLOCK_SECOND;
        queue_tick(&world.q);
        queue_flush_all(&world.q);
        turns();
        if (hour == HOURS_MAX / 2) /* the input may have said that it has all connections */
            restart_relay();
        reconnect();
    }
    if (world.q.messages.count)
        panic("%zu messages are left that nothing ends", world.q.messages.count);
    for (int i = 0; i < RECIPIENTS; i++)
        if (!world.sent[i] && !world.decided[i])
            panic("recipient %d is gone and was never sent", i);
}

/* With quota and accounts, or without; once. */
static void world_start(bool accounts)
{
    struct err e;
    struct slice text = accounts ? SLICE("myhostname = relay.test\nqueue_directory = /tmp\n"
                                         "accounts_enable = yes\n")
                                 : SLICE("myhostname = relay.test\nqueue_directory = /tmp\n");
    log_set_level(LOG_LEVEL_PANIC);
    list_init(&calls);
    world.accounts = accounts;
    world.base = event_base_new();
    world.service.base = world.base;
    world.service.event_log = -1;
    world.service.config = config_parse(text, "main.cf", "/tmp", &e);
    if (!world.service.config)
        panic("%s", e.text);
    world.q.store_state = SPOOL_OK;
    qmgr_init(&world.q, &world.service);
    world.q.scanned = true;
}

static void world_attach(void)
{
    attach(&world.smtpd, give_smtpd);
    attach(&world.resolve, give_resolve);
    attach(&world.bounce, give_bounce);
    attach_relay();
    if (world.accounts)
        attach_quota();
    turns();
}

/* Another input. */
static void world_begin(uint8_t options)
{
    now += 48 * 3600 * CLOCK_SECOND; /* what was learned before has grown old */
    memset(world.sent, 0, sizeof world.sent);
    memset(world.decided, 0, sizeof world.decided);
    world.options = options;
    turns();
}

#endif
