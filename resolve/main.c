/*
 * resolve: finds out where mail to a recipient goes.
 *
 * User     _postern-dns, without capabilities
 * Jail     the empty directory
 * Files    none; lookup tables and certificate authorities come as descriptors from
 *          master; open for writing: its own memory of MTA-STS policies
 * Network  questions to DNS servers; MTA-STS policies by HTTPS; to lookup tables that
 *          are servers over connections that master makes
 * Secrets  none
 * Sees     recipients' addresses, clients' addresses; never mail
 *
 * A question of qmgr goes through route.c (tables, relayhost), cache.c (known
 * destinations), lookup.c (MX and addresses over dns.c), and comes back from
 * request.c. policy.c says which addresses may be used. smtpd's questions for the
 * names of its clients are names.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "ipc/absence.h"
#include "resolve/listings.h"
#include "resolve/names.h"
#include "resolve/request.h"
#include "service/service.h"

enum { FILE_BLOCK = 64 * 1024, ANCHORS_MAX = 256 * 1024, AUTHORITIES_MAX = 8 * 1024 * 1024 };

struct resolver {
    struct policy policy;
    struct server_tables table_servers;
    struct routes routes;
    struct tls_policies tls;
    struct sts *sts;
    struct tlsrpt tlsrpt;
    struct cache cache;
    struct lookups lookups;
    struct requests requests;
    struct names names;
    struct listings listings;
    struct list retired;  /* of struct dns: after a reload, until their lookups are over */
    struct event *unhold; /* pending while requests may wait for tables */
    char *system_servers; /* those of /etc/resolv.conf */
    char *servers;        /* in use */
    struct buf anchors;   /* of DNSSEC, as they were at the start */
};

static struct channel *qmgr;
static struct absence qmgr_absence;

/* The name servers of /etc/resolv.conf; empty if there are none. */
static char *read_resolv_conf(void)
{
    static char text[RESOLV_CONF_MAX];
    struct buf list = BUF_INIT(4096);
    int fd = open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : 0;
    if (fd >= 0)
        close(fd);
    struct slice rest = slice_make(text, n > 0 ? (size_t)n : 0);
    while (rest.len) {
        struct slice line = slice_trim(slice_cut(&rest, '\n'));
        if (!slice_starts(line, SLICE("nameserver")))
            continue;
        struct slice address = slice_trim(slice_from(line, 10));
        address = slice_first(address, slice_chr(address, ' '));
        address = slice_first(address, slice_chr(address, '\t'));
        unsigned char raw[16];
        if (network_address(address, raw) > 0)
            (void)buf_printf(&list, "%.*s ", SLICE_ARG(address));
    }
    char *servers = slice_dup(buf_slice(&list));
    buf_free(&list);
    return servers;
}

/* All of fd behind what is in out; -1 with errno, or if it is too long. */
static int read_all(int fd, struct buf *out)
{
    ssize_t n = 1;
    while (n > 0) {
        if (buf_reserve(out, FILE_BLOCK) < 0) {
            errno = EFBIG;
            return -1;
        }
        n = read(fd, out->data + out->len, FILE_BLOCK);
        out->len += n > 0 ? (size_t)n : 0;
    }
    return n < 0 ? -1 : 0;
}

static int read_anchors(struct resolver *r, const char *path, struct err *e)
{
    buf_init(&r->anchors, ANCHORS_MAX);
    if (!*path)
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    int rc = fd < 0 ? -1 : read_all(fd, &r->anchors);
    if (rc < 0)
        err_sys(e, "resolver_trust_anchor: %s", path);
    if (fd >= 0)
        close(fd);
    return rc;
}

static int before_jail(struct service *s, struct err *e)
{
    struct resolver *r = xcalloc(1, sizeof *r);
    s->state = r;
    r->system_servers = read_resolv_conf();
    if (read_anchors(r, s->config->resolver_trust_anchor, e) < 0)
        return -1;
    r->sts = sts_open(s->config->data_directory, e);
    if (!r->sts || tlsrpt_open(&r->tlsrpt, s->config->data_directory, e) < 0)
        return -1;
    return policy_open(&r->policy, e);
}

