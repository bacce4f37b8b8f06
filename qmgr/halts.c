#include "qmgr/halts.h"

#include <arpa/inet.h>
#include <stdlib.h>

#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/sites.h"
#include "qmgr/sources.h"

void halts_init(struct qmgr *q)
{
    q->halts = xcalloc(1, sizeof *q->halts);
    list_init(&q->halts->all);
}

bool halt_is_on(const struct qmgr *q, const struct halt *h)
{
    return h->until > q->now;
}

/* ---- what a name means ---------------------------------------------------------------- */

static bool is_text(struct slice name, const char *text)
{
    return text && slice_caseeq(name, slice_str(text));
}

/* `name` in lower case. */
static bool leads_to(const struct qmgr *q, const struct group *g, struct slice name)
{
    const struct route *r = map_get(&q->sites.routes, name);
    if (r && r->site && r->site->group == g)
        return true;
    return site_leads_to(q, name, g);
}

static struct slice lower(struct slice name, char out[static SITE_NAME_MAX])
{
    name = slice_first(name, SITE_NAME_MAX);
    for (size_t i = 0; i < name.len; i++)
        out[i] = name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? (char)(name.ptr[i] + 32) : name.ptr[i];
    return slice_make(out, name.len);
}

bool group_is_called(const struct qmgr *q, const struct group *g, struct slice name)
{
    char text[SITE_NAME_MAX];
    if (name.len == 0 || name.len > SITE_NAME_MAX)
        return false;
    return is_text(name, g->name) || is_text(name, g->provider) || is_text(name, g->site) ||
           is_text(name, g->domain) || leads_to(q, g, lower(name, text));
}

bool source_is_called(const struct source *s, struct slice name)
{
    char text[INET6_ADDRSTRLEN];
    if (name.len == 0)
        return true;
    if (!s)
        return false;
    return slice_eq(name, slice_str(s->name)) ||
           (s->has_v4 && inet_ntop(AF_INET, s->v4, text, sizeof text) &&
            slice_eq(name, slice_str(text))) ||
           (s->has_v6 && inet_ntop(AF_INET6, s->v6, text, sizeof text) &&
            slice_eq(name, slice_str(text)));
}

/* ---- asking ----------------------------------------------------------------------------- */

static bool is_about(const struct qmgr *q, const struct halt *h, const struct source *s)
{
    return halt_is_on(q, h) && source_is_called(s, slice_str(h->source));
}

static const struct halt *longer(const struct halt *a, const struct halt *b)
{
    return !a || b->until > a->until ? b : a;
}

static const struct halt *find_at(const struct qmgr *q, const struct group *g,
                                  const struct source *s, bool one_source)
{
    const struct halt *found = NULL;
    list_each(&q->halts->all, n)
    {
        const struct halt *h = container_of(n, struct halt, link);
        if (is_about(q, h, s) && (!one_source || *h->source) &&
            group_is_called(q, g, slice_str(h->name)))
            found = longer(found, h);
    }
    return found;
}

const struct halt *halts_at(const struct qmgr *q, const struct group *g, const struct source *s)
{
    return find_at(q, g, s, false);
}

const struct halt *halts_of_source(const struct qmgr *q, const struct group *g,
                                   const struct source *s)
{
    return find_at(q, g, s, true);
}

const struct halt *halts_of_domain(const struct qmgr *q, struct slice address,
                                   const struct source *s)
{
    const struct halt *found = NULL;
    size_t at = slice_rchr(address, '@');
    struct slice domain = at < address.len ? slice_from(address, at + 1) : address;
    list_each(&q->halts->all, n)
    {
        const struct halt *h = container_of(n, struct halt, link);
        if (is_about(q, h, s) && slice_caseeq(domain, slice_str(h->name)))
            found = longer(found, h);
    }
    return found;
}

/* Of the lane, or of the domain of one of the job's recipients: its route may lead elsewhere than
 * when the job came into line. */
static const struct halt *find(const struct qmgr *q, const struct lane *l, const struct job *j)
{
    if (q->halts->count == 0)
        return NULL;
    const struct halt *h = halts_at(q, l->group, l->from);
    for (uint32_t i = 0; !h && i < j->count; i++)
        h = halts_of_domain(q, recipient_address(j->m, j->rcpts[i]), l->from);
    return h;
}

