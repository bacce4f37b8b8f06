/*
 * lane-bench: what a destination from one source address costs the queue manager.
 *
 *   lane-bench [PAIRS [SITES [SOURCES [DECISIONS [BRAKES [SENDERS [LIMIT]]]]]]]
 *                                                   1000000 100000 1000 300000 0 1 0
 *
 * Makes SITES destinations and SOURCES addresses, and PAIRS of them active: each pair
 * has a lane and its customer's queue there with two messages in line, or with SENDERS
 * above one the queues of so many customers with one each, at a pace of its own, so that nearly all
 * lanes are waiting for their time at any moment. Then deliveries start in the order in which the
 * queue manager chooses them, end well (one in a thousand is refused), and a next one comes.
 * Everything is qmgr's own code, with a spool in memory, a clock that is set by hand, and a relay
 * process that is a socket. BRAKES: so many customers are slowed down at a destination each, to
 * twice its pace. LIMIT above 0: each customer may have so many deliveries at a time at any one
 * destination.
 *
 * Prints two JSON objects: the memory of an active pair, and the time of a scheduling
 * decision: choosing what is next and handing it out (the frame for relay included),
 * and of taking what came of it.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "core/log.h"
#include "qmgr/brakes.h"
#include "qmgr/seats.h"
#include "qmgr/sites.h"
#include "qmgr/sources.h"
#include "t/fuzz/fake_store.h"

enum {
    ACCOUNTS = 1000,
    JOBS_EACH = 2,
    JOBS_AT_RELAY = 2000,
    PACE = 60, /* seconds between deliveries of a pair: 10^6 pairs make 10^6 a minute */
    ONE_REFUSED = 1000
};

static struct {
    struct event_base *base;
    struct service service;
    struct qmgr q;
    int relay; /* our end */
    size_t pairs, sites, sources, decisions, brakes, senders, limit;
    struct site **site;
    struct source **source;
    struct message *message[ACCOUNTS];
    struct answer *refusal;
    uint64_t random;
} world = {.pairs = 1000000,
           .sites = 100000,
           .sources = 1000,
           .decisions = 300000,
           .senders = 1,
           .random = 88172645463325252ULL};

static uint64_t any(void)
{
    world.random ^= world.random << 13;
    world.random ^= world.random >> 7;
    return world.random ^= world.random << 17;
}

/* ---- the world -------------------------------------------------------------------- */

enum { DOMAIN_ROOM = 48 };

/* Of the recipients at a destination. */
static size_t name_domain(size_t number, char out[static DOMAIN_ROOM])
{
    return (size_t)snprintf(out, DOMAIN_ROOM, "destination%zu.example", number);
}

/* Its route is known, and stays. */
static void make_route(size_t number, struct site *s)
{
    char domain[DOMAIN_ROOM];
    struct slice name = slice_make(domain, name_domain(number, domain));
    struct route *r = route_get(&world.q, name, name);
    r->state = ROUTE_READY;
    r->status = RESOLVE_OK;
    r->transport = TRANSPORT_SMTP;
    r->expires = INT64_MAX;
    r->site = s;
    s->refs++;
}

static struct site *make_site(size_t number)
{
    char host[64];
    unsigned char address[4] = {10, (unsigned char)(number >> 16), (unsigned char)(number >> 8),
                                (unsigned char)number};
    int n = snprintf(host, sizeof host, "mx%zu.destination.example", number);
    struct site *s = site_get(&world.q, &(struct site_id){.transport = TRANSPORT_SMTP,
                                                          .name = slice_make(host, (size_t)n)});
    s->refs = 1;
    s->families = 1;
    ipc_target_add(&s->targets, &(struct ipc_target){.host = slice_make(host, (size_t)n),
                                                     .address = slice_make(address, 4),
                                                     .port = 25});
    site_regroup(&world.q, s);
    make_route(number, s);
    return s;
}

static struct source *make_source(size_t number)
{
    char name[32];
    struct source_conf c = {.name = name, .has_v4 = true};
    snprintf(name, sizeof name, "out%zu", number);
    memcpy(c.v4, (unsigned char[]){192, 0, (unsigned char)(number >> 8), (unsigned char)number}, 4);
    return source_new(world.q.from, &c);
}

