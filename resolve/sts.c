#include "resolve/sts.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <time.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/map.h"
#include "core/mem.h"
#include "resolve/state.h"
#include "resolve/sts_private.h"

static struct slice domain_key(const void *value)
{
    const struct sts_domain *d = value;
    return slice_make(d->domain, d->len);
}

/* ---- domains ------------------------------------------------------------------------ */

static void domain_free(struct sts *all, struct sts_domain *d)
{
    map_remove(&all->domains, domain_key(d));
    list_remove(&d->recent);
    list_remove(&d->busy);
    dns_abandon(&d->questions);
    https_cancel(d->fetch);
    buf_free(&d->mx);
    free(d->failure_why);
    free(d);
}

/* Out of those that nobody waits for. */
static void make_room(struct sts *all)
{
    enum { STEPS = 64 };
    for (int i = 0; i < STEPS && all->domains.count >= STS_DOMAINS_MAX; i++) {
        struct sts_domain *d = container_of(all->recent.prev, struct sts_domain, recent);
        if (list_empty(&d->waiters) && !d->under_way) {
            domain_free(all, d);
            continue;
        }
        list_remove(&d->recent);
        list_push_front(&all->recent, &d->recent);
    }
}

struct sts_domain *sts_domain_get(struct sts *all, struct slice domain)
{
    struct sts_domain *d = map_get(&all->domains, domain);
    if (!d) {
        make_room(all);
        d = xcalloc(1, sizeof *d + domain.len + 1);
        d->all = all;
        d->len = domain.len;
        memcpy(d->domain, domain.ptr, domain.len);
        buf_init(&d->mx, MTA_STS_MX_BYTES);
        list_init(&d->waiters);
        list_init(&d->busy);
        list_init(&d->questions);
        list_init(&d->recent);
        map_put(&all->domains, d);
    }
    list_remove(&d->recent);
    list_push_front(&all->recent, &d->recent);
    return d;
}

static bool has_policy(const struct sts_domain *d)
{
    return sts_left(d) > 0;
}

/* A policy that is over is forgotten, and with it that it was looked at lately: what it
 * was checked for does not hold any longer than itself. */
static void lapse(struct sts_domain *d)
{
    if (!d->id[0] || has_policy(d))
        return;
    log_info("MTA-STS policy of %s: it has expired", d->domain);
    d->id[0] = '\0';
    d->checked_until = d->retry = 0;
}

/* ---- the end of a search --------------------------------------------------------------- */

static void settle(struct sts_domain *d, int64_t seconds)
{
    struct list *n, waiters;
    list_init(&waiters);
    list_splice(&waiters, &d->waiters);
    d->under_way = false;
    if (d->background)
        d->all->refreshes--;
    d->background = false;
    list_remove(&d->busy);
    lapse(d);
    int64_t holds = seconds * CLOCK_SECOND;
    if (has_policy(d) && sts_left(d) < holds)
        holds = sts_left(d);
    d->checked_until = clock_mono() + holds;
    /* d may make room for another domain before this ends */
    while ((n = list_pop(&waiters))) {
        struct sts_waiter *w = container_of(n, struct sts_waiter, link);
        void (*done)(void *arg) = w->done;
        void *arg = w->arg;
        free(w);
        done(arg);
    }
}

static void note_failure(struct sts_domain *d, enum tls_result result, const char *why)
{
    d->failure = (uint8_t)result;
    free(d->failure_why);
    d->failure_why = xstrdup(why);
}

static void warn(const struct sts_domain *d, const char *why)
{
    char date[32] = "";
    struct tm tm;
    time_t until = (time_t)(d->expires / CLOCK_SECOND);
    strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", gmtime_r(&until, &tm));
    if (has_policy(d))
        log_warning("MTA-STS policy of %s: %s; the one that is known stays in use, until %s",
                    d->domain, why, date);
    else
        log_warning("MTA-STS policy of %s: %s; mail goes without one", d->domain, why);
}

static void settle_failed(struct sts_domain *d, enum tls_result result, const char *why)
{
    note_failure(d, result, why);
    warn(d, why);
    d->doubtful = true;
    sts_put_off(d);
    settle(d, STS_RETRY_SECONDS);
}

/* ---- the policy --------------------------------------------------------------------------- */

static void take_policy(struct sts_domain *d, struct slice body)
{
    struct mta_sts_policy p;
    struct err e;
    if (mta_sts_policy_parse(body, &p, &e) < 0) {
        settle_failed(d, TLS_RESULT_POLICY_INVALID, e.text);
        return;
    }
    bool changed = strcmp(d->id, d->wanted_id) != 0 || d->mode != p.mode;
    buf_free(&d->mx);
    d->mx = p.mx;
    d->mode = (uint8_t)p.mode;
    d->fetched = clock_wall();
    /* one that is over at once would be fetched for each message, and still not be used */
    int64_t age = p.max_age < STS_CHECK_MIN ? STS_CHECK_MIN : p.max_age;
    d->expires = d->fetched + age * CLOCK_SECOND;
    d->retry = 0;
    d->doubtful = false;
    memcpy(d->id, d->wanted_id, sizeof d->id);
    if (changed)
        log_info("MTA-STS policy of %s: mode %s, for %us, mx %s", d->domain,
                 mta_sts_mode_name(p.mode), p.max_age,
                 p.mx.len ? log_esc(slice_trim(buf_slice(&p.mx))) : "none");
    sts_changed(d->all);
    settle(d, d->holds);
}

