/* libraries: qmgr_parts */
/*
 * Shaping while resolve, relay and bounce say anything: as fuzz_qmgr_replies, but the
 * destinations have limits of all kinds, over one source and over both, and rules of all
 * scopes, so that the answers drive the controller, brakes, and what holds over all sources.
 * A SAY piece is an answer in a few bytes (see say()), which no change of a message's fields
 * makes useless; MORE brings mail of other accounts and domains; TIME lets time pass; HAND is
 * the operator's. Between any two of these nothing may be lost, forgotten in a line, or counted
 * wrong (consistency.c); at the end all mail has ended.
 *
 * Input: one byte of options, then pieces: kind, length (2 bytes), bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"
#include "qmgr/brakes.h"
#include "qmgr/halts.h"
#include "qmgr/relays.h"
#include "qmgr/sources.h"
#include "qmgr/whole.h"
#include "rules/bundle.h"

#include "fake_store.h"

enum {
    RECIPIENTS = 3,
    PIECES_MAX = 48,
    MORE_MAX = 24,        /* messages beside the first */
    TIME_STEP = 15,       /* seconds, of a TIME piece */
    HOURS_SPENT_MAX = 20, /* by TIME pieces */
    TURNS = 6,            /* until all that follows from one frame has happened */
    HOURS_MAX = 90,       /* below maximal_queue_lifetime: nothing expires */
    QUESTIONS_MAX = 64
};

enum kind {
    ON_ROUTE,
    ON_RESULT,
    ON_NOTICE,
    RAW_ROUTE,
    RAW_RESULT,
    RAW_NOTICE,
    PROPER,
    SAY,
    MORE,
    TIME,
    HAND,
    KINDS
};

static const char rules_text[] =
    "default { start_rate = \"20/s\" start_connections = 2 connections = 4\n"
    "  messages_per_connection = 5 total_connections = 3 total_message_rate = \"600/min\"\n"
    "  total_connection_rate = \"60/min\" account_connections = 2 }\n"
    "domain \"two.test\" { connection_rate = \"6/min\" message_rate = \"30/min\" daily_cap = 40 }\n"
    "provider big { mx = {\"mx.test\"} connection_rate = \"30/min\" }\n"
#define RULE(name, what)                                                                           \
    "rule " name " { text = '" name "' outcome = \"retry\" matches = {\"421 " name "\"}\n  " what  \
    " }\n"
    RULE("rate-one", "dimension = \"rate\" action = \"slow\"") RULE(
        "rate-all", "scope = \"provider\" dimension = \"rate\" action = \"slow\"")
        RULE("many-all", "scope = \"provider\" dimension = \"concurrency\" action = \"slow\"") RULE(
            "often-all", "scope = \"provider\" dimension = \"connection_rate\" action = \"slow\"")
            RULE("volume-all", "scope = \"provider\" dimension = \"volume\" action = \"slow\"")
                RULE("away-all", "scope = \"provider\" action = \"suspend\" for = \"20m\"")
                    RULE("soon-all", "scope = \"provider\" action = \"suspend\" for = \"2m\"") RULE(
                        "often-one", "dimension = \"connection_rate\" action = \"slow\"")
                        RULE("many-one", "dimension = \"concurrency\" action = \"slow\"") RULE(
                            "long-one", "dimension = \"messages_per_connection\" action = \"slow\"")
                            RULE("away-one", "action = \"suspend\" for = \"30m\"")
                                RULE("switch-one", "action = \"switch\" for = \"30m\"") RULE(
                                    "account-rate",
                                    "scope = \"account\" dimension = \"rate\" action = \"slow\"")
                                    RULE("account-away",
                                         "scope = \"account\" action = \"suspend\" for = \"15m\"")
                                        RULE("domain-rate", "scope = \"dkim\" dimension = \"rate\" "
                                                            "action = \"set\" value = \"1/s\"")
                                            RULE("domain-away",
                                                 "scope = \"dkim\" action = \"suspend\" for = "
                                                 "\"15m\" after = 2 within = \"1h\"")
                                                RULE("grey", "scope = \"recipient\" greylist = "
                                                             "true retry_after = \"5m\"")
#undef RULE
    ;
static const char sources_text[] =
    "source a { ipv4 = 127.0.0.11 }\nsource b { ipv4 = 127.0.0.12 }\n"
    "pool default { sources = {a, b} }\n";