/* Which destinations a customer writes to: the step from one to the next. */
static size_t site_step(void)
{
    return world.senders > 1 ? 1 : ACCOUNTS;
}

/* Recipient `i` of a customer's message is at destination `site`; its address is put there. */
static void make_recipient(struct message *m, uint32_t i, size_t site, size_t *at)
{
    char text[DOMAIN_ROOM + 8] = "someone@";
    size_t len = 8 + name_domain(site, text + 8);
    m->env->recipients[i] =
        (struct recipient){.at = (uint32_t)*at, .address_len = (uint16_t)len, .state = RCPT_QUEUED};
    memcpy(envelope_strings(m) + *at, text, len);
    *at += len;
}

/* One message of each customer; all of the customer's deliveries are of it. */
static struct message *make_message(size_t number)
{
    static const char content[] = "Subject: x\r\n\r\nx\r\n";
    char name[32];
    struct id id = id_new();
    size_t n = (size_t)snprintf(name, sizeof name, "customer%zu", number), step = site_step();
    size_t first = world.senders > 1 ? 0 : number, count = (world.sites + step - 1) / step;
    struct message *m = message_new(&world.q, &id);
    m->env = envelope_new((uint32_t)count, n + count * (DOMAIN_ROOM + 8));
    m->recipient_count = m->env->left = (uint32_t)count;
    m->phase = PHASE_LOADED;
    m->env->account_len = (uint16_t)n;
    memcpy(envelope_strings(m), name, n);
    for (uint32_t i = 0; i < count; i++)
        make_recipient(m, i, first + i * step, &n);
    m->env->body = xmalloc(sizeof *m->env->body + sizeof content);
    m->env->body->prefix_len = 0;
    m->env->body->body_len = sizeof content - 1;
    memcpy(m->env->body->data, content, sizeof content);
    return m;
}

static void make_relay(void)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX);
    struct err e;
    int ends[2];
    if (channel_pair(ends, &e) < 0)
        panic("%s", e.text);
    world.relay = ends[0];
    relays_peer(&world.q, 0, 1, ends[1]);
    ipc_relay_ready_encode(&frame, &(struct ipc_relay_ready){.jobs = JOBS_AT_RELAY});
    if (send(world.relay, frame.data, frame.len, 0) < 0)
        panic("the relay channel does not take a frame");
    buf_free(&frame);
    event_base_loop(world.base, EVLOOP_NONBLOCK);
}

static void start(void)
{
    struct err e;
    struct qmgr *q = &world.q;
    log_set_level(LOG_LEVEL_PANIC);
    list_init(&calls);
    world.service.base = world.base = event_base_new();
    world.service.event_log = -1;
    world.service.config = config_parse(SLICE("myhostname = relay.test\nqueue_directory = /tmp\n"),
                                        "main.cf", "/tmp", &e);
    if (!world.service.config)
        panic("%s", e.text);
    q->store_state = SPOOL_OK;
    qmgr_init(q, &world.service);
    q->scanned = true;
    queue_tick(q);
    make_relay();
    world.refusal = answer_new(451, SLICE("4.7.1"), SLICE("too fast, please slow down"),
                               SLICE("mx.destination.example"), SLICE("10.0.0.1"));
    for (size_t i = 0; i < ACCOUNTS; i++)
        world.message[i] = make_message(i);
}

/* ---- the load --------------------------------------------------------------------- */

static struct lane *lane_of(size_t pair)
{
    return dispatch_lane(&world.q, world.site[pair % world.sites]->group,
                         world.source[(pair + pair / world.sites) % world.sources]);
}

static size_t jobs_each(void)
{
    return world.senders > 1 ? world.senders : JOBS_EACH;
}

/* Whose the job with that number of a pair is. */
static struct message *message_of(size_t pair, size_t job)
{
    return world.message[(pair % world.sites + (world.senders > 1 ? job : 0)) % ACCOUNTS];
}

/* Some customers go slower at some destinations. */
static void make_brakes(void)
{
    for (size_t i = 0; i < world.brakes; i++) {
        const struct group *g = world.site[i % world.sites]->group;
        struct slice who = message_account(message_of(i % world.pairs, i / world.sites));
        struct brake *b = brakes_add(&world.q, BRAKE_ACCOUNT, g->stable, g->name, who, false);
        if (!b)
            panic("not so many brakes can be put on");
        b->rate = b->failed = 2.0 / PACE;
        b->tokens = 1;
        b->filled = b->cut = b->grown = world.q.now;
        b->hold = INT64_MAX / 4; /* stays as it is */
    }
}

