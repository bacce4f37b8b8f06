/* A database in a directory of its own, for the tests of lib/store. */
#ifndef POSTERN_KV_UNIT_H
#define POSTERN_KV_UNIT_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "store/kv.h"
#include "unit.h"

/* Berkeley DB frees next to nothing of an environment that it has given up. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libdb";
}

static char directory[64];
static const char *const tables[] = {"one", "two"};
static const struct kv_config kv_test_config = {.directory = directory,
                                                .tables = tables,
                                                .table_count = 2,
                                                .unlisted_tables = 2,
                                                .cache_bytes = 4 * 1024 * 1024};

/* Set in a process that a test forks: there cmocka's jump out of a test must not happen. */
static bool is_child;

static inline void broken(const char *words, const char *more)
{
    if (!is_child)
        fail_msg("%s: %s", words, more);
    fprintf(stderr, "in a child: %s: %s\n", words, more);
    _exit(1);
}

static inline struct kv *opened(enum kv_condition expected)
{
    struct err e = {0, ""};
    enum kv_condition condition;
    struct kv *kv = kv_open(&kv_test_config, &condition, &e);
    static const char *const words[] = {"sound", "created", "rebuilt"};
    if (!kv)
        broken("it does not open", e.text);
    if (condition != expected)
        broken(words[condition], e.text);
    return kv;
}

static inline void put(struct kv *kv, int from, int to, const char *value)
{
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    struct err e;
    char key[16];
    for (int i = from; i < to; i++) {
        snprintf(key, sizeof key, "key%06d", i);
        if (kv_put(&batch, (unsigned)i % 2, slice_str(key), slice_str(value)) < 0)
            broken("the batch is full", key);
    }
    if (kv_apply(kv, buf_slice(&batch), &e) < 0)
        broken("it cannot be changed", e.text);
    buf_free(&batch);
}

static inline int has(struct kv *kv, int i, const char *value)
{
    struct buf b = BUF_INIT(KV_VALUE_MAX);
    struct err e = {0, ""};
    char key[16];
    snprintf(key, sizeof key, "key%06d", i);
    int rc = kv_get(kv, (unsigned)i % 2, slice_str(key), &b, &e);
    if (rc < 0)
        broken("it cannot be read", e.text);
    if (rc == 1 && !slice_eq(buf_slice(&b), slice_str(value)))
        rc = 2;
    buf_free(&b);
    return rc;
}

static inline int make(void **state)
{
    (void)state;
    snprintf(directory, sizeof directory, "/tmp/postern-kv-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static inline int clear(void **state)
{
    char command[100];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", directory);
    return system(command);
}

static inline void damage(const char *file, const char *with, off_t at)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, file);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, with, strlen(with), at), strlen(with));
    close(fd);
}

#endif
