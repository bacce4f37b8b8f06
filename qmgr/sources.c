#include "qmgr/sources.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <xxhash.h>

#include "core/log.h"
#include "core/mem.h"
#include "qmgr/halts.h"

enum {
    TRIES = 8,               /* weighted choices before the pool is gone through */
    LOOK_AGAIN_SECONDS = 900 /* where nothing says when a source may send again */
};
enum family { FAMILY_4 = 1, FAMILY_6 = 2 };

void sources_init(struct qmgr *q)
{
    q->from = xcalloc(1, sizeof *q->from);
    list_init(&q->from->all);
    list_init(&q->from->questions);
    buf_init(&q->from->alert, 16 * 1024);
}

/* ---- the set in use ---------------------------------------------------------------- */

static bool is_same(const struct source *s, const struct source_conf *c)
{
    return strcmp(s->name, c->name) == 0 && s->has_v4 == c->has_v4 && s->has_v6 == c->has_v6 &&
           memcmp(s->v4, c->v4, sizeof s->v4) == 0 && memcmp(s->v6, c->v6, sizeof s->v6) == 0;
}

static uint16_t free_number(struct sources *all, struct source *s)
{
    for (uint16_t i = 0; i < UINT16_MAX - 1; i++)
        if (!all->numbers[i]) {
            all->numbers[i] = s;
            return (uint16_t)(i + 1);
        }
    panic("more than %d sources, old ones included", UINT16_MAX);
}

struct source *source_new(struct sources *all, const struct source_conf *c)
{
    struct source *s = xcalloc(1, sizeof *s);
    s->number = free_number(all, s);
    s->name = xstrdup(c->name);
    s->has_v4 = c->has_v4;
    s->has_v6 = c->has_v6;
    memcpy(s->v4, c->v4, sizeof s->v4);
    memcpy(s->v6, c->v6, sizeof s->v6);
    s->helo = xstrdup("");
    s->reason = xstrdup("");
    s->listed_zones = xstrdup("");
    s->forgiven_zones = xstrdup("");
    s->listed_text = xstrdup("");
    list_push(&all->all, &s->all);
    return s;
}

/* A source whose addresses have changed is another one: what was learned belongs to
 * addresses. */
static void adopt(struct qmgr *q, const struct source_conf *c, uint32_t position)
{
    struct source *s = NULL;
    list_each(&q->from->all, n)
    {
        struct source *known = container_of(n, struct source, all);
        if (!known->conf && is_same(known, c))
            s = known;
    }
    if (!s)
        s = source_new(q->from, c);
    s->conf = c;
    s->position = position;
    free(s->helo);
    s->helo = xstrdup(c->helo ? c->helo : "");
    if (c->began)
        s->began = c->began;
    q->from->by_position[position] = s;
}

static void set_ramps(struct source *s)
{
    for (size_t i = 0; i < s->record_count; i++)
        s->records[i]->ramp =
            s->conf ? source_ramp_for(s->conf, slice_str(s->records[i]->provider)) : NULL;
}

/* Lists have other numbers in another set. */
static uint32_t listed_bits(const struct sources_conf *conf, struct slice zones)
{
    uint32_t bits = 0;
    while (zones.len) {
        struct slice zone = slice_cut(&zones, ' ');
        for (size_t i = 0; i < conf->list_count; i++)
            if (slice_eq(zone, slice_str(conf->lists[i].zone)))
                bits |= UINT32_C(1) << i;
    }
    return bits;
}

void sources_set(struct qmgr *q, struct sources_conf *conf)
{
    struct sources *all = q->from;
    struct sources_conf *before = all->conf;
    sources_lists_reset(q); /* its questions are about the old set */
    list_each(&all->all, n) container_of(n, struct source, all)->conf = NULL;
    free(all->by_position);
    all->by_position = xcalloc(conf && conf->count ? conf->count : 1, sizeof *all->by_position);
    all->conf = conf;
    for (size_t i = 0; conf && i < conf->count; i++)
        adopt(q, &conf->sources[i], (uint32_t)i);
    list_each_safe(&all->all, n)
    {
        struct source *s = container_of(n, struct source, all);
        s->found4 = s->found6 = 0;
        s->listed = conf ? listed_bits(conf, slice_str(s->listed_zones)) : 0;
        s->forgiven = conf ? listed_bits(conf, slice_str(s->forgiven_zones)) : 0;
        set_ramps(s);
        if (!s->conf && s->lanes)
            sources_leave(q, s);
        else if (!s->conf)
            source_free(all, s);
    }
    sources_conf_free(before);
}

