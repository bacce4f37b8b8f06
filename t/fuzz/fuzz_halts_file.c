/* libraries: qmgr_parts */
/*
 * The file of suspensions of destinations by hand, shaping.suspensions, whose checksum is right:
 * what it says is taken or skipped, within the limits; what was taken is written so that the same
 * is read again; and all of it can be taken off by hand. The file, the spool and the clock are in
 * memory here.
 */
#include "qmgr/halts.h"

#include "kept_world.h"

static void check(const struct halt *h)
{
    size_t name = strlen(h->name), source = strlen(h->source);
    if (name == 0 || name > SITE_NAME_MAX || source > HALT_SOURCE_MAX ||
        strlen(h->reason) > HALT_REASON_MAX)
        panic("a suspension with a text beyond its limit");
    if (!halt_is_on(&q, h))
        panic("a suspension that was over was taken");
    if (h->until != INT64_MAX && h->until - q.now > HALT_DAYS_MAX * 86400 * CLOCK_SECOND)
        panic("a suspension that is longer than anybody could ask for");
    for (const char *c = h->name; *c; c++)
        if (*c <= ' ' && *c > 0)
            panic("a name that would break a line");
}

static void kept_check(void)
{
    struct buf shown = BUF_INIT(4096);
    size_t count = 0;
    list_each(&q.halts->all, n)
    {
        const struct halt *h = container_of(n, struct halt, link);
        check(h);
        buf_clear(&shown);
        halt_put(&q, h, &shown);
        count++;
    }
    buf_free(&shown);
    if (count != q.halts->count || count > HALTS_MAX)
        panic("%zu suspensions, counted as %zu", count, q.halts->count);
}

/* By hand, as an operator would. */
static void kept_take_off(void)
{
    while (!list_empty(&q.halts->all)) {
        const struct halt *h = container_of(q.halts->all.next, struct halt, link);
        char *name = xstrdup(h->name), *source = xstrdup(h->source);
        if (halts_release(&q, slice_str(name), slice_str(source), NULL, NULL) == 0)
            panic("a suspension that cannot be taken off");
        free(name);
        free(source);
    }
}

static struct kept_file *kept_file(void)
{
    return &q.halts->file;
}

static void kept_load(struct qmgr *of)
{
    halts_load(of);
}
