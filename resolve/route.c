#include "resolve/route.h"

#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "ipc/ipc.h"
#include "smtp/address.h"

static const int64_t WARNING_INTERVAL = 60 * CLOCK_SECOND;

/* ---- configuration and tables ---------------------------------------------- */

static struct destination_defaults smtp_defaults(const struct config *c)
{
    return (struct destination_defaults){.port = (uint16_t)c->smtp_tcp_port,
                                         .no_mx = c->disable_dns_lookups};
}

static void configure_relayhost(struct routes *r, const struct config *c)
{
    struct err e;
    struct slice text = slice_trim(slice_str(c->relayhost));
    struct destination_defaults defaults = smtp_defaults(c);
    xfree(&r->relayhost_problem);
    r->relayhost_count = 0;
    if (text.len == 0)
        return;
    r->relayhost_count = text.len > NEXTHOP_MAX
                             ? err_set(&e, "longer than %d bytes", NEXTHOP_MAX)
                             : destination_parse(text, &defaults, r->relayhost, &e);
    if (r->relayhost_count > 0)
        return;
    log_error("relayhost: %s; mail waits until it is corrected", e.text);
    r->relayhost_problem = xstrdup(e.text);
}

/* Out of the old list, if it is there. */
static struct route_table take_table(struct route_table *old, size_t count, struct slice spec)
{
    for (size_t i = 0; i < count; i++) {
        struct route_table found = old[i];
        const char *its = found.file     ? table_spec(found.file)
                          : found.server ? found.server->spec
                                         : NULL;
        if (its && slice_eq(slice_str(its), spec)) {
            old[i] = (struct route_table){NULL, NULL};
            return found;
        }
    }
    return (struct route_table){NULL, NULL};
}

static void open_server(struct routes *r, unsigned position, struct slice spec)
{
    struct err e;
    struct route_table *t = &r->tables[position];
    int64_t timeout = r->config->lookup_table_timeout;
    if (!t->server)
        t->server = server_table_open(r->servers, spec, timeout, &e);
    if (t->server)
        t->server->remote.timeout = timeout * CLOCK_SECOND;
    else
        log_error("transport_maps: %s; mail waits until it is corrected", e.text);
}

void routes_configure(struct routes *r, const struct config *c)
{
    struct route_table *old = r->tables;
    size_t old_count = r->table_count, n = 0;
    struct slice list = slice_str(c->transport_maps), spec;
    while (table_list_next(&list, &spec))
        n++;
    r->config = c;
    r->tables = n ? xcalloc(n, sizeof *r->tables) : NULL;
    r->table_count = n;
    list = slice_str(c->transport_maps);
    for (unsigned i = 0; table_list_next(&list, &spec); i++) {
        r->tables[i] = take_table(old, old_count, spec);
        if (table_is_server(spec))
            open_server(r, i, spec);
        else if (!r->tables[i].file && slice_starts(spec, SLICE("inline:")))
            routes_table(r, i, spec, -1);
    }
    for (size_t i = 0; i < old_count; i++) {
        table_close(old[i].file);
        server_table_close(old[i].server);
    }
    free(old);
    configure_relayhost(r, c);
}

void routes_table(struct routes *r, unsigned position, struct slice spec, int fd)
{
    struct err e;
    if (position >= r->table_count || r->tables[position].server) {
        if (fd >= 0)
            close(fd);
        return; /* of a configuration that is not in use any more */
    }
    struct table *t = table_open_fd(spec, fd, &e);
    if (!t) {
        log_error("transport_maps: %s; %s", e.text,
                  r->tables[position].file ? "the old version stays in use"
                                           : "mail waits until it is corrected");
        return;
    }
    table_close(r->tables[position].file);
    r->tables[position].file = t;
}

bool routes_complete(const struct routes *r)
{
    for (size_t i = 0; i < r->table_count; i++)
        if (!r->tables[i].file && !r->tables[i].server)
            return false;
    return true;
}

bool routes_have_servers(const struct routes *r)
{
    for (size_t i = 0; i < r->table_count; i++)
        if (r->tables[i].server)
            return true;
    return false;
}

/* ---- searching the tables -------------------------------------------------- */

struct search {
    struct routes *routes;
    struct buf value;
    struct err error;
};

