/*
 * resolve: finds out where mail to a recipient goes.
 *
 * User     _postern-dns, without capabilities
 * Jail     the empty directory
 * Files    none; lookup tables come as descriptors from master
 * Network  questions to DNS servers; to lookup tables that are servers over
 *          connections that master makes
 * Secrets  none
 * Sees     recipients' addresses, clients' addresses; never mail
 *
 * A question of qmgr goes through route.c (tables, relayhost), cache.c (known
 * destinations), lookup.c (MX and addresses over dns.c), and comes back from
 * request.c. policy.c says which addresses may be used. smtpd's questions for the
 * names of its clients are names.c.
 */
#include <fcntl.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "ipc/absence.h"
#include "resolve/names.h"
#include "resolve/request.h"
#include "service/service.h"

struct resolver {
    struct policy policy;
    struct server_tables table_servers;
    struct routes routes;
    struct cache cache;
    struct lookups lookups;
    struct requests requests;
    struct names names;
    struct list retired;  /* of struct dns: after a reload, until their lookups are over */
    struct event *unhold; /* pending while requests may wait for tables */
    char *system_servers; /* those of /etc/resolv.conf */
    char *servers;        /* in use */
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
        if (nets_address(address, raw) > 0)
            (void)buf_printf(&list, "%.*s ", SLICE_ARG(address));
    }
    char *servers = slice_dup(buf_slice(&list));
    buf_free(&list);
    return servers;
}

static int before_jail(struct service *s, struct err *e)
{
    struct resolver *r = xcalloc(1, sizeof *r);
    s->state = r;
    r->system_servers = read_resolv_conf();
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
    struct dns *d = dns_new(s->base, wanted, e);
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

static bool ask_connection(void *arg, uint64_t tag, struct slice endpoint)
{
    struct service *s = arg;
    if (!s->master)
        return false;
    ipc_connect_request_encode(channel_out(s->master),
                               &(struct ipc_connect_request){.tag = tag, .endpoint = endpoint});
    return true;
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
    r->table_servers.network =
        (struct remote_network){.base = s->base, .connect = ask_connection, .arg = s};
    if (lookups_init(&r->lookups, s->base, e) < 0 || server_tables_init(&r->table_servers, e) < 0 ||
        names_init(&r->names, s->base, &r->lookups, e) < 0 || use_servers(s, e) < 0 ||
        policy_permit(&r->policy, s->config->resolver_permit_networks, e) < 0)
        return -1;
    requests_init(&r->requests, &r->routes, &r->cache, &r->lookups);
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
    (void)fd; /* no message of qmgr's has one */
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
        absence_begins(&qmgr_absence);
    }
    requests_forget(&r->requests, c);
    names_forget(&r->names, c);
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
}

static void table(struct service *s, struct slice parameter, unsigned position, struct slice spec,
                  int fd)
{
    struct resolver *r = s->state;
    if (!slice_eq(parameter, SLICE("transport_maps"))) {
        close(fd);
        return;
    }
    routes_table(&r->routes, position, spec, fd);
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
    requests_unhold(&r->requests);
    unhold_later(r);
}

static void turn(struct service *s)
{
    struct resolver *r = s->state;
    dns_turn(r->lookups.dns);
    dns_turn_retired(&r->retired);
    if (s->draining && r->requests.count == 0 && r->names.count == 0)
        service_stop(s);
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
