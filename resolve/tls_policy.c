#include "resolve/tls_policy.h"

#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"

static const int64_t WARNING_INTERVAL = 60 * CLOCK_SECOND;
enum {
    KEY_MAX = DNS_NAME_MAX + 16, /* "[name]:65535" */
    RULE_OVERHEAD = 64,          /* numbers and lengths of an encoded rule */
    RESERVE = 1024               /* for DESTINATIONS_MAX last rules */
};

/* ---- configuration and tables ------------------------------------------------- */

static struct table *take_table(struct table **old, size_t count, struct slice spec)
{
    for (size_t i = 0; i < count; i++)
        if (old[i] && slice_eq(slice_str(table_spec(old[i])), spec)) {
            struct table *found = old[i];
            old[i] = NULL;
            return found;
        }
    return NULL;
}

void tls_policies_configure(struct tls_policies *p, const struct config *c)
{
    struct table **old = p->tables;
    size_t old_count = p->table_count, n = 0;
    struct slice list = slice_str(c->smtp_tls_policy_maps), spec;
    while (table_list_next(&list, &spec))
        n++;
    p->config = c;
    p->tables = n ? xcalloc(n, sizeof(struct table *)) : NULL;
    p->table_count = n;
    list = slice_str(c->smtp_tls_policy_maps);
    for (unsigned i = 0; table_list_next(&list, &spec); i++) {
        p->tables[i] = take_table(old, old_count, spec);
        if (!p->tables[i] && slice_starts(spec, SLICE("inline:")))
            tls_policies_table(p, i, spec, -1);
    }
    for (size_t i = 0; i < old_count; i++)
        table_close(old[i]);
    free(old);
}

void tls_policies_table(struct tls_policies *p, unsigned position, struct slice spec, int fd)
{
    struct err e;
    if (position >= p->table_count) {
        if (fd >= 0)
            close(fd);
        return; /* of a configuration that is not in use any more */
    }
    struct table *t = table_open_fd(spec, fd, &e);
    if (!t) {
        log_error("smtp_tls_policy_maps: %s; %s", e.text,
                  p->tables[position] ? "the old version stays in use"
                                      : "mail waits until it is corrected");
        return;
    }
    table_close(p->tables[position]);
    p->tables[position] = t;
}

bool tls_policies_complete(const struct tls_policies *p)
{
    for (size_t i = 0; i < p->table_count; i++)
        if (!p->tables[i])
            return false;
    return true;
}

/* ---- searching ------------------------------------------------------------------ */

struct search {
    struct tls_policies *policies;
    struct buf value; /* of the table, which `policy` borrows from */
    struct err error;
    struct tls_policy policy;
    enum tls_origin origin;
    bool failed; /* `error` says why nobody knows what holds */
};

static enum table_result search_key(struct search *s, struct slice key, bool patterns)
{
    for (size_t i = 0; i < s->policies->table_count; i++) {
        struct table *t = s->policies->tables[i];
        if (!t) {
            err_set(&s->error, "a table has not been read");
            return TABLE_ERROR;
        }
        if (table_is_pattern(t) && !patterns)
            continue;
        enum table_result found = table_lookup(t, key, &s->value, &s->error);
        if (found != TABLE_NOT_FOUND)
            return found;
    }
    return TABLE_NOT_FOUND;
}

static enum table_result search_all(struct search *s, const struct destination *d)
{
    struct buf key = BUF_INIT(KEY_MAX);
    destination_print(d, 0, &key); /* with its port, whichever that is */
    struct slice whole = buf_slice(&key), name = domain_slice(&d->name);
    struct slice plain = slice_first(whole, slice_rchr(whole, ':'));
    bool usual = d->port == (d->lmtp ? LMTP_PORT : (uint16_t)s->policies->config->smtp_tcp_port);
    /* whoever wrote no port writes none here */
    enum table_result found = search_key(s, usual ? plain : whole, true);
    if (found == TABLE_NOT_FOUND)
        found = search_key(s, usual ? whole : plain, false);
    if (found == TABLE_NOT_FOUND && d->kind == DESTINATION_HOST)
        found = search_key(s, name, false);
    size_t at = d->kind == DESTINATION_ADDRESS ? name.len : slice_chr(name, '.');
    while (found == TABLE_NOT_FOUND && at < name.len) {
        struct slice parent = slice_from(name, at);
        found = search_key(s, parent, false);
        at += 1 + slice_chr(slice_from(parent, 1), '.');
    }
    buf_free(&key);
    return found;
}

