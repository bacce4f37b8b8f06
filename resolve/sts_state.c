/* What survives a restart of MTA-STS, and its clock. One line for each policy:
 * domain id mode fetched expires mx... */
#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "resolve/sts_private.h"
#include "tls/policy.h"

enum { LINE_MAX_BYTES = MTA_STS_MX_BYTES + 512, TICK_SECONDS = 1 };

void sts_write(const struct sts *all, struct buf *out)
{
    int64_t now = clock_wall();
    list_each(&all->recent, n)
    {
        const struct sts_domain *d = container_of(n, struct sts_domain, recent);
        if (!d->id[0] || d->expires <= now || out->max - out->len < LINE_MAX_BYTES)
            continue;
        (void)buf_printf(out, "%s %s %s %lld %lld %.*s\n", d->domain, d->id,
                         mta_sts_mode_name((enum mta_sts_mode)d->mode),
                         (long long)(d->fetched / CLOCK_SECOND),
                         (long long)(d->expires / CLOCK_SECOND), SLICE_ARG(buf_slice(&d->mx)));
    }
}

static int parse_mode(struct slice word)
{
    for (int i = MTA_STS_NONE; i <= MTA_STS_ENFORCE; i++)
        if (slice_eq(word, slice_str(mta_sts_mode_name((enum mta_sts_mode)i))))
            return i;
    return -1;
}

/* Names that mta_sts_policy_parse would have taken. */
static bool good_patterns(struct slice mx)
{
    unsigned count = 0;
    if (mx.len > MTA_STS_MX_BYTES)
        return false;
    while (mx.len) {
        struct slice name = slice_cut(&mx, ' ');
        if (!tls_is_host_name(slice_from(name, slice_starts(name, SLICE("*.")) ? 2 : 0)) ||
            ++count > MTA_STS_MX_MAX)
            return false;
    }
    return true;
}

static bool good_id(struct slice id)
{
    char text[MTA_STS_ID_MAX + 1];
    struct buf record = BUF_INIT(64);
    (void)buf_printf(&record, "v=STSv1;id=%.*s", SLICE_ARG(slice_first(id, MTA_STS_ID_MAX + 1)));
    bool good = mta_sts_record_parse(buf_slice(&record), text) == 0 && strlen(text) == id.len;
    buf_free(&record);
    return good;
}

static void read_line(struct sts *all, struct slice line)
{
    struct slice name = slice_cut(&line, ' '), id = slice_cut(&line, ' ');
    int mode = parse_mode(slice_cut(&line, ' '));
    uint64_t fetched, expires;
    int64_t now = clock_wall();
    struct domain domain;
    if (slice_u64(slice_cut(&line, ' '), &fetched) < 0 ||
        slice_u64(slice_cut(&line, ' '), &expires) < 0 || mode < 0 ||
        domain_parse(name, &domain) < 0 || !good_id(id) || !good_patterns(line))
        return;
    /* nothing that was written is from the future, or holds longer than a year */
    if (fetched > (uint64_t)(now / CLOCK_SECOND) || expires > fetched + MTA_STS_AGE_MAX ||
        (int64_t)expires * CLOCK_SECOND <= now || all->domains.count >= STS_DOMAINS_MAX)
        return;
    struct sts_domain *d = sts_domain_get(all, domain_slice(&domain));
    d->mode = (uint8_t)mode;
    d->fetched = (int64_t)fetched * CLOCK_SECOND;
    d->expires = (int64_t)expires * CLOCK_SECOND;
    memcpy(d->id, id.ptr, id.len);
    d->id[id.len] = '\0';
    buf_clear(&d->mx);
    (void)buf_adds(&d->mx, line);
}

void sts_read(struct sts *all, struct slice text)
{
    while (text.len)
        read_line(all, slice_cut(&text, '\n'));
}

/* ---- saving ---------------------------------------------------------------------- */

void sts_save(struct sts *all)
{
    struct buf text = BUF_INIT(STATE_MAX);
    struct err e;
    if (!all->changed)
        return;
    all->changed = false;
    sts_write(all, &text);
    if (state_save(&all->state, buf_slice(&text), &e) < 0)
        log_error("MTA-STS policies: %s; they are lost at the next restart", e.text);
    buf_free(&text);
}

static void on_save(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    sts_save(arg);
}

void sts_changed(struct sts *all)
{
    static const struct timeval soon = {STS_SAVE_SECONDS, 0};
    all->changed = true;
    if (!event_pending(all->save, EV_TIMEOUT, NULL))
        event_add(all->save, &soon);
}

/* ---- deadlines ---------------------------------------------------------------------- */

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct sts *all = arg;
    int64_t now = clock_mono();
    (void)fd;
    (void)what;
    while (!list_empty(&all->busy)) {
        struct sts_domain *d = container_of(all->busy.next, struct sts_domain, busy);
        if (now < d->deadline)
            break;
        sts_give_up(d);
    }
    if (!list_empty(&all->busy))
        sts_tick(all);
}

void sts_tick(struct sts *all)
{
    static const struct timeval tick = {TICK_SECONDS, 0};
    if (!event_pending(all->tick, EV_TIMEOUT, NULL))
        event_add(all->tick, &tick);
}

/* ---- life ------------------------------------------------------------------------------ */

struct sts *sts_open(const char *data_directory, struct err *e)
{
    struct sts *all = xcalloc(1, sizeof *all);
    char *directory = xasprintf("%s/resolve", data_directory);
    sts_init(all);
    int rc = https_prepare(e);
    if (rc == 0)
        rc = state_open(&all->state, directory, "mta-sts", e);
    free(directory);
    if (rc == 0)
        return all;
    free(all);
    return NULL;
}

int sts_start(struct sts *all, struct event_base *base, const struct config *config,
              const struct policy *policy, struct dns *const *dns, struct err *e)
{
    struct buf text = BUF_INIT(STATE_MAX);
    all->config = config;
    all->policy = policy;
    all->dns = dns;
    all->tick = evtimer_new(base, on_tick, all);
    all->save = evtimer_new(base, on_save, all);
    all->https = https_new(base, e);
    if (!all->https)
        return -1;
    if (!all->tick || !all->save || sts_refresh_start(all, base) < 0)
        return err_set(e, "no timer");
    state_load(&all->state, &text);
    sts_read(all, buf_slice(&text));
    buf_free(&text);
    return 0;
}