/* A table's answer from memory. */
static enum table_result search_table(struct search *s, size_t at, struct slice key)
{
    struct table *t = s->routes->tables[at].file;
    if (!t) {
        err_set(&s->error, "a table has not been read");
        return TABLE_ERROR;
    }
    return table_lookup(t, key, &s->value, &s->error);
}

/* A part of the address in all tables that are asked for parts. */
static enum table_result search_key(struct search *s, struct slice key)
{
    enum table_result found = TABLE_NOT_FOUND;
    for (size_t i = 0; i < s->routes->table_count && found == TABLE_NOT_FOUND; i++) {
        const struct route_table *t = &s->routes->tables[i];
        if (!t->server && !(t->file && table_is_pattern(t->file)))
            found = search_table(s, i, key);
    }
    return found;
}

/* domain, then .parent for each parent. */
static enum table_result search_domain(struct search *s, struct slice domain)
{
    enum table_result found = search_key(s, domain);
    size_t at = domain.len && domain.ptr[0] == '[' ? domain.len : slice_chr(domain, '.');
    while (found == TABLE_NOT_FOUND && at < domain.len) {
        struct slice parent = slice_from(domain, at);
        found = search_key(s, parent);
        at += 1 + slice_chr(slice_from(parent, 1), '.');
    }
    return found;
}

/* When no table had the address. `ascii` is the domain in A-labels, so that a
 * table may have either form. */
static enum table_result search_parts(struct search *s, struct slice domain, struct slice ascii)
{
    enum table_result found = search_domain(s, domain);
    if (found == TABLE_NOT_FOUND && ascii.len && !slice_eq(ascii, domain))
        found = search_domain(s, ascii);
    if (found == TABLE_NOT_FOUND)
        found = search_key(s, SLICE("*"));
    return found;
}

/* Whether a table has keys for single addresses of this domain. */
static bool has_individual_keys(const struct routes *r, struct slice domain)
{
    for (size_t i = 0; i < r->table_count; i++)
        if (r->tables[i].server ||
            (r->tables[i].file && table_has_address_in(r->tables[i].file, domain)))
            return true;
    return false;
}

/* ---- values ---------------------------------------------------------------- */

static bool may_warn(struct routes *r)
{
    int64_t now = clock_mono();
    if (r->warned && now - r->warned < WARNING_INTERVAL)
        return false;
    r->warned = now;
    return true;
}

/* Our own misconfiguration delays mail and never returns it. */
static void misconfigured(struct routes *r, struct route *out, const char *problem)
{
    if (may_warn(r))
        log_error("transport_maps: %s; mail waits until it is corrected", problem);
    out->count = 0;
    out->ttl = FAILURE_TTL;
    verdict_set(&out->verdict, 451, "4.3.5", "mail routing is misconfigured on this relay");
}

/* A server that does not answer might have named another next hop: mail waits. */
static void unanswered(struct routes *r, struct route *out, const struct server_table *t,
                       const char *why)
{
    if (may_warn(r))
        log_warning("transport_maps: %s: %s; mail waits until it answers", t->spec, why);
    out->count = 0;
    out->ttl = FAILURE_TTL;
    verdict_set(&out->verdict, 451, "4.3.0", "a lookup table of this relay does not answer");
}

/* "5.7.1 text" or "text". `class` is '4' or '5'. */
static void decide(struct route *out, struct slice text, char class, const char *fallback)
{
    struct slice rest = slice_trim(text), first = slice_cut(&rest, ' ');
    struct slice status = slice_str(class == '5' ? "5.0.0" : "4.0.0"), trimmed = slice_trim(text);
    unsigned dots = 0;
    bool digits = first.len >= 5 && first.len < sizeof out->verdict.enhanced &&
                  first.ptr[0] == class && first.ptr[1] == '.' && first.ptr[first.len - 1] != '.';
    for (size_t i = 0; i < first.len && digits; i++) {
        dots += first.ptr[i] == '.';
        digits = first.ptr[i] == '.' || (first.ptr[i] >= '0' && first.ptr[i] <= '9');
    }
    if (digits && dots == 2) {
        status = first;
        trimmed = slice_trim(rest);
    }
    char enhanced[sizeof out->verdict.enhanced] = "";
    memcpy(enhanced, status.ptr, status.len);
    struct buf shown = BUF_INIT(4 * sizeof out->verdict.text);
    buf_add_escaped(&shown, trimmed.len ? trimmed : slice_str(fallback),
                    sizeof out->verdict.text / 4);
    verdict_set(&out->verdict, class == '5' ? 550 : 450, enhanced, "%.*s",
                SLICE_ARG(buf_slice(&shown)));
    buf_free(&shown);
    out->count = 0;
}

