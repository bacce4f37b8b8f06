/*
 * qmgr and a file that it keeps (qmgr/kept_file.h), which is in memory here, in place of
 * qmgr/writing.c: what is to be read, and what was written last.
 */
#ifndef POSTERN_T_KEPT_WORLD_H
#define POSTERN_T_KEPT_WORLD_H

#include <stdlib.h>

#include "core/log.h"
#include "qmgr/kept_file.h"

#include "fake_store.h"

enum { INPUT_MAX = 65536 };

/* The target's own: the file, how it is read, that what was taken keeps to the limits, and how an
 * operator takes all of it off by hand. */
static struct kept_file *kept_file(void);
static void kept_load(struct qmgr *q);
static void kept_check(void);
static void kept_take_off(void);

static struct slice file; /* without its checksum, which is made right */
static struct buf written;
static struct service service;
static struct qmgr q;

int file_read_whole(const char *name, struct buf *out, struct err *e)
{
    (void)name, (void)e;
    int rc = buf_adds(out, file);
    kept_file_add_sum(out);
    return rc;
}

int file_keep_aside(const char *name, struct err *e)
{
    (void)name, (void)e;
    return -1;
}

int file_replace(const char *name, struct slice text, struct err *e)
{
    (void)name, (void)text, (void)e;
    return 0;
}

struct buf *writing_begin(struct writing *w, size_t max)
{
    (void)w;
    buf_clear(&written);
    written.max = max;
    return &written;
}

void writing_start(struct writing *w)
{
    (void)w;
}

bool writing_runs(struct writing *w, bool wait)
{
    (void)w, (void)wait;
    return false;
}

static void world_start(void)
{
    struct err e;
    log_set_level(LOG_LEVEL_PANIC);
    list_init(&calls);
    service.base = event_base_new();
    service.event_log = -1;
    service.config = config_parse(SLICE("myhostname = relay.test\nqueue_directory = /tmp\n"),
                                  "main.cf", "/tmp", &e);
    if (!service.config)
        panic("%s", e.text);
    q.store_state = SPOOL_OK;
    qmgr_init(&q, &service);
}

/* What is kept now, as the file has it. The caller frees it. */
static char *world_save(struct kept_file *k)
{
    store_turn();
    k->dirty = true;
    kept_file_stop(k, &q);
    struct slice text = buf_slice(&written);
    do /* but for the checksum's line */
        text.len--;
    while (text.len && text.ptr[text.len - 1] != '\n');
    return slice_dup(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input is read and looked at, what was taken is written and read again: it must be the
 * same, and nothing is left when it was taken off. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!service.base)
        world_start();
    if (size > INPUT_MAX)
        return 0;
    file = slice_make((const char *)data, size);
    kept_load(&q);
    kept_check();
    char *first = world_save(kept_file());
    kept_take_off();
    file = slice_str(first);
    kept_load(&q);
    char *second = world_save(kept_file());
    if (strcmp(first, second) != 0)
        panic("what was written is read as something else:\n%s%s", first, second);
    kept_take_off();
    free(first);
    free(second);
    return 0;
}

#endif
