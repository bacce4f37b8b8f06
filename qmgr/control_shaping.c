/* shaping.*: what the shaper does, why, and the operator's hand on it. */
#include <math.h>

#include "core/json.h"
#include "core/log.h"
#include "qmgr/brakes.h"
#include "qmgr/control_client.h"
#include "qmgr/halts.h"
#include "qmgr/memory.h"
#include "qmgr/moves.h"
#include "qmgr/shaping_show.h"
#include "qmgr/sites.h"
#include "qmgr/sources.h"
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
    return source_is_called(l->from, source) && group_is_called(q, l->group, name);
}

/* The same, and lanes that were that destination before it had another place and still have mail
 * of it. */
static bool is_shown(struct qmgr *q, const struct lane *l, struct slice name, struct slice source)
{
    return is_meant(q, l, name, source) ||
           (source_is_called(l->from, source) && moves_remain(q, l, name));
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

static bool put_halt(struct control_client *c, const struct halt *h, unsigned *shown)
{
    if (!halt_is_on(c->control->queue, h) || !fits(c, shown))
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
static bool halt_is_meant(const struct qmgr *q, const struct halt *h, struct slice name)
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
        if (name.len == 0 || halt_is_meant(q, h, name))
            (void)put_halt(c, h, shown);
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
        if (wanted && fits(c, &shown))
            put_lane(c, l, false);
    }
    put_halts(c, SLICE(""), &shown);
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
        if (is_shown(q, l, name, source) && fits(c, &shown))
            put_lane(c, l, true);
    }
    put_halts(c, name, &shown);
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
        double connections = number_of(c, "connections"), messages = number_of(c, "messages");
        shaper_set(&l->shaper, number_of(c, "rate"), connections < 1e6 ? (uint32_t)connections : 0,
                   messages < 1e6 ? (uint32_t)messages : 0, q->now);
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
    struct slice source = text_of(c, "source");
    log_info("shaping %s%s%s: %s by %s: %s", log_esc(place), source.len ? " from " : "",
             log_esc(source), log_esc(text_of(c, "action")), c->by, log_esc(text_of(c, "reason")));
}

/* Lanes that the action is about, or was. */
static unsigned put_lanes(struct control_client *c, struct slice name, struct slice source)
{
    struct qmgr *q = c->control->queue;
    unsigned shown = 0;
    list_each(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (is_shown(q, l, name, source) && fits(c, &shown))
            put_lane(c, l, false);
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
    const struct halt *h = halts_set(q, name, source, time_asked(c), text_of(c, "reason"));
    if (!h) {
        control_fail(c,
                     "There are %d suspensions of destinations, which is as many as there may "
                     "be: end some of them.",
                     (int)HALTS_MAX);
        return;
    }
    log_act(c, name);
    (void)put_lanes(c, name, source);
    (void)put_halt(c, h, &shown);
    control_done(c, NULL);
}

/* A suspension that holds there by another name, or for more sources than asked. */
static const struct halt *other_halt(const struct qmgr *q, struct slice name)
{
    list_each(&q->halts->all, n)
    {
        const struct halt *h = container_of(n, struct halt, link);
        if (halt_is_on(q, h) && halt_is_meant(q, h, name))
            return h;
    }
    return NULL;
}

static void resume(struct control_client *c, struct slice name, struct slice source)
{
    struct qmgr *q = c->control->queue;
    unsigned ended = halts_release(q, name, source), shown = 0;
    const struct halt *other = ended ? NULL : other_halt(q, name);
    if (other) {
        control_fail(c, "It is suspended by hand as %s%s%s: 'postern shaping resume %s' ends that.",
                     other->name, *other->source ? " from " : "", other->source, other->name);
        return;
    }
    list_each(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (is_meant(q, l, name, source))
            shown += act(c, l, SLICE("resume"));
    }
    if (!shown && !ended) {
        not_there(c, name);
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
    log_info("shaping %s: %s of %s by %s: %s", log_esc(name), log_esc(text_of(c, "action")),
             log_esc(who), c->by, log_esc(text_of(c, "reason")));
}

static void put_brake(struct control_client *c, struct slice who, struct slice place)
{
    struct buf *b = control_line_begin(c);
    json_str(b, "who", who);
    json_str(b, "at", place);
    json_str(b, "action", text_of(c, "action"));
    control_line_end(c);
}

/* Also where no mail has been. */
static void suspend_sender(struct control_client *c, enum brake_kind kind, struct slice who,
                           struct slice name)
{
    struct qmgr *q = c->control->queue;
    if (!slice_eq(name, SLICE("all")) && !name_may_be(c, name))
        return;
    const struct brake *b = brakes_set(q, name, kind, who, time_asked(c), text_of(c, "reason"));
    if (!b) {
        control_fail(c,
                     "There are too many suspensions of accounts and domains; end some of them.");
        return;
    }
    log_brake(c, name, who);
    put_brake(c, who, slice_str(b->name));
    control_done(c, NULL);
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
        if (!is_meant(q, l, name, SLICE("")))
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
        control_fail(
            c, "%s is suspended by hand at %s: 'postern shaping resume %s --%s %s' ends that.",
            log_esc(who), other->name, other->name, brake_kind_name((uint8_t)kind), log_esc(who));
    } else if (seen) {
        control_fail(c, "There is no suspension of %s there.", log_esc(who));
    } else {
        not_there(c, name);
    }
}

/* The mail of one sender alone. */
static void act_on_sender(struct control_client *c, enum brake_kind kind, struct slice who)
{
    struct slice name, action = text_of(c, "action");
    bool suspends = slice_eq(action, SLICE("suspend"));
    bool known = suspends || slice_eq(action, SLICE("resume"));
    if (!known || who.len > ACCOUNT_MAX) {
        control_fail(c, known ? "The name of the account or domain is too long."
                              : "One account or domain can be suspended and resumed, no more.");
        return;
    }
    if (!name_given(c, &name) || !reason_fits(c))
        return;
    queue_tick(c->control->queue);
    (suspends ? suspend_sender : resume_sender)(c, kind, who, name);
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
    if (slice_eq(action, SLICE("suspend")) || slice_eq(action, SLICE("resume"))) {
        (slice_eq(action, SLICE("suspend")) ? suspend : resume)(c, name, source);
        return;
    }
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
