/* shaping.act: the operator's hand on the shaper. */
#include <math.h>

#include "core/json.h"
#include "core/log.h"
#include "qmgr/bounds.h"
#include "qmgr/brakes.h"
#include "qmgr/control_shaping.h"
#include "qmgr/memory.h"
#include "qmgr/shaping_show.h"
#include "qmgr/sources.h"
#include "qmgr/whole.h"
#include "rules/rules.h"

enum { FOREVER_DAYS = 366 };

static double number_of(const struct control_client *c, const char *name)
{
    double value = json_number_value(control_asked(c, name));
    return isfinite(value) && value > 0 ? value : 0;
}

static bool reason_fits(struct control_client *c)
{
    bool fits = control_text(c, "reason").len <= BRAKE_REASON_MAX;
    if (!fits)
        control_fail(c, "A reason has at most %d bytes.", (int)BRAKE_REASON_MAX);
    return fits;
}

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

static struct bounds_asked numbers_asked(const struct control_client *c)
{
    /* numbers_fit has looked at them */
    return (struct bounds_asked){.rate = number_of(c, "rate"),
                                 .connections = (uint32_t)number_of(c, "connections"),
                                 .messages = (uint32_t)number_of(c, "messages")};
}

static bool act(const struct control_client *c, struct lane *l, struct slice action)
{
    struct qmgr *q = c->control->queue;
    if (slice_eq(action, SLICE("resume"))) {
        shaper_unsuspend(&l->shaper);
        whole_resume(c->control->queue, l);
    } else if (slice_eq(action, SLICE("reset"))) {
        uint32_t in_flight = l->shaper.in_flight;
        shaper_init(&l->shaper, l->shaper.limits);
        l->shaper.in_flight = in_flight;
        l->odd = (struct odd){0};
        whole_reset(c->control->queue, l);
    } else if (slice_eq(action, SLICE("set"))) {
        const struct bounds_asked n = numbers_asked(c);
        shaper_set(&l->shaper, n.rate, n.connections, n.messages, q->now);
    } else {
        return false;
    }
    memory_soon(q);
    dispatch_wake(q, l);
    return true;
}

static bool is_called(struct qmgr *q, const struct group *g, void *arg)
{
    return group_is_called(q, g, *(const struct slice *)arg);
}

static bool is_any(struct qmgr *q, const struct group *g, void *arg)
{
    (void)q, (void)g, (void)arg;
    return true;
}

/* What waits there for the end of a suspension goes now. */
static void wake(struct qmgr *q, struct slice name)
{
    queue_wake_suspended(q, slice_eq(name, SLICE("all")) ? is_any : is_called, &name);
}

/* Microseconds that a suspension is to last. */
static int64_t time_asked(const struct control_client *c)
{
    double seconds = number_of(c, "seconds");
    bool ends = seconds > 0 && seconds < FOREVER_DAYS * 86400.0;
    return ends ? (int64_t)(seconds * 1e6) : INT64_MAX;
}

/* ---- destinations --------------------------------------------------------------------- */

static void log_act(const struct control_client *c, struct slice place)
{
    struct slice source = control_text(c, "source");
    log_info("shaping %s%s%s: %s by %s: %s", log_esc(place), source.len ? " from " : "",
             log_esc(source), log_esc(control_text(c, "action")), c->by,
             log_esc(control_text(c, "reason")));
}

/* Lanes that the action is about, or was. */
static unsigned put_lanes(struct control_client *c, struct slice name, struct slice source)
{
    struct qmgr *q = c->control->queue;
    unsigned shown = 0;
    list_each(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (control_lane_is_shown(q, l, name, source) && control_fits(c, &shown))
            control_put_lane(c, l, false);
    }
    return shown;
}

/* Something that mail may go to one day: what is known, or looks like a host or domain. */
static bool may_be_there(struct qmgr *q, struct slice name)
{
    char *text = slice_dup(name);
    bool there = q->shaping.rules && rules_provider_index(q->shaping.rules, text);
    free(text);
    there = there || slice_chr(name, '.') < name.len || slice_chr(name, ':') < name.len ||
            slice_eq(slice_first(name, 1), SLICE("["));
    list_each(&q->dispatch.lanes, n)
    {
        if (there)
            return true;
        there = group_is_called(q, container_of(n, struct lane, all)->group, name);
    }
    return there;
}

static bool source_is_there(const struct qmgr *q, struct slice name)
{
    list_each(&q->from->all, n)
    {
        const struct source *s = container_of(n, struct source, all);
        if (s->conf && source_is_called(s, name))
            return true;
    }
    return name.len == 0;
}

