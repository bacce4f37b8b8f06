#include "resolve/tlsrpt.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/map.h"
#include "core/mem.h"
#include "tls/level.h"
#include "tls/policy.h"

enum { TICK_SECONDS = 60, REPORT_MAX = 80 * 1024 };

static struct slice domain_key(const void *value)
{
    const struct tlsrpt_domain *d = value;
    return slice_make(d->domain, d->len);
}

/* ---- counters ------------------------------------------------------------------------ */

static void failure_free(struct tlsrpt_failure *f)
{
    free(f->host);
    free(f->address);
    free(f->source);
    free(f->why);
    free(f);
}

static void period_init(struct tlsrpt_period *p)
{
    *p = (struct tlsrpt_period){.number = 0};
    for (int i = 0; i < TLSRPT_POLICIES; i++)
        list_init(&p->policies[i].failures);
}

void tlsrpt_period_clear(struct tlsrpt_period *p)
{
    for (int i = 0; i < TLSRPT_POLICIES; i++) {
        struct list *n;
        while ((n = list_pop(&p->policies[i].failures)))
            failure_free(container_of(n, struct tlsrpt_failure, link));
    }
    period_init(p);
}

static void domain_free(struct tlsrpt *all, struct tlsrpt_domain *d)
{
    tlsrpt_post_cancel(d);
    map_remove(&all->domains, domain_key(d));
    list_remove(&d->link);
    tlsrpt_period_clear(&d->now);
    tlsrpt_period_clear(&d->before);
    buf_free(&d->tlsa);
    buf_free(&d->hosts);
    free(d);
}

/* The domain that was asked about longest ago, of those about which there is nothing to
 * report, gives way; those that there is something to report about go to the end. */
static void make_room(struct tlsrpt *all)
{
    enum { STEPS = 64 };
    for (int i = 0; i < STEPS && all->domains.count >= TLSRPT_DOMAINS_MAX; i++) {
        struct tlsrpt_domain *d = container_of(all->list.next, struct tlsrpt_domain, link);
        if (!d->now.used && !d->before.used) {
            domain_free(all, d);
            continue;
        }
        list_remove(&d->link);
        list_push(&all->list, &d->link);
    }
}

struct tlsrpt_domain *tlsrpt_domain_get(struct tlsrpt *all, struct slice domain)
{
    struct tlsrpt_domain *d = map_get(&all->domains, domain);
    if (d) {
        list_remove(&d->link);
        list_push(&all->list, &d->link);
        return d;
    }
    make_room(all);
    if (all->domains.count >= TLSRPT_DOMAINS_MAX)
        return NULL;
    d = xcalloc(1, sizeof *d + domain.len + 1);
    d->len = domain.len;
    memcpy(d->domain, domain.ptr, domain.len);
    period_init(&d->now);
    period_init(&d->before);
    buf_init(&d->tlsa, TLSRPT_TLSA_MAX);
    buf_init(&d->hosts, TLSRPT_TLSA_MAX);
    list_push(&all->list, &d->link);
    map_put(&all->domains, d);
    return d;
}

static bool same_kind(const struct tlsrpt_failure *a, const struct tlsrpt_failure *b)
{
    return a->result == b->result && strcmp(a->host, b->host) == 0 &&
           strcmp(a->address, b->address) == 0 && strcmp(a->source, b->source) == 0 &&
           strcmp(a->why, b->why) == 0;
}

void tlsrpt_add_failure(struct tlsrpt_counts *c, const struct tlsrpt_failure *f)
{
    list_each(&c->failures, n)
    {
        struct tlsrpt_failure *known = container_of(n, struct tlsrpt_failure, link);
        if (same_kind(known, f)) {
            known->count += f->count;
            return;
        }
    }
    if (c->kinds == TLSRPT_FAILURES_MAX)
        return; /* they are in the sum */
    struct tlsrpt_failure *new = xmalloc(sizeof *new);
    *new = (struct tlsrpt_failure){.count = f->count,
                                   .result = f->result,
                                   .host = xstrdup(f->host),
                                   .address = xstrdup(f->address),
                                   .source = xstrdup(f->source),
                                   .why = xstrdup(f->why)};
    list_push(&c->failures, &new->link);
    c->kinds++;
}

/* ---- periods --------------------------------------------------------------------------- */

