#include "qmgr/brakes.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/log.h"
#include "core/mem.h"
#include "domain/organisation.h"
#include "qmgr/halts.h"
#include "rules/rules.h"

/* A sender at a destination without a rate: what it is slowed from, recipients a second. */
#define RATE_UNKNOWN 10.0
enum {
    TIME_GROWS = 2,
    KEPT_SECONDS = 3600, /* after its end: how long it was, what it failed at */
    TOLD_SECONDS = 600
};
static const int64_t TIME_MOST = INT64_C(86400) * CLOCK_SECOND;

static struct slice key_of(const void *value)
{
    return slice_str(((const struct brake *)value)->key);
}

static struct slice alias_of(const void *value)
{
    return slice_str(((const struct brake *)value)->alias);
}

/* Kind and sender, with which the key begins. */
static struct slice sender_of(const void *value)
{
    const struct brake *b = value;
    return slice_make(b->key, 2 + strlen(b->who));
}

void brakes_init(struct qmgr *q)
{
    q->brakes = xcalloc(1, sizeof *q->brakes);
    map_init(&q->brakes->by_key, key_of);
    map_init(&q->brakes->by_alias, alias_of);
    map_init(&q->brakes->called, sender_of);
    list_init(&q->brakes->all);
}

const char *brake_kind_name(uint8_t kind)
{
    return kind == BRAKE_ACCOUNT ? "account" : "domain";
}

bool brake_suspends(const struct qmgr *q, const struct brake *b)
{
    return b->until > q->now;
}

bool brake_is_on(const struct qmgr *q, const struct brake *b)
{
    return brake_suspends(q, b) || b->rate > 0;
}

/* ---- finding ----------------------------------------------------------------------- */

enum { PLACE_MAX = SITE_NAME_MAX + 64, KEY_MAX = 4 + ACCOUNT_MAX + 1 + PLACE_MAX };
/* Before the name, as the place of what holds wherever that is meant. No group.stable begins so. */
static const char CALLED[] = "called ";

bool brake_is_called(const char *place)
{
    return strncmp(place, CALLED, sizeof CALLED - 1) == 0;
}

/* None of the three has a line's end, so no two give the same. The bytes are in `out`. */
static struct slice make_key(enum brake_kind kind, struct slice who, const char *place,
                             char out[static KEY_MAX])
{
    int n = snprintf(out, KEY_MAX, "%d\n%.*s\n%.*s", (int)kind,
                     SLICE_ARG(slice_first(who, ACCOUNT_MAX + 1)), PLACE_MAX - 1, place);
    return slice_make(out, (size_t)n < KEY_MAX ? (size_t)n : KEY_MAX - 1);
}

static struct brake *find(const struct qmgr *q, enum brake_kind kind, const char *place,
                          const char *name, struct slice who)
{
    char key[KEY_MAX];
    struct brake *b = map_get(&q->brakes->by_key, make_key(kind, who, place, key));
    return b || !*place || brake_is_called(place)
               ? b
               : map_get(&q->brakes->by_alias, make_key(kind, who, name, key));
}

/* The first of those by hand at names; the others are its `same`. */
static struct brake *called_of(const struct qmgr *q, enum brake_kind kind, struct slice who)
{
    char key[KEY_MAX];
    int n = snprintf(key, sizeof key, "%d\n%.*s", (int)kind,
                     SLICE_ARG(slice_first(who, ACCOUNT_MAX + 1)));
    return map_get(&q->brakes->called, slice_make(key, (size_t)n));
}

static void join_called(struct brakes *all, struct brake *b)
{
    struct brake *first = map_get(&all->called, sender_of(b));
    b->called = true;
    if (!first) {
        map_put(&all->called, b);
        return;
    }
    b->same = first->same;
    first->same = b;
}

static void leave_called(struct brakes *all, struct brake *b)
{
    struct brake *at = map_get(&all->called, sender_of(b));
    if (at == b) {
        map_remove(&all->called, sender_of(b));
        if (b->same)
            map_put(&all->called, b->same);
    }
    for (; at != b; at = at->same)
        if (at->same == b) {
            at->same = b->same;
            return;
        }
}

bool brake_has_name(struct slice who)
{
    for (size_t i = 0; i < who.len; i++)
        if ((unsigned char)who.ptr[i] < ' ' || who.ptr[i] == 0x7f)
            return false;
    return who.len > 0 && who.len <= ACCOUNT_MAX + 1;
}

