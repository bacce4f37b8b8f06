/*
 * smtpd: takes mail from clients by SMTP and hands it to qmgr.
 *
 * user       _postern-smtpd
 * chroot     an empty directory
 * sees       what clients send, passwords included; a write-only descriptor for each large message
 * does not   spool paths, other processes' mail, private keys, accounts
 * network    the connections that it accepts; it makes none: master makes those to
 *            policy servers and Dovecot
 *
 * A client's bytes go session.c -> verbs.c -> cmd_*.c or content.c; a message
 * goes link.c -> qmgr, and its answer comes back to session.c as the reply.
 * names.c asks resolve what a client is called; keys.c asks keyd to sign in TLS
 * handshakes (secure.c); accounts.c asks quota about logins (auth.c) and whether an
 * account may send (gate.c).
 */
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "ipc/absence.h"
#include "service/service.h"
#include "smtpd/listeners.h"
#include "smtpd/server.h"

static struct server server;
static struct absence qmgr_absence;

/* The local zone, for Received and Date, cannot be read in the jail. */
static int open_zone(struct service *s, struct err *e)
{
    (void)s;
    (void)e;
    tzset();
    return 0;
}

static void without_qmgr(void *arg)
{
    log_error("no channel to qmgr for %d seconds: this process ends, a new one takes its place",
              ABSENCE_SECONDS);
    service_stop(arg);
}

static void connecting(struct service *s, uint64_t tag, int fd, struct slice why)
{
    (void)s;
    if (!dovecot_connecting(&server.dovecot, tag, fd, why))
        restrictions_connecting(&server.restrictions, tag, fd, why);
}

static int start(struct service *s, struct err *e)
{
    if (server_init(&server, s->base, s->config, e) < 0)
        return -1;
    server.restrictions.network.connect = service_ask_connection;
    server.restrictions.network.arg = s;
    dovecot_tick(&server.dovecot, clock_mono());
    absence_init(&qmgr_absence, s->base, without_qmgr, s);
    server.listeners = listeners_new(&server, s->listeners, s->listener_count);
    return 0;
}

/* Sessions hold on to the table they are counted in. They begin when qmgr is
 * there, and master sends the table before that. */
static void client_counts(struct service *s, unsigned region, int fd)
{
    struct err e = {0, "there are sessions already"};
    (void)s;
    if (server.session_count || clients_share(&server.clients, fd, region, &e) < 0)
        log_warning("the limits per client hold for each smtpd process alone: %s", e.text);
    close(fd);
}

static void peer(struct service *s, struct slice name, unsigned slot, unsigned pid, int fd)
{
    (void)s;
    (void)slot;
    (void)pid;
    if (slice_eq(name, SLICE("qmgr")))
        link_attach(&server.link, fd);
    else if (slice_eq(name, SLICE("resolve")))
        names_attach(&server.names, fd);
    else if (slice_eq(name, SLICE("quota")))
        accounts_attach(&server.accounts, fd);
    else if (slice_eq(name, SLICE("keyd")))
        keys_attach(&server.keys, fd);
    else
        close(fd);
}

/* Certificates, with which TLS becomes possible. */
static int take_certificates(struct service *s, const struct ipc_frame *f, int fd, struct err *e)
{
    struct ipc_tls m;
    struct err why = {0, ""};
    if (f->number != IPC_NUMBER_ipc_tls || ipc_tls_decode(f->body, &m) < 0) {
        close(fd);
        return err_set(e, "unexpected or malformed %s", ipc_name(f->number));
    }
    if (secure_certificates(&server.secure, s->config, s->name, fd, &why) < 0)
        log_error("certificates cannot be used: %s", why.text);
    close(fd);
    return 0;
}

static int message(struct service *s, const struct ipc_frame *f, struct err *e)
{
    struct ipc_tls_tickets m;
    (void)s;
    if (f->number != IPC_NUMBER_ipc_tls_tickets || ipc_tls_tickets_decode(f->body, &m) < 0)
        return err_set(e, "unexpected or malformed %s", ipc_name(f->number));
    return secure_tickets(&server.secure, m.keys, e);
}

/* Whether those are there whom sessions need from their first byte on. */
static bool has_company(const struct service *s)
{
    return server.link.known && (!s->config->smtpd_peername_lookup || server.names.channel) &&
           (!s->config->accounts_enable || server.accounts.known) &&
           (server.dovecot.state == DOVECOT_OFF || server.dovecot.state == DOVECOT_READY) &&
           (!server.secure.offered || server.secure.has_keys || server.keys.channel);
}

static void watch_qmgr(void)
{
    static bool linked;
    if (linked == (server.link.channel != NULL))
        return;
    linked = !linked;
    if (linked)
        absence_ends(&qmgr_absence);
    else
        absence_begins(&qmgr_absence);
}

static void turn(struct service *s)
{
    static bool heard;
    watch_qmgr();
    if (heard || !has_company(s))
        return;
    heard = true;
    listeners_resume(server.listeners);
}

static void reload(struct service *s)
{
    struct err e;
    if (server_configure(&server, s->config, &e) < 0)
        log_error("the new configuration cannot be used: %s", e.text);
}

static void stop(void *arg)
{
    service_stop(arg);
}

static void drain(struct service *s, unsigned seconds)
{
    (void)seconds;
    server_drain(&server, !s->replaced, stop, s);
}

int main(int argc, char **argv)
{
    static const struct service_ops ops = {
        .program = "smtpd",
        .user = "_postern-smtpd",
        .jail = JAIL_EMPTY,
        .network = false,
        .open = open_zone,
        .start = start,
        .peer = peer,
        .descriptor = take_certificates,
        .message = message,
        .client_counts = client_counts,
        .connecting = connecting,
        .reload = reload,
        .drain = drain,
        .turn = turn,
    };
    return service_main(argc, argv, &ops);
}
