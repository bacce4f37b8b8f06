/*
 * The counters of TLSRPT on disk, as lines:
 *   domain NAME MAILBOX|URL...
 *   tlsa RECORD
 *   host NAME
 *   period now|before NUMBER
 *   policy TYPE GOOD FAILED
 *   failure RESULT COUNT HOST ADDRESS SOURCE WHY
 * each belongs to the last one of the line before it.
 */
#include "core/log.h"
#include "core/mem.h"
#include "resolve/tlsrpt.h"

enum {
    WORD_MAX = 4 * TLSRPT_TEXT_MAX + 3,
    DOMAIN_LINES_MAX = 640 * 1024
}; /* of one domain, at most: see the limits of tlsrpt.h */

static void write_period(const struct tlsrpt_period *p, const char *which, struct buf *out)
{
    if (!p->used)
        return;
    (void)buf_printf(out, "period %s %lld\n", which, (long long)p->number);
    for (int i = 0; i < TLSRPT_POLICIES; i++) {
        const struct tlsrpt_counts *c = &p->policies[i];
        if (c->good + c->failed == 0)
            continue;
        (void)buf_printf(out, "policy %d %llu %llu\n", i, (unsigned long long)c->good,
                         (unsigned long long)c->failed);
        list_each(&c->failures, n)
        {
            const struct tlsrpt_failure *f = container_of(n, struct tlsrpt_failure, link);
            (void)buf_printf(out, "failure %u %llu %s %s %s %s\n", f->result,
                             (unsigned long long)f->count, f->host, f->address, f->source, f->why);
        }
    }
}

static void write_lines(const struct buf *b, const char *word, struct buf *out)
{
    struct slice rest = buf_slice(b);
    while (rest.len) {
        struct slice line = slice_cut(&rest, '\n');
        (void)buf_printf(out, "%s %.*s\n", word, SLICE_ARG(line));
    }
}

void tlsrpt_write(const struct tlsrpt *all, struct buf *out)
{
    list_each(&all->list, n)
    {
        const struct tlsrpt_domain *d = container_of(n, struct tlsrpt_domain, link);
        if ((!d->now.used && !d->before.used) || out->max - out->len < DOMAIN_LINES_MAX)
            continue;
        (void)buf_printf(out, "domain %s", d->domain);
        for (unsigned i = 0; i < d->record.count; i++)
            (void)buf_printf(out, " %s", d->record.mailbox[i]);
        for (unsigned i = 0; i < d->record.url_count; i++)
            (void)buf_printf(out, " %s", d->record.url[i]);
        (void)buf_addc(out, '\n');
        write_lines(&d->tlsa, "tlsa", out);
        write_lines(&d->hosts, "host", out);
        write_period(&d->before, "before", out);
        write_period(&d->now, "now", out);
    }
}

/* ---- reading ------------------------------------------------------------------------------ */

struct reading {
    struct tlsrpt *all;
    struct tlsrpt_domain *domain;
    struct tlsrpt_period *period;
    struct tlsrpt_counts *counts;
};

static void read_domain(struct reading *r, struct slice line)
{
    struct domain name;
    struct buf record = BUF_INIT(8192);
    r->domain = NULL;
    if (domain_parse(slice_cut(&line, ' '), &name) < 0)
        return;
    (void)buf_addstr(&record, "v=TLSRPTv1;rua=");
    while (line.len) {
        struct slice place = slice_cut(&line, ' ');
        if (slice_casestarts(place, SLICE("https:"))) {
            (void)buf_printf(&record, "%.*s,", SLICE_ARG(place));
            continue;
        }
        (void)buf_addstr(&record, "mailto:");
        for (size_t i = 0; i < place.len; i++)
            (void)buf_printf(&record, "%%%02x", (unsigned char)place.ptr[i]);
        (void)buf_addc(&record, ',');
    }
    struct tlsrpt_record found;
    if (tlsrpt_record_parse(buf_slice(&record), &found) == 0 && found.count + found.url_count > 0)
        r->domain = tlsrpt_domain_get(r->all, domain_slice(&name));
    if (r->domain) {
        buf_clear(&r->domain->tlsa);
        buf_clear(&r->domain->hosts);
        r->domain->record = found;
        r->domain->wanted = true;
    }
    buf_free(&record);
}