static int64_t period_of(const struct tlsrpt *all, int64_t wall)
{
    return wall / CLOCK_SECOND / all->config->smtp_tlsrpt_period;
}

/* Moves to the period of this moment. What was not reported in a whole one is lost. */
static void roll(struct tlsrpt *all, struct tlsrpt_domain *d)
{
    int64_t number = period_of(all, clock_wall());
    if (d->now.number == number)
        return;
    if (d->now.used) {
        if (d->before.used)
            log_warning("TLSRPT: the report for %s could not be sent for a whole period: dropped",
                        d->domain);
        tlsrpt_period_clear(&d->before);
        d->before = d->now;
        for (int i = 0; i < TLSRPT_POLICIES; i++) { /* the lists move with their heads */
            list_init(&d->before.policies[i].failures);
            list_splice(&d->before.policies[i].failures, &d->now.policies[i].failures);
        }
        d->place = 0;
        d->again = 0;
        all->outstanding -= d->tag != 0;
        d->tag = 0; /* an answer that is still to come is about the report that was dropped */
        tlsrpt_post_cancel(d);
        all->changed = true;
    }
    period_init(&d->now);
    d->now.number = number;
}

/* ---- what relay saw --------------------------------------------------------------------- */

static enum tlsrpt_policy policy_of(uint8_t origin)
{
    return origin == TLS_ORIGIN_DANE  ? TLSRPT_TLSA
           : origin == TLS_ORIGIN_STS ? TLSRPT_STS
                                      : TLSRPT_NONE;
}

/* Printable ASCII of a text that a peer may have chosen; in one word, unless it is
 * the last of its line (tlsrpt_state.c). */
static char *plain(struct slice s, bool word)
{
    struct buf b = BUF_INIT(4 * TLSRPT_TEXT_MAX + 8);
    (void)buf_add_escaped(&b, s, TLSRPT_TEXT_MAX);
    for (size_t i = 0; i < b.len && word; i++)
        if (b.data[i] == ' ')
            b.data[i] = '_';
    char *text = slice_dup(buf_slice(&b));
    buf_free(&b);
    return text;
}

static void count(struct tlsrpt *all, struct tlsrpt_domain *d, const struct ipc_tls_session *m)
{
    roll(all, d);
    struct tlsrpt_counts *c = &d->now.policies[policy_of(m->origin)];
    d->now.used = all->changed = true;
    if (m->result == TLS_RESULT_SUCCESS) {
        c->good++;
        return;
    }
    c->failed++;
    struct tlsrpt_failure f = {.count = 1,
                               .result = m->result,
                               .host = plain(m->host, true),
                               .address = plain(m->address, true),
                               .source = plain(m->source, true),
                               .why = plain(m->why, false)};
    tlsrpt_add_failure(c, &f);
    free(f.host);
    free(f.address);
    free(f.source);
    free(f.why);
}

int tlsrpt_count(struct tlsrpt *all, const struct ipc_tls_session *m, struct err *e)
{
    struct tlsrpt_domain *d = map_get(&all->domains, m->domain);
    if (m->result >= TLS_RESULTS || m->origin >= TLS_ORIGINS)
        return err_set(e, "a TLS session with an undeclared result or origin");
    if (d && d->wanted) /* else it has changed its mind */
        count(all, d, m);
    return 0;
}

/* ---- what lookups find -------------------------------------------------------------------- */

/* As a zone file has them (RFC 6698 section 2.3). What finds no room is left out. */
static void keep_tlsa(struct tlsrpt_domain *d, struct slice base, uint16_t port,
                      struct slice records)
{
    struct ipc_cursor c = ipc_list_cursor(records);
    struct ipc_tlsa t;
    while (ipc_tlsa_next(&c, &t)) {
        struct buf line = BUF_INIT(TLSRPT_TLSA_MAX);
        (void)buf_printf(&line, "_%u._tcp.%.*s. IN TLSA %u %u %u ", port, SLICE_ARG(base), t.usage,
                         t.selector, t.matching);
        for (size_t i = 0; i < t.data.len; i++)
            (void)buf_printf(&line, "%02X", (unsigned char)t.data.ptr[i]);
        (void)buf_addc(&line, '\n');
        if (line.len < line.max && d->tlsa.max - d->tlsa.len >= line.len)
            (void)buf_adds(&d->tlsa, buf_slice(&line));
        buf_free(&line);
    }
}