/* ---- qmgr and its peers --------------------------------------------------------- */

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
    struct other smtpd, resolve, relay, bounce;
    bool committed;
    char id[ID_LEN + 1];
    /* of the message: */
    bool sent[RECIPIENTS], decided[RECIPIENTS];
    uint8_t options;
    unsigned more;
    int64_t began;
} world;

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
    if (f->number == IPC_NUMBER_ipc_resolve_request && ipc_resolve_request_decode(f->body, &r) == 0)
        ask(p, r.tag, false);
    else if (f->number == IPC_NUMBER_ipc_deliver && ipc_deliver_decode(f->body, &d) == 0)
        ask(p, d.job, d.reuse_only != 0);
    else if (f->number == IPC_NUMBER_ipc_notice_request &&
             ipc_notice_request_decode(f->body, &n) == 0)
        ask(p, n.tag, false);
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

/* ---- what drives the controller ------------------------------------------------------- */

/* The next byte of the input, or 0. */
static uint8_t next(struct slice *in)
{
    uint8_t byte = in->len ? (uint8_t)in->ptr[0] : 0;
    *in = slice_from(*in, in->len ? 1 : 0);
    return byte;
}

/* An answer to one of the jobs that relay has: which job, what is said (a rule's word, or
 * words that none knows), stage, scope, who was sent, counts and times. */
static void say(struct slice in)
{
    static const char *const words[] = {
        "rate-one",     "rate-all",     "many-all",    "often-all",   "volume-all", "away-all",
        "soon-all",     "often-one",    "many-one",    "long-one",    "away-one",   "switch-one",
        "account-rate", "account-away", "domain-rate", "domain-away", "grey",       "hm"};
    struct other *p = &world.relay;
    struct buf frame = BUF_INIT(IPC_FRAME_MAX), list = BUF_INIT(4096);
    if (p->count == 0)
        return;
    unsigned at = next(&in) % p->count;
    uint64_t job = p->questions[at];
    bool reuse_only = p->reuse_only[at];
    p->count--;
    p->questions[at] = p->questions[p->count];
    p->reuse_only[at] = p->reuse_only[p->count];
    const struct job *j = relays_find(&world.q.relays, job);
    if (!j)
        return;
    uint8_t what = next(&in), stage = next(&in), scope = next(&in), mask = next(&in);
    const char *word = words[what % (sizeof words / sizeof *words)];
    bool not_tried = reuse_only && (scope & 0x80);
    bool ours = strcmp(j->m->id.text, world.id) == 0;
    for (uint32_t k = 0; k < j->count; k++) {
        uint32_t i = j->rcpts[k];
        bool sent = !not_tried && (mask >> (k & 7) & 1);
        struct ipc_outcome o = {.index = i,
                                .status = sent ? OUTCOME_SENT : OUTCOME_DEFERRED,
                                .stage = sent ? STAGE_DOT : STAGE_CONNECT + stage % STAGE_DOT,
                                .local = !sent && (stage & 0x80),
                                .code = sent ? 250 : 421,
                                .text = slice_str(sent ? "Ok" : word)};
        ipc_outcome_add(&list, &o);
        if (ours && sent && i < RECIPIENTS)
            world.decided[i] = true;
    }
    struct ipc_result m = {.job = job,
                           .scope = not_tried ? SCOPE_NO_CONNECTION : scope % SCOPE_SOURCE,
                           .host = SLICE("mx.test"),
                           .address = SLICE("127.0.0.1"),
                           .port = 25,
                           .use_count = next(&in),
                           .taken_count = next(&in),
                           .closed_after = next(&in),
                           .connections = reuse_only ? 0 : next(&in) % 4,
                           .greeting_us = (uint64_t)next(&in) * 50000,
                           .reply_us = (uint64_t)next(&in) * 50000,
                           .outcomes = buf_slice(&list)};
    ipc_result_encode(&frame, &m);
    send_frame(p, &frame);
    buf_free(&list);
    turns();
}

static void pass_time(struct slice in)
{
    int64_t seconds = (int64_t)next(&in) * TIME_STEP;
    if (now + seconds * CLOCK_SECOND - world.began > HOURS_SPENT_MAX * 3600 * CLOCK_SECOND)
        return;
    now += seconds * CLOCK_SECOND;
    turns();
}