static void read_line(struct buf *b, struct slice line)
{
    for (size_t i = 0; i < line.len; i++)
        if (line.ptr[i] < ' ' || line.ptr[i] > '~')
            return;
    if (line.len == 0 || b->max - b->len <= line.len)
        return;
    (void)buf_adds(b, line);
    (void)buf_addc(b, '\n');
}

static void read_period(struct reading *r, struct slice line)
{
    uint64_t number;
    bool now = slice_eq(slice_cut(&line, ' '), SLICE("now"));
    r->period = NULL;
    if (!r->domain || slice_u64(line, &number) < 0 || number > INT64_MAX)
        return;
    r->period = now ? &r->domain->now : &r->domain->before;
    r->period->number = (int64_t)number;
    r->period->used = true;
}

static void read_policy(struct reading *r, struct slice line)
{
    uint64_t type, good, failed;
    r->counts = NULL;
    if (!r->period || slice_u64(slice_cut(&line, ' '), &type) < 0 || type >= TLSRPT_POLICIES ||
        slice_u64(slice_cut(&line, ' '), &good) < 0 || slice_u64(line, &failed) < 0)
        return;
    r->counts = &r->period->policies[type];
    r->counts->good = good;
    r->counts->failed = failed;
}

static void read_failure(struct reading *r, struct slice line)
{
    uint64_t result, count;
    if (!r->counts || slice_u64(slice_cut(&line, ' '), &result) < 0 || result >= TLS_RESULTS ||
        slice_u64(slice_cut(&line, ' '), &count) < 0)
        return;
    struct tlsrpt_failure f = {.result = (uint8_t)result, .count = count};
    f.host = slice_dup(slice_first(slice_cut(&line, ' '), WORD_MAX));
    f.address = slice_dup(slice_first(slice_cut(&line, ' '), WORD_MAX));
    f.source = slice_dup(slice_first(slice_cut(&line, ' '), WORD_MAX));
    f.why = slice_dup(slice_first(line, WORD_MAX));
    tlsrpt_add_failure(r->counts, &f);
    free(f.host);
    free(f.address);
    free(f.source);
    free(f.why);
}

void tlsrpt_read(struct tlsrpt *all, struct slice text)
{
    struct reading r = {.all = all};
    while (text.len) {
        struct slice line = slice_cut(&text, '\n'), word = slice_cut(&line, ' ');
        if (slice_eq(word, SLICE("domain")))
            read_domain(&r, line);
        if (slice_eq(word, SLICE("domain")) || slice_eq(word, SLICE("period")))
            r.period = NULL;
        if (slice_eq(word, SLICE("period")))
            read_period(&r, line);
        if (r.domain && slice_eq(word, SLICE("tlsa")))
            read_line(&r.domain->tlsa, line);
        if (r.domain && slice_eq(word, SLICE("host")))
            read_line(&r.domain->hosts, line);
        if (!slice_eq(word, SLICE("failure")))
            r.counts = NULL;
        if (slice_eq(word, SLICE("policy")))
            read_policy(&r, line);
        else if (slice_eq(word, SLICE("failure")))
            read_failure(&r, line);
    }
}

void tlsrpt_load(struct tlsrpt *all)
{
    struct buf text = BUF_INIT(STATE_MAX);
    state_load(&all->state, &text);
    tlsrpt_read(all, buf_slice(&text));
    buf_free(&text);
}

void tlsrpt_save(struct tlsrpt *all)
{
    struct buf text = BUF_INIT(STATE_MAX);
    struct err e;
    if (!all->changed)
        return;
    all->changed = false;
    tlsrpt_write(all, &text);
    if (state_save(&all->state, buf_slice(&text), &e) < 0)
        log_error("counters of TLSRPT: %s; they are lost at the next restart", e.text);
    buf_free(&text);
}