static void keep_hosts(struct tlsrpt_domain *d, const struct tls_facts *f, uint16_t port)
{
    struct ipc_cursor c = ipc_list_cursor(buf_slice(&f->hosts));
    struct ipc_tls_rule r;
    if (f->hosts.len == 0)
        return; /* a report speaks of what was there before they went */
    buf_clear(&d->tlsa);
    buf_clear(&d->hosts);
    while (ipc_tls_rule_next(&c, &r)) {
        if (d->hosts.max - d->hosts.len > r.host.len) {
            (void)buf_adds(&d->hosts, r.host);
            (void)buf_addc(&d->hosts, '\n');
        }
        keep_tlsa(d, r.names.len ? r.names : r.host, port, r.tlsa);
    }
}

void tlsrpt_facts(struct tlsrpt *all, struct slice domain, const struct tls_facts *f, uint16_t port)
{
    char *why;
    struct tlsrpt_domain *d = map_get(&all->domains, domain);
    if (!d || !d->wanted)
        return;
    keep_hosts(d, f, port);
    enum tls_result failure = sts_failure(all->sts, domain, &why);
    if (failure != TLS_RESULT_SUCCESS)
        count(all, d,
              &(struct ipc_tls_session){.origin = TLS_ORIGIN_STS,
                                        .result = (uint8_t)failure,
                                        .why = slice_str(why ? why : "")});
    free(why);
}

bool tlsrpt_record(struct tlsrpt *all, struct slice domain, const struct dns_answer *a)
{
    struct buf text = BUF_INIT(4096);
    struct tlsrpt_record record, found = {.count = 0};
    unsigned records = 0;
    for (size_t i = 0; a->result == DNS_FOUND && i < a->count; i++) {
        buf_clear(&text);
        if (dns_txt(a->records[i].data, &text) == 0 &&
            tlsrpt_record_parse(buf_slice(&text), &record) == 0) {
            found = record;
            records++;
        }
    }
    buf_free(&text);
    bool wanted = records == 1 &&
                  found.count + found.url_count > 0; /* several are none (RFC 8460 section 3) */
    struct tlsrpt_domain *d =
        wanted ? tlsrpt_domain_get(all, domain) : map_get(&all->domains, domain);
    if (!d || (!wanted && a->result == DNS_FAILED))
        return d && d->wanted;
    d->wanted = wanted;
    if (wanted)
        d->record = found;
    return wanted;
}

/* ---- reports ------------------------------------------------------------------------------ */

static void forget_period(struct tlsrpt *all, struct tlsrpt_domain *d)
{
    tlsrpt_period_clear(&d->before);
    all->changed = true;
    if (!d->now.used && !d->wanted)
        domain_free(all, d);
}

static void send_report(struct tlsrpt *all, struct tlsrpt_domain *d)
{
    struct buf message = BUF_INIT(REPORT_MAX);
    const char *mailbox = d->record.mailbox[d->place];
    if (tlsrpt_compose(all, d, mailbox, &message) < 0) {
        log_error("TLSRPT: the report for %s is longer than %d bytes: dropped", d->domain,
                  REPORT_MAX);
        forget_period(all, d);
    } else {
        d->tag = ++all->next_tag;
        all->outstanding++;
        struct ipc_tls_report m = {.tag = d->tag,
                                   .domain = slice_str(d->domain),
                                   .recipient = slice_str(mailbox),
                                   .content = buf_slice(&message)};
        ipc_tls_report_encode(channel_out(all->qmgr), &m);
    }
    buf_free(&message);
}

/* Not all at midnight (RFC 8460 section 4.1): within the first hour of a day. */
static bool is_time(const struct tlsrpt *all, const struct tlsrpt_domain *d)
{
    int64_t period = all->config->smtp_tlsrpt_period, spread = period / 24;
    int64_t since = clock_wall() / CLOCK_SECOND % period;
    return since >= (int64_t)(map_hash(slice_str(d->domain)) % (uint64_t)(spread ? spread : 1));
}