struct source *source_find(const struct qmgr *q, struct slice name)
{
    list_each(&q->from->all, n)
    {
        struct source *s = container_of(n, struct source, all);
        if (s->conf && slice_eq(slice_str(s->name), name))
            return s;
    }
    return NULL;
}

const char *source_addresses(const struct source *s, char text[static 80])
{
    char v4[INET_ADDRSTRLEN] = "", v6[INET6_ADDRSTRLEN] = "";
    if (s->has_v4)
        inet_ntop(AF_INET, s->v4, v4, sizeof v4);
    if (s->has_v6)
        inet_ntop(AF_INET6, s->v6, v6, sizeof v6);
    snprintf(text, 80, "%s%s%s", v4, *v4 && *v6 ? ", " : "", v6);
    return text;
}

struct slice source_sent_from(const struct qmgr *q, const struct source *s, struct slice peer)
{
    static char text[INET6_ADDRSTRLEN];
    const struct config *c = q->s->config;
    if (peer.len == 0 || slice_chr(peer, '/') < peer.len)
        return SLICE("");
    bool v6 = slice_chr(peer, ':') < peer.len;
    if (!s || !(v6 ? s->has_v6 : s->has_v4))
        return slice_str(v6 ? c->smtp_bind_address6 : c->smtp_bind_address);
    inet_ntop(v6 ? AF_INET6 : AF_INET, v6 ? s->v6 : s->v4, text, sizeof text);
    return slice_str(text);
}

/* ---- whether it may send --------------------------------------------------------------- */

const char *source_quarantine(const struct qmgr *q, const struct source *s)
{
    uint32_t bits = s->listed & ~s->forgiven;
    for (size_t i = 0; bits && q->from->conf && i < q->from->conf->list_count; i++)
        if ((bits >> i & 1) && q->from->conf->lists[i].quarantine)
            return q->from->conf->lists[i].zone;
    return NULL;
}

/* Why it may not send, whatever block lists say; as source_trouble. */
static const char *outage(const struct qmgr *q, const struct source *s, int64_t *until)
{
    static char text[SOURCE_REASON_MAX + 64];
    int64_t wall = clock_wall();
    *until = q->now + LOOK_AGAIN_SECONDS * CLOCK_SECOND;
    if (!s->conf)
        return "it is not in sources.conf any more";
    if (s->suspended_until > wall) {
        if (s->suspended_until - wall < LOOK_AGAIN_SECONDS * CLOCK_SECOND)
            *until = q->now + (s->suspended_until - wall);
        snprintf(text, sizeof text, "suspended by hand%s%.*s", *s->reason ? ": " : "",
                 SOURCE_REASON_MAX, s->reason);
        return text;
    }
    if (s->unusable_until > q->now) {
        *until = s->unusable_until;
        return "not an address of this machine";
    }
    return NULL;
}

const char *source_trouble(const struct qmgr *q, const struct source *s, int64_t *until)
{
    static char text[SOURCES_HOST_MAX + 64];
    const char *why = outage(q, s, until), *zone = why ? NULL : source_quarantine(q, s);
    if (!zone)
        return why;
    snprintf(text, sizeof text, "on the block list %s", zone);
    return text;
}

/* ---- pools ------------------------------------------------------------------------------- */

static bool is_member(const struct pool_conf *p, const struct source *s)
{
    for (size_t i = 0; i < p->count; i++)
        if (p->members[i] == s->position)
            return true;
    return false;
}

/* Whether the pool, or one that takes what it may not send, has the source. */
static bool is_reached(const struct sources_conf *conf, const struct pool_conf *p,
                       const struct source *s)
{
    while (!is_member(p, s)) {
        if (p->overflow < 0)
            return false;
        p = &conf->pools[p->overflow];
    }
    return true;
}

