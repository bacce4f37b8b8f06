#include "qmgr/shaper.h"

#include "core/json.h"

void shaper_init(struct shaper *s, const struct shaper_limits *limits)
{
    *s = (struct shaper){.limits = limits, .window = limits->initial};
    if (s->window > limits->concurrency)
        s->window = limits->concurrency;
}

enum shaper_room shaper_room(const struct shaper *s, int64_t now, int64_t *when)
{
    if (s->suspended_until > now) {
        *when = s->suspended_until;
        return SHAPER_SUSPENDED;
    }
    uint32_t window = s->window < s->limits->concurrency ? s->window : s->limits->concurrency;
    if (s->in_flight >= (s->probing ? 1 : window))
        return SHAPER_FULL;
    if (s->next_start > now) {
        *when = s->next_start;
        return SHAPER_LATER;
    }
    return SHAPER_GO;
}

void shaper_started(struct shaper *s, int64_t now)
{
    s->in_flight++;
    if (s->limits->rate_delay)
        s->next_start = now + s->limits->rate_delay;
}

static void succeed(struct shaper *s)
{
    s->failed_cohorts = 0;
    if (s->probing)
        s->window = s->limits->initial;
    s->probing = false;
    s->suspend_time = 0;
    if (s->window < s->limits->concurrency)
        s->window++;
}

static bool fail(struct shaper *s, int64_t now)
{
    /* what was under way when the site was suspended says nothing new */
    if (s->suspended_until > now)
        return false;
    s->failed_cohorts += 1.0 / s->window;
    if (s->window > 1)
        s->window--;
    /* a little less than the limit: fractions do not sum up exactly */
    if (!s->probing && s->failed_cohorts < s->limits->cohorts - 0.001)
        return false;
    int64_t time = s->suspend_time ? 2 * s->suspend_time : s->limits->suspend;
    int64_t max =
        s->limits->suspend_max > s->limits->suspend ? s->limits->suspend_max : s->limits->suspend;
    s->suspend_time = time < max ? time : max;
    s->suspended_until = now + s->suspend_time;
    s->probing = true;
    return true;
}

bool shaper_finished(struct shaper *s, enum shaper_result result, int64_t now)
{
    if (s->in_flight)
        s->in_flight--;
    if (result == SHAPER_OK)
        succeed(s);
    return result == SHAPER_FAILED && fail(s, now);
}

void shaper_unsuspend(struct shaper *s)
{
    s->suspended_until = 0;
}

void shaper_explain(const struct shaper *s, int64_t now, struct buf *json)
{
    json_int(json, "concurrency", s->probing ? 1 : s->window);
    json_int(json, "concurrency_limit", s->limits->concurrency);
    json_int(json, "in_flight", s->in_flight);
    json_seconds(json, "rate_delay", s->limits->rate_delay);
    json_bool(json, "probing", s->probing);
    bool suspended = s->suspended_until > now;
    json_bool(json, "suspended", suspended);
    if (suspended)
        json_seconds(json, "suspended_for", s->suspended_until - now);
}