static void complain(struct search *s)
{
    int64_t now = clock_mono();
    s->failed = true;
    if (s->policies->warned && now - s->policies->warned < WARNING_INTERVAL)
        return;
    s->policies->warned = now;
    log_error("smtp_tls_policy_maps: %s; mail waits until it is corrected", s->error.text);
}

/* What holds for d; free s->value afterwards. */
static void find(struct tls_policies *p, const struct destination *d, struct search *s)
{
    *s = (struct search){.policies = p, .value = BUF_INIT(TABLE_VALUE_MAX)};
    s->policy.level = TLS_LEVEL_NONE;
    if (d->kind == DESTINATION_UNIX)
        return;
    int level = tls_level_parse(slice_str(d->lmtp ? p->config->lmtp_tls_security_level
                                                  : p->config->smtp_tls_security_level));
    s->policy.level = (enum tls_level)(level < 0 ? TLS_LEVEL_MAY : level);
    if (p->table_count == 0)
        return;
    switch (search_all(s, d)) {
    case TABLE_FOUND:
        s->origin = TLS_ORIGIN_TABLE;
        if (tls_policy_parse(slice_trim(buf_slice(&s->value)), &s->policy, &s->error) < 0)
            complain(s);
        break;
    case TABLE_ERROR:
        complain(s);
        break;
    case TABLE_NOT_FOUND:
        break;
    }
}

/* Whether what the domain publishes is asked for. What an entry of the table says
 * is the operator's last word about this destination. */
static bool uses_sts(const struct search *s, const struct destination *d)
{
    return s->policies->config->smtp_tls_mta_sts && d->kind == DESTINATION_MX &&
           s->origin == TLS_ORIGIN_CONFIG &&
           (s->policy.level == TLS_LEVEL_MAY || s->policy.level == TLS_LEVEL_ENCRYPT ||
            s->policy.level == TLS_LEVEL_DANE);
}

static bool uses_dane(const struct search *s, const struct destination *d)
{
    return (s->policy.level == TLS_LEVEL_DANE || s->policy.level == TLS_LEVEL_DANE_ONLY) &&
           (d->kind == DESTINATION_MX || d->kind == DESTINATION_HOST);
}

uint8_t tls_policies_wants(struct tls_policies *p, const struct destination *d)
{
    struct search s;
    unsigned wanted = 0;
    find(p, d, &s);
    if (!s.failed && uses_dane(&s, d))
        wanted |= TLS_WANT_DANE;
    if (!s.failed && uses_sts(&s, d))
        wanted |= TLS_WANT_STS;
    if (p->config->smtp_tlsrpt_enable && d->kind == DESTINATION_MX && !d->lmtp &&
        s.policy.level != TLS_LEVEL_NONE)
        wanted |= TLS_WANT_REPORT;
    buf_free(&s.value);
    return (uint8_t)wanted;
}

/* ---- rules ------------------------------------------------------------------------ */

struct building {
    struct search s;
    const struct destination *d;
    const struct tls_facts *facts;
    struct buf names, servername;
    struct buf *out;
    bool each, full; /* a rule for each host; not all rules have found room */
};

/* Whether the rule was added. */
static bool add(struct building *b, const struct ipc_tls_rule *r)
{
    size_t need = RULE_OVERHEAD + r->host.len + r->names.len + r->protocols.len + r->ciphers.len +
                  r->servername.len + r->why.len + r->tlsa.len;
    if (b->out->len + need > TLS_RULES_BYTES - RESERVE) {
        b->full = true;
        return false;
    }
    ipc_tls_rule_add(b->out, r);
    return true;
}

static void expand_names(struct building *b, struct slice list)
{
    struct slice name, nexthop = domain_slice(&b->d->name);
    while (tls_match_next(&list, &name)) {
        bool dot = slice_eq(name, SLICE("dot-nexthop"));
        bool next = dot || slice_eq(name, SLICE("nexthop"));
        if (next && nexthop.len == 0)
            continue; /* an address has no name */
        (void)buf_printf(&b->names, "%s%s%.*s", b->names.len ? ":" : "", dot ? "." : "",
                         SLICE_ARG(next ? nexthop : name));
    }
}