static bool is_plain(struct slice name)
{
    for (size_t i = 0; i < name.len; i++)
        if ((unsigned char)name.ptr[i] <= ' ' || name.ptr[i] == 0x7f)
            return false;
    return true;
}

/* Whether mail may go to what is called so; else the client is told. */
static bool name_may_be(struct control_client *c, struct slice name)
{
    bool may = is_plain(name) && may_be_there(c->control->queue, name);
    if (!may)
        control_fail(c,
                     "%s is no provider of providers.conf, no destination that has had mail "
                     "lately, and no name of a host or domain.",
                     log_esc(name));
    return may;
}

/* Also where no mail has been. */
static void suspend(struct control_client *c, struct slice name, struct slice source)
{
    struct qmgr *q = c->control->queue;
    unsigned shown = 0;
    if (!name_may_be(c, name))
        return;
    if (source.len > HALT_SOURCE_MAX || !source_is_there(q, source)) {
        control_fail(c, "There is no source %s: 'postern source list' shows those that there are.",
                     log_esc(source));
        return;
    }
    const struct halt *h = halts_set(q, name, source, time_asked(c), control_text(c, "reason"));
    if (!h) {
        control_fail(c,
                     "There are %d suspensions of destinations, which is as many as there may "
                     "be: end some of them.",
                     (int)HALTS_MAX);
        return;
    }
    log_act(c, name);
    (void)put_lanes(c, name, source);
    (void)control_put_halt(c, h, &shown);
    control_done(c, NULL);
}

/* A suspension that holds there by another name, or for more sources than asked. */
static const struct halt *other_halt(const struct qmgr *q, struct slice name)
{
    list_each(&q->halts->all, n)
    {
        const struct halt *h = container_of(n, struct halt, link);
        if (halt_is_on(q, h) && control_halt_is_meant(q, h, name))
            return h;
    }
    return NULL;
}

/* Each suspension that a resume ends, in a line of its own: it may be of one source alone. */
static void put_ended(const struct halt *h, void *arg)
{
    struct control_client *c = arg;
    struct buf *b = control_line_begin(c);
    json_member(b, "ended");
    halt_put(c->control->queue, h, b);
    json_end(b);
    control_line_end(c);
    log_info("shaping %s%s%s: the suspension by hand is ended by %s: %s",
             log_esc(slice_str(h->name)), *h->source ? " from " : "", log_esc(slice_str(h->source)),
             c->by, log_esc(slice_str(h->reason)));
}

static void resume(struct control_client *c, struct slice name, struct slice source)
{
    struct qmgr *q = c->control->queue;
    unsigned ended = halts_release(q, name, source, put_ended, c), shown = 0;
    const struct halt *other = ended ? NULL : other_halt(q, name);
    if (other) {
        control_fail(c, "It is suspended by hand as %s%s%s: 'postern shaping resume %s' ends that.",
                     other->name, *other->source ? " from " : "", other->source, other->name);
        return;
    }
    list_each(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (control_lane_is_meant(q, l, name, source))
            shown += act(c, l, SLICE("resume"));
    }
    if (!shown && !ended) {
        control_not_there(c, name);
        return;
    }
    log_act(c, name);
    wake(q, name);
    if (!put_lanes(c, name, source)) {
        struct buf *b = control_line_begin(c);
        json_str(b, "destination", name);
        json_str(b, "action", SLICE("resume"));
        control_line_end(c);
    }
    control_done(c, NULL);
}

/* ---- senders -------------------------------------------------------------------------- */

static void log_brake(const struct control_client *c, struct slice name, struct slice who)
{
    log_info("shaping %s: %s of %s by %s: %s", log_esc(name), log_esc(control_text(c, "action")),
             log_esc(who), c->by, log_esc(control_text(c, "reason")));
}

static void put_brake(struct control_client *c, struct slice who, struct slice place)
{
    struct buf *b = control_line_begin(c);
    json_str(b, "who", who);
    json_str(b, "at", place);
    json_str(b, "action", control_text(c, "action"));
    control_line_end(c);
}

/* Also where no mail has been. */
static void suspend_sender(struct control_client *c, enum brake_kind kind, struct slice who,
                           struct slice name)
{
    struct qmgr *q = c->control->queue;
    if (!slice_eq(name, SLICE("all")) && !name_may_be(c, name))
        return;
    const struct brake *b =
        brakes_set(q, name, kind, who, time_asked(c), control_text(c, "reason"));
    if (!b) {
        control_fail(c,
                     "There are too many suspensions of accounts and domains; end some of them.");
        return;
    }
    log_brake(c, name, who);
    put_brake(c, who, slice_str(b->name));
    control_done(c, NULL);
}

