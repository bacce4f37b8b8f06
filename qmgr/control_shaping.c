/* shaping.*: what the shaper does, why, and the operator's hand on it. */
#include <math.h>

#include "core/json.h"
#include "core/log.h"
#include "qmgr/brakes.h"
#include "qmgr/control_client.h"
#include "qmgr/shaping_show.h"
#include "qmgr/sites.h"
#include "qmgr/whole.h"
#include "rules/rules.h"

enum { SHOWN_MAX = 1000, SHOWN_BYTES_MAX = 400 * 1024, FOREVER_DAYS = 366 };

static struct slice text_of(const struct control_client *c, const char *name)
{
    const json_t *value = control_asked(c, name);
    return json_is_string(value) ? slice_make(json_string_value(value), json_string_length(value))
                                 : SLICE("");
}

static double number_of(const struct control_client *c, const char *name)
{
    double value = json_number_value(control_asked(c, name));
    return isfinite(value) && value > 0 ? value : 0;
}

/* By the destination's name, its provider's, or a domain whose mail goes there. */
static bool is_meant(struct qmgr *q, const struct lane *l, struct slice name, struct slice source)
{
    char text[LANE_SOURCE_MAX];
    const struct group *g = l->group;
    if (source.len && !slice_eq(source, lane_source(l, text)))
        return false;
    if (slice_caseeq(name, slice_str(g->name)) ||
        (g->provider && slice_caseeq(name, slice_str(g->provider))))
        return true;
    const struct route *r = map_get(&q->sites.routes, name);
    return r && r->site && r->site->group == g;
}

static void put_lane(struct control_client *c, struct lane *l, bool whole)
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
static bool fits(struct control_client *c, unsigned *shown)
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
    if (!fits(list->c, &list->shown))
        return true;
    struct buf *out = control_line_begin(list->c);
    json_member(out, "brake");
    brake_put(list->c->control->queue, b, out);
    json_end(out);
    control_line_end(list->c);
    return true;
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
        if (wanted && fits(c, &shown))
            put_lane(c, l, false);
    }
    (void)brakes_each(q, put_listed_brake, &brakes);
    control_done(c, left_out);
}

static bool name_given(struct control_client *c, struct slice *name)
{
    *name = text_of(c, "destination");
    if (name->len == 0 || name->len > SITE_NAME_MAX)
        control_fail(c, "Give a destination: its name in 'postern shaping list', or a domain.");
    return name->len > 0 && name->len <= SITE_NAME_MAX;
}

static bool reason_fits(struct control_client *c)
{
    bool fits = text_of(c, "reason").len <= BRAKE_REASON_MAX;
    if (!fits)
        control_fail(c, "A reason has at most %d bytes.", (int)BRAKE_REASON_MAX);
    return fits;
}

static void not_there(struct control_client *c, struct slice name)
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
    struct slice name, source = text_of(c, "source");
    unsigned shown = 0;
    if (!name_given(c, &name))
        return;
    queue_tick(q);
    list_each(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (is_meant(q, l, name, source) && fits(c, &shown))
            put_lane(c, l, true);
    }
    if (shown)
        control_done(c, left_out);
    else
        not_there(c, name);
}

/* ---- by hand ------------------------------------------------------------------------- */

enum { SET_COUNT_MOST = 10000 };
#define SET_RATE_MOST 1e6

/* What "set" is given: nothing that is not there would be set to something else. */
static bool numbers_fit(struct control_client *c)
{
    static const char *const counts[] = {"connections", "messages"};
    const json_t *given = control_asked(c, "rate");
    double rate = json_number_value(given);
    bool fit = !given || (json_is_number(given) && rate >= 0 && rate <= SET_RATE_MOST &&
                          (rate <= 0 || rate >= RULES_RATE_LEAST));
    for (int i = 0; i < 2; i++) {
        given = control_asked(c, counts[i]);
        double n = json_number_value(given);
        fit &= !given || (json_is_number(given) && n >= 0 && n <= SET_COUNT_MOST && n <= floor(n));
    }
    if (!fit)
        control_fail(c,
                     "A rate is from %.6f to %.0f recipients a second; connections and messages "
                     "are whole numbers from 1 to %d.",
                     RULES_RATE_LEAST, SET_RATE_MOST, (int)SET_COUNT_MOST);
    return fit;
}

static bool act(const struct control_client *c, struct lane *l, struct slice action)
{
    struct qmgr *q = c->control->queue;
    double seconds = number_of(c, "seconds"), most = FOREVER_DAYS * 86400.0;
    if (slice_eq(action, SLICE("suspend"))) {
        seconds = seconds > 0 && seconds < most ? seconds : most;
        free(l->reason);
        l->reason = slice_dup(slice_first(text_of(c, "reason"), BRAKE_REASON_MAX));
        shaper_suspend(&l->shaper, q->now + (int64_t)(seconds * 1e6), q->now);
        dispatch_suspend(q, l);
    } else if (slice_eq(action, SLICE("resume"))) {
        shaper_unsuspend(&l->shaper);
        whole_resume(c->control->queue, l);
    } else if (slice_eq(action, SLICE("reset"))) {
        uint32_t in_flight = l->shaper.in_flight;
        shaper_init(&l->shaper, l->shaper.limits);
        l->shaper.in_flight = in_flight;
        l->odd = (struct odd){0};
        whole_reset(c->control->queue, l);
    } else if (slice_eq(action, SLICE("set"))) {
        double connections = number_of(c, "connections"), messages = number_of(c, "messages");
        shaper_set(&l->shaper, number_of(c, "rate"), connections < 1e6 ? (uint32_t)connections : 0,
                   messages < 1e6 ? (uint32_t)messages : 0, q->now);
    } else {
        return false;
    }
    dispatch_wake(q, l);
    return true;
}