static void set_names(struct building *b)
{
    const struct config *c = b->s.policies->config;
    struct slice server = b->s.policy.servername;
    if (b->s.policy.match.len)
        expand_names(b, b->s.policy.match);
    else if (b->s.policy.level == TLS_LEVEL_VERIFY)
        expand_names(b, slice_str(c->smtp_tls_verify_cert_match));
    else if (b->s.policy.level == TLS_LEVEL_SECURE)
        expand_names(b, slice_str(c->smtp_tls_secure_cert_match));
    if (server.len == 0)
        server = slice_str(c->smtp_tls_servername);
    if (slice_eq(server, SLICE("nexthop")))
        server = domain_slice(&b->d->name);
    (void)buf_adds(&b->servername, server);
}

static struct ipc_tls_rule basic(const struct building *b)
{
    bool named = b->d->kind != DESTINATION_MX;
    bool authentic = named || (b->facts && b->facts->mx_secure);
    return (struct ipc_tls_rule){.level = (uint8_t)b->s.policy.level,
                                 .floor = (uint8_t)b->s.policy.level,
                                 .origin = (uint8_t)b->s.origin,
                                 .flags = authentic ? TLS_RULE_AUTHENTIC : 0,
                                 .names = buf_slice(&b->names),
                                 .protocols = b->s.policy.protocols,
                                 .ciphers = b->s.policy.ciphers,
                                 .servername = buf_slice(&b->servername)};
}

static void forbid(struct ipc_tls_rule *r, enum tls_result result, struct slice why)
{
    r->level = TLS_LEVEL_FORBIDDEN;
    r->result = (uint8_t)result;
    r->why = why;
}

static const char unusable[] = "none of its TLSA records can be used";

/* TLSA records that cannot be used ask for TLS and for no certificate (RFC 7672 section
 * 2.2). A policy that is enforced asks for more, and nothing that DANE says stands
 * against it: then it decides about this host. */
static bool leaves_to_sts(const struct building *b, uint8_t state, bool sts)
{
    return state == DANE_UNUSABLE && sts && b->facts->sts_mode == MTA_STS_ENFORCE &&
           b->s.policy.level != TLS_LEVEL_DANE_ONLY;
}

/* Hosts for which DANE says something. */
static void add_dane(struct building *b, bool sts)
{
    struct ipc_cursor c = ipc_list_cursor(buf_slice(&b->facts->hosts));
    struct ipc_tls_rule host;
    struct buf names = BUF_INIT(2 * DNS_NAME_MAX + 16);
    while (ipc_tls_rule_next(&c, &host)) {
        struct ipc_tls_rule r = basic(b);
        bool alias = host.names.len > 0; /* the records are those of the name where it ends */
        if (leaves_to_sts(b, host.level, sts))
            continue;
        buf_clear(&names);
        (void)buf_printf(&names, "hostname:%s%s%.*s", b->d->name.text, alias ? ":" : "",
                         SLICE_ARG(host.names));
        r.host = host.host;
        r.servername = alias ? host.names : SLICE("hostname"); /* section 8.1 */
        r.origin = TLS_ORIGIN_DANE;
        r.flags = TLS_RULE_AUTHENTIC;
        r.level = TLS_LEVEL_DANE;
        r.names = buf_slice(&names); /* RFC 7672 section 3.2.2 */
        r.tlsa = host.tlsa;
        if (host.level == DANE_FAILED)
            forbid(&r, TLS_RESULT_DNSSEC, SLICE("the lookup of its TLSA records failed"));
        else if (host.level == DANE_UNUSABLE && b->s.policy.level == TLS_LEVEL_DANE_ONLY)
            forbid(&r, TLS_RESULT_TLSA, slice_str(unusable));
        else if (host.level == DANE_UNUSABLE) {
            r.level = TLS_LEVEL_ENCRYPT;
            r.result = TLS_RESULT_TLSA;
            r.why = slice_str(unusable);
        }
        (void)add(b, &r);
    }
    buf_free(&names);
}

static bool has_rule(struct slice rules, struct slice host)
{
    struct ipc_cursor c = ipc_list_cursor(rules);
    struct ipc_tls_rule r;
    while (ipc_tls_rule_next(&c, &r))
        if (slice_caseeq(r.host, host))
            return true;
    return false;
}