static const struct {
    const char *name;
    enum transport transport;
} transports[] = {{"", TRANSPORT_SMTP},          {"smtp", TRANSPORT_SMTP},
                  {"relay", TRANSPORT_SMTP},     {"lmtp", TRANSPORT_LMTP},
                  {"error", TRANSPORT_ERROR},    {"retry", TRANSPORT_RETRY},
                  {"discard", TRANSPORT_DISCARD}};

static int parse_transport(struct slice name, struct route *out)
{
    for (size_t i = 0; i < sizeof transports / sizeof *transports; i++)
        if (slice_eq(name, slice_str(transports[i].name))) {
            out->transport = (uint8_t)transports[i].transport;
            return 0;
        }
    return -1;
}

static void set_nexthop(struct route *out, struct slice text)
{
    text = slice_first(text, NEXTHOP_MAX);
    memcpy(out->nexthop, text.ptr ? text.ptr : "", text.len);
    out->nexthop[text.len] = '\0';
}

static void bad_domain(struct route *out, struct slice domain)
{
    out->count = 0;
    out->individual = true;
    verdict_set(&out->verdict, 550, "5.1.2", "\"%s\" is not a valid domain name", log_esc(domain));
}

/* The recipient's own domain. */
static void use_domain(struct route *out, struct slice domain,
                       const struct destination_defaults *defaults)
{
    if (destination_of_domain(domain, defaults, &out->destinations[0]) < 0) {
        bad_domain(out, domain);
        return;
    }
    out->count = 1;
    set_nexthop(out, domain.ptr[0] == '[' ? domain : domain_slice(&out->destinations[0].name));
}

/* What a table said. False: go on as if it had said nothing. */
static bool apply_value(struct routes *r, struct slice value, struct slice domain,
                        struct route *out)
{
    struct err e;
    struct slice nexthop = slice_trim(value), transport = slice_trim(slice_cut(&nexthop, ':'));
    nexthop = slice_trim(nexthop);
    if (transport.len == 0 && nexthop.len == 0)
        return false;
    if (parse_transport(transport, out) < 0) {
        err_set(&e, "unknown transport \"%s\"; there are smtp, lmtp, error, retry and discard",
                log_esc(transport));
        misconfigured(r, out, e.text);
        return true;
    }
    if (out->transport == TRANSPORT_ERROR || out->transport == TRANSPORT_RETRY) {
        bool error = out->transport == TRANSPORT_ERROR;
        decide(out, nexthop, error ? '5' : '4',
               error ? "mail to this address is refused" : "mail to this address has to wait");
        return true;
    }
    if (out->transport == TRANSPORT_DISCARD) {
        set_nexthop(out, slice_str(log_esc(nexthop)));
        return true;
    }
    struct destination_defaults defaults = smtp_defaults(r->config);
    if (out->transport == TRANSPORT_LMTP) {
        defaults.lmtp = true;
        defaults.port = LMTP_PORT;
    }
    if (nexthop.len == 0) {
        use_domain(out, domain, &defaults);
        return true;
    }
    out->count = nexthop.len > NEXTHOP_MAX
                     ? err_set(&e, "next hop longer than %d bytes", NEXTHOP_MAX)
                     : destination_parse(nexthop, &defaults, out->destinations, &e);
    if (out->count < 0)
        misconfigured(r, out, e.text);
    else
        set_nexthop(out, nexthop);
    return true;
}

/* ---- the whole ------------------------------------------------------------- */

static void use_relayhost(struct routes *r, struct route *out)
{
    if (r->relayhost_problem) {
        out->ttl = FAILURE_TTL;
        verdict_set(&out->verdict, 451, "4.3.5", "relayhost is misconfigured on this relay");
        return;
    }
    out->count = r->relayhost_count;
    memcpy(out->destinations, r->relayhost, (size_t)out->count * sizeof *out->destinations);
    set_nexthop(out, slice_trim(slice_str(r->config->relayhost)));
}