static struct job *make_job(struct message *m, size_t recipient)
{
    struct job *j = job_new(m, 1);
    j->rcpts[0] = (uint32_t)recipient;
    j->count = 1;
    return j;
}

/* Bytes that are in use. */
static double allocated(void)
{
    struct mallinfo2 m = mallinfo2();
    return (double)(m.uordblks + m.hblkhd);
}

static double resident(void)
{
    char line[256];
    double kib = 0;
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Pss: %lf", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return 1024 * kib;
}

static void memory(void)
{
    size_t each = jobs_each(), count = world.pairs * each;
    struct job **jobs = xreallocarray(NULL, count, sizeof(struct job *));
    double pairs = (double)world.pairs, empty = allocated();
    world.site = xreallocarray(NULL, world.sites, sizeof(struct site *));
    world.source = xreallocarray(NULL, world.sources, sizeof(struct source *));
    for (size_t i = 0; i < world.sites; i++)
        world.site[i] = make_site(i);
    for (size_t i = 0; i < world.sources; i++)
        world.source[i] = make_source(i);
    double sites = allocated();
    for (size_t i = 0; i < count; i++)
        jobs[i] = make_job(message_of(i / each, i % each), i / each % world.sites / site_step());
    double before = allocated(), before_resident = resident();
    for (size_t i = 0; i < world.pairs; i++)
        shaper_set(&lane_of(i)->shaper, 1.0 / PACE, 0, 0, world.q.now);
    double lanes = allocated();
    make_brakes();
    for (size_t i = 0; i < count; i++)
        dispatch_add(&world.q, lane_of(i / each), world.site[i / each % world.sites], jobs[i]);
    /* each has started once: now they wait for their time */
    double all = allocated(), all_resident = resident();
    printf("{\"pairs\": %zu, \"sites\": %zu, \"sources\": %zu, \"accounts\": %d, "
           "\"brakes\": %zu, \"senders\": %zu, \"bytes_per_pair\": %.0f, \"lane\": %.0f, "
           "\"queue\": %.0f, "
           "\"pss_per_pair\": %.0f, \"sizeof_lane\": %zu, \"bytes_per_site\": %.0f}\n",
           world.pairs, world.sites, world.sources, ACCOUNTS, world.brakes, world.senders,
           (all - before) / pairs, (lanes - before) / pairs, (all - lanes) / pairs,
           (all_resident - before_resident) / pairs, sizeof(struct lane),
           (sites - empty) / (double)world.sites);
    free(jobs);
}

/* ---- decisions -------------------------------------------------------------------- */

static int64_t nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* The next delivery that was handed out, as the relay process reads it; NULL: no more. */
static struct job *handed_out(void)
{
    static char packet[1 << 18];
    static struct slice rest;
    struct ipc_deliver d;
    struct ipc_frame f;
    if (rest.len == 0) {
        channel_flush_all();
        ssize_t n = recv(world.relay, packet, sizeof packet, MSG_DONTWAIT);
        rest = slice_make(packet, n > 0 ? (size_t)n : 0);
        if (n <= 0)
            return NULL;
    }
    if (ipc_frame_next(&rest, &f) != 1 || f.number != IPC_NUMBER_ipc_deliver ||
        ipc_deliver_decode(f.body, &d) < 0)
        panic("the relay channel has something else than deliveries");
    return world.q.relays.table[(uint32_t)d.job];
}