/* Makes r->lookups.dns ask the configured servers. On error the old stay. */
static int use_servers(struct service *s, struct err *e)
{
    struct resolver *r = s->state;
    const char *wanted =
        s->config->resolver_nameservers[0] ? s->config->resolver_nameservers : r->system_servers;
    if (r->servers && strcmp(r->servers, wanted) == 0)
        return 0;
    struct dns *d = dns_new(s->base, wanted, buf_slice(&r->anchors), e);
    if (!d)
        return -1;
    if (r->lookups.dns)
        dns_retire(r->lookups.dns, &r->retired);
    r->lookups.dns = d;
    free(r->servers);
    r->servers = xstrdup(wanted);
    log_debug("name servers: %s", wanted[0] ? wanted : "none, recursion from the root");
    return 0;
}

static void on_unhold(evutil_socket_t fd, short what, void *arg)
{
    struct resolver *r = arg;
    (void)fd;
    (void)what;
    requests_unhold(&r->requests);
}

static void without_qmgr(void *arg)
{
    log_error("no channel to qmgr for %d seconds: this process ends, a new one takes its place",
              ABSENCE_SECONDS);
    service_stop(arg);
}

static void unhold_later(struct resolver *r)
{
    struct timeval wait = {TABLES_WAIT + 1, 0};
    evtimer_add(r->unhold, &wait);
}

static void connecting(struct service *s, uint64_t tag, int fd, struct slice why)
{
    struct resolver *r = s->state;
    server_tables_connecting(&r->table_servers, tag, fd, why);
}

static int start(struct service *s, struct err *e)
{
    struct resolver *r = s->state;
    absence_init(&qmgr_absence, s->base, without_qmgr, s);
    cache_init(&r->cache);
    list_init(&r->retired);
    r->lookups.policy = &r->policy;
    r->lookups.config = s->config;
    r->lookups.sts = r->sts;
    r->lookups.tlsrpt = &r->tlsrpt;
    if (sts_start(r->sts, s->base, s->config, &r->policy, &r->lookups.dns, e) < 0 ||
        tlsrpt_start(&r->tlsrpt, s->base, s->config, r->sts, e) < 0)
        return -1;
    tlsrpt_network(&r->tlsrpt, &r->lookups.dns, &r->policy);
    r->table_servers.network =
        (struct remote_network){.base = s->base, .connect = service_ask_connection, .arg = s};
    listings_init(&r->listings, &r->lookups);
    if (lookups_init(&r->lookups, s->base, e) < 0 || server_tables_init(&r->table_servers, e) < 0 ||
        names_init(&r->names, s->base, &r->lookups, e) < 0 || use_servers(s, e) < 0 ||
        policy_permit(&r->policy, s->config->resolver_permit_networks, e) < 0)
        return -1;
    requests_init(&r->requests, &r->routes, &r->cache, &r->lookups, &r->tls);
    tls_policies_configure(&r->tls, s->config);
    r->routes.servers = &r->table_servers;
    routes_configure(&r->routes, s->config);
    r->unhold = evtimer_new(s->base, on_unhold, r);
    unhold_later(r);
    return 0;
}

static int on_frame(struct channel *c, const struct ipc_frame *f, int fd, void *arg, struct err *e)
{
    struct service *s = arg;
    struct resolver *r = s->state;
    struct ipc_resolve_request m;
    struct ipc_tls_session session;
    struct ipc_tls_reported reported;
    (void)fd; /* no message of qmgr's has one */
    if (f->number == IPC_NUMBER_ipc_tls_session && ipc_tls_session_decode(f->body, &session) == 0)
        return tlsrpt_count(&r->tlsrpt, &session, e);
    if (f->number == IPC_NUMBER_ipc_tls_reported &&
        ipc_tls_reported_decode(f->body, &reported) == 0) {
        tlsrpt_taken(&r->tlsrpt, &reported);
        return 0;
    }
    if (f->number == IPC_NUMBER_ipc_listing_request) {
        struct ipc_listing_request listing;
        if (ipc_listing_request_decode(f->body, &listing) < 0 ||
            listings_take(&r->listings, c, &listing) < 0)
            return err_set(e, "bad %s", ipc_name(f->number));
        return 0;
    }
    if (f->number != IPC_NUMBER_ipc_resolve_request || ipc_resolve_request_decode(f->body, &m) < 0)
        return err_set(e, "bad %s", ipc_name(f->number));
    request_take(&r->requests, c, m.tag, m.recipient);
    return 0;
}

static void on_closed(struct channel *c, const char *why, void *arg)
{
    struct service *s = arg;
    struct resolver *r = s->state;
    if (!s->draining)
        log_debug("channel to %s closed: %s", channel_name(c), why);
    if (c == qmgr) {
        qmgr = NULL;
        tlsrpt_qmgr(&r->tlsrpt, NULL);
        absence_begins(&qmgr_absence);
    }
    requests_forget(&r->requests, c);
    names_forget(&r->names, c);
    listings_forget(&r->listings, c);
}