/* Whether the pool, or one that takes what it may not send, has a source without any trouble. */
static bool has_usable(const struct qmgr *q, const struct pool_conf *p)
{
    int64_t until;
    for (;; p = &q->from->conf->pools[p->overflow]) {
        for (size_t i = 0; i < p->count; i++)
            if (!source_trouble(q, q->from->by_position[p->members[i]], &until))
                return true;
        if (p->overflow < 0)
            return false;
    }
}

const struct pool_conf *source_spared(const struct qmgr *q, const struct source *s)
{
    const struct sources_conf *conf = q->from->conf;
    int64_t until;
    if (!conf || outage(q, s, &until) || !source_quarantine(q, s))
        return NULL;
    for (size_t i = 0; i < conf->pool_count; i++)
        if (is_reached(conf, &conf->pools[i], s) && !has_usable(q, &conf->pools[i]))
            return &conf->pools[i];
    return NULL;
}

static bool reaches(const struct source *s, const struct site *site)
{
    return (s->has_v4 && (site->families & FAMILY_4)) || (s->has_v6 && (site->families & FAMILY_6));
}

/* When mail may go there from it again; monotonic. 0: now, or it has no lane there. */
static int64_t opens(const struct qmgr *q, struct source *s, const struct site *site)
{
    const struct lane *l = dispatch_lane_known(q, site->group, s);
    return l && l->shaper.suspended_until > q->now ? l->shaper.suspended_until : 0;
}

static bool is_blocked(const struct qmgr *q, const struct lane *l)
{
    return l && l->blocked && l->shaper.suspended_until > q->now;
}

/* ---- which one -------------------------------------------------------------------------- */

struct choice {
    const struct pool_conf *pool; /* the message's */
    struct source *source;        /* what a job gets; NULL: none may send */
    struct source *waiting; /* that is only blocked there; if several are, for the shortest time */
    const char *why;        /* of the first one that may not */
    const struct source *who;
    int64_t until;
    bool looked, none_else; /* for sources that are on no block list: there is none in the pool */
};

/* Notes why not, of the one that comes free first. */
static bool refuse(struct choice *c, const struct source *s, const char *why, int64_t until)
{
    static char kept[SOURCE_REASON_MAX + 64];
    if (!c->why || until < c->until) {
        snprintf(kept, sizeof kept, "%s", why);
        c->why = kept;
        c->who = s;
        c->until = until;
    }
    return false;
}

/* It is on a block list, and its pool has no source that is not. */
static bool is_last(const struct qmgr *q, const struct source *s, struct choice *c)
{
    int64_t until;
    if (outage(q, s, &until))
        return false;
    if (!c->looked)
        c->none_else = !has_usable(q, c->pool);
    c->looked = true;
    return c->none_else;
}

static bool may_send(struct qmgr *q, struct source *s, const struct site *site, struct choice *c)
{
    int64_t until;
    if (!reaches(s, site))
        return refuse(c, s, "it has no address of the destination's family",
                      q->now + LOOK_AGAIN_SECONDS * CLOCK_SECOND);
    const char *why = source_trouble(q, s, &until);
    if (why && !is_last(q, s, c))
        return refuse(c, s, why, until);
    const struct halt *halt = halts_of_source(q, site->group, s);
    if (halt)
        return refuse(c, s, "suspended by hand at this destination", halt->until);
    struct slice provider = slice_str(site->group->provider);
    if (record_room(q, source_record(s, provider)) == 0) {
        int64_t day = sources_day_length(q), wall = clock_wall();
        return refuse(c, s, "it has sent what it may today", q->now + day - wall % day);
    }
    if (!is_blocked(q, dispatch_lane_known(q, site->group, s)))
        return true;
    if (!c->waiting || opens(q, s, site) < opens(q, c->waiting, site))
        c->waiting = s;
    return false;
}

/* From the message's ID: the same after a restart. */
static uint64_t number_of(const struct message *m, unsigned attempt)
{
    return XXH3_64bits_withSeed(m->id.text, strlen(m->id.text), attempt);
}