static void on_document(struct slice body, const char *why, enum https_end end, void *arg)
{
    static const enum tls_result results[] = {[HTTPS_FAILED] = TLS_RESULT_POLICY_FETCH,
                                              [HTTPS_UNTRUSTED] = TLS_RESULT_POLICY_WEBPKI,
                                              [HTTPS_UNFIT] = TLS_RESULT_POLICY_INVALID};
    struct sts_domain *d = arg;
    d->fetch = NULL;
    d->all->fetches--;
    if (end == HTTPS_FINE)
        take_policy(d, body);
    else
        settle_failed(d, results[end], why);
}

static void fetch(struct sts_domain *d)
{
    struct sts *all = d->all;
    char host[DNS_NAME_MAX + 1];
    snprintf(host, sizeof host, "mta-sts.%.*s", DNS_NAME_MAX - 8, d->domain);
    struct https_request r = {.host = host,
                              .path = "/.well-known/mta-sts.txt",
                              .addresses = d->addresses,
                              .port = (uint16_t)all->config->smtp_tls_mta_sts_port,
                              .seconds = (long)all->config->smtp_tls_mta_sts_timeout,
                              .limit = MTA_STS_POLICY_MAX};
    d->fetch = https_get(all->https, &r, on_document, d);
    if (d->fetch)
        all->fetches++;
    else
        settle_failed(d, TLS_RESULT_POLICY_FETCH, "it cannot be asked for without smtp_tls_CAfile");
}

/* ---- the policy server's addresses ---------------------------------------------------------- */

static void add_address(struct sts_domain *d, const struct dns_record *record)
{
    char text[INET6_ADDRSTRLEN];
    struct slice raw = slice_make(record->address, record->address_len);
    size_t at = strlen(d->addresses);
    if (policy_check(d->all->policy, raw) != ADDRESS_FINE || d->address_count == STS_ADDRESSES_MAX)
        return;
    inet_ntop(raw.len == 4 ? AF_INET : AF_INET6, raw.ptr, text, sizeof text);
    snprintf(d->addresses + at, sizeof d->addresses - at, at ? ",%s" : "%s", text);
    d->address_count++;
}

static void on_address(const struct dns_answer *a, unsigned tag, void *arg)
{
    struct sts_domain *d = arg;
    (void)tag;
    for (size_t i = 0; a->result == DNS_FOUND && i < a->count; i++)
        add_address(d, &a->records[i]);
    if (!list_empty(&d->questions))
        return;
    if (d->address_count == 0)
        settle_failed(d, TLS_RESULT_POLICY_FETCH,
                      "its policy server has no address that may be used");
    else if (d->all->fetches >= STS_FETCHES_MAX)
        settle_failed(d, TLS_RESULT_POLICY_FETCH, "too many policies are fetched at a time");
    else
        fetch(d);
}

static void ask_server(struct sts_domain *d)
{
    const char *protocols = d->all->config->inet_protocols;
    char host[DNS_NAME_MAX + 1];
    d->addresses[0] = '\0';
    d->address_count = 0;
    if (snprintf(host, sizeof host, "mta-sts.%s", d->domain) > DNS_NAME_MAX) {
        settle_failed(d, TLS_RESULT_POLICY_FETCH, "its name is too long");
        return;
    }
    if (strcmp(protocols, "ipv6") != 0)
        dns_ask(d->dns, host, DNS_TYPE_A, &d->questions, 0, on_address, d);
    if (strcmp(protocols, "ipv4") != 0)
        dns_ask(d->dns, host, DNS_TYPE_AAAA, &d->questions, 0, on_address, d);
}

/* ---- the TXT record -------------------------------------------------------------------------- */

/* The id of the one record that there may be (RFC 8461 section 3.1). */
static bool find_id(const struct dns_answer *a, char id[MTA_STS_ID_MAX + 1])
{
    struct buf text = BUF_INIT(4096);
    unsigned records = 0, good = 0;
    for (size_t i = 0; a->result == DNS_FOUND && i < a->count; i++) {
        buf_clear(&text);
        if (dns_txt(a->records[i].data, &text) < 0 ||
            !slice_starts(buf_slice(&text), SLICE("v=STSv1")))
            continue;
        records++;
        good += mta_sts_record_parse(buf_slice(&text), id) == 0;
    }
    buf_free(&text);
    return records == 1 && good == 1;
}