/* smtpd may ask for names, and for nothing else. */
static int on_name_frame(struct channel *c, const struct ipc_frame *f, int fd, void *arg,
                         struct err *e)
{
    struct service *s = arg;
    struct resolver *r = s->state;
    struct ipc_name_request m;
    (void)fd; /* no message of smtpd's has one */
    if (f->number != IPC_NUMBER_ipc_name_request || ipc_name_request_decode(f->body, &m) < 0 ||
        names_take(&r->names, c, m.tag, m.address) < 0)
        return err_set(e, "bad %s", ipc_name(f->number));
    return 0;
}

static void peer(struct service *s, struct slice name, unsigned slot, unsigned pid, int fd)
{
    static const struct channel_ops ops = {.frame = on_frame, .closed = on_closed};
    struct resolver *r = s->state;
    static const struct channel_ops name_ops = {.frame = on_name_frame, .closed = on_closed};
    (void)slot;
    (void)pid;
    if (slice_eq(name, SLICE("smtpd"))) {
        channel_new(s->base, fd, "smtpd", &name_ops, s);
        return;
    }
    if (!slice_eq(name, SLICE("qmgr"))) {
        log_warning("a channel to %s is of no use here", log_esc(name));
        close(fd);
        return;
    }
    absence_ends(&qmgr_absence);
    qmgr = channel_new(s->base, fd, "qmgr", &ops, s);
    tlsrpt_qmgr(&r->tlsrpt, qmgr);
}

static void use_authorities(struct resolver *r, struct slice pem)
{
    sts_authorities(r->sts, pem);
    tlsrpt_authorities(&r->tlsrpt, pem);
}

/* Those that vouch for the web servers of MTA-STS, and that reports are posted to. */
static void authorities(struct resolver *r, struct slice spec, int fd)
{
    struct buf pem = BUF_INIT(AUTHORITIES_MAX);
    if (read_all(fd, &pem) == 0)
        use_authorities(r, buf_slice(&pem));
    else
        log_error("smtp_tls_CAfile: %s: %s; the old authorities stay in use", log_esc(spec),
                  strerror(errno));
    buf_free(&pem);
    close(fd);
}

static void table(struct service *s, struct slice parameter, unsigned position, struct slice spec,
                  int fd)
{
    struct resolver *r = s->state;
    if (slice_eq(parameter, SLICE("transport_maps")))
        routes_table(&r->routes, position, spec, fd);
    else if (slice_eq(parameter, SLICE("smtp_tls_policy_maps")))
        tls_policies_table(&r->tls, position, spec, fd);
    else if (slice_eq(parameter, SLICE("smtp_tls_CAfile")))
        authorities(r, spec, fd);
    else
        close(fd);
    requests_unhold(&r->requests);
}

static void reload(struct service *s)
{
    struct resolver *r = s->state;
    struct err e;
    r->lookups.config = s->config;
    if (use_servers(s, &e) < 0 ||
        policy_permit(&r->policy, s->config->resolver_permit_networks, &e) < 0)
        log_error("%s; the old value stays in use", e.text);
    cache_clear(&r->cache);
    names_clear(&r->names);
    requests_hold(&r->requests);
    routes_configure(&r->routes, s->config);
    tls_policies_configure(&r->tls, s->config);
    sts_configure(r->sts, s->config);
    r->tlsrpt.config = s->config;
    requests_unhold(&r->requests);
    unhold_later(r);
}

static void turn(struct service *s)
{
    struct resolver *r = s->state;
    dns_turn(r->lookups.dns);
    dns_turn_retired(&r->retired);
    if (s->draining && r->requests.count == 0 && r->names.count == 0) {
        sts_save(r->sts);
        tlsrpt_save(&r->tlsrpt);
        service_stop(s);
    }
}

/* What is under way is answered; turn() stops when it is. */
static void drain(struct service *s, unsigned seconds)
{
    (void)s;
    (void)seconds;
}

static const struct service_ops ops = {.program = "resolve",
                                       .user = "_postern-dns",
                                       .jail = JAIL_EMPTY,
                                       .network = true,
                                       .open = before_jail,
                                       .start = start,
                                       .peer = peer,
                                       .table = table,
                                       .connecting = connecting,
                                       .reload = reload,
                                       .drain = drain,
                                       .turn = turn};

int main(int argc, char **argv)
{
    return service_main(argc, argv, &ops);
}
