#include "qmgr/bounds.h"

#include <arpa/inet.h>

#include "core/json.h"
#include "qmgr/shaping_show.h"
#include "qmgr/sources.h"
#include "qmgr/whole.h"
#include "rules/rules.h"

enum { WHERE_MAX = 1024 };

/* A bound of one kind. */
struct bound {
    const char *setting; /* as `postern shaping set` calls it */
    double asked, holds; /* holds 0: no bound */
    struct buf *why;
};

static void tell(const struct bound *bound, bool *any, struct buf *b)
{
    if (bound->asked <= 0 || bound->holds <= 0 || bound->asked <= bound->holds)
        return;
    if (!*any)
        json_list(b, "bounded");
    *any = true;
    json_begin(b);
    json_str(b, "setting", slice_str(bound->setting));
    shaping_put_number(b, "asked", bound->asked);
    shaping_put_number(b, "holds", bound->holds);
    json_str(b, "because", buf_slice(bound->why));
    json_end(b);
}

static struct rules_place place_of(const struct group *g)
{
    return (struct rules_place){g->provider, g->provider_index, g->site, g->domain};
}

/* Of the source's addresses the one for which less is said, as the lane's limits are found. */
static struct slice stricter_address(const struct qmgr *q, const struct lane *l, bool rate,
                                     char text[static INET6_ADDRSTRLEN])
{
    struct rules_place place = place_of(l->group);
    const struct source *s = l->from;
    struct rules_limits v4, v6;
    char other[INET6_ADDRSTRLEN];
    if (!s || !inet_ntop(s->has_v4 ? AF_INET : AF_INET6, s->has_v4 ? s->v4 : s->v6, text,
                         INET6_ADDRSTRLEN))
        return SLICE("");
    if (!s->has_v4 || !s->has_v6 || !inet_ntop(AF_INET6, s->v6, other, sizeof other))
        return slice_str(text);
    rules_limits(q->shaping.rules, &place, slice_str(text), &v4);
    rules_limits(q->shaping.rules, &place, slice_str(other), &v6);
    double a = rate ? v4.message_rate : v4.connections, b = rate ? v6.message_rate : v6.connections;
    if (b > 0 && (a <= 0 || b < a))
        memcpy(text, other, sizeof other);
    return slice_str(text);
}

/* Where a limit of the lane's own is said: in providers.conf, or where that says nothing. */
static void tell_where(const struct qmgr *q, const struct lane *l, const char *limit,
                       struct buf *out)
{
    struct rules_place place = place_of(l->group);
    char text[INET6_ADDRSTRLEN];
    bool rate = strcmp(limit, "message_rate") == 0;
    buf_clear(out);
    if (q->shaping.rules) {
        struct slice source = stricter_address(q, l, rate, text);
        bool cold = rate && l->cold;
        if (cold && rules_tell_origin(q->shaping.rules, &place, source, "cold_message_rate", out)) {
            (void)buf_addstr(out, ", while the source address warms up there");
            return;
        }
        if (rules_tell_origin(q->shaping.rules, &place, source, limit, out))
            return;
    }
    if (strcmp(limit, "connections") == 0)
        (void)buf_printf(out, "main.cf: default_destination_concurrency_limit = %d",
                         (int)q->s->config->default_destination_concurrency_limit);
}

/* The same of a limit over all source addresses. */
static void tell_whole(const struct qmgr *q, const struct lane *l, const char *limit,
                       struct buf *out)
{
    struct rules_place place = place_of(l->group);
    buf_clear(out);
    if (q->shaping.rules)
        (void)rules_tell_origin(q->shaping.rules, &place, SLICE(""), limit, out);
}

void bounds_show(struct qmgr *q, const struct lane *l, const struct bounds_asked *asked,
                 struct buf *b)
{
    const struct shaper_limits *own = l->shaper.limits;
    const struct whole *w = l->group->whole;
    struct buf why = BUF_INIT(WHERE_MAX);
    bool any = false;
    tell_where(q, l, "message_rate", &why);
    tell(&(struct bound){"rate", asked->rate, own->rate, &why}, &any, b);
    tell_where(q, l, "connections", &why);
    tell(&(struct bound){"connections", asked->connections, own->concurrency, &why}, &any, b);
    tell_where(q, l, "messages_per_connection", &why);
    tell(&(struct bound){"messages", asked->messages, own->messages, &why}, &any, b);
    if (w && w->limits.rate > 0 && (own->rate <= 0 || w->limits.rate < own->rate)) {
        tell_whole(q, l, "total_message_rate", &why);
        tell(&(struct bound){"rate over all source addresses", asked->rate, w->limits.rate, &why},
             &any, b);
    }
    if (w && w->limits.concurrency < own->concurrency) {
        tell_whole(q, l, "total_connections", &why);
        tell(&(struct bound){"connections over all source addresses", asked->connections,
                             w->limits.concurrency, &why},
             &any, b);
    }
    if (any)
        json_list_end(b);
    buf_free(&why);
}