static void put_brake(struct control_client *c, struct slice who, const char *place,
                      struct slice action)
{
    struct buf *b = control_line_begin(c);
    json_str(b, "who", who);
    json_str(b, "at", slice_str(place));
    json_str(b, "action", action);
    control_line_end(c);
}

/* At one place, or with g NULL at all of them. */
static unsigned brake(struct control_client *c, struct group *g, enum brake_kind kind,
                      struct slice who)
{
    struct slice action = text_of(c, "action"), reason = text_of(c, "reason");
    double seconds = number_of(c, "seconds");
    bool ends = seconds > 0 && seconds < FOREVER_DAYS * 86400.0;
    int64_t time = !slice_eq(action, SLICE("suspend")) ? 0
                   : ends                              ? (int64_t)(seconds * 1e6)
                                                       : INT64_MAX;
    const char *place = g ? g->name : "all destinations";
    if (!brakes_set(c->control->queue, g, kind, who, time, reason))
        return 0;
    log_info("shaping %s: %s of %s by %s: %s", log_esc(slice_str(place)), log_esc(action),
             log_esc(who), c->by, log_esc(reason));
    put_brake(c, who, place, action);
    return 1;
}

/* The mail of one sender alone. */
static void act_on_sender(struct control_client *c, enum brake_kind kind, struct slice who)
{
    struct qmgr *q = c->control->queue;
    struct slice name, action = text_of(c, "action");
    const struct group *last = NULL;
    unsigned changed = 0, seen = 0;
    bool known = slice_eq(action, SLICE("suspend")) || slice_eq(action, SLICE("resume"));
    if (!known || who.len > ACCOUNT_MAX) {
        control_fail(c, known ? "The name of the account or domain is too long."
                              : "One account or domain can be suspended and resumed, no more.");
        return;
    }
    if (!name_given(c, &name) || !reason_fits(c))
        return;
    queue_tick(q);
    if (slice_eq(name, SLICE("all"))) {
        seen = 1;
        changed = brake(c, NULL, kind, who);
    }
    list_each(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (seen && slice_eq(name, SLICE("all")))
            break;
        if (l->group == last || !is_meant(q, l, name, SLICE("")))
            continue;
        last = l->group;
        seen++;
        changed += brake(c, l->group, kind, who);
    }
    if (!changed && slice_eq(action, SLICE("resume"))) /* no mail there, or others' addresses */
        changed = brakes_release(q, name, kind, who);
    if (changed)
        control_done(c, NULL);
    else if (seen && slice_eq(action, SLICE("suspend")))
        control_fail(c,
                     "There are too many suspensions of accounts and domains; end some of them.");
    else if (seen)
        control_fail(c, "There is no suspension of %s there.", log_esc(who));
    else
        not_there(c, name);
}

void control_shaping_act(struct control_client *c)
{
    if (text_of(c, "account").len) {
        act_on_sender(c, BRAKE_ACCOUNT, text_of(c, "account"));
        return;
    }
    if (text_of(c, "domain").len) {
        struct slice domain = text_of(c, "domain");
        char lower[ACCOUNT_MAX + 1];
        size_t n = domain.len < sizeof lower ? domain.len : sizeof lower; /* too long is refused */
        for (size_t i = 0; i < n; i++)
            lower[i] = domain.ptr[i] >= 'A' && domain.ptr[i] <= 'Z' ? (char)(domain.ptr[i] + 32)
                                                                    : domain.ptr[i];
        act_on_sender(c, BRAKE_SIGNER, slice_make(lower, n));
        return;
    }
    struct qmgr *q = c->control->queue;
    struct slice name, source = text_of(c, "source"), action = text_of(c, "action");
    unsigned changed = 0;
    if (!name_given(c, &name))
        return;
    if (!reason_fits(c) || !numbers_fit(c))
        return;
    queue_tick(q);
    list_each(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (!is_meant(q, l, name, source))
            continue;
        if (!act(c, l, action)) {
            control_fail(c, "The action is suspend, resume, reset or set.");
            return;
        }
        changed++;
        log_info("shaping %s: %s by %s: %s", log_esc(slice_str(l->group->name)), log_esc(action),
                 c->by, log_esc(text_of(c, "reason")));
        put_lane(c, l, false);
    }
    if (changed)
        control_done(c, NULL);
    else
        not_there(c, name);
}
