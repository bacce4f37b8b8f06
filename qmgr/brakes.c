#include "qmgr/brakes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/sources.h"
#include "rules/rules.h"

/* What a rule leaves of a sender's rate if it does not say. */
#define SLOWED 0.5
/* A sender at a destination without a rate: what it is slowed from, recipients a second. */
#define RATE_UNKNOWN 10.0
/* Always allowed, or nothing would show that it is over: one a minute. */
#define RATE_LEAST (1 / 60.0)
/* A brake is taken off when it has let through so many times what it began with. */
#define RELEASED 32.0

enum {
    BURST_SECONDS = 2,
    TIME_GROWS = 2,
    KEPT_SECONDS = 3600 /* so long it is known how long the last suspension was */
};
static const int64_t TIME_MOST = INT64_C(86400) * CLOCK_SECOND;

static struct slice key_of(const void *value)
{
    return slice_str(((const struct brake *)value)->key);
}

void brakes_init(struct qmgr *q)
{
    q->brakes = xcalloc(1, sizeof *q->brakes);
    map_init(&q->brakes->by_key, key_of);
    list_init(&q->brakes->all);
    q->brakes->file.name = "shaping.brakes";
}

static void take_off(struct brakes *all, struct brake *b)
{
    all->dirty = all->dirty || b->until;
    map_remove(&all->by_key, key_of(b));
    list_remove(&b->link);
    free(b->key);
    free(b->place);
    free(b->who);
    free(b->name);
    free(b->reason);
    free(b);
}

/* ---- finding ----------------------------------------------------------------------- */

static char *make_key(enum brake_kind kind, const char *place, struct slice who)
{
    return xasprintf("%d\n%s\n%.*s", (int)kind, place, SLICE_ARG(who));
}

static struct brake *find(const struct qmgr *q, enum brake_kind kind, const char *place,
                          struct slice who)
{
    char *key = make_key(kind, place, who);
    struct brake *b = map_get(&q->brakes->by_key, slice_str(key));
    free(key);
    return b;
}

struct brake *brakes_add(struct qmgr *q, enum brake_kind kind, const char *place, const char *name,
                         struct slice who)
{
    struct brakes *all = q->brakes;
    struct brake *b = find(q, kind, place, who);
    if (b)
        return b;
    if (all->by_key.count >= BRAKES_MAX) {
        if (!all->full)
            log_error("more than %d senders are slowed down or suspended at destinations; "
                      "further ones are not",
                      BRAKES_MAX);
        all->full = true;
        return NULL;
    }
    b = xcalloc(1, sizeof *b);
    *b = (struct brake){.key = make_key(kind, place, who),
                        .place = xstrdup(place),
                        .who = slice_dup(who),
                        .name = xstrdup(name),
                        .reason = xstrdup(""),
                        .kind = (uint8_t)kind};
    list_init(&b->link);
    list_push(&all->all, &b->link);
    map_put(&all->by_key, b);
    return b;
}

struct slice brakes_who(const struct message *m, enum brake_kind kind,
                        char buffer[static ACCOUNT_MAX + 1])
{
    if (kind == BRAKE_SIGNER && m->env->signer_len)
        return message_signer(m);
    struct slice who = dispatch_sharer(m, buffer);
    if (kind == BRAKE_ACCOUNT)
        return who;
    /* unsigned, or from an older spool: the sender's domain */
    size_t at = slice_rchr(message_sender(m), '@');
    return at < message_sender(m).len ? slice_from(message_sender(m), at + 1) : SLICE("");
}

/* The brakes that may hold m at a group, the strictest of those that do. */
static struct brake *brake_of(struct qmgr *q, const struct group *g, const struct message *m)
{
    char buffer[ACCOUNT_MAX + 1];
    const char *places[] = {g->stable, ""};
    struct brake *found = NULL;
    for (enum brake_kind kind = BRAKE_ACCOUNT; kind <= BRAKE_SIGNER; kind++)
        for (int i = 0; i < 2; i++) {
            struct brake *b = find(q, kind, places[i], brakes_who(m, kind, buffer));
            if (b && (!found || b->until > found->until ||
                      (b->until == found->until && b->rate > 0 && b->rate < found->rate)))
                found = b;
        }
    return found;
}

/* ---- putting on ---------------------------------------------------------------------- */

static void set_reason(struct brake *b, struct slice reason)
{
    free(b->reason);
    b->reason = slice_dup(slice_first(reason, BRAKE_REASON_MAX));
}

