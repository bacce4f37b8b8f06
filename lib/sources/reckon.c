/* What a set of sources says about a message, a provider, a day. */
#include <stdio.h>
#include <stdlib.h>

#include "sources/sources.h"

enum { MONTH_DAYS = 30, FIRST_DAY_MIN = 50 /* recipients: less tells a provider nothing */ };

const struct pool_conf *sources_pool(const struct sources_conf *c, struct slice name)
{
    for (size_t i = 0; i < c->pool_count; i++)
        if (slice_eq(slice_str(c->pools[i].name), name))
            return &c->pools[i];
    return NULL;
}

static const struct pool_conf *bound(const struct sources_conf *c, struct slice text)
{
    size_t low = 0, high = c->binding_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = slice_cmp(slice_str(c->bindings[middle].text), text);
        if (order == 0)
            return &c->pools[c->bindings[middle].pool];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static const struct pool_conf *bound_with(const struct sources_conf *c, char sign,
                                          struct slice text)
{
    char key[SOURCES_HOST_MAX + 2];
    if (text.len == 0 || text.len > SOURCES_HOST_MAX)
        return NULL;
    key[0] = sign;
    for (size_t i = 0; i < text.len; i++)
        key[i + 1] =
            text.ptr[i] >= 'A' && text.ptr[i] <= 'Z' ? (char)(text.ptr[i] + 32) : text.ptr[i];
    return bound(c, slice_make(key, text.len + 1));
}

const struct pool_conf *sources_pool_for(const struct sources_conf *c, struct slice account,
                                         struct slice wanted, struct slice sender_domain,
                                         struct slice class)
{
    const struct pool_conf *p = account.len ? bound(c, account) : NULL;
    if (!p && wanted.len)
        p = sources_pool(c, wanted);
    if (!p && c->binding_count)
        p = bound_with(c, '@', sender_domain);
    if (!p && c->binding_count)
        p = bound_with(c, '=', class);
    return p ? p : &c->pools[0];
}

const struct source_ramp *source_ramp_for(const struct source_conf *s, struct slice provider)
{
    for (size_t i = 0; provider.len && i < s->provider_count; i++)
        if (slice_caseeq(slice_str(s->providers[i].provider), provider))
            return &s->providers[i];
    return &s->all;
}

bool source_is_warm(const struct source_ramp *r, int64_t day)
{
    return r->days == 0 || day >= r->days;
}

uint64_t source_allowance(const struct source_ramp *r, int64_t day)
{
    uint64_t most = r->daily_cap ? r->daily_cap : UINT64_MAX, today = UINT64_MAX;
    if (day < 0)
        day = 0;
    if (!source_is_warm(r, day)) {
        today = r->table ? r->table[day] : r->volume / MONTH_DAYS * ((uint64_t)day + 1) / r->days;
        if (!r->table && today < FIRST_DAY_MIN)
            today = FIRST_DAY_MIN;
    }
    return today < most ? today : most;
}