/* Where it goes if no table says otherwise. */
static void use_defaults(struct routes *r, struct slice domain, struct route *out)
{
    struct destination_defaults defaults = smtp_defaults(r->config);
    if (r->relayhost_count || r->relayhost_problem)
        use_relayhost(r, out);
    else
        use_domain(out, domain, &defaults);
}

static void init_route(struct route *out)
{
    out->transport = TRANSPORT_SMTP;
    out->individual = false;
    out->ttl = DECIDED_TTL;
    out->verdict.code = 0;
    out->count = 0;
    out->nexthop[0] = '\0';
}

static struct slice domain_of(const struct route_search *s)
{
    struct slice domain = address_domain(slice_make(s->recipient, s->len));
    /* postmaster, the only address without a domain */
    return domain.len ? domain : slice_str(s->routes->config->myorigin);
}

/* The whole address has been looked up: `found` and `value` say with what. */
static void conclude(struct route_search *q, enum table_result found, struct search *s,
                     struct route *out)
{
    struct slice domain = domain_of(q);
    struct domain ascii = {""};
    if (domain.len && domain.ptr[0] != '[')
        (void)domain_parse(domain, &ascii);
    if (found == TABLE_NOT_FOUND)
        found = search_parts(s, domain, domain_slice(&ascii));
    bool decided =
        found == TABLE_FOUND && apply_value(q->routes, buf_slice(&s->value), domain, out);
    if (found == TABLE_ERROR)
        misconfigured(q->routes, out, s->error.text);
    else if (!decided)
        use_defaults(q->routes, domain, out);
    out->individual = out->individual || has_individual_keys(q->routes, domain) ||
                      (ascii.text[0] && has_individual_keys(q->routes, domain_slice(&ascii)));
}

static void on_answer(struct table_query *query, enum table_result result, struct slice value,
                      const char *why);

/* Looks the whole address up from table q->next on. false: one is being asked. */
static bool search_address(struct route_search *q, struct route *out)
{
    struct routes *r = q->routes;
    struct slice address = slice_make(q->recipient, q->len);
    struct search s = {.routes = r, .value = BUF_INIT(TABLE_VALUE_MAX)};
    enum table_result found = TABLE_NOT_FOUND;
    for (; q->next < r->table_count && found == TABLE_NOT_FOUND; q->next++) {
        struct server_table *server = r->tables[q->next].server;
        q->query.answered = on_answer;
        if (!server)
            found = search_table(&s, q->next, address);
        else if (server_table_ask(server, address, &q->query) == 0)
            return false;
    }
    out->ttl = TABLES_TTL; /* so that a changed table takes effect within seconds */
    conclude(q, found, &s, out);
    buf_free(&s.value);
    return true;
}

static void on_answer(struct table_query *query, enum table_result result, struct slice value,
                      const char *why)
{
    static struct route route; /* large, and used until q->found returns */
    struct route_search *q = container_of(query, struct route_search, query);
    init_route(&route);
    if (result == TABLE_NOT_FOUND) {
        q->next++;
        if (!search_address(q, &route))
            return;
    } else {
        struct search s = {.routes = q->routes, .value = BUF_INIT(TABLE_VALUE_MAX)};
        route.ttl = TABLES_TTL;
        route.individual = true;
        (void)buf_adds(&s.value, value);
        if (result == TABLE_FOUND)
            conclude(q, result, &s, &route);
        else
            unanswered(q->routes, &route, query->table, why);
        buf_free(&s.value);
    }
    q->found(q, &route);
}

bool route_find(struct routes *r, struct slice recipient, struct route_search *s, struct route *out)
{
    init_route(out);
    if (recipient.len == 0 || recipient.len > sizeof s->recipient) {
        bad_domain(out, recipient);
        return true;
    }
    s->routes = r;
    s->next = 0;
    s->len = recipient.len;
    for (size_t i = 0; i < recipient.len; i++) {
        char c = recipient.ptr[i];
        s->recipient[i] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
    }
    if (r->table_count)
        return search_address(s, out);
    use_defaults(r, domain_of(s), out);
    return true;
}

void route_forget(struct route_search *s)
{
    server_table_forget(&s->query);
}