/* A message that no domain answers for is its account's. */
static enum brake_kind kind_of(const struct message *m, enum brake_kind wanted)
{
    return wanted == BRAKE_SIGNER && m->env->signer_len ? BRAKE_SIGNER : BRAKE_ACCOUNT;
}

static struct slice who_of(const struct message *m, enum brake_kind kind,
                           char buffer[static ACCOUNT_MAX + 1])
{
    return kind == BRAKE_SIGNER ? message_signer(m) : dispatch_sharer(m, buffer);
}

struct slice brakes_who(const struct message *m, enum brake_kind kind,
                        char buffer[static ACCOUNT_MAX + 1])
{
    return who_of(m, kind_of(m, kind), buffer);
}

struct slice brakes_spelled(enum brake_kind kind, struct slice who,
                            char buffer[static ACCOUNT_MAX + 1])
{
    if (kind == BRAKE_ACCOUNT)
        return who.len && who.ptr[0] == '@' ? dispatch_sharer_of(slice_from(who, 1), buffer) : who;
    return domain_spelled(who, buffer);
}

/* Of the envelope: by hand it counts where no domain answers for the message. */
static struct slice sender_domain(const struct message *m, char buffer[static ACCOUNT_MAX + 1])
{
    struct slice sender = message_sender(m);
    return domain_spelled(slice_from(sender, slice_rchr(sender, '@') + 1), buffer);
}

static void stricter(const struct qmgr *q, struct brake *b, struct brake_pair *p)
{
    if (brake_suspends(q, b) && (!p->suspends || b->until > p->suspends->until))
        p->suspends = b;
    if (b->rate > 0 && (!p->slows || b->rate < p->slows->rate))
        p->slows = b;
}

/* By hand, at the group by some name or everywhere. */
static void by_hand_of(struct qmgr *q, const struct group *g, enum brake_kind kind,
                       struct slice who, struct brake_pair *found)
{
    struct brake *all = q->brakes->everywhere ? find(q, kind, "", "", who) : NULL;
    struct brake *called = q->brakes->called.count ? called_of(q, kind, who) : NULL;
    if (all && all->by_hand)
        stricter(q, all, found);
    for (; called; called = called->same)
        if (brake_suspends(q, called) && group_is_called(q, g, slice_str(called->name)))
            stricter(q, called, found);
}

/* Whoever suspends a domain means what is below it, too. */
static void by_hand_of_parents(struct qmgr *q, const struct group *g, struct slice who,
                               struct brake_pair *found)
{
    size_t dot;
    while ((dot = slice_chr(who, '.')) < who.len) {
        who = slice_from(who, dot + 1);
        by_hand_of(q, g, BRAKE_SIGNER, who, found);
    }
}

struct brake_pair brakes_of(struct qmgr *q, const struct group *g, const struct message *m)
{
    char buffer[ACCOUNT_MAX + 1];
    struct brake_pair found = {0};
    if (q->brakes->by_key.count == 0 ||
        (!g->braked && !q->brakes->everywhere && q->brakes->called.count == 0))
        return found;
    for (enum brake_kind kind = BRAKE_ACCOUNT; kind <= BRAKE_SIGNER; kind++) {
        bool answers = kind_of(m, kind) == kind;
        struct slice who = answers ? who_of(m, kind, buffer) : sender_domain(m, buffer);
        struct brake *here = g->braked ? find(q, kind, g->stable, g->name, who) : NULL;
        if (here && (answers || here->by_hand))
            stricter(q, here, &found);
        by_hand_of(q, g, kind, who, &found);
        if (kind == BRAKE_SIGNER)
            by_hand_of_parents(q, g, who, &found);
    }
    return found;
}

/* ---- there and gone ------------------------------------------------------------------- */

static void unlink_brake(struct brakes *all, struct brake *b)
{
    map_remove(&all->by_key, key_of(b));
    if (b->called)
        leave_called(all, b);
    if (map_get(&all->by_alias, alias_of(b)) == b)
        map_remove(&all->by_alias, alias_of(b));
}

/* Its line is empty, and no probe of it is under way. */
static void drop(struct brakes *all, struct brake *b)
{
    all->file.dirty = all->file.dirty || b->until;
    all->everywhere -= !*b->place;
    all->of_rules -= !b->by_hand;
    unlink_brake(all, b);
    list_remove(&b->link);
    heap_remove(&all->wakes, &b->wake);
    free(b->key);
    free(b->alias);
    free(b->place);
    free(b->who);
    free(b->name);
    free(b->reason);
    free(b);
}