static bool anywhere(struct qmgr *q, const struct group *g, void *arg)
{
    (void)q, (void)g, (void)arg;
    return true;
}

/* What an operator may do: to lanes, to what is over all sources, to senders. */
static void by_hand(struct slice in)
{
    struct qmgr *q = &world.q;
    uint8_t what = next(&in);
    int64_t time = (1 + (int64_t)next(&in)) * TIME_STEP * CLOCK_SECOND;
    struct slice who = what & 0x10 ? SLICE("shop") : SLICE("bank");
    queue_tick(q);
    list_each(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        switch (what % 6) {
        case 0:
            (void)halts_set(q, slice_str(l->group->name), SLICE(""), time, SLICE("x"));
            break;
        case 1:
            (void)halts_release(q, slice_str(l->group->name), SLICE(""));
            shaper_unsuspend(&l->shaper);
            whole_resume(q, l);
            queue_wake_suspended(q, anywhere, NULL);
            break;
        case 2:
            whole_reset(q, l);
            break;
        case 3:
            shaper_set(&l->shaper, 0.01 * (double)(1 + next(&in)), 1 + next(&in) % 4, next(&in),
                       q->now);
            break;
        case 4:
            if (what & 0x20)
                (void)brakes_release(q, slice_str(l->group->name), BRAKE_ACCOUNT, who);
            else
                (void)brakes_set(q, slice_str(l->group->name), BRAKE_ACCOUNT, who, time,
                                 SLICE("x"));
            break;
        default:
            queue_flush_all(q);
            break;
        }
        dispatch_wake(q, l);
        if (what % 6 > 3)
            break;
    }
    turns();
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
    turns();
}

static void commit_one(struct slice list, uint32_t count, struct slice account, struct slice signer,
                       uint8_t class, char id_out[static ID_LEN + 1])
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    struct id id = id_new();
    memcpy(id_out, id.text, ID_LEN + 1);
    ipc_commit_encode(&frame, &(struct ipc_commit){.tag = 1,
                                                   .id = id_slice(&id),
                                                   .arrival = clock_wall(),
                                                   .sender = SLICE("s@src.test"),
                                                   .account = account,
                                                   .signer = signer,
                                                   .mail_class = class,
                                                   .recipient_count = count,
                                                   .recipients = list,
                                                   .body = SLICE("Subject: x\r\n\r\nbody\r\n")});
    world.committed = false;
    send_frame(&world.smtpd, &frame);
    turns();
    if (!world.committed)
        panic("COMMIT has no answer");
}

static void commit(void)
{
    static const char *const addresses[RECIPIENTS] = {"a@one.test", "b@one.test", "c@two.test"};
    struct buf list = BUF_INIT(4096);
    for (int i = 0; i < RECIPIENTS; i++)
        ipc_rcpt_add(&list, &(struct ipc_rcpt){
                                .address = slice_str(addresses[i]),
                                .notify = world.options & 8 ? NOTIFY_SUCCESS | NOTIFY_FAILURE : 0});
    commit_one(buf_slice(&list), RECIPIENTS, SLICE(""), SLICE(""), CLASS_NORMAL, world.id);
    buf_free(&list);
}

/* Messages of others, some to the same place. */
static void more(struct slice in)
{
    static const char *const addresses[] = {"d@one.test", "e@two.test", "f@one.test",
                                            "g@three.test"};
    uint8_t what = next(&in);
    for (unsigned n = 0; n <= what % 4u && world.more < MORE_MAX; n++, world.more++) {
        struct buf list = BUF_INIT(4096);
        char id[ID_LEN + 1];
        ipc_rcpt_add(&list, &(struct ipc_rcpt){.address = slice_str(addresses[what >> 2 & 3])});
        commit_one(buf_slice(&list), 1, what & 0x10 ? SLICE("shop") : SLICE("bank"),
                   what & 0x20 ? SLICE("news.test") : SLICE(""),
                   what & 0x40   ? CLASS_BULK
                   : what & 0x80 ? CLASS_TRANSACTIONAL
                                 : CLASS_NORMAL,
                   id);
        buf_free(&list);
    }
}