static size_t by_weight(const struct pool_conf *p, uint64_t number)
{
    uint32_t at = (uint32_t)(number % p->weights[p->count - 1]);
    size_t low = 0, high = p->count - 1;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (p->weights[middle] > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Takes it. If nothing goes there from it for a while, mail that has gone from no source yet had
 * better go from one that is let in: *shut is the one that is let in first. */
static bool take(struct qmgr *q, struct source *s, const struct site *site, struct source **shut,
                 struct choice *c)
{
    if (!may_send(q, s, site, c))
        return false;
    if (opens(q, s, site)) {
        if (!*shut || opens(q, s, site) < opens(q, *shut, site))
            *shut = s;
        return false;
    }
    c->source = s;
    return true;
}

static bool from_pool(struct qmgr *q, const struct pool_conf *p, const struct message *m,
                      const struct site *site, struct choice *c)
{
    struct source **all = q->from->by_position, *shut = NULL;
    size_t at = 0;
    if (p->count == 0)
        return false;
    for (unsigned i = 0; i < TRIES; i++) {
        at = by_weight(p, number_of(m, i));
        if (take(q, all[p->members[at]], site, &shut, c))
            return true;
    }
    for (size_t i = 1; i < p->count; i++)
        if (take(q, all[p->members[(at + i) % p->count]], site, &shut, c))
            return true;
    c->source = shut;
    return shut != NULL;
}

static const struct pool_conf *pool_of(struct qmgr *q, const struct message *m)
{
    static const struct slice classes[] = {
        [CLASS_NORMAL] = {"normal", 6},
        [CLASS_TRANSACTIONAL] = {"transactional", 13},
        [CLASS_BULK] = {"bulk", 4},
    };
    struct slice sender = message_sender(m), wanted = pools_name(q, m);
    struct sources *all = q->from;
    if (wanted.len && !sources_pool(all->conf, wanted) &&
        (!all->unknown_pool || !slice_eq(slice_str(all->unknown_pool), wanted))) {
        free(all->unknown_pool);
        all->unknown_pool = slice_dup(wanted);
        log_warning("there is no pool %s in sources.conf, which account %s is to send from: it "
                    "sends from the pool \"default\"",
                    log_esc(wanted), log_esc(message_account(m)));
    }
    return sources_pool_for(all->conf, message_account(m), wanted,
                            slice_from(sender, slice_rchr(sender, '@') + 1),
                            classes[m->env->mail_class]);
}

static void choose(struct qmgr *q, struct message *m, struct source *last, const struct site *site,
                   struct choice *c)
{
    const struct sources_conf *conf = q->from->conf;
    const struct pool_conf *p = pool_of(q, m);
    *c = (struct choice){.pool = p};
    if (last && last->conf && is_reached(conf, p, last) && may_send(q, last, site, c)) {
        c->source = last;
        return;
    }
    for (;;) {
        if (from_pool(q, p, m, site, c) || p->overflow < 0)
            return;
        p = &conf->pools[p->overflow];
    }
}

/* Where the last attempt went from. */
static struct source *last_of(const struct qmgr *q, const struct job *j)
{
    const struct answer *a = j->m->env->recipients[j->rcpts[0]].answer;
    return a && a->source ? q->from->numbers[a->source - 1] : NULL;
}

static void defer(struct qmgr *q, struct site *site, struct job *j, const struct choice *c)
{
    const struct source *last = last_of(q, j);
    struct attempt t = {.site = site, .sent = q->now};
    struct buf text = BUF_INIT(ANSWER_TEXT_MAX);
    int64_t wait = c->until > q->now ? c->until - q->now : 0,
            most = LOOK_AGAIN_SECONDS * CLOCK_SECOND;
    if (wait > most)
        wait = most;
    (void)buf_printf(&text, "no source address may send this now: source %s: %s",
                     c->who ? c->who->name : "", c->why ? c->why : "");
    struct answer *a = answer_new(0, SLICE("4.3.2"), buf_slice(&text), SLICE(""), SLICE(""));
    a->local = a->no_source = a->suspended = true;
    a->source = last ? last->number : 0;
    q->from->waits = true;
    outcome_deferred(q, j->m, j->rcpts, j->count, a, &t,
                     q->now + wait + retry_jitter(wait / 10 + CLOCK_SECOND), false);
    answer_unref(a);
    buf_free(&text);
    job_free(q, j);
}

/* NULL: no source may send it. A lane that is made may be remembered to be blocked or suspended:
 * then it is known now, and the choice is made once more. */
static struct lane *lane_for(struct qmgr *q, struct site *site, const struct job *j,
                             struct choice *c)
{
    for (;;) {
        choose(q, j->m, last_of(q, j), site, c);
        struct source *s = c->source ? c->source : c->waiting;
        if (!s)
            return NULL;
        bool known = dispatch_lane_known(q, site->group, s) != NULL;
        struct lane *l = dispatch_lane(q, site->group, s);
        if (known || l->shaper.suspended_until <= q->now)
            return l;
    }
}

/* What is more than the source may still send there today becomes a job of its own. */
static struct job *split(const struct qmgr *q, const struct lane *l, struct job *j)
{
    uint64_t room = record_room(q, l->record);
    if (room == 0 || room >= j->count)
        return NULL;
    uint32_t kept = (uint32_t)room, count = j->count - kept;
    struct job *rest = job_new(j->m, count);
    rest->tls = tls_rules_ref(j->tls);
    rest->count = count;
    memcpy(rest->rcpts, j->rcpts + kept, count * sizeof rest->rcpts[0]);
    for (uint32_t i = 0; i < count; i++)
        rest->bytes += recipient_job_bytes(&j->m->env->recipients[rest->rcpts[i]]);
    j->count = kept;
    j->bytes -= rest->bytes;
    return rest;
}

void sources_submit(struct qmgr *q, struct site *site, struct job *j)
{
    struct choice c;
    if (!q->from->conf || q->from->conf->count == 0 || site->transport != TRANSPORT_SMTP) {
        dispatch_add(q, dispatch_lane(q, site->group, NULL), site, j);
        return;
    }
    for (struct job *rest; j; j = rest) {
        struct lane *l = lane_for(q, site, j, &c);
        rest = l ? split(q, l, j) : NULL;
        if (l)
            dispatch_add(q, l, site, j);
        else
            defer(q, site, j, &c);
    }
}

/* ---- away from a source -------------------------------------------------------------------- */

void sources_move(struct qmgr *q, struct lane *l)
{
    struct list jobs;
    list_init(&jobs);
    dispatch_take_all(q, l, &jobs);
    for (struct list *n; (n = list_pop(&jobs));) {
        struct job *j = container_of(n, struct job, link);
        struct message *m = j->m;
        struct site *site = j->site;
        j->site = NULL; /* its reference is ours now */
        sources_submit(q, site, j);
        site_unref(q, site);
        message_settle(q, m);
    }
}

void sources_forgive(struct qmgr *q, struct source *s)
{
    s->forgiven = s->listed;
    free(s->forgiven_zones);
    s->forgiven_zones = xstrdup(s->listed_zones);
    list_each(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (l->from != s || !l->blocked)
            continue;
        l->blocked = false;
        shaper_unsuspend(&l->shaper);
        dispatch_wake(q, l);
    }
}

/* Its recipients that no source might send are due. */
static bool make_due(struct message *m)
{
    bool any = false;
    for (uint32_t i = 0; i < m->recipient_count; i++) {
        const struct recipient *r = &m->env->recipients[i];
        if (r->state != RCPT_WAITING || !r->answer || !r->answer->no_source)
            continue;
        any = true;
        recipient_waits(m, i, 0);
    }
    return any;
}

void sources_wake(struct qmgr *q)
{
    if (!q->from->waits)
        return;
    q->from->waits = false;
    list_each(&q->all, at)
    {
        struct message *m = container_of(at, struct message, all);
        bool may = m->phase == PHASE_LOADED && !(m->flags & (MESSAGE_HELD | MESSAGE_DELETED));
        if (may && make_due(m))
            heap_set(&q->due, &m->due, q->now);
    }
}

void sources_leave(struct qmgr *q, struct source *s)
{
    list_each_safe(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (l->from == s && l->queued)
            sources_move(q, l);
    }
}