/* Not longer than any attempt waits, so that its age is looked at. */
static void defer(struct qmgr *q, const struct lane *l, struct job *j, const struct halt *h)
{
    struct attempt t = {.site = j->site, .sent = q->now};
    struct buf text = BUF_INIT(8 * ANSWER_TEXT_MAX);
    int64_t left = h->until - q->now, most = q->s->config->maximal_backoff_time * CLOCK_SECOND;
    left = left < most ? left : most;
    (void)buf_printf(&text, "delivery temporarily suspended: by the operator%s%s",
                     *h->reason ? ": " : "", h->reason);
    struct answer *a = answer_new(0, SLICE("4.3.2"), buf_slice(&text), SLICE(""), SLICE(""));
    a->local = a->suspended = true;
    a->source = l->from ? l->from->number : 0;
    outcome_deferred(q, j->m, j->rcpts, j->count, a, &t,
                     q->now + left + retry_jitter(left / 10 + CLOCK_SECOND), false);
    answer_unref(a);
    buf_free(&text);
    job_free(q, j);
}

bool halts_hold(struct qmgr *q, struct lane *l, struct job *j)
{
    const struct halt *h = find(q, l, j);
    if (h)
        defer(q, l, j, h);
    return h != NULL;
}

/* ---- on and off ---------------------------------------------------------------------------- */

static struct halt *known(const struct qmgr *q, struct slice name, struct slice source)
{
    list_each(&q->halts->all, n)
    {
        struct halt *h = container_of(n, struct halt, link);
        if (slice_caseeq(name, slice_str(h->name)) && slice_eq(source, slice_str(h->source)))
            return h;
    }
    return NULL;
}

static void drop(struct halts *all, struct halt *h)
{
    list_remove(&h->link);
    all->count--;
    all->file.dirty = true;
    free(h->name);
    free(h->source);
    free(h->reason);
    free(h);
}

/* What is in line there leaves it: for another source, or to wait. */
static void take_effect(struct qmgr *q, const struct halt *h)
{
    list_each_safe(&q->dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (l->queued && source_is_called(l->from, slice_str(h->source)) &&
            group_is_called(q, l->group, slice_str(h->name)))
            sources_move(q, l);
    }
}

/* At most HALT_REASON_MAX bytes, cut where a character ends. */
static char *reason_of(struct slice reason)
{
    size_t n = reason.len < HALT_REASON_MAX ? reason.len : HALT_REASON_MAX;
    while (n && n < reason.len && ((unsigned char)reason.ptr[n] & 0xc0) == 0x80)
        n--;
    return slice_dup(slice_first(reason, n));
}

struct halt *halts_set(struct qmgr *q, struct slice name, struct slice source, int64_t time,
                       struct slice reason)
{
    static const int64_t most = HALT_DAYS_MAX * INT64_C(86400) * CLOCK_SECOND;
    char text[SITE_NAME_MAX];
    halts_sweep(q);
    struct halt *h = known(q, name, source);
    if (!h && q->halts->count >= HALTS_MAX)
        return NULL;
    if (!h) {
        h = xcalloc(1, sizeof *h);
        h->name = slice_dup(lower(name, text));
        h->source = slice_dup(slice_first(source, HALT_SOURCE_MAX));
        list_init(&h->link);
        list_push(&q->halts->all, &h->link);
        q->halts->count++;
    }
    free(h->reason);
    h->reason = reason_of(reason);
    h->since = q->now;
    h->until = time > most ? INT64_MAX : q->now + time;
    q->halts->file.dirty = true;
    take_effect(q, h);
    return h;
}

unsigned halts_release(struct qmgr *q, struct slice name, struct slice source,
                       void (*ended)(const struct halt *h, void *arg), void *arg)
{
    unsigned changed = 0;
    list_each_safe(&q->halts->all, n)
    {
        struct halt *h = container_of(n, struct halt, link);
        if (!slice_caseeq(name, slice_str(h->name)) ||
            (source.len && !slice_eq(source, slice_str(h->source))))
            continue;
        bool on = halt_is_on(q, h);
        changed += on;
        if (on && ended)
            ended(h, arg);
        drop(q->halts, h);
    }
    return changed;
}

void halts_sweep(struct qmgr *q)
{
    list_each_safe(&q->halts->all, n)
    {
        struct halt *h = container_of(n, struct halt, link);
        if (halt_is_on(q, h))
            continue;
        log_info("shaping %s: the suspension by hand is over", log_esc(slice_str(h->name)));
        drop(q->halts, h);
    }
}

void halt_put(const struct qmgr *q, const struct halt *h, struct buf *out)
{
    json_str(out, "name", slice_str(h->name));
    json_str(out, "source", slice_str(h->source));
    json_str(out, "reason", slice_str(h->reason));
    json_seconds(out, "since", q->now - h->since);
    if (h->until != INT64_MAX)
        json_seconds(out, "suspended_for", h->until > q->now ? h->until - q->now : 0);
}
