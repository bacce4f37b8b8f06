/*
 * store-bench: what the spool engine alone can do.
 *
 *   store-bench DIR [SECONDS [CONCURRENCY [DEPTH [BYTES]]]]
 *
 * CONCURRENCY messages of BYTES are being committed at any time, as many
 * sessions would; DEPTH further ones wait in the queue before they are finished.
 * DIR must not exist. Prints one JSON object: messages/s, CPU microseconds per
 * message over all threads, messages per group commit, and what a scan of
 * SCAN_FILES of them takes.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/json.h"
#include "core/mem.h"
#include "qmgr/store.h"

enum { SCAN_FILES = 20000, SLOTS_MAX = 1 << 20 };

struct slot {
    struct store_commit commit;
    struct bench *bench;
};

struct bench {
    struct event_base *base;
    struct store *store;
    struct slot *slots;
    unsigned concurrency, depth, slot_count;
    unsigned *waiting; /* ring of committed slots */
    unsigned first, count;
    uint64_t committed, found;
    int64_t until;
    char *body;
    size_t body_len;
    struct buf recipients;
    bool keep, scanned;
};

static void start_one(struct bench *b, struct slot *slot);

static void die(const char *what, const char *why)
{
    fprintf(stderr, "store-bench: %s: %s\n", what, why);
    exit(1);
}

static void finish_oldest(struct bench *b)
{
    struct slot *old = &b->slots[b->waiting[b->first]];
    b->first = (b->first + 1) % b->slot_count;
    b->count--;
    store_finish(b->store, &old->commit.id, &old->commit.ref);
    if (clock_mono() < b->until)
        start_one(b, old);
}

static void committed(struct store_commit *c, const char *error, int code, void *arg)
{
    struct slot *slot = arg;
    struct bench *b = slot->bench;
    if (error)
        die("commit", error);
    (void)c;
    (void)code;
    b->committed++;
    if (b->keep) {
        if (b->committed < SCAN_FILES)
            start_one(b, slot);
        return;
    }
    b->waiting[(b->first + b->count++) % b->slot_count] = (unsigned)(slot - b->slots);
    if (b->count > b->depth)
        finish_oldest(b);
}

static void start_one(struct bench *b, struct slot *slot)
{
    struct store_commit *c = &slot->commit;
    *c = (struct store_commit){.id = id_new(), .large_fd = -1, .done = committed, .arg = slot};
    slot->bench = b;
    c->envelope = (struct spool_envelope){.arrival = clock_wall(),
                                          .client = SLICE("unknown[127.0.0.1]"),
                                          .message_id = SLICE("<x@example.com>"),
                                          .sender = SLICE("sender@example.com"),
                                          .recipient_count = 1,
                                          .recipients = buf_slice(&b->recipients)};
    c->prefix = SLICE("Received: from client.example.com by relay.example.com; today\r\n");
    c->body = slice_make(b->body, b->body_len);
    store_commit(b->store, c);
}

static void found(const struct store_found *m, void *arg)
{
    struct bench *b = arg;
    b->found += m->envelope->recipient_count;
}

static void scanned(uint64_t messages, uint64_t quarantined, void *arg)
{
    (void)messages;
    (void)quarantined;
    ((struct bench *)arg)->scanned = true;
}

static const struct store_ops ops = {.found = found, .scanned = scanned};

static void open_store(struct bench *b)
{
    struct store_config config = {
        .sync_threads = 4, .batch_max = 64, .free_max = 4096, .open_max = 4096};
    struct err e;
    if (store_open(b->base, &config, &ops, b, &b->store, &e) < 0)
        die("store_open", e.text);
}

/* Waits for what is under way. */
static void run(struct bench *b)
{
    struct store_stats st;
    do {
        event_base_loop(b->base, EVLOOP_ONCE);
        store_stats(b->store, &st);
    } while (st.pending);
}

static double cpu_us(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void measure(struct bench *b, double seconds, struct buf *out)
{
    struct store_stats before, after;
    store_scan(b->store); /* as qmgr does: until it ends IDs are remembered */
    b->until = INT64_MAX;
    for (unsigned i = 0; i < b->concurrency + b->depth; i++)
        start_one(b, &b->slots[i]);
    for (int64_t warm = clock_mono() + CLOCK_SECOND; clock_mono() < warm;)
        event_base_loop(b->base, EVLOOP_ONCE); /* free/ is filled */
    store_stats(b->store, &before);
    int64_t start = clock_mono();
    uint64_t first = b->committed;
    double cpu = cpu_us();
    while (clock_mono() < start + (int64_t)(seconds * 1e6))
        event_base_loop(b->base, EVLOOP_ONCE);
    double messages = (double)(b->committed - first);
    double took = (double)(clock_mono() - start) / 1e6;
    store_stats(b->store, &after);
    json_int(out, "messages_per_second", (int64_t)(messages / took));
    json_int(out, "cpu_ns_per_message", (int64_t)((cpu_us() - cpu) * 1000 / messages));
    json_int(out, "messages_per_batch_x10",
             (int64_t)(messages * 10 / (double)(after.batches - before.batches)));
    json_int(out, "free_files", after.free_files);
    b->until = 0;
    run(b);
    while (b->count > 0)
        finish_oldest(b);
}

static void measure_scan(struct bench *b, struct buf *out)
{
    b->keep = true;
    b->committed = 0;
    for (unsigned i = 0; i < b->concurrency; i++)
        start_one(b, &b->slots[i]);
    run(b);
    store_close(b->store);
    open_store(b);
    b->scanned = false;
    int64_t start = clock_mono();
    store_scan(b->store);
    while (!b->scanned)
        event_base_loop(b->base, EVLOOP_ONCE);
    json_int(out, "scanned_per_second",
             (int64_t)((double)b->found * 1e6 / (double)(clock_mono() - start)));
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: store-bench DIR [SECONDS [CONCURRENCY [DEPTH [BYTES]]]]\n");
        return 2;
    }
    double seconds = argc > 2 ? atof(argv[2]) : 5;
    struct bench b = {.concurrency = argc > 3 ? (unsigned)atoi(argv[3]) : 64,
                      .depth = argc > 4 ? (unsigned)atoi(argv[4]) : 64,
                      .body_len = argc > 5 ? (size_t)atol(argv[5]) : 4096};
    b.slot_count = b.concurrency + b.depth + 1;
    if (b.concurrency == 0 || b.slot_count > SLOTS_MAX)
        die("arguments", "out of range");
    if (mkdir(argv[1], 0700) < 0 || chdir(argv[1]) < 0)
        die(argv[1], strerror(errno));
    b.slots = xcalloc(b.slot_count, sizeof *b.slots);
    b.waiting = xcalloc(b.slot_count, sizeof *b.waiting);
    b.body = xmalloc(b.body_len + 1);
    memset(b.body, 'x', b.body_len);
    buf_init(&b.recipients, 1024);
    spool_rcpt_add(&b.recipients, &(struct spool_rcpt){.address = SLICE("rcpt@example.net")});
    b.base = event_base_new();
    open_store(&b);
    struct buf out = BUF_INIT(4096);
    json_begin(&out);
    json_int(&out, "concurrency", b.concurrency);
    json_int(&out, "depth", b.depth);
    measure(&b, seconds, &out);
    measure_scan(&b, &out);
    json_end(&out);
    printf("%.*s\n", SLICE_ARG(buf_slice(&out)));
    store_close(b.store);
    event_base_free(b.base);
    buf_free(&out);
    buf_free(&b.recipients);
    free(b.slots);
    free(b.waiting);
    free(b.body);
    return 0;
}
