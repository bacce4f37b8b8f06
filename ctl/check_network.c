/* Ports and name servers. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/slice.h"
#include "ctl/check.h"

enum { DNS_WAIT_MS = 2000, DNS_PORT = 53, NAMESERVERS_MAX = 16 };

/* ---- ports ----------------------------------------------------------------------- */

static void try_address(struct check *c, const struct addrinfo *a, const char *host, unsigned port,
                        const char *where)
{
    const int on = 1;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return; /* a family that the system lacks */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    int number = bind(fd, a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
    close(fd);
    if (number == EADDRINUSE && c->pid)
        return; /* its own ports are taken, as they should be */
    if (number == EADDRINUSE)
        check_say(c, CHECK_ERROR,
                  "%s: port %u on %s is taken by another program; find it with: ss "
                  "-ltnp 'sport = :%u'",
                  where, port, host, port);
    else if (number == EACCES)
        check_say(c, CHECK_WARNING, "%s: only root may listen on port %u; start as root", where,
                  port);
    else if (number == EADDRNOTAVAIL)
        check_say(c, CHECK_ERROR, "%s: %s is not an address of this host; correct it", where, host);
    else if (number)
        check_say(c, CHECK_ERROR, "%s: cannot listen on %s port %u: %s", where, host, port,
                  strerror(number));
}

static void try_host(struct check *c, const char *host, const struct master_cf_service *s)
{
    const struct addrinfo want = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *list = NULL;
    char port[16];
    snprintf(port, sizeof port, "%u", s->port);
    int rc = getaddrinfo(*host ? host : NULL, port, &want, &list);
    if (rc != 0)
        check_say(c, CHECK_ERROR, "%s: '%s' is not an address: %s; correct it", s->where, host,
                  gai_strerror(rc));
    for (const struct addrinfo *a = list; rc == 0 && a; a = a->ai_next)
        try_address(c, a, *host ? host : "any address", s->port, s->where);
    if (rc == 0)
        freeaddrinfo(list);
}

static void try_interfaces(struct check *c, const struct master_cf_service *s)
{
    struct slice list = slice_str(c->config->inet_interfaces), element;
    while (config_list_next(&list, &element)) {
        if (element.len > 2 && element.ptr[0] == '[')
            element = slice_make(element.ptr + 1, element.len - 2);
        char *host = slice_dup(element);
        if (strcmp(host, "all") == 0)
            try_host(c, "", s);
        else if (strcmp(host, "loopback-only") == 0)
            try_host(c, "127.0.0.1", s);
        else
            try_host(c, host, s);
        free(host);
    }
}

static void check_ports(struct check *c)
{
    unsigned before = c->errors + c->warnings, inet = 0;
    for (size_t i = 0; i < c->master_cf->count; i++) {
        const struct master_cf_service *s = &c->master_cf->services[i];
        if (!s->command->inet || s->local)
            continue;
        inet++;
        if (*s->host)
            try_host(c, s->host, s);
        else
            try_interfaces(c, s);
    }
    if (inet == 0)
        check_say(c, CHECK_WARNING,
                  "master.cf has no smtpd service, so no mail comes in; add a "
                  "line such as: smtp inet n - y - - smtpd");
    else if (c->errors + c->warnings == before && c->pid)
        check_say(c, CHECK_OK,
                  "Postern is running, as process %ld; whether another program has a port that "
                  "is new in master.cf is told in the log of a reload",
                  c->pid);
    else if (c->errors + c->warnings == before)
        check_say(c, CHECK_OK, "the ports to listen on are free");
}

/* ---- name servers ------------------------------------------------------------------ */

/* Whether anything that looks like a DNS answer to ". NS" comes back. */
static bool answers(const char *host, const char *port)
{
    unsigned char query[17] = {0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1}, reply[512];
    const struct addrinfo want = {.ai_socktype = SOCK_DGRAM,
                                  .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *a = NULL;
    bool good = false;
    if (getrandom(query, 2, 0) != 2 || getaddrinfo(host, port, &want, &a) != 0)
        return false;
    int fd = socket(a->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0 &&
        send(fd, query, sizeof query, MSG_NOSIGNAL) == (ssize_t)sizeof query &&
        poll(&p, 1, DNS_WAIT_MS) == 1) {
        ssize_t n = recv(fd, reply, sizeof reply, 0);
        good = n >= 12 && reply[0] == query[0] && reply[1] == query[1] && (reply[2] & 0x80);
    }
    if (fd >= 0)
        close(fd);
    freeaddrinfo(a);
    return good;
}

/* "address" or "address@port" */
static bool try_nameserver(struct check *c, struct slice server, const char *source)
{
    struct slice rest = server;
    char *host = NULL, *port = NULL;
    struct slice address = slice_cut(&rest, '@');
    host = slice_dup(address);
    port = rest.len ? slice_dup(rest) : xasprintf("%d", DNS_PORT);
    bool good = answers(host, port);
    if (!good)
        check_say(c, CHECK_WARNING,
                  "name server %s (%s) does not answer; correct it, or mail waits "
                  "in the queue",
                  host, source);
    free(host);
    free(port);
    return good;
}

static unsigned system_nameservers(struct check *c, unsigned *good)
{
    FILE *f = fopen("/etc/resolv.conf", "re");
    char line[512];
    unsigned count = 0;
    while (f && count < NAMESERVERS_MAX && fgets(line, sizeof line, f)) {
        struct slice rest = slice_trim(slice_str(line));
        if (!slice_starts(rest, SLICE("nameserver")) || rest.len <= 11)
            continue;
        rest = slice_trim(slice_from(rest, 10));
        count++;
        *good += try_nameserver(c, slice_first(rest, strcspn(rest.ptr, " \t\r\n#;")),
                                "/etc/resolv.conf");
    }
    if (f)
        fclose(f);
    return count;
}

static void check_nameservers(struct check *c)
{
    struct slice list = slice_str(c->config->resolver_nameservers), element;
    unsigned count = 0, good = 0;
    if (c->config->disable_dns_lookups)
        return;
    while (config_list_next(&list, &element)) {
        count++;
        good += try_nameserver(c, element, "resolver_nameservers");
    }
    if (count == 0)
        count = system_nameservers(c, &good);
    if (count == 0)
        check_say(c, CHECK_WARNING,
                  "no name server is configured; set resolver_nameservers in "
                  "main.cf, or /etc/resolv.conf");
    else if (good == count)
        check_say(c, CHECK_OK, "name servers answer");
}

void check_network(struct check *c)
{
    check_ports(c);
    check_nameservers(c);
}
