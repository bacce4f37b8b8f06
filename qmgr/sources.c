/* The source addresses in use, and whether each may send. */
#include <arpa/inet.h>
#include <stdio.h>

#include "core/log.h"
#include "core/mem.h"
#include "qmgr/sources_inside.h"

/* No source of the file is called so. */
static char no_name[] = "";

void sources_init(struct qmgr *q)
{
    q->from = xcalloc(1, sizeof *q->from);
    q->from->waits = true; /* since before the restart, perhaps */
    list_init(&q->from->all);
    list_init(&q->from->questions);
    buf_init(&q->from->alert, 16 * 1024);
    q->from->plain = source_new(q->from, &(struct source_conf){.name = no_name});
    list_remove(&q->from->plain->all);
}

/* ---- the set in use ---------------------------------------------------------------- */

bool source_is(const struct source *s, const struct source_conf *c)
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
    source_places_init(s);
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
        if (!known->conf && source_is(known, c))
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
    sources_recheck(q);
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

const char *source_outage(const struct qmgr *q, const struct source *s, int64_t *until)
{
    static char text[SOURCE_REASON_MAX + 64];
    *until = q->now + SOURCE_LOOK_AGAIN;
    if (!s->conf)
        return "it is not in sources.conf any more";
    if (s->suspended_until > q->now) {
        if (s->suspended_until < *until)
            *until = s->suspended_until;
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
    const char *why = source_outage(q, s, until), *zone = why ? NULL : source_quarantine(q, s);
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

bool source_is_reached(const struct sources_conf *conf, const struct pool_conf *p,
                       const struct source *s)
{
    while (!is_member(p, s)) {
        if (p->overflow < 0)
            return false;
        p = &conf->pools[p->overflow];
    }
    return true;
}

bool pool_has_usable(const struct qmgr *q, const struct pool_conf *p)
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
    if (!conf || source_outage(q, s, &until) || !source_quarantine(q, s))
        return NULL;
    for (size_t i = 0; i < conf->pool_count; i++)
        if (source_is_reached(conf, &conf->pools[i], s) && !pool_has_usable(q, &conf->pools[i]))
            return &conf->pools[i];
    return NULL;
}
