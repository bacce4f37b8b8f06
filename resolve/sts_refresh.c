/* When policies are fetched anew, and by whose wish: by nobody's, in time. */
#include "core/clock.h"
#include "resolve/sts_private.h"

int64_t sts_left(const struct sts_domain *d)
{
    return d->id[0] ? d->expires - clock_wall() : 0;
}

bool sts_is_due(const struct sts_domain *d)
{
    if (!d->id[0] || clock_mono() < d->retry)
        return false;
    int64_t age = clock_wall() - d->fetched, half = (d->expires - d->fetched) / 2;
    int64_t day = STS_REFRESH_SECONDS * CLOCK_SECOND;
    /* from the future: the clock was wrong when it was fetched */
    return age < 0 || age >= (half < day ? half : day);
}

bool sts_is_pressing(const struct sts_domain *d)
{
    return sts_left(d) < STS_CHECK_MIN * CLOCK_SECOND && sts_is_due(d);
}

void sts_put_off(struct sts_domain *d)
{
    int64_t wait = sts_left(d) / STS_REFRESH_RETRY, least = STS_CHECK_MIN * CLOCK_SECOND;
    int64_t most = STS_REFRESH_RETRY_MAX * CLOCK_SECOND;
    d->retry = clock_mono() + (wait < least ? least : wait > most ? most : wait);
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
    struct sts *all = arg;
    (void)fd;
    (void)what;
    if (!all->config->smtp_tls_mta_sts || !all->trusting || dns_is_busy(*all->dns))
        return;
    list_each(&all->recent, n)
    {
        struct sts_domain *d = container_of(n, struct sts_domain, recent);
        if (all->refreshes >= STS_REFRESHES_MAX)
            break;
        if (d->under_way || sts_left(d) <= 0 || !sts_is_due(d))
            continue;
        d->background = true;
        all->refreshes++;
        sts_search(d, *all->dns);
    }
}

int sts_refresh_start(struct sts *all, struct event_base *base)
{
    static const struct timeval often = {STS_REFRESH_LOOK, 0};
    all->look = event_new(base, -1, EV_PERSIST, on_look, all);
    return all->look ? event_add(all->look, &often) : -1;
}