static bool is_of_use(const struct qmgr *q, const struct brake *b)
{
    return b->held || b->probe || brake_suspends(q, b);
}

/* Room for one more, at the cost of the oldest that only slows and holds nothing back just
 * now; false: there is none. */
static bool make_room(struct qmgr *q, const char *place, bool by_hand)
{
    struct brakes *all = q->brakes;
    bool full = all->by_key.count >= BRAKES_MAX;
    struct brake *oldest = NULL, *oldest_here = NULL;
    unsigned here = 0;
    list_each(&all->all, n)
    {
        struct brake *b = container_of(n, struct brake, link);
        bool at_place = strcmp(b->place, place) == 0;
        here += at_place && !b->by_hand;
        if (is_of_use(q, b))
            continue;
        if (!oldest)
            oldest = b;
        if (at_place && !oldest_here)
            oldest_here = b;
    }
    if (!by_hand && here >= BRAKES_PLACE_MAX)
        oldest = oldest_here;
    else if (!full && (by_hand || all->of_rules < BRAKES_OF_RULES_MAX))
        return true;
    if (oldest)
        drop(all, oldest);
    return oldest != NULL;
}

static void say_full(struct qmgr *q, const char *name, bool by_hand)
{
    if (q->brakes->told_full && q->now - q->brakes->told_full < TOLD_SECONDS * CLOCK_SECOND)
        return;
    q->brakes->told_full = q->now;
    log_error("shaping %s: %s: %s", log_esc(slice_str(name)),
              by_hand ? "an account or domain is not suspended"
                      : "a sender is not slowed down alone",
              by_hand ? "there are too many suspensions; end some of them"
                      : "too many are already; its rules slow down the whole destination");
}

struct brake *brakes_add(struct qmgr *q, enum brake_kind kind, const char *place, const char *name,
                         struct slice who, bool by_hand)
{
    char key[KEY_MAX];
    struct brakes *all = q->brakes;
    struct brake *b = find(q, kind, place, name, who);
    if (b)
        return b;
    if (!make_room(q, place, by_hand)) {
        say_full(q, name, by_hand);
        return NULL;
    }
    b = xcalloc(1, sizeof *b);
    *b = (struct brake){.key = slice_dup(make_key(kind, who, place, key)),
                        .alias = slice_dup(make_key(kind, who, name, key)),
                        .place = xstrdup(place),
                        .who = slice_dup(who),
                        .name = xstrdup(name),
                        .reason = xstrdup(""),
                        .kind = (uint8_t)kind,
                        .by_hand = by_hand};
    for (int i = 0; i < 3; i++)
        list_init(&b->line[i]);
    shaper_times_init(&b->times, (unsigned)q->s->config->shaping_time_divisor);
    list_init(&b->link);
    list_push(&all->all, &b->link);
    map_put(&all->by_key, b);
    if (brake_is_called(place))
        join_called(all, b);
    else if (*place && !map_get(&all->by_alias, alias_of(b)))
        map_put(&all->by_alias, b);
    all->everywhere += !*place;
    all->of_rules += !by_hand;
    return b;
}

/* Of a suspension alone: what is slowed is learned anew at another place. */
static void copy_to(struct qmgr *q, const struct brake *b, const struct group *g)
{
    struct brake *c = brakes_add(q, b->kind, g->stable, g->name, slice_str(b->who), b->by_hand);
    if (!c || c->until >= b->until)
        return;
    c->until = b->until;
    c->time = b->time;
    c->cut = b->cut;
    brake_set_reason(c, slice_str(b->reason));
    q->brakes->file.dirty = true;
    log_info("shaping %s: the suspension of %s %s at %s holds here, too",
             log_esc(slice_str(g->name)), brake_kind_name(b->kind), log_esc(slice_str(b->who)),
             log_esc(slice_str(b->name)));
}