/* It is over, and a next message comes for the same destination. */
static int64_t finish(struct job *j)
{
    struct shaper_report r = {.signal = any() % ONE_REFUSED ? SHAPER_OK : SHAPER_TOO_FAST,
                              .started = j->sent_at,
                              .recipients = 1,
                              .use_count = 1,
                              .latency = 50000};
    struct lane *l = j->queue->lane;
    struct message *m = j->m;
    struct site *s = j->site;
    uint32_t recipient = j->rcpts[0];
    bool refused = r.signal != SHAPER_OK;
    int64_t began = nanoseconds();
    r.recipients = refused ? 0 : 1;
    dispatch_over(&world.q, j, &r, refused ? world.refusal : NULL);
    job_free(&world.q, j);
    int64_t took = nanoseconds() - began;
    dispatch_add(&world.q, l, s, make_job(m, recipient));
    return took;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void put_times(const char *name, uint32_t *t, size_t n)
{
    uint64_t sum = 0;
    qsort(t, n, sizeof *t, compare);
    for (size_t i = 0; i < n; i++)
        sum += t[i];
    printf(", \"%s_us\": {\"mean\": %.3f, \"median\": %.3f, \"p99\": %.3f, \"p999\": %.3f}", name,
           (double)sum / (double)n / 1000, t[n / 2] / 1000.0, t[n - 1 - n / 100] / 1000.0,
           t[n - 1 - n / 1000] / 1000.0);
}

struct times {
    uint32_t *decision, *result; /* nanoseconds; room for `wanted` */
    size_t wanted, n;
    uint64_t turns;
    size_t waiting; /* most lanes that waited for their time */
};

/* Time goes on to the lane whose turn is next, and `step` microseconds further. */
static void turn(struct times *t, int64_t step)
{
    struct qmgr *q = &world.q;
    struct job *j;
    size_t first = t->n;
    int64_t due = dispatch_next_due(q), braked = brakes_next_due(q);
    due = braked < due ? braked : due;
    if (due == INT64_MAX)
        panic("nothing waits for its time");
    now = (due > now ? due : now) + step;
    queue_tick(q);
    store_turn();
    t->waiting = q->dispatch.wakes.count > t->waiting ? q->dispatch.wakes.count : t->waiting;
    int64_t began = nanoseconds();
    brakes_turn(q);
    dispatch_turn(q);
    int64_t took = nanoseconds() - began;
    while ((j = handed_out())) {
        int64_t result = finish(j);
        if (t->n < t->wanted)
            t->result[t->n++] = (uint32_t)result;
    }
    for (size_t i = first; i < t->n; i++)
        t->decision[i] = (uint32_t)(took / (int64_t)(t->n - first));
    t->turns++;
}

static struct times times_new(size_t wanted)
{
    return (struct times){.wanted = wanted,
                          .decision = xreallocarray(NULL, wanted, sizeof(uint32_t)),
                          .result = xreallocarray(NULL, wanted, sizeof(uint32_t))};
}

/* At first all lanes may start at once: after one delivery of each they wait, spread over
 * the time between two. */
static void decide(void)
{
    struct times all = times_new(world.pairs), t = times_new(world.decisions);
    int64_t each = PACE * CLOCK_SECOND / (int64_t)world.pairs, began;
    for (size_t before = 0; all.n < all.wanted; before = all.n) {
        turn(&all, 0);
        now += each * (int64_t)(all.n - before);
    }
    for (began = now; t.n < t.wanted;)
        turn(&t, 0);
    printf("{\"decisions\": %zu, \"turns\": %llu, \"lanes_waiting\": %zu, "
           "\"simulated_minutes\": %.2f",
           t.n, (unsigned long long)t.turns, t.waiting, (double)(now - began) / 60e6);
    put_times("decision", t.decision, t.n);
    put_times("result", t.result, t.n);
    printf("}\n");
}

int main(int argc, char **argv)
{
    size_t *numbers[] = {&world.pairs,  &world.sites,   &world.sources, &world.decisions,
                         &world.brakes, &world.senders, &world.limit};
    for (int i = 1; i < argc && i <= 7; i++)
        *numbers[i - 1] = strtoull(argv[i], NULL, 10);
    if (world.pairs == 0 || world.sites == 0 || world.sources == 0 || world.decisions == 0 ||
        world.senders == 0 || world.senders > ACCOUNTS || world.sources > UINT16_MAX ||
        world.pairs > world.sites * world.sources) {
        fprintf(
            stderr,
            "usage: lane-bench [PAIRS [SITES [SOURCES [DECISIONS [BRAKES [SENDERS [LIMIT]]]]]]]\n");
        return 2;
    }
    start();
    memory();
    fflush(stdout);
    for (size_t i = 0; world.limit && i < ACCOUNTS; i++)
        seats_account(&world.q, message_account(world.message[i]), (uint32_t)world.limit, 0);
    decide();
    return 0;
}