static const char *kind_name(uint8_t kind)
{
    return kind == BRAKE_ACCOUNT ? "account" : "domain";
}

/* What the sender has of the lane's rate, by its deliveries since the last refusal. */
static double present_rate(const struct lane *l, const struct job *j)
{
    uint64_t all = 0, own = 0;
    list_each(&l->queues, n)
    {
        const struct queue *k = container_of(n, struct queue, of_lane);
        all += k->window;
        own += k->account == j->queue->account ? k->window : 0;
    }
    double rate = l->shaper.rate < 1e5 ? l->shaper.rate : RATE_UNKNOWN;
    return all ? rate * (double)own / (double)all : rate;
}

static void slow(const struct qmgr *q, struct brake *b, const struct job *j,
                 const struct rule *rule)
{
    double from = b->rate > 0 ? b->rate : present_rate(j->queue->lane, j);
    double rate =
        rule->action == RULES_SET ? rule->value : from * (rule->factor > 0 ? rule->factor : SLOWED);
    b->rate = rate > RATE_LEAST ? rate : RATE_LEAST;
    b->tokens = 0;
    b->filled = b->cut = b->grown = q->now;
}

bool brakes_refused(struct qmgr *q, const struct job *j, const struct rule *rule,
                    const struct ipc_outcome *o)
{
    char buffer[ACCOUNT_MAX + 1];
    enum brake_kind kind = rule->scope == RULES_OF_DKIM ? BRAKE_SIGNER : BRAKE_ACCOUNT;
    const struct group *g = j->queue->lane->group;
    struct slice who = brakes_who(j->m, kind, buffer);
    struct brake *b = who.len ? brakes_add(q, kind, g->stable, g->name, who) : NULL;
    int64_t time = rule->time / q->s->config->shaping_time_divisor;
    if (!b)
        return false;
    if (b->by_hand || (b->cut && j->sent_at < b->cut))
        return true; /* was under way */
    if (rule->action >= RULES_SUSPEND) {
        b->time = b->time && TIME_GROWS * b->time < TIME_MOST ? TIME_GROWS * b->time : time;
        b->until = clock_wall() + b->time;
        b->cut = q->now;
        q->brakes->dirty = true;
    } else {
        slow(q, b, j, rule);
    }
    struct buf text = BUF_INIT(2048);
    buf_printf(&text, "rule %s (%s:%d): %u %s", rule->name, rule->file, rule->line, o->code,
               log_esc_n(o->text, BRAKE_REASON_MAX));
    set_reason(b, buf_slice(&text));
    if (rule->action >= RULES_SUSPEND)
        log_info("shaping %s: %s %s suspended for %.1fs, %s", log_esc(slice_str(g->name)),
                 kind_name(b->kind), log_esc(slice_str(b->who)), (double)b->time / 1e6, b->reason);
    else
        log_info("shaping %s: %s %s slowed to %.3f/s, %s", log_esc(slice_str(g->name)),
                 kind_name(b->kind), log_esc(slice_str(b->who)), b->rate, b->reason);
    buf_free(&text);
    return true;
}

unsigned brakes_set(struct qmgr *q, const struct group *g, enum brake_kind kind, struct slice who,
                    int64_t until, struct slice reason)
{
    const char *place = g ? g->stable : "";
    struct brake *b = find(q, kind, place, who);
    if (!until && b) {
        q->brakes->dirty = true;
        take_off(q->brakes, b);
        return 1;
    }
    if (!until || !(b = brakes_add(q, kind, place, g ? g->name : "all destinations", who)))
        return 0;
    b->by_hand = true;
    b->until = until;
    b->cut = q->now;
    set_reason(b, reason);
    q->brakes->dirty = true;
    return 1;
}

/* ---- holding ------------------------------------------------------------------------- */

/* Fast again where nothing is refused: it doubles, and in the end the brake is off. */
static void grow(const struct qmgr *q, struct brake *b, const struct shaper_times *t)
{
    if (b->rate <= 0 || q->now - b->cut < t->hold || q->now - b->grown < t->growth)
        return;
    b->rate *= 2;
    b->grown = q->now;
    if (q->now - b->cut > t->hold + (int64_t)log2(RELEASED) * t->growth)
        b->rate = 0;
}