/* Whether the next report of the domain could leave now. */
static bool has_a_way(const struct tlsrpt *all, const struct tlsrpt_domain *d)
{
    if (d->place < d->record.count)
        return all->qmgr && all->outstanding < TLSRPT_OUTSTANDING;
    return all->posts < TLSRPT_POSTS_MAX && clock_mono() >= d->again;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct tlsrpt *all = arg;
    unsigned sent = 0;
    (void)fd;
    (void)what;
    list_each_safe(&all->list, n)
    {
        struct tlsrpt_domain *d = container_of(n, struct tlsrpt_domain, link);
        roll(all, d);
        if (!d->before.used || d->tag || d->post || sent >= TLSRPT_PER_TICK || !is_time(all, d) ||
            !has_a_way(all, d))
            continue;
        sent++;
        if (d->place < d->record.count)
            send_report(all, d);
        else if (d->place - d->record.count < d->record.url_count)
            tlsrpt_post(all, d, d->record.url[d->place - d->record.count]);
        else
            forget_period(all, d);
    }
    tlsrpt_save(all);
}

static void next_place(struct tlsrpt *all, struct tlsrpt_domain *d)
{
    if (++d->place >= d->record.count + d->record.url_count)
        forget_period(all, d);
}

void tlsrpt_posted(struct tlsrpt *all, struct tlsrpt_domain *d, const char *why)
{
    unsigned at = d->place - d->record.count; /* a new TXT record may have fewer */
    const char *url = at < d->record.url_count ? d->record.url[at] : "a URL of before";
    int64_t wait = all->config->smtp_tlsrpt_period / 8;
    if (!why) {
        log_info("TLSRPT: the report for %s was posted to %s", d->domain, url);
        next_place(all, d);
        return;
    }
    if (wait > TLSRPT_AGAIN_SECONDS)
        wait = TLSRPT_AGAIN_SECONDS;
    d->again = clock_mono() + wait * CLOCK_SECOND;
    log_warning("TLSRPT: the report for %s cannot be posted to %s: %s; tried again in %llds",
                d->domain, url, why, (long long)wait);
}

void tlsrpt_taken(struct tlsrpt *all, const struct ipc_tls_reported *m)
{
    list_each(&all->list, n)
    {
        struct tlsrpt_domain *d = container_of(n, struct tlsrpt_domain, link);
        if (m->tag == 0 || d->tag != m->tag)
            continue;
        d->tag = 0;
        all->outstanding--;
        if (!m->taken)
            return; /* again at the next tick */
        log_info("TLSRPT: the report for %s goes to %s", d->domain,
                 d->place < d->record.count ? d->record.mailbox[d->place] : "nobody any more");
        next_place(all, d);
        return;
    }
    /* of an earlier channel: the report was handed over again */
}

void tlsrpt_qmgr(struct tlsrpt *all, struct channel *qmgr)
{
    all->qmgr = qmgr;
    all->outstanding = 0;
    list_each(&all->list, n) container_of(n, struct tlsrpt_domain, link)->tag = 0;
}

void tlsrpt_network(struct tlsrpt *all, struct dns *const *dns, const struct policy *policy)
{
    all->dns = dns;
    all->policy = policy;
}

void tlsrpt_authorities(struct tlsrpt *all, struct slice pem)
{
    https_authorities(all->https, pem);
}

/* ---- life ---------------------------------------------------------------------------------- */

void tlsrpt_init(struct tlsrpt *all)
{
    *all = (struct tlsrpt){.config = NULL};
    map_init(&all->domains, domain_key);
    list_init(&all->list);
}

void tlsrpt_free(struct tlsrpt *all)
{
    while (!list_empty(&all->list))
        domain_free(all, container_of(all->list.next, struct tlsrpt_domain, link));
    map_free(&all->domains);
}

int tlsrpt_open(struct tlsrpt *all, const char *data_directory, struct err *e)
{
    char *directory = xasprintf("%s/resolve", data_directory);
    tlsrpt_init(all);
    int rc = state_open(&all->state, directory, "tlsrpt", e);
    free(directory);
    return rc;
}

int tlsrpt_start(struct tlsrpt *all, struct event_base *base, const struct config *config,
                 struct sts *sts, struct err *e)
{
    int64_t seconds = config->smtp_tlsrpt_period < TICK_SECONDS ? 1 : TICK_SECONDS;
    struct timeval tick = {seconds, 0};
    all->config = config;
    all->sts = sts;
    all->https = https_new(base, e);
    if (!all->https)
        return -1;
    all->tick = event_new(base, -1, EV_PERSIST, on_tick, all);
    if (!all->tick)
        return err_set(e, "no timer");
    tlsrpt_load(all);
    event_add(all->tick, &tick);
    return 0;
}