void brakes_meet(struct qmgr *q, struct group *g, struct slice site)
{
    /* copies come at the end */
    uint64_t count = q->brakes->by_key.count;
    list_each(&q->brakes->all, n)
    {
        struct brake *b = container_of(n, struct brake, link);
        if (count-- == 0)
            break;
        if (strcmp(b->place, g->stable) == 0 || (*b->place && strcmp(b->name, g->name) == 0)) {
            g->braked = true;
        } else if (*b->place && !b->called && brake_suspends(q, b) &&
                   slice_eq(slice_str(b->name), site)) {
            g->braked = true; /* an entry of providers.conf has taken the site over */
            copy_to(q, b, g);
        }
    }
}

/* ---- putting on ---------------------------------------------------------------------- */

void brake_set_reason(struct brake *b, struct slice reason)
{
    size_t n = reason.len < BRAKE_REASON_MAX ? reason.len : BRAKE_REASON_MAX;
    while (n && n < reason.len && ((unsigned char)reason.ptr[n] & 0xc0) == 0x80)
        n--;
    free(b->reason);
    b->reason = slice_dup(slice_first(reason, n));
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
    return own ? rate * (double)own / (double)all : rate; /* none: it was counted anew since */
}

/* To `set`, or to so much of what it was; where that fails again the rate is left alone for
 * longer. */
static void slow(const struct qmgr *q, struct brake *b, const struct job *j, double set,
                 double factor)
{
    double from = b->rate > 0 ? b->rate : present_rate(j->queue->lane, j);
    b->times = j->queue->lane->shaper.limits->times;
    brake_rate_cut(b, from, set, factor, q->now);
}

/* So long after its end a suspension is remembered: as long as it was, but at least an hour. */
static int64_t kept(const struct brake *b)
{
    int64_t least = KEPT_SECONDS * CLOCK_SECOND;
    return b->time > least ? b->time : least;
}

/* Longer than the last one, if that is not long ago. */
static void suspend(struct qmgr *q, struct brake *b, const struct job *j, const struct rule *rule)
{
    int64_t divisor = q->s->config->shaping_time_divisor, time = rule->time / divisor,
            end = b->until > b->cut ? b->until : b->cut;
    bool again = b->time && q->now - end < kept(b);
    int64_t most = TIME_MOST / divisor > time ? TIME_MOST / divisor : time,
            longer = again && b->time < most / TIME_GROWS ? TIME_GROWS * b->time : most;
    slow(q, b, j, 0, 0); /* so it goes on afterwards */
    b->time = again ? longer : time;
    b->until = q->now + b->time;
    b->probing = true;
    q->brakes->file.dirty = true;
}

void brakes_taken(struct qmgr *q, const struct job *j, uint32_t recipients)
{
    struct brake *b = brakes_of(q, j->queue->lane->group, j->m).slows;
    if (b && j->sent_at >= b->cut)
        brake_rate_taken(b, recipients);
}

static void say_rule(const struct group *g, struct brake *b, const struct rule *rule,
                     const struct ipc_outcome *o)
{
    struct buf text = BUF_INIT(2048);
    const char *place = log_esc(slice_str(g->name));
    buf_printf(&text, "rule %s (%s:%d): %u %s", rule->name, rule->file, rule->line, o->code,
               log_esc_n(o->text, BRAKE_REASON_MAX));
    brake_set_reason(b, buf_slice(&text));
    if (rule->action >= RULES_SUSPEND)
        log_info("shaping %s: %s %s suspended for %.1fs, %s", place, brake_kind_name(b->kind),
                 log_esc(slice_str(b->who)), (double)b->time / 1e6, b->reason);
    else
        log_info("shaping %s: %s %s slowed to %.3f/s, %s", place, brake_kind_name(b->kind),
                 log_esc(slice_str(b->who)), b->rate, b->reason);
    buf_free(&text);
}

/* At the last cut; or it had its token then, and waited for its lane. */
static bool was_under_way(const struct brake *b, const struct job *j, const struct rule *rule)
{
    int64_t until = b->cut + (rule->action < RULES_SUSPEND ? b->pause : 0);
    return b->cut && j->sent_at < until;
}

bool brakes_refused(struct qmgr *q, const struct job *j, const struct rule *rule,
                    const struct ipc_outcome *o)
{
    char buffer[ACCOUNT_MAX + 1];
    enum brake_kind kind =
        kind_of(j->m, rule->scope == RULES_OF_DKIM ? BRAKE_SIGNER : BRAKE_ACCOUNT);
    struct group *g = j->queue->lane->group;
    struct slice who = who_of(j->m, kind, buffer);
    struct brake *b =
        brake_has_name(who) ? brakes_add(q, kind, g->stable, g->name, who, false) : NULL;
    if (!b)
        return false;
    g->braked = true;
    if (was_under_way(b, j, rule))
        return true;
    if (rule->action >= RULES_SUSPEND)
        suspend(q, b, j, rule);
    else
        slow(q, b, j, rule->action == RULES_SET ? rule->value : 0, rule->factor);
    say_rule(g, b, rule, o);
    brake_changed(q, b);
    return true;
}