/* A suspension by hand that holds there all the same: at another name, or of a domain above. */
static void say_held(struct control_client *c, const struct brake *b, struct slice who)
{
    const char *place = *b->place ? b->name : "all", *held = log_esc(slice_str(b->who));
    bool above = !slice_eq(who, slice_str(b->who));
    control_fail(c,
                 "%s is suspended by hand at %s%s%s: 'postern shaping resume %s --%s %s' ends "
                 "that.",
                 log_esc(who), b->name, above ? ", with all of " : "", above ? held : "", place,
                 brake_kind_name(b->kind), held);
}

/* What rules have put on goes, too. */
static void resume_sender(struct control_client *c, enum brake_kind kind, struct slice who,
                          struct slice name)
{
    struct qmgr *q = c->control->queue;
    unsigned changed = brakes_release(q, name, kind, who), seen = slice_eq(name, SLICE("all"));
    list_each(&q->dispatch.lanes, n)
    {
        const struct lane *l = container_of(n, struct lane, all);
        if (!control_lane_is_meant(q, l, name, SLICE("")))
            continue;
        seen++;
        changed += brakes_lift(q, l->group, kind, who);
    }
    const struct brake *other = changed ? NULL : brakes_by_hand(q, kind, who);
    if (changed) {
        log_brake(c, name, who);
        wake(q, name);
        put_brake(c, who, name);
        control_done(c, NULL);
    } else if (other) {
        say_held(c, other, who);
    } else if (seen) {
        control_fail(c, "There is no suspension of %s there.", log_esc(who));
    } else {
        control_not_there(c, name);
    }
}

/* A lane that was set or reset; of what was set beyond a bound, what holds and why. */
static void put_changed(struct control_client *c, struct lane *l)
{
    struct buf *b = control_line_begin(c);
    const struct bounds_asked asked = numbers_asked(c);
    lane_show(c->control->queue, l, false, b);
    bounds_show(c->control->queue, l, &asked, b);
    control_line_end(c);
}

/* The mail of one sender alone. */
static void act_on_sender(struct control_client *c, enum brake_kind kind, struct slice who)
{
    struct slice name, action = control_text(c, "action");
    bool suspends = slice_eq(action, SLICE("suspend"));
    bool known = suspends || slice_eq(action, SLICE("resume"));
    char buffer[ACCOUNT_MAX + 1];
    if (!known || who.len > ACCOUNT_MAX) {
        control_fail(c, known ? "The name of the account or domain is too long."
                              : "One account or domain can be suspended and resumed, no more.");
        return;
    }
    who = brakes_spelled(kind, who, buffer);
    if (!brake_has_name(who)) {
        control_fail(c, "That is no name of an account or domain.");
        return;
    }
    if (!control_name_given(c, &name) || !reason_fits(c))
        return;
    queue_tick(c->control->queue);
    (suspends ? suspend_sender : resume_sender)(c, kind, who, name);
}

void control_shaping_act(struct control_client *c)
{
    if (control_text(c, "account").len) {
        act_on_sender(c, BRAKE_ACCOUNT, control_text(c, "account"));
        return;
    }
    if (control_text(c, "domain").len) {
        act_on_sender(c, BRAKE_SIGNER, control_text(c, "domain"));
        return;
    }
    struct qmgr *q = c->control->queue;
    struct slice name, source = control_text(c, "source"), action = control_text(c, "action");
    unsigned changed = 0;
    if (!control_name_given(c, &name))
        return;
    if (!reason_fits(c) || !numbers_fit(c))
        return;
    queue_tick(q);
    if (slice_eq(action, SLICE("suspend")) || slice_eq(action, SLICE("resume"))) {
        (slice_eq(action, SLICE("suspend")) ? suspend : resume)(c, name, source);
        return;
    }
    list_each(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (!control_lane_is_meant(q, l, name, source))
            continue;
        if (!act(c, l, action)) {
            control_fail(c, "The action is suspend, resume, reset or set.");
            return;
        }
        changed++;
        log_info("shaping %s: %s by %s: %s", log_esc(slice_str(l->group->name)), log_esc(action),
                 c->by, log_esc(control_text(c, "reason")));
        put_changed(c, l);
    }
    if (changed)
        control_done(c, NULL);
    else
        control_not_there(c, name);
}
