/* A spool in a temporary directory, driven through store.h: for test_store_*.c. */
#ifndef POSTERN_T_STORE_HARNESS_H
#define POSTERN_T_STORE_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/mem.h"
#include "ipc/ipc.h"
#include "qmgr/store.h"

#ifndef STORE_HARNESS_JOURNAL
#define STORE_HARNESS_JOURNAL .journal_size = 0
#endif

enum { FOUND_MAX = 64 };

/* What the scan told of one message. */
struct seen {
    struct id id;
    struct store_ref ref;
    char sender[64], status[8];
    uint32_t recipients, records;
    struct spool_record last; /* slices void */
};

struct spool {
    char directory[64];
    struct event_base *base;
    struct store *store;
    struct seen seen[FOUND_MAX];
    unsigned seen_count;
    bool scanned;
    uint64_t messages, quarantined;
    int state;
    struct buf recipients;
    unsigned recipient_count;
    /* of the last call with a callback */
    bool answered;
    char error[256];
    int code, fd;
    struct store_ref ref;
    struct buf content;
    size_t prefix_len;
    struct seen loaded;
    unsigned damaged;
};

static inline void note_seen(struct seen *to, const struct store_found *m)
{
    struct slice records = m->records;
    *to = (struct seen){.id = m->id, .ref = m->ref, .recipients = m->envelope->recipient_count};
    snprintf(to->sender, sizeof to->sender, "%.*s", SLICE_ARG(m->envelope->sender));
    for (uint32_t i = 0; i < to->recipients && i < sizeof to->status - 1; i++)
        to->status[i] = m->status[i];
    while (spool_record_next(&records, &m->id, &to->last))
        to->records++;
}

static inline void on_found(const struct store_found *m, void *arg)
{
    struct spool *s = arg;
    assert_true(s->seen_count < FOUND_MAX);
    note_seen(&s->seen[s->seen_count++], m);
}

static inline void on_scanned(uint64_t messages, uint64_t quarantined, void *arg)
{
    struct spool *s = arg;
    s->scanned = true;
    s->messages = messages;
    s->quarantined = quarantined;
}

static inline void on_state(int state, const char *why, void *arg)
{
    (void)why;
    ((struct spool *)arg)->state = state;
}

static inline void on_quarantined(const struct id *id, const char *why, void *arg)
{
    (void)id;
    (void)why;
    ((struct spool *)arg)->damaged++;
}

static inline const struct store_config *default_config(void)
{
    static const struct store_config c = {
        .sync_threads = 2, .batch_max = 8, .free_max = 16, .open_max = 64, STORE_HARNESS_JOURNAL};
    return &c;
}

static inline void open_spool(struct spool *s, const struct store_config *config)
{
    static const struct store_ops ops = {on_found, on_scanned, on_state, on_quarantined};
    struct err e;
    s->base = event_base_new();
    if (store_open(s->base, config, &ops, s, &s->store, &e) < 0)
        fail_msg("store_open: %s", e.text);
}

/* A new spool, and the working directory in it. */
static inline struct spool *new_spool(void)
{
    struct spool *s = xcalloc(1, sizeof *s);
    strcpy(s->directory, "/tmp/postern-store-XXXXXX");
    assert_non_null(mkdtemp(s->directory));
    assert_int_equal(chdir(s->directory), 0);
    buf_init(&s->recipients, 1 << 20);
    buf_init(&s->content, 1 << 24);
    return s;
}

static inline void close_spool(struct spool *s)
{
    store_close(s->store);
    s->store = NULL;
    event_base_free(s->base);
}

static inline void end_spool(struct spool *s)
{
    char command[128];
    if (s->store)
        close_spool(s);
    assert_int_equal(chdir("/"), 0);
    snprintf(command, sizeof command, "rm -rf %s", s->directory);
    assert_int_equal(system(command), 0);
    buf_free(&s->recipients);
    buf_free(&s->content);
    free(s);
}

/* Ends and starts again, and waits for the scan. */
static inline void rescan(struct spool *s)
{
    if (s->store)
        close_spool(s);
    s->seen_count = 0;
    s->scanned = false;
    open_spool(s, default_config());
    store_scan(s->store);
    while (!s->scanned)
        event_base_loop(s->base, EVLOOP_ONCE);
}

static inline void wait_answer(struct spool *s)
{
    while (!s->answered)
        event_base_loop(s->base, EVLOOP_ONCE);
    s->answered = false;
}

/* All that was called is done: even what has no callback. */
static inline void on_nothing(int fd, const char *error, int code, void *arg)
{
    struct spool *s = arg;
    (void)error;
    (void)code;
    s->answered = true;
    s->fd = fd;
}
static inline void settle(struct spool *s)
{
    struct id id = id_new();
    store_large_create(s->store, &id, on_nothing, s);
    wait_answer(s);
    store_large_abort(s->store, &id, s->fd);
}

static inline void on_commit(struct store_commit *c, const char *error, int code, void *arg)
{
    struct spool *s = arg;
    s->answered = true;
    snprintf(s->error, sizeof s->error, "%s", error ? error : "");
    s->code = code;
    s->ref = c->ref;
}

static inline void fill_commit(struct spool *s, struct store_commit *c, const struct id *id,
                               struct slice body, unsigned recipients)
{
    buf_clear(&s->recipients);
    for (unsigned i = 0; i < recipients; i++)
        spool_rcpt_add(&s->recipients, &(struct spool_rcpt){.address = SLICE("r@example.net")});
    *c = (struct store_commit){.id = *id,
                               .envelope = {.arrival = clock_wall(),
                                            .sender = SLICE("s@example.com"),
                                            .recipient_count = recipients,
                                            .recipients = buf_slice(&s->recipients)},
                               .prefix = SLICE("Received: here\r\n"),
                               .body = body,
                               .large_fd = -1,
                               .done = on_commit,
                               .arg = s};
}

/* Commits one message and waits; the code, or 0. */
static inline int commit_one(struct spool *s, const struct id *id, struct slice body,
                             unsigned recipients)
{
    struct store_commit c;
    fill_commit(s, &c, id, body, recipients);
    store_commit(s->store, &c);
    wait_answer(s);
    return s->error[0] ? s->code : 0;
}

static inline void on_read(struct slice prefix, struct slice body, const char *error, void *arg)
{
    struct spool *s = arg;
    s->answered = true;
    snprintf(s->error, sizeof s->error, "%s", error ? error : "");
    buf_clear(&s->content);
    buf_adds(&s->content, prefix);
    buf_adds(&s->content, body);
    s->prefix_len = prefix.len;
}

static inline void read_back(struct spool *s, const struct id *id, const struct store_ref *ref,
                             uint64_t limit)
{
    store_read(s->store, id, ref, limit, on_read, s);
    wait_answer(s);
}

static inline unsigned count_entries(const char *directory)
{
    unsigned n = 0;
    DIR *dir = opendir(directory);
    if (dir == NULL)
        return 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

/* Files in all buckets of new/. */
static inline unsigned count_messages(void)
{
    unsigned n = 0;
    char path[300];
    DIR *dir = opendir("new");
    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;) {
        snprintf(path, sizeof path, "new/%s", entry->d_name);
        if (entry->d_name[0] != '.')
            n += count_entries(path);
    }
    if (dir)
        closedir(dir);
    return n;
}

static inline void message_path(char path[128], const struct id *id)
{
    snprintf(path, 128, "new/%x/%s", (unsigned)(id_time(id) >> 10), id->text);
}

static inline void overwrite(const char *path, long at, const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, len, at), len);
    close(fd);
}

#endif