static void play(struct slice input)
{
    for (int i = 0; i < PIECES_MAX && input.len >= 3; i++) {
        enum kind kind = (enum kind)((uint8_t)input.ptr[0] % KINDS);
        size_t len = (uint8_t)input.ptr[1] | (size_t)(uint8_t)input.ptr[2] << 8;
        struct slice bytes = slice_first(slice_from(input, 3), len);
        struct other *peers[] = {&world.resolve, &world.relay, &world.bounce};
        input = slice_from(input, 3 + bytes.len);
        if (kind == PROPER)
            answer_all();
        else if (kind == SAY)
            say(bytes);
        else if (kind == MORE)
            more(bytes);
        else if (kind == TIME)
            pass_time(bytes);
        else if (kind == HAND)
            by_hand(bytes);
        else if (kind < RAW_ROUTE)
            answer_with(kind, peers[kind], bytes);
        else
            send_raw(peers[kind - RAW_ROUTE], bytes);
        reconnect();
    }
}

/* Time passes, every question gets its proper answer. */
static void take_brakes_off(void)
{
    static const char *const who[] = {"shop", "bank", "news.test", "@src.test"};
    for (enum brake_kind kind = BRAKE_ACCOUNT; kind <= BRAKE_SIGNER; kind++)
        list_each(&world.q.dispatch.lanes, n)
        {
            struct lane *l = container_of(n, struct lane, all);
            for (size_t i = 0; i < sizeof who / sizeof *who; i++) {
                (void)brakes_lift(&world.q, l->group, kind, slice_str(who[i]));
                (void)brakes_release(&world.q, slice_str(l->group->name), kind, slice_str(who[i]));
            }
        }
    while (!list_empty(&world.q.halts->all)) {
        const struct halt *h = container_of(world.q.halts->all.next, struct halt, link);
        char *name = slice_dup(slice_str(h->name));
        (void)halts_release(&world.q, slice_str(name), SLICE(""));
        free(name);
    }
    turns();
}

static void end_everything(void)
{
    take_brakes_off();
    for (int hour = 0; hour < HOURS_MAX && world.q.messages.count; hour++) {
        relay_ready(); /* the input may have said that it drains */
        answer_all();
        now += 3600 * CLOCK_SECOND;
        queue_tick(&world.q);
        queue_flush_all(&world.q);
        turns();
        reconnect();
    }
    if (world.q.messages.count)
        panic("%zu messages are left that nothing ends", world.q.messages.count);
    for (int i = 0; i < RECIPIENTS; i++)
        if (!world.sent[i] && !world.decided[i])
            panic("recipient %d is gone and was never sent", i);
}

static void set_tables(void)
{
    struct err e;
    struct buf bundle = BUF_INIT(RULES_BUNDLE_MAX);
    (void)rules_bundle_add(&bundle, "providers.conf", slice_str(rules_text));
    struct rules *rules = rules_bundle_load(buf_slice(&bundle), &e);
    if (!rules)
        panic("%s", e.text);
    queue_tick(&world.q);
    groups_set_rules(&world.q, rules);
    struct sources_conf *sources = sources_conf_parse(slice_str(sources_text), "sources.conf", &e);
    if (!sources)
        panic("%s", e.text);
    sources_set(&world.q, sources);
    buf_free(&bundle);
}

static void start(void)
{
    struct err e;
    log_set_level(LOG_LEVEL_PANIC);
    list_init(&calls);
    world.base = event_base_new();
    world.service.base = world.base;
    world.service.event_log = -1;
    world.service.config = config_parse(SLICE("myhostname = relay.test\nqueue_directory = /tmp\n"),
                                        "main.cf", "/tmp", &e);
    if (!world.service.config)
        panic("%s", e.text);
    world.q.store_state = SPOOL_OK;
    qmgr_init(&world.q, &world.service);
    world.q.scanned = true;
    set_tables();
    attach(&world.smtpd, give_smtpd);
    attach(&world.resolve, give_resolve);
    attach(&world.bounce, give_bounce);
    attach_relay();
    turns();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!world.base)
        start();
    if (size < 1)
        return 0;
    now += 48 * 3600 * CLOCK_SECOND; /* what was learned before has grown old */
    memset(world.sent, 0, sizeof world.sent);
    memset(world.decided, 0, sizeof world.decided);
    world.options = data[0];
    world.more = 0;
    world.began = now;
    turns();
    commit();
    play(slice_make(data + 1, size - 1));
    end_everything();
    return 0;
}
