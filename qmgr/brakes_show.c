/* Brakes, told to people. */
#include <stdio.h>

#include "core/json.h"
#include "qmgr/brakes.h"
#include "qmgr/halts.h"

enum { AHEAD_MAX = 100000 };

static void put_rate(struct buf *out, const char *name, double rate)
{
    char text[32];
    int n = snprintf(text, sizeof text, "%.3f", rate);
    json_raw(out, name, slice_make(text, (size_t)n));
}

void brake_put(const struct qmgr *q, const struct brake *b, struct buf *out)
{
    bool suspended = brake_suspends(q, b);
    json_str(out, "kind", slice_str(brake_kind_name(b->kind)));
    json_str(out, "who", slice_str(b->who));
    json_str(out, "at", slice_str(b->name));
    json_str(out, "reason", slice_str(b->reason));
    json_bool(out, "by_hand", b->by_hand);
    json_bool(out, "suspended", suspended);
    if (suspended && b->until != INT64_MAX)
        json_seconds(out, "suspended_for", b->until - q->now);
    if (!suspended && b->rate > 0) {
        put_rate(out, "rate", b->rate);
        put_rate(out, "failed_rate", b->failed);
    }
    if (!suspended && b->probing)
        json_bool(out, "probing", true);
    if (b->cut)
        json_seconds(out, "since", q->now - b->cut);
    if (!suspended && heap_has(&b->wake)) /* the first of those in line */
        json_seconds(out, "next_in", b->wake.key > q->now ? b->wake.key - q->now : 0);
    if (b->held)
        json_int(out, "in_line", b->held);
}

enum brake_effect brakes_effect(struct qmgr *q, const struct group *g, const struct message *m)
{
    struct brake_pair p = brakes_of(q, g, m);
    return p.suspends ? BRAKE_SUSPENDS : p.slows ? BRAKE_SLOWS : BRAKE_NONE;
}

bool brakes_describe(struct qmgr *q, const struct group *g, const struct message *m,
                     struct buf *out)
{
    struct brake_pair p = brakes_of(q, g, m);
    const struct brake *b = p.suspends ? p.suspends : p.slows;
    if (!b)
        return false;
    json_member(out, "brake");
    brake_put(q, b, out);
    json_end(out);
    return true;
}

void brakes_show(struct qmgr *q, const struct group *g, struct buf *out)
{
    enum { SHOWN = 50 };
    unsigned shown = 0;
    json_list(out, "brakes");
    list_each(&q->brakes->all, n)
    {
        const struct brake *b = container_of(n, struct brake, link);
        bool here = !*b->place || strcmp(b->place, g->stable) == 0 ||
                    strcmp(b->name, g->name) == 0 ||
                    (b->called && group_is_called(q, g, slice_str(b->name)));
        if (!brake_is_on(q, b) || !here || shown++ >= SHOWN)
            continue;
        json_begin(out);
        brake_put(q, b, out);
        json_end(out);
    }
    json_list_end(out);
}

unsigned brake_ahead(const struct job *j)
{
    const struct list *line = &j->brake->line[j->queue->mail_class];
    unsigned n = 0;
    for (const struct list *at = j->link.prev; at != line && n < AHEAD_MAX; at = at->prev)
        n++;
    return n;
}

int64_t brake_when(const struct qmgr *q, const struct job *j, unsigned ahead)
{
    const struct brake *b = j->brake;
    if (b->probing || b->rate <= 0)
        return q->now;
    return b->filled + (int64_t)((ahead + 1 - b->tokens) / b->rate * 1e6);
}

unsigned brakes_each(struct qmgr *q, bool (*each)(const struct brake *b, void *arg), void *arg)
{
    unsigned on = 0;
    bool more = true;
    list_each(&q->brakes->all, n)
    {
        const struct brake *b = container_of(n, struct brake, link);
        if (!brake_is_on(q, b))
            continue;
        on++;
        more = more && each(b, arg);
    }
    return on;
}
