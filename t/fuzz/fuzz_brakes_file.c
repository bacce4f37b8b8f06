/* libraries: qmgr_parts */
/*
 * The file of brakes, shaping.brakes, whose checksum is right: what it says is taken or skipped,
 * within the limits; what was taken is written so that the same is read again; and all of it can
 * be taken off by hand. The file is in memory here, and so are the spool and the clock.
 */
#include "qmgr/brakes.h"

#include "kept_world.h"

static bool check_one(const struct brake *b, void *arg)
{
    (void)arg;
    if (strlen(b->reason) > BRAKE_REASON_MAX || strlen(b->who) > ACCOUNT_MAX + 1)
        panic("a brake with a text beyond its limit");
    if (b->until != INT64_MAX && b->until - q.now > BRAKE_DAYS_MAX * 86400 * CLOCK_SECOND)
        panic("a suspension that is longer than anybody could ask for");
    return true;
}

static void kept_check(void)
{
    if (q.brakes->by_key.count > BRAKES_MAX)
        panic("more brakes than there may be");
    (void)brakes_each(&q, check_one, NULL);
}

/* By hand, as an operator would. */
static void kept_take_off(void)
{
    while (!list_empty(&q.brakes->all)) {
        struct brake *b = container_of(q.brakes->all.next, struct brake, link);
        if (*b->place && strcmp(b->name, "all") == 0) /* that name is no one destination's */
            b->name[0] = 'A';
        char *name = slice_dup(slice_str(*b->place ? b->name : "all"));
        char *who = slice_dup(slice_str(b->who));
        if (brakes_release(&q, slice_str(name), b->kind, slice_str(who)) == 0)
            panic("a brake that cannot be taken off");
        brakes_sweep(&q);
        free(name);
        free(who);
    }
}

static struct kept_file *kept_file(void)
{
    return &q.brakes->file;
}

static void kept_load(struct qmgr *of)
{
    brakes_load(of);
}