static int64_t clamp(int64_t seconds)
{
    return seconds < STS_CHECK_MIN   ? STS_CHECK_MIN
           : seconds > STS_CHECK_MAX ? STS_CHECK_MAX
                                     : seconds;
}

static void on_record(const struct dns_answer *a, unsigned tag, void *arg)
{
    struct sts_domain *d = arg;
    (void)tag;
    bool due = has_policy(d) && sts_is_due(d), failed = a->result == DNS_FAILED;
    d->holds = failed ? STS_CHECK_MIN : clamp((int64_t)a->ttl);
    if (failed && due) /* as if it said what it said before: the policy must not end by that */
        memcpy(d->wanted_id, d->id, sizeof d->id);
    else if (!find_id(a, d->wanted_id)) {
        d->doubtful = failed;
        if (due)
            sts_put_off(d);
        settle(d, d->holds);
        return;
    }
    bool same = has_policy(d) && strcmp(d->id, d->wanted_id) == 0;
    if (same && !due)
        settle(d, d->holds);
    else
        ask_server(d);
}

/* ---- questions
 * ----------------------------------------------------------------------------------- */

void sts_search(struct sts_domain *d, struct dns *dns)
{
    char name[DNS_NAME_MAX + 1];
    struct sts *all = d->all;
    if (snprintf(name, sizeof name, "_mta-sts.%s", d->domain) > DNS_NAME_MAX) {
        settle(d, STS_CHECK_MAX);
        return;
    }
    d->under_way = true;
    d->dns = dns;
    d->deadline = clock_mono() + all->config->smtp_tls_mta_sts_timeout * CLOCK_SECOND;
    list_push(&all->busy, &d->busy);
    sts_tick(all);
    dns_ask(dns, name, DNS_TYPE_TXT, &d->questions, 0, on_record, d);
}

void sts_give_up(struct sts_domain *d)
{
    dns_abandon(&d->questions);
    if (d->fetch)
        d->all->fetches--;
    https_cancel(d->fetch);
    d->fetch = NULL;
    settle_failed(d, TLS_RESULT_POLICY_FETCH, "no answer in time");
}

struct sts_waiter *sts_find(struct sts *all, struct dns *dns, struct slice domain,
                            void (*done)(void *arg), void *arg)
{
    struct sts_domain *d = sts_domain_get(all, domain);
    if (!d->under_way)
        lapse(d);
    if (clock_mono() < d->checked_until && !sts_is_pressing(d))
        return NULL; /* it may be fetched anew meanwhile: mail need not wait for that */
    if (!d->under_way)
        sts_search(d, dns);
    if (!d->under_way)
        return NULL;
    struct sts_waiter *w = xmalloc(sizeof *w);
    *w = (struct sts_waiter){.done = done, .arg = arg};
    list_push(&d->waiters, &w->link);
    return w;
}

void sts_forget(struct sts_waiter *w)
{
    if (!w)
        return;
    list_remove(&w->link);
    free(w);
}

void sts_result(struct sts *all, struct slice domain, struct tls_facts *out)
{
    const struct sts_domain *d = map_get(&all->domains, domain);
    if (!d)
        return;
    if (!has_policy(d)) {
        if (d->under_way) /* whoever asks could not wait for it any longer */
            out->sts_holds = STS_CHECK_MIN * CLOCK_SECOND;
        else if (d->doubtful)
            out->sts_holds = d->checked_until - clock_mono();
        return;
    }
    out->sts = true;
    out->sts_holds = sts_left(d);
    out->sts_max_age = (uint32_t)((d->expires - d->fetched) / CLOCK_SECOND);
    out->sts_mode = (enum mta_sts_mode)d->mode;
    (void)buf_adds(&out->sts_mx, buf_slice(&d->mx));
}

enum tls_result sts_failure(struct sts *all, struct slice domain, char **why)
{
    struct sts_domain *d = map_get(&all->domains, domain);
    *why = NULL;
    if (!d || !d->failure)
        return TLS_RESULT_SUCCESS;
    enum tls_result result = (enum tls_result)d->failure;
    d->failure = TLS_RESULT_SUCCESS;
    *why = d->failure_why;
    d->failure_why = NULL;
    return result;
}

void sts_configure(struct sts *all, const struct config *config)
{
    all->config = config;
}

void sts_authorities(struct sts *all, struct slice pem)
{
    https_authorities(all->https, pem);
    all->trusting = pem.len > 0;
}

void sts_init(struct sts *all)
{
    map_init(&all->domains, domain_key);
    list_init(&all->recent);
    list_init(&all->busy);
}

void sts_free_domains(struct sts *all)
{
    while (!list_empty(&all->recent))
        domain_free(all, container_of(all->recent.next, struct sts_domain, recent));
    map_free(&all->domains);
}
