/* libraries: qmgr_parts */
/*
 * The file of brakes, shaping.brakes, whose checksum is right: what it says is taken or skipped,
 * within the limits; what was taken is written so that the same is read again; and all of it can
 * be taken off by hand. The file is in memory here, and so are the spool and the clock.
 */
#include <stdlib.h>

#include "core/log.h"
#include "qmgr/brakes.h"

#include "fake_store.h"

enum { INPUT_MAX = 65536 };

/* ---- the file, in place of qmgr/kept_file.c ------------------------------------------------ */

static struct slice file;
static struct buf written;

int file_read_whole(const char *name, struct buf *out, struct err *e)
{
    (void)name, (void)out, (void)e;
    return 1;
}

int file_replace(const char *name, struct slice text, struct err *e)
{
    (void)name, (void)text, (void)e;
    return 0;
}

int kept_file_read(const char *name, struct buf *out, struct err *e)
{
    (void)name, (void)e;
    return buf_adds(out, file);
}

struct buf *kept_file_begin(struct kept_file *k)
{
    (void)k;
    buf_clear(&written);
    return &written;
}

void kept_file_save(struct kept_file *k)
{
    k->failed = false;
}

bool kept_file_busy(struct kept_file *k, bool wait)
{
    (void)k, (void)wait;
    return false;
}

/* ---- one input ------------------------------------------------------------------------------ */

static struct service service;
static struct qmgr q;

static void start(void)
{
    struct err e;
    log_set_level(LOG_LEVEL_PANIC);
    list_init(&calls);
    buf_init(&written, KEPT_FILE_MAX);
    service.base = event_base_new();
    service.event_log = -1;
    service.config = config_parse(SLICE("myhostname = relay.test\nqueue_directory = /tmp\n"),
                                  "main.cf", "/tmp", &e);
    if (!service.config)
        panic("%s", e.text);
    q.store_state = SPOOL_OK;
    qmgr_init(&q, &service);
}

static bool check_one(const struct brake *b, void *arg)
{
    (void)arg;
    if (strlen(b->reason) > BRAKE_REASON_MAX || strlen(b->who) > ACCOUNT_MAX + 1)
        panic("a brake with a text beyond its limit");
    if (b->until != INT64_MAX && b->until - q.now > BRAKE_DAYS_MAX * 86400 * CLOCK_SECOND)
        panic("a suspension that is longer than anybody could ask for");
    return true;
}

/* What is on, as the file has it. */
static char *save(void)
{
    q.brakes->dirty = true;
    brakes_stop(&q);
    return slice_dup(buf_slice(&written));
}

static void take_all_off(void)
{
    while (!list_empty(&q.brakes->all)) {
        const struct brake *b = container_of(q.brakes->all.next, struct brake, link);
        char *name = slice_dup(slice_str(*b->place ? b->name : "all"));
        char *who = slice_dup(slice_str(b->who));
        if (brakes_release(&q, slice_str(name), b->kind, slice_str(who)) == 0)
            panic("a brake that cannot be taken off");
        brakes_sweep(&q);
        free(name);
        free(who);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!service.base)
        start();
    if (size > INPUT_MAX)
        return 0;
    file = slice_make((const char *)data, size);
    brakes_load(&q);
    store_turn();
    if (q.brakes->by_key.count > BRAKES_MAX)
        panic("more brakes than there may be");
    (void)brakes_each(&q, check_one, NULL);
    char *first = save();
    take_all_off();
    file = slice_str(first);
    brakes_load(&q);
    char *second = save();
    if (strcmp(first, second) != 0)
        panic("what was written is read as something else:\n%s%s", first, second);
    take_all_off();
    free(first);
    free(second);
    return 0;
}
