/*
 * spool-look: starts the spool engine on directories, as qmgr does after a power
 * cut, and tells what it finds there.
 *
 * One directory a line on standard input; for each one line of JSON: the messages
 * with their recipients, status bytes, records and a checksum of the body (of
 * notices the body itself), how many files were quarantined, and the spool's
 * state. When the line is out, the engine is closed and all that it moves is moved.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "ipc/ipc.h"
#include "qmgr/store.h"

enum { OUT_MAX = 64 * 1024 * 1024, NOTICE_MAX = 256 * 1024, SUM_TEXT = 17 };

struct message {
    struct list link;
    struct look *look;
    struct id id;
    struct store_ref ref;
    struct buf json; /* its members, without the body */
    bool notice;
};

struct look {
    struct event_base *base;
    struct store *store;
    struct list messages; /* that are still to be read */
    struct buf out;
    unsigned reads;
    uint64_t quarantined;
    bool scanned;
};

static void tell_recipients(struct buf *b, const struct store_found *m)
{
    struct slice list = m->envelope->recipients;
    struct spool_rcpt r;
    json_list(b, "recipients");
    while (spool_rcpt_next(&list, &r) == 1)
        json_str(b, NULL, r.address);
    json_list_end(b);
    json_str(b, "status", slice_make(m->status, m->envelope->recipient_count));
}

static void tell_records(struct buf *b, const struct store_found *m)
{
    struct slice records = m->records;
    struct spool_record r;
    json_list(b, "records");
    while (spool_record_next(&records, &m->id, &r)) {
        json_begin(b);
        json_int(b, "type", r.type);
        json_int(b, "code", r.code);
        json_int(b, "flags", r.flags);
        json_list(b, "recipients");
        for (uint32_t i = 0; i < r.recipient_count; i++)
            json_int(b, NULL, spool_record_recipient(&r, i));
        json_list_end(b);
        json_end(b);
    }
    json_list_end(b);
}

static void on_found(const struct store_found *found, void *arg)
{
    struct look *l = arg;
    struct message *m = xcalloc(1, sizeof *m);
    m->look = l;
    m->id = found->id;
    m->ref = found->ref;
    m->notice = found->envelope->sender.len == 0;
    buf_init(&m->json, OUT_MAX);
    json_begin(&m->json);
    json_str(&m->json, "id", id_slice(&found->id));
    json_str(&m->json, "sender", found->envelope->sender);
    json_bool(&m->json, "large", found->ref.large);
    json_int(&m->json, "flags", found->envelope->flags);
    tell_recipients(&m->json, found);
    tell_records(&m->json, found);
    list_push(&l->messages, &m->link);
}

static void on_scanned(uint64_t messages, uint64_t quarantined, void *arg)
{
    struct look *l = arg;
    (void)messages;
    l->scanned = true;
    l->quarantined += quarantined;
}

static void on_quarantined(const struct id *id, const char *why, void *arg)
{
    (void)id;
    (void)why;
    ((struct look *)arg)->quarantined++;
}

static void on_read(struct slice prefix, struct slice body, const char *error, void *arg)
{
    struct message *m = arg;
    struct look *l = m->look;
    char sum[SUM_TEXT];
    (void)prefix;
    snprintf(sum, sizeof sum, "%016" PRIx64, (uint64_t)XXH3_64bits(body.ptr, body.len));
    json_str(&m->json, "sum", slice_str(sum));
    json_int(&m->json, "size", (int64_t)body.len);
    json_str(&m->json, "error", slice_str(error ? error : ""));
    if (m->notice)
        json_str(&m->json, "body", slice_first(body, NOTICE_MAX));
    json_end(&m->json);
    json_raw(&l->out, NULL, buf_slice(&m->json));
    buf_free(&m->json);
    free(m);
    l->reads--;
}

static void read_all(struct look *l)
{
    for (struct list *n; (n = list_pop(&l->messages)) != NULL;) {
        struct message *m = container_of(n, struct message, link);
        l->reads++;
        store_read(l->store, &m->id, &m->ref, UINT64_MAX, on_read, m);
    }
    while (l->reads)
        event_base_loop(l->base, EVLOOP_ONCE);
}

static int look_at(struct look *l, struct err *e)
{
    static const struct store_config config = {
        .sync_threads = 1, .batch_max = 8, .free_max = 4096, .open_max = 64};
    static const struct store_ops ops = {
        .found = on_found, .scanned = on_scanned, .quarantined = on_quarantined};
    l->scanned = false;
    l->quarantined = 0;
    if (store_open(l->base, &config, &ops, l, &l->store, e) < 0)
        return -1;
    buf_clear(&l->out);
    json_begin(&l->out);
    json_list(&l->out, "messages");
    store_scan(l->store);
    while (!l->scanned)
        event_base_loop(l->base, EVLOOP_ONCE);
    read_all(l);
    json_list_end(&l->out);
    json_int(&l->out, "quarantined", (int64_t)l->quarantined);
    json_int(&l->out, "state", store_state(l->store));
    json_end(&l->out);
    store_close(l->store);
    return 0;
}

int main(void)
{
    struct look l = {.base = event_base_new()};
    char line[PATH_MAX];
    struct err e;
    list_init(&l.messages);
    buf_init(&l.out, OUT_MAX);
    log_set_level(LOG_LEVEL_PANIC);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        if (chdir(line) < 0 || look_at(&l, &e) < 0) {
            buf_clear(&l.out);
            json_begin(&l.out);
            json_str(&l.out, "error", slice_str(errno ? strerror(errno) : e.text));
            json_end(&l.out);
        }
        if (printf("%.*s\n", SLICE_ARG(buf_slice(&l.out))) < 0 || fflush(stdout) != 0)
            return 1;
    }
    buf_free(&l.out);
    event_base_free(l.base);
    return 0;
}
