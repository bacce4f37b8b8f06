/* Connections for jailed services: policy servers and Dovecot for smtpd, lookup tables that are
 * servers for resolve, LMTP sockets for relay. Master makes the sockets, to what the
 * process's own configuration or the transport tables name and to nothing else,
 * never waits for a connection, and never reads from one. A UNIX socket is opened
 * with the rights of the service's user, so that nobody who controls a path can
 * have master lend root's. */
#include <errno.h>
#include <pwd.h>
#include <string.h>
#include <unistd.h>

#include "conf/endpoint.h"
#include "conf/lmtp_sockets.h"
#include "conf/restrictions.h"
#include "conf/sasl.h"
#include "conf/table_server.h"
#include "core/mem.h"
#include "io/net.h"
#include "master/master.h"

enum {
    PENDING_MAX = 4096, /* answers that a process may leave unread: each holds a descriptor */
    ENDPOINTS_TEXT_MAX = 1 << 20
};

/* ---- what a process may reach ---------------------------------------------------- */

static void add_line(struct buf *out, const char *prefix, struct slice text)
{
    (void)buf_printf(out, "%s%.*s\n", prefix, SLICE_ARG(text));
}

static void add_policy_servers(const struct config *config, struct buf *out)
{
    for (int i = 0; i < RESTRICTION_LISTS; i++) {
        struct slice list = slice_str(restrictions_text(config, (enum restriction_list)i));
        struct restriction r;
        while (restriction_next(&list, &r, NULL) == 1)
            if (r.kind == RESTRICTION_SERVICE)
                add_line(out, "", r.endpoint);
    }
}

static void add_smtpd_servers(const struct config *config, struct buf *out)
{
    char dovecot[SASL_ENDPOINT_MAX + 1];
    add_policy_servers(config, out);
    if (config->smtpd_sasl_auth_enable && strcmp(config->smtpd_sasl_type, "dovecot") == 0 &&
        sasl_endpoint(config->smtpd_sasl_path, dovecot) == 0)
        add_line(out, "", slice_str(dovecot));
}

static void add_table_servers(const struct config *config, struct buf *out)
{
    struct slice list = slice_str(config->transport_maps), spec;
    struct table_server server;
    while (config_list_next(&list, &spec))
        if (table_is_server(spec) && table_server_parse(spec, &server, NULL) == 0)
            add_line(out, "", slice_str(server.endpoint));
}

static void add_sockets(const struct config *config, struct buf *out)
{
    struct slice list = slice_str(config->lmtp_permit_sockets), path;
    while (config_list_next(&list, &path))
        add_line(out, "unix:", path);
}

void connect_permit(struct process *p, const struct config *config)
{
    static const struct {
        const char *command;
        void (*add)(const struct config *config, struct buf *out);
    } kinds[] = {
        {"smtpd", add_smtpd_servers}, {"resolve", add_table_servers}, {"relay", add_sockets}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(p->command->name, kinds[i].command) != 0)
            continue;
        struct buf lines = BUF_INIT(ENDPOINTS_TEXT_MAX);
        kinds[i].add(config, &lines);
        free(p->endpoints);
        p->endpoints = slice_dup(buf_slice(&lines));
        buf_free(&lines);
    }
}

static bool has_line(struct slice lines, struct slice line)
{
    while (lines.len)
        if (slice_eq(slice_cut(&lines, '\n'), line))
            return true;
    return false;
}

static bool is_permitted(const struct process *p, struct slice endpoint)
{
    struct slice path = endpoint;
    if (has_line(slice_str(p->endpoints), endpoint))
        return true;
    return strcmp(p->command->name, "relay") == 0 &&
           slice_eq(slice_cut(&path, ':'), SLICE("unix")) &&
           tables_name_socket(&p->master->tables, path);
}

/* ---- connecting --------------------------------------------------------------------- */

/* With the rights of p's user. -1 with errno. */
static int connect_as(const struct process *p, const struct endpoint *to)
{
    struct slice address = slice_make(to->address, to->len);
    bool connected, as_user = p->master->privileged && to->port == 0;
    const struct passwd *user = as_user ? getpwnam(p->command->user) : NULL;
    if (!as_user)
        return net_connect(address, to->port, SLICE(""), &connected);
    if (!user) {
        errno = ENOENT;
        return -1;
    }
    int fd = -1, number = 0;
    if (setegid(user->pw_gid) == 0 && seteuid(user->pw_uid) == 0)
        fd = net_connect(address, to->port, SLICE(""), &connected);
    number = errno;
    if (seteuid(0) < 0 || setegid(0) < 0)
        panic("master cannot be root again: %s", strerror(errno));
    errno = number;
    return fd;
}

static int connect_to(const struct process *p, struct slice endpoint, struct err *e)
{
    struct endpoint to;
    if (!is_permitted(p, endpoint))
        return err_set(e, "%s",
                       strcmp(p->command->name, "relay") == 0
                           ? "no text table names this socket, nor lmtp_permit_sockets"
                           : "it is not in the configuration");
    if (channel_pending(p->channel) > PENDING_MAX)
        return err_set(e, "too many connections at a time");
    if (endpoint_parse(endpoint, p->master->plan->config->queue_directory, &to, e) < 0)
        return -1;
    int fd = connect_as(p, &to);
    if (fd < 0 && errno == EACCES && p->master->privileged)
        return err_set(e, "Permission denied for user %s", p->command->user);
    if (fd < 0 && errno == EAGAIN) /* only UNIX sockets say so */
        return err_set(e, "more clients wait there than it lets wait");
    return fd < 0 ? err_set(e, "%s", strerror(errno)) : fd;
}

void connect_request(struct process *p, const struct ipc_connect_request *m)
{
    struct err e = {0, ""};
    int fd = connect_to(p, m->endpoint, &e);
    if (fd < 0) {
        ipc_connect_failed_encode(
            channel_out(p->channel),
            &(struct ipc_connect_failed){.tag = m->tag, .text = slice_str(e.text)});
        return;
    }
    ipc_connecting_encode(channel_out(p->channel), &(struct ipc_connecting){.tag = m->tag});
    channel_attach(p->channel, fd);
    close(fd);
}
