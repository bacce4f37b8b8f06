/* libraries: qmgr_parts */
/*
 * Shaping while resolve, relay and bounce say anything (qmgr_world.h): as fuzz_qmgr_replies, but
 * the destinations have limits of all kinds, over one source and over both, and rules of all
 * scopes, so that the answers drive the controller, brakes, and what holds over all sources.
 * A SAY piece is an answer in a few bytes (see say()), which no change of a message's fields
 * makes useless; MORE brings mail of other accounts and domains; TIME lets time pass; HAND is
 * the operator's. Between any two of these nothing may be lost, forgotten in a line, or counted
 * wrong (consistency.c); at the end all mail has ended.
 */
#include "qmgr/brakes.h"
#include "qmgr/halts.h"
#include "qmgr/relays.h"
#include "qmgr/sources.h"
#include "qmgr/whole.h"
#include "rules/bundle.h"

#include "qmgr_world.h"

enum {
    PIECES_MAX = 48,
    MORE_MAX = 24,       /* messages beside the first */
    TIME_STEP = 15,      /* seconds, of a TIME piece */
    HOURS_SPENT_MAX = 20 /* by TIME pieces */
};

enum own_kind { SAY = OWN_KINDS, MORE, TIME, HAND, KINDS };

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

static unsigned messages; /* of MORE pieces */
static int64_t began;

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
    if (now + seconds * CLOCK_SECOND - began > HOURS_SPENT_MAX * 3600 * CLOCK_SECOND)
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
            (void)halts_release(q, slice_str(l->group->name), SLICE(""), NULL, NULL);
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

/* Messages of others, some to the same place. */
static void more(struct slice in)
{
    static const char *const addresses[] = {"d@one.test", "e@two.test", "f@one.test",
                                            "g@three.test"};
    uint8_t what = next(&in);
    for (unsigned n = 0; n <= what % 4u && messages < MORE_MAX; n++, messages++) {
        struct buf list = BUF_INIT(4096);
        ipc_rcpt_add(&list, &(struct ipc_rcpt){.address = slice_str(addresses[what >> 2 & 3])});
        commit_one((struct ipc_commit){.account = what & 0x10 ? SLICE("shop") : SLICE("bank"),
                                       .signer = what & 0x20 ? SLICE("news.test") : SLICE(""),
                                       .mail_class = what & 0x40   ? CLASS_BULK
                                                     : what & 0x80 ? CLASS_TRANSACTIONAL
                                                                   : CLASS_NORMAL,
                                       .recipient_count = 1,
                                       .recipients = buf_slice(&list)});
        buf_free(&list);
    }
}

/* ---- one input ------------------------------------------------------------------- */

static void own_piece(unsigned kind, struct slice bytes)
{
    if (kind == SAY)
        say(bytes);
    else if (kind == MORE)
        more(bytes);
    else if (kind == TIME)
        pass_time(bytes);
    else
        by_hand(bytes);
}

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
        (void)halts_release(&world.q, slice_str(name), SLICE(""), NULL, NULL);
        free(name);
    }
    turns();
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!world.base) {
        world_start(false);
        set_tables();
        world_attach();
    }
    if (size < 1)
        return 0;
    world_begin(data[0]);
    messages = 0;
    began = now;
    commit((struct ipc_commit){.mail_class = CLASS_NORMAL});
    play(slice_make(data + 1, size - 1), PIECES_MAX, KINDS, own_piece);
    take_brakes_off();
    end_everything();
    return 0;
}
