#include "smtpd/opening.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "smtpd/reply.h"
#include "smtpd/report.h"

/* ---- who it is ----------------------------------------------------------------- */

static void set_address(struct session *s, const struct proxy_endpoint *client)
{
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    bool is4 = client->len == 16 && memcmp(client->address, mapped, sizeof mapped) == 0;
    s->address_len = is4 ? 4 : client->len;
    memset(s->address, 0, sizeof s->address);
    memcpy(s->address, client->address + (is4 ? sizeof mapped : 0), s->address_len);
    s->port = client->port;
}

static void set_peer(struct session *s, const struct sockaddr *from)
{
    struct proxy_endpoint client = {0};
    if (from->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)from;
        client.len = 16;
        client.port = ntohs(in6->sin6_port);
        memcpy(client.address, &in6->sin6_addr, 16);
    } else {
        const struct sockaddr_in *in4 = (const void *)from;
        client.len = 4;
        client.port = ntohs(in4->sin_port);
        memcpy(client.address, &in4->sin_addr, 4);
    }
    set_address(s, &client);
}

void opening_set_name(struct session *s, struct slice name)
{
    char text[INET6_ADDRSTRLEN] = "unknown";
    if (s->address_len)
        inet_ntop(s->address_len == 4 ? AF_INET : AF_INET6, s->address, text, sizeof text);
    free(s->peer);
    s->peer = xasprintf("%.*s[%s]", SLICE_ARG(name.len ? name : SLICE("unknown")), text);
}

struct slice session_client_name(const struct session *s)
{
    struct slice peer = slice_str(s->peer);
    return slice_first(peer, slice_chr(peer, '['));
}

struct slice session_client_address(const struct session *s)
{
    struct slice peer = slice_str(s->peer);
    peer = slice_from(peer, slice_chr(peer, '[') + 1);
    return slice_first(peer, peer.len - 1);
}

/* ---- what it may do ------------------------------------------------------------- */

static struct slice address_of(const struct session *s)
{
    return slice_make(s->address, s->address_len);
}

/* Whether one more session is possible; otherwise 421 is said. */
static bool has_room(struct session *s)
{
    const struct server *sv = s->server;
    if (sv->session_count <= (size_t)sv->config->smtpd_connection_limit)
        return true;
    report_connect(s);
    log_warning("more than smtpd_connection_limit sessions: %s is sent away", s->peer);
    reply_goodbye(s, "4.3.2", "Error: too many sessions, try later");
    return false;
}

/* Whether the limits allow it a session; otherwise 421 is said. */
static bool is_welcome(struct session *s)
{
    struct server *sv = s->server;
    enum client_verdict verdict = CLIENT_OK;
    int64_t now = clock_mono();
    s->limited = !nets_match(&sv->exempt_networks, address_of(s));
    if (s->address_len)
        verdict = clients_connect(&sv->clients, address_of(s), now, &s->client);
    if (!s->limited || verdict == CLIENT_OK)
        return has_room(s);
    report_connect(s);
    uint64_t count = clients_count(&sv->clients, s->client, verdict, now);
    log_warning("Connection %s limit exceeded: %llu from %s for service smtpd",
                verdict == CLIENT_TOO_MANY ? "concurrency" : "rate", (unsigned long long)count,
                s->peer);
    reply_goodbye(s, "4.7.0", "Error: too many connections from your address");
    return false;
}

/* Who talks before our greeting does not listen to it: a program that sends its
 * commands blindly, or another protocol (B37). */
static bool talks_first(struct session *s)
{
    char byte;
    if (s->behind == 0 && (s->tls || recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0))
        return false;
    log_info("improper command pipelining after CONNECT from %s", s->peer);
    buf_addstr(&s->out, "554 5.5.0 Error: you talked before my greeting\r\n");
    session_end(s);
    return true;
}

void opening_greet(struct session *s)
{
    report_connect(s);
    if (!talks_first(s))
        session_check_age(s);
    if (s->phase == PHASE_OPEN)
        buf_adds(&s->out, buf_slice(&s->server->greeting));
}