/* Until when a slowed sender's job waits; 0: it may go. */
static int64_t slowed_until(const struct qmgr *q, struct brake *b, const struct job *j)
{
    double most = BURST_SECONDS * b->rate > 1 ? BURST_SECONDS * b->rate : 1;
    b->tokens += b->rate * (double)(q->now - b->filled) / 1e6;
    b->tokens = b->tokens < most ? b->tokens : most;
    b->filled = q->now;
    if (b->tokens >= 0.999) {
        b->tokens -= j->count; /* a job of several goes as one, and is paid back */
        return 0;
    }
    int64_t first = q->now + (int64_t)((1 - b->tokens) / b->rate * 1e6);
    b->slot = b->slot > first ? b->slot : first;
    int64_t until = b->slot;
    b->slot += (int64_t)(j->count / b->rate * 1e6);
    return until;
}

static void defer(struct qmgr *q, const struct lane *l, struct job *j, const struct brake *b)
{
    struct attempt t = {.site = j->site, .sent = q->now};
    struct buf text = BUF_INIT(1024);
    int64_t left = b->until == INT64_MAX ? TIME_MOST : b->until - clock_wall();
    buf_printf(&text, "delivery temporarily suspended for %s %s: %s%s", kind_name(b->kind), b->who,
               b->by_hand ? "by the operator: " : "", b->reason);
    struct answer *a = answer_new(0, SLICE("4.7.0"), buf_slice(&text), SLICE(""), SLICE(""));
    a->local = true;
    a->source = l->from ? l->from->number : 0;
    int64_t until = q->now + left + retry_jitter(left / 10 + CLOCK_SECOND);
    outcome_deferred(q, j->m, j->rcpts, j->count, a, &t, until, false);
    answer_unref(a);
    buf_free(&text);
    job_free(q, j);
}

bool brakes_hold(struct qmgr *q, struct lane *l, struct job *j, bool starts)
{
    if (q->brakes->by_key.count == 0)
        return false;
    struct brake *b = brake_of(q, l->group, j->m);
    if (!b)
        return false;
    if (b->until > clock_wall()) {
        defer(q, l, j, b);
        return true;
    }
    grow(q, b, &l->shaper.limits->times);
    int64_t until = starts && b->rate > 0 ? slowed_until(q, b, j) : 0;
    if (!until)
        return false;
    for (uint32_t i = 0; i < j->count; i++)
        recipient_waits(j->m, j->rcpts[i], queue_seconds(q, until) + 1);
    j->m->env->queued -= j->count;
    job_free(q, j);
    return true;
}

/* ---- telling ------------------------------------------------------------------------- */

static void put(const struct brake *b, struct buf *out)
{
    int64_t left = b->until - clock_wall();
    json_str(out, "kind", slice_str(kind_name(b->kind)));
    json_str(out, "who", slice_str(b->who));
    json_str(out, "at", slice_str(b->name));
    json_str(out, "reason", slice_str(b->reason));
    json_bool(out, "by_hand", b->by_hand);
    json_bool(out, "suspended", left > 0);
    if (left > 0 && b->until != INT64_MAX)
        json_seconds(out, "suspended_for", left);
    if (left <= 0 && b->rate > 0) {
        char text[32];
        int n = snprintf(text, sizeof text, "%.3f", b->rate);
        json_raw(out, "rate", slice_make(text, (size_t)n));
    }
}

static bool is_on(const struct brake *b)
{
    return b->until > clock_wall() || b->rate > 0;
}

enum brake_effect brakes_effect(struct qmgr *q, const struct group *g, const struct message *m)
{
    const struct brake *b = q->brakes->by_key.count ? brake_of(q, g, m) : NULL;
    if (!b || !is_on(b))
        return BRAKE_NONE;
    return b->until > clock_wall() ? BRAKE_SUSPENDS : BRAKE_SLOWS;
}

bool brakes_describe(struct qmgr *q, const struct group *g, const struct message *m,
                     struct buf *out)
{
    const struct brake *b = q->brakes->by_key.count ? brake_of(q, g, m) : NULL;
    if (!b || !is_on(b))
        return false;
    json_member(out, "brake");
    put(b, out);
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
        if (!is_on(b) || (*b->place && strcmp(b->place, g->stable) != 0) || shown++ >= SHOWN)
            continue;
        json_begin(out);
        put(b, out);
        json_end(out);
    }
    json_list_end(out);
}

void brakes_sweep(struct qmgr *q)
{
    list_each_safe(&q->brakes->all, n)
    {
        struct brake *b = container_of(n, struct brake, link);
        if (!is_on(b) && q->now - b->cut > KEPT_SECONDS * CLOCK_SECOND)
            take_off(q->brakes, b);
    }
}