/* RFC 8461 section 4.1: hosts that the policy does not name are not used; in
 * testing mode they are, and reported. Records of DANE that can be used go before
 * (section 2). */
static void add_sts(struct building *b, struct slice targets)
{
    struct ipc_cursor c = ipc_list_cursor(targets);
    struct slice last = SLICE("");
    struct ipc_target t;
    bool enforce = b->facts->sts_mode == MTA_STS_ENFORCE;
    while (ipc_target_next(&c, &t)) {
        bool known = mta_sts_mx_matches(buf_slice(&b->facts->sts_mx), t.host);
        if (known || slice_eq(t.host, last) || has_rule(buf_slice(b->out), t.host))
            continue;
        last = t.host;
        struct ipc_tls_rule r = basic(b);
        r.host = t.host;
        r.origin = TLS_ORIGIN_STS;
        r.names = SLICE("");
        if (enforce)
            forbid(&r, TLS_RESULT_VALIDATION,
                   SLICE("the domain's MTA-STS policy does not name it"));
        else
            r.flags |= TLS_RULE_TESTING;
        if (r.level == TLS_LEVEL_DANE)
            r.level = TLS_LEVEL_MAY;
        if (!add(b, &r))
            return;
    }
}

/* The rule of all other hosts. */
static void add_rest(struct building *b, bool sts, struct slice targets)
{
    struct ipc_tls_rule r = basic(b);
    if (b->s.failed)
        forbid(&r, TLS_RESULT_SUCCESS, SLICE("smtp_tls_policy_maps cannot be used on this relay"));
    else if (r.level == TLS_LEVEL_DANE_ONLY)
        forbid(&r, TLS_RESULT_DANE_REQUIRED,
               SLICE("it has no TLSA records that DNSSEC validates (dane-only)"));
    else if (r.level == TLS_LEVEL_DANE)
        r.level = TLS_LEVEL_MAY;
    if (sts && r.level != TLS_LEVEL_FORBIDDEN) {
        bool enforce = b->facts->sts_mode == MTA_STS_ENFORCE;
        r.origin = TLS_ORIGIN_STS;
        r.names = SLICE("hostname");
        r.level = enforce ? (uint8_t)TLS_LEVEL_VERIFY : r.level;
        r.flags |= enforce ? TLS_RULE_AUTHENTIC : TLS_RULE_TESTING;
        if (slice_eq(r.servername, SLICE("")))
            r.servername = SLICE("hostname"); /* RFC 8461 section 4.1 */
    }
    if (!b->each) {
        (void)add(b, &r);
        return;
    }
    struct ipc_cursor c = ipc_list_cursor(targets);
    struct ipc_target t;
    while (ipc_target_next(&c, &t)) {
        r.host = t.host;
        if (!has_rule(buf_slice(b->out), t.host) && !add(b, &r))
            return;
    }
}

void tls_policies_rules(struct tls_policies *p, const struct destination *d,
                        const struct tls_facts *facts, struct slice targets, bool each,
                        struct buf *out)
{
    /* each name of a list may become a domain */
    struct building b = {.d = d,
                         .facts = facts,
                         .names = BUF_INIT((size_t)TLS_NAMES_MAX * (TLS_NAME_LEN_MAX + 1)),
                         .servername = BUF_INIT(TLS_NAME_LEN_MAX),
                         .out = out,
                         .each = each};
    find(p, d, &b.s);
    if (b.s.policy.level != TLS_LEVEL_NONE || b.s.failed) {
        set_names(&b);
        bool sts = facts && facts->sts && facts->sts_mode != MTA_STS_NONE && uses_sts(&b.s, d);
        if (facts && uses_dane(&b.s, d) && !b.s.failed)
            add_dane(&b, sts);
        if (sts && !b.s.failed)
            add_sts(&b, targets);
        add_rest(&b, sts, targets);
        if (b.full) { /* no rule would mean no TLS */
            struct ipc_tls_rule r = {.level = TLS_LEVEL_FORBIDDEN,
                                     .why = SLICE("there are too many rules about TLS")};
            ipc_tls_rule_add(out, &r);
        }
    }
    buf_free(&b.names);
    buf_free(&b.servername);
    buf_free(&b.s.value);
}