static void say_hello(struct session *s)
{
    struct server *sv = s->server;
    if (sv->config->smtpd_peername_lookup && names_ask(&sv->names, s))
        s->wait = WAIT_NAME;
    else
        opening_greet(s);
}

void opening_secured(struct session *s)
{
    s->may_relay = s->may_relay || secure_may_relay(s);
    if (s->server->secure.immediate)
        say_hello(s);
}

/* Nothing is said to whom is not believed: it may be no mail client at all. */
static void close_unheard(struct session *s, const char *why)
{
    log_warning("%s from %s: connection closed", why, s->peer);
    s->phase = PHASE_BROKEN;
}

/* It is known where the client is. */
static void welcome(struct session *s)
{
    struct server *sv = s->server;
    s->may_xclient = nets_match(&sv->xclient_hosts, address_of(s));
    s->may_xforward = nets_match(&sv->xforward_hosts, address_of(s));
    bool good = is_welcome(s);
    if (!sv->secure.immediate) {
        if (good)
            say_hello(s);
        return;
    }
    buf_free(&s->out); /* a client that waits for TLS understands no reply */
    if (good && secure_ready(s))
        secure_begin(s);
    else if (good)
        close_unheard(s, "TLS is not available (no certificate, or no keyd): connection");
}

/* ---- behind a proxy ---------------------------------------------------------------- */

size_t opening_take_proxy(struct session *s, struct slice in)
{
    struct proxy_header h;
    size_t used;
    enum proxy_status status = proxy_parse(in, &h, &used);
    if (status == PROXY_BAD)
        close_unheard(s, "no PROXY header, or a malformed one,");
    if (status != PROXY_DONE)
        return 0;
    s->behind = in.len - used;
    s->mode = INPUT_COMMAND;
    s->taken = true;
    /* when the proxy does not say who it speaks for, it is in the log by its own
     * address, but what that may do is not for whoever is behind it */
    if (h.client.len) {
        set_address(s, &h.client);
        opening_set_name(s, SLICE(""));
        s->local = h.server;
        s->may_relay = nets_match(&s->server->relay_networks, address_of(s));
    }
    welcome(s);
    return used;
}

/* ---- users of this machine ------------------------------------------------------------ */

/* Came by a socket in public/. Logs and filters expect an address: it has that of
 * the machine itself, but neither counts nor networks of clients are for it. */
static void begin_local(struct session *s)
{
    struct ucred user;
    socklen_t len = sizeof user;
    s->address_len = 4;
    memcpy(s->address, (const unsigned char[]){127, 0, 0, 1}, 4);
    opening_set_name(s, SLICE("localhost"));
    if (getsockopt(s->fd, SOL_SOCKET, SO_PEERCRED, &user, &len) < 0) {
        close_unheard(s, "no credentials");
        return;
    }
    s->local_user = s->may_relay = true;
    s->uid = user.uid;
    if (has_room(s))
        opening_greet(s);
}

void opening_begin(struct session *s, const struct sockaddr *from)
{
    struct server *sv = s->server;
    s->mode = INPUT_COMMAND;
    if (from->sa_family == AF_UNIX) {
        begin_local(s);
        return;
    }
    set_peer(s, from);
    opening_set_name(s, SLICE(""));
    if (!sv->proxied) {
        s->may_relay = nets_match(&sv->relay_networks, address_of(s));
        welcome(s);
        return;
    }
    s->mode = INPUT_PROXY;
    if (!nets_match(&sv->proxy_networks, address_of(s)))
        close_unheard(s, "smtpd_proxy_networks has no such proxy: connection");
}

/* ---- XCLIENT ------------------------------------------------------------------------- */

void opening_change_client(struct session *s, const struct proxy_endpoint *client,
                           struct slice name)
{
    struct server *sv = s->server;
    clients_disconnect(&sv->clients, s->client);
    s->client = NULL;
    secure_forget_certificate(s); /* it is that of who speaks for the client */
    set_address(s, client);
    opening_set_name(s, name);
    s->may_relay = nets_match(&sv->relay_networks, address_of(s));
    if (is_welcome(s))
        reply_ready(s, 220, buf_slice(&sv->greeting));
}