/* ---- by hand ------------------------------------------------------------------------- */

static void take_off(struct qmgr *q, struct brake *b)
{
    q->brakes->file.dirty = true;
    b->until = 0;
    b->rate = 0;
    b->probing = false;
    if (b->held || b->probe)
        brake_changed(q, b); /* the sweep drops it later */
    else
        drop(q->brakes, b);
}

struct brake *brakes_add_called(struct qmgr *q, enum brake_kind kind, struct slice name,
                                struct slice who)
{
    char place[PLACE_MAX], *called = place + sizeof CALLED - 1;
    name = slice_first(name, SITE_NAME_MAX);
    memcpy(place, CALLED, sizeof CALLED);
    for (size_t i = 0; i < name.len; i++)
        called[i] =
            name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? (char)(name.ptr[i] + 32) : name.ptr[i];
    called[name.len] = '\0';
    return brakes_add(q, kind, place, called, who, true);
}

const struct brake *brakes_set(struct qmgr *q, struct slice name, enum brake_kind kind,
                               struct slice who, int64_t time, struct slice reason)
{
    struct brake *b = NULL;
    if (brake_has_name(who) && slice_eq(name, SLICE("all")))
        b = brakes_add(q, kind, "", "all destinations", who, true);
    else if (brake_has_name(who))
        b = brakes_add_called(q, kind, name, who);
    if (!b)
        return NULL;
    b->until = time > BRAKE_DAYS_MAX * TIME_MOST ? INT64_MAX : q->now + time;
    b->cut = q->now;
    brake_set_reason(b, reason);
    q->brakes->file.dirty = true;
    brakes_take_effect(q, b);
    return b;
}

bool brakes_lift(struct qmgr *q, const struct group *g, enum brake_kind kind, struct slice who)
{
    struct brake *b = find(q, kind, g->stable, g->name, who);
    bool on = b && brake_is_on(q, b);
    if (b)
        take_off(q, b);
    return on;
}

/* Everywhere, or else at some name. */
static const struct brake *suspended_by_hand(const struct qmgr *q, enum brake_kind kind,
                                             struct slice who)
{
    const struct brake *b = find(q, kind, "", "", who);
    if (b && b->by_hand && brake_suspends(q, b))
        return b;
    b = called_of(q, kind, who);
    while (b && !brake_suspends(q, b))
        b = b->same;
    return b;
}

const struct brake *brakes_by_hand(const struct qmgr *q, enum brake_kind kind, struct slice who)
{
    const struct brake *b = suspended_by_hand(q, kind, who);
    size_t dot;
    while (!b && kind == BRAKE_SIGNER && (dot = slice_chr(who, '.')) < who.len) {
        who = slice_from(who, dot + 1);
        b = suspended_by_hand(q, kind, who);
    }
    return b;
}

unsigned brakes_release(struct qmgr *q, struct slice name, enum brake_kind kind, struct slice who)
{
    unsigned changed = 0;
    bool all = slice_eq(name, SLICE("all"));
    list_each_safe(&q->brakes->all, n)
    {
        struct brake *b = container_of(n, struct brake, link);
        bool there = all ? !*b->place : *b->place && slice_caseeq(name, slice_str(b->name));
        if (b->kind != kind || !there || !slice_eq(who, slice_str(b->who)))
            continue;
        changed += brake_is_on(q, b);
        take_off(q, b);
    }
    return changed;
}

/* ---- now and then -------------------------------------------------------------------- */

void brakes_sweep(struct qmgr *q)
{
    list_each_safe(&q->brakes->all, n)
    {
        struct brake *b = container_of(n, struct brake, link);
        int64_t used = b->until > b->cut ? b->until : b->cut;
        used = b->filled > used ? b->filled : used;
        brake_expire(q, b);
        if (b->held || b->probe || brake_suspends(q, b) || q->now - used <= kept(b))
            continue;
        drop(q->brakes, b);
    }
}
