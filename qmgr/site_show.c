/* The destination of an address in words, for `postern site show`. */
#include <arpa/inet.h>

#include "core/json.h"
#include "core/mem.h"
#include "qmgr/brakes.h"
#include "qmgr/shaping_show.h"
#include "qmgr/sites.h"
#include "tls/level.h"

enum {
    SHOW_MAX = 60 * 1024,
    SHOWN_ADDRESS = 1024,
    SHOWN_RULES = 32 /* about TLS; a destination has more only with dozens of hosts */
};

struct show {
    struct qmgr *q;
    char address[SHOWN_ADDRESS];
    size_t address_len;
    void (*done)(struct slice json, void *arg);
    void *arg;
};

static const char *const transports[] = {
    [TRANSPORT_SMTP] = "smtp",   [TRANSPORT_LMTP] = "lmtp",       [TRANSPORT_ERROR] = "error",
    [TRANSPORT_RETRY] = "retry", [TRANSPORT_DISCARD] = "discard",
};
static const char *const statuses[] = {
    [RESOLVE_OK] = "ok", [RESOLVE_TEMPORARY] = "temporary", [RESOLVE_PERMANENT] = "permanent"};

static void show_targets(struct slice list, struct buf *b)
{
    struct ipc_cursor cursor = ipc_list_cursor(list);
    struct ipc_target t;
    char text[INET6_ADDRSTRLEN];
    json_list(b, "targets");
    while (ipc_target_next(&cursor, &t)) {
        struct slice address = t.address;
        int family = t.address.len == 4 ? AF_INET : t.address.len == 16 ? AF_INET6 : 0;
        if (family && inet_ntop(family, t.address.ptr, text, sizeof text))
            address = slice_str(text);
        json_begin(b);
        json_str(b, "host", t.host);
        json_str(b, "address", address);
        json_int(b, "port", t.port);
        json_int(b, "preference", t.preference);
        json_end(b);
    }
    json_list_end(b);
}

/* How connections are to be protected, and by whose word. */
static void show_tls(const struct route *r, struct buf *b)
{
    struct ipc_cursor cursor = ipc_list_cursor(tls_rules_list(r->tls));
    struct ipc_tls_rule rule;
    unsigned count = 0;
    json_list(b, "tls");
    while (ipc_tls_rule_next(&cursor, &rule) && count++ < SHOWN_RULES) {
        json_begin(b);
        json_str(b, "host", rule.host);
        json_str(b, "level", slice_str(tls_level_name((enum tls_level)rule.level)));
        json_str(b, "origin", slice_str(tls_origin_name((enum tls_origin)rule.origin)));
        if (rule.flags & TLS_RULE_TESTING)
            json_bool(b, "testing", true);
        if (rule.names.len)
            json_str(b, "names", rule.names);
        if (rule.why.len)
            json_str(b, "why", rule.why);
        json_end(b);
    }
    json_list_end(b);
    json_str(b, "tls_last", slice_str(r->site->tls));
}

static void show_answer(const char *name, const struct answer *a, struct buf *b)
{
    if (!a)
        return;
    json_member(b, name);
    json_int(b, "code", a->code);
    json_str(b, "status", slice_str(a->enhanced));
    json_str(b, "host", answer_host(a));
    json_str(b, "text", answer_text(a));
    json_seconds(b, "time", a->when);
    json_end(b);
}

static void show_lane(struct qmgr *q, struct lane *l, struct buf *b)
{
    json_begin(b);
    lane_show(q, l, true, b);
    brakes_show(q, l->group, b);
    show_answer("last_failure", l->last, b);
    json_end(b);
}

static void describe(struct qmgr *q, const struct route *r, struct buf *b)
{
    json_begin(b);
    json_str(b, "for", route_key(r));
    json_str(b, "status", slice_str(statuses[r->status]));
    json_str(b, "transport", slice_str(transports[r->transport]));
    json_str(b, "nexthop", slice_str(r->nexthop));
    json_seconds(b, "expires_in", r->expires > q->now ? r->expires - q->now : 0);
    show_answer("answer", r->answer, b);
    if (r->site) {
        json_str(b, "site", site_name(r->site));
        show_targets(buf_slice(&r->site->targets), b);
        show_tls(r, b);
        json_list(b, "lanes");
        list_each(&r->site->group->lanes, n)
            show_lane(q, container_of(n, struct lane, of_group), b);
        json_list_end(b);
    }
    json_end(b);
}

static void on_route(struct route *r, void *arg)
{
    struct show *s = arg;
    if (r->by_address) {
        /* the domain's addresses differ: this one's own route */
        struct route *own = sites_route(s->q, slice_make(s->address, s->address_len));
        if (own != r) {
            route_watch(s->q, own, on_route, s);
            return;
        }
    }
    struct buf b = BUF_INIT(SHOW_MAX);
    describe(s->q, r, &b);
    s->done(buf_slice(&b), s->arg);
    buf_free(&b);
    free(s);
}

void queue_show_site(struct qmgr *q, struct slice recipient_or_domain,
                     void (*done)(struct slice json, void *arg), void *arg)
{
    struct show *s = xcalloc(1, sizeof *s);
    *s = (struct show){.q = q, .done = done, .arg = arg};
    struct buf b = {s->address, 0, sizeof s->address, sizeof s->address};
    if (slice_chr(recipient_or_domain, '@') == recipient_or_domain.len)
        buf_addstr(&b, "postmaster@");
    buf_adds(&b, recipient_or_domain);
    s->address_len = b.len;
    route_watch(q, sites_route(q, buf_slice(&b)), on_route, s);
}
