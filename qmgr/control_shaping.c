/* shaping.list, shaping.show: what the shaper does. */
#include "qmgr/control_shaping.h"
#include "core/json.h"
#include "core/log.h"
#include "qmgr/brakes.h"
#include "qmgr/moves.h"
#include "qmgr/shaping_show.h"
#include "qmgr/sources.h"
#include "qmgr/whole.h"

enum { SHOWN_MAX = 1000, SHOWN_BYTES_MAX = 400 * 1024 };

/* By the destination's name, its provider's, or a domain whose mail goes there. */
bool control_lane_is_meant(struct qmgr *q, const struct lane *l, struct slice name,
                           struct slice source)
{
    return source_is_called(l->from, source) && group_is_called(q, l->group, name);
}

/* The same, and lanes that were that destination before it had another place and still have mail
 * of it. */
bool control_lane_is_shown(struct qmgr *q, const struct lane *l, struct slice name,
                           struct slice source)
{
    return control_lane_is_meant(q, l, name, source) ||
           (source_is_called(l->from, source) && moves_remain(q, l, name));
}

void control_put_lane(struct control_client *c, struct lane *l, bool whole)
{
    struct buf *b = control_line_begin(c);
    lane_show(c->control->queue, l, whole, b);
    if (whole)
        brakes_show(c->control->queue, l->group, b);
    if (whole)
        whole_show(c->control->queue, l->group, b);
    if (whole && l->last) {
        struct buf text = BUF_INIT(8 * ANSWER_TEXT_MAX);
        answer_describe(l->last, &text);
        json_str(b, "last_refusal", buf_slice(&text));
        buf_free(&text);
    }
    control_line_end(c);
}

static bool unusual(const struct shaper *s)
{
    return s->failed_rate > 0 || s->connecting.rate > 0 || s->window_failed || s->messages ||
           s->suspended_until || s->probing;
}

/* Lines that were wanted, and did not fit. */
static void left_out(struct control_client *c, struct buf *b)
{
    if (c->request.missing)
        json_int(b, "left_out", (int64_t)c->request.missing);
}

/* Whether a line more fits; else it is counted. */
bool control_fits(struct control_client *c, unsigned *shown)
{
    if (*shown < SHOWN_MAX && c->base.out.len < SHOWN_BYTES_MAX) {
        ++*shown;
        return true;
    }
    c->request.missing++;
    return false;
}

struct list_of_brakes {
    struct control_client *c;
    unsigned shown;
};

static bool put_listed_brake(const struct brake *b, void *arg)
{
    struct list_of_brakes *list = arg;
    if (!control_fits(list->c, &list->shown))
        return true;
    struct buf *out = control_line_begin(list->c);
    json_member(out, "brake");
    brake_put(list->c->control->queue, b, out);
    json_end(out);
    control_line_end(list->c);
    return true;
}

bool control_put_halt(struct control_client *c, const struct halt *h, unsigned *shown)
{
    if (!halt_is_on(c->control->queue, h) || !control_fits(c, shown))
        return false;
    struct buf *out = control_line_begin(c);
    json_member(out, "suspension");
    halt_put(c->control->queue, h, out);
    json_end(out);
    control_line_end(c);
    return true;
}

/* Whether it is of that name, or of one that people mean the same by: it then holds where `name`
 * leads to. */
bool control_halt_is_meant(const struct qmgr *q, const struct halt *h, struct slice name)
{
    if (slice_caseeq(name, slice_str(h->name)))
        return true;
    list_each(&q->dispatch.lanes, n)
    {
        const struct group *g = container_of(n, struct lane, all)->group;
        if (group_is_called(q, g, name) && group_is_called(q, g, slice_str(h->name)))
            return true;
    }
    return false;
}

/* The suspensions by hand: all (an empty name), or those that hold there. */
static void put_halts(struct control_client *c, struct slice name, unsigned *shown)
{
    const struct qmgr *q = c->control->queue;
    list_each(&q->halts->all, n)
    {
        const struct halt *h = container_of(n, struct halt, link);
        if (name.len == 0 || control_halt_is_meant(q, h, name))
            (void)control_put_halt(c, h, shown);
    }
}

void control_shaping_list(struct control_client *c)
{
    struct qmgr *q = c->control->queue;
    bool all = json_is_true(control_asked(c, "all"));
    struct list_of_brakes brakes = {.c = c};
    unsigned shown = 0;
    queue_tick(q);
    list_each(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        bool wanted = all || l->queued || l->in_flight || unusual(&l->shaper);
        if (wanted && control_fits(c, &shown))
            control_put_lane(c, l, false);
    }
    put_halts(c, SLICE(""), &shown);
    (void)brakes_each(q, put_listed_brake, &brakes);
    control_done(c, left_out);
}

bool control_name_given(struct control_client *c, struct slice *name)
{
    *name = control_text(c, "destination");
    if (name->len == 0 || name->len > SITE_NAME_MAX)
        control_fail(c, "Give a destination: its name in 'postern shaping list', or a domain.");
    return name->len > 0 && name->len <= SITE_NAME_MAX;
}

void control_not_there(struct control_client *c, struct slice name)
{
    control_fail(
        c,
        "There is no destination of that name that has had mail lately: %s. 'postern shaping list "
        "--all' shows those that have.",
        log_esc(name));
}

void control_shaping_show(struct control_client *c)
{
    struct qmgr *q = c->control->queue;
    struct slice name, source = control_text(c, "source");
    unsigned shown = 0;
    if (!control_name_given(c, &name))
        return;
    queue_tick(q);
    list_each(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (control_lane_is_shown(q, l, name, source) && control_fits(c, &shown))
            control_put_lane(c, l, true);
    }
    put_halts(c, name, &shown);
    if (shown)
        control_done(c, left_out);
    else
        control_not_there(c, name);
}
