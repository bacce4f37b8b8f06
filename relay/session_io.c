/* What a session reads and writes, and how it begins. */
#include "relay/session.h"

#include <errno.h>
#include <stdlib.h>

#include "core/fault.h"
#include "core/log.h"
#include "core/mem.h"
#include "relay/connect.h"
#include "relay/outcome.h"

/* A server that has said 221 is given so long to close. */
static const int64_t GOODBYE = CLOCK_SECOND;

enum { READS_PER_EVENT = 4 /* of WIRE_READ_SIZE; then other sessions get their turn */ };

/* ---- writing --------------------------------------------------------------- */

/* Nobody's fault but ours: says nothing about the site (F25). */
static void unreadable(struct session *s)
{
    struct relay *relay = s->relay;
    struct job *j = s->job;
    outcome_log_unreadable(j);
    struct verdict v = verdict_local(STAGE_NONE, "4.3.0", "the message cannot be read back");
    s->job = NULL;
    session_close(s);
    job_decide_all(j, RECIPIENT_DONE, OUTCOME_DEFERRED, &v);
    relay_job_done(relay, j);
}

static void flush_content(struct session *s)
{
    uint64_t before = s->tx.content.at;
    size_t waiting = s->wire.out.len;
    switch (content_send(&s->tx.content, &s->wire)) {
    case CONTENT_SENT:
        s->tx.cursor = 0;
        session_enter(s, SESSION_DOT);
        break;
    case CONTENT_AGAIN:
        if (s->tx.content.at > before || s->wire.out.len < waiting)
            session_enter(s, SESSION_CONTENT);
        break;
    case CONTENT_HELD:
        list_remove(&s->link);
        list_push(&s->relay->held, &s->link);
        break;
    case CONTENT_LOST:
        session_lost(s, errno);
        break;
    case CONTENT_UNREADABLE:
        unreadable(s);
        break;
    }
}

void session_flush(struct session *s)
{
    if (s->state == SESSION_CLOSED || s->state == SESSION_CONNECT || s->state == SESSION_HANDSHAKE)
        return;
    s->queued = false;
    if (s->state == SESSION_CONTENT)
        flush_content(s);
    else if (wire_flush(&s->wire) == WIRE_LOST)
        session_lost(s, errno);
}

static void tell_qmgr(struct session *s)
{
    struct content *c = &s->tx.content;
    if (c->told || !s->relay->qmgr)
        return;
    c->told = true;
    ipc_dot_encode(channel_out(s->relay->qmgr), &(struct ipc_dot){.job = s->job->m.job});
}

void session_release_held(struct relay *relay)
{
    struct list *n;
    if (list_empty(&relay->held))
        return;
    list_each(&relay->held, at) tell_qmgr(container_of(at, struct session, link));
    channel_flush_all();
    /* what qmgr has not been told yet waits: the channel's next write is a turn */
    if (relay->qmgr && channel_pending(relay->qmgr) > 0)
        return;
    fault_point("relay.dot_told");
    while ((n = list_pop(&relay->held))) {
        struct session *s = container_of(n, struct session, link);
        s->tx.content.announced = true;
        session_flush(s);
    }
    fault_point("relay.dot_sent");
}

static void on_connected(struct session *s)
{
    int error = net_error(s->wire.fd);
    if (error) {
        session_lost(s, error);
        return;
    }
    session_enter(s, SESSION_GREETING);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct session *s = arg;
    (void)fd;
    (void)what;
    s->wire.blocked = false;
    if (s->state == SESSION_CONNECT)
        on_connected(s);
    else if (s->state == SESSION_HANDSHAKE)
        starttls_go_on(s);
    else
        session_flush(s);
}

/* ---- reading --------------------------------------------------------------- */

/* 421: the server is closing, whatever was asked (RFC 5321 3.8). */
static void closing(struct session *s, const struct smtp_reply *r)
{
    struct verdict v = verdict_of_reply(session_awaits(s)->stage, r);
    session_fail(s, &v, true);
}

/* To an idle connection, or to our QUIT: then it is the server that closes, which counts its
 * connections until then. */
static void said_goodbye(struct session *s)
{
    if (s->state != SESSION_QUIT || s->goodbye || s->relay->draining) {
        session_close(s);
        return;
    }
    s->goodbye = true;
    deadline_set(&s->relay->timers, &s->deadline, clock_mono() + GOODBYE);
}

static void take_reply(struct session *s, const struct smtp_reply *r)
{
    const struct session_awaits *row = session_awaits(s);
    if (s->state == SESSION_GREETING)
        s->job->sessions_tried++;
    if (!row->reply)
        said_goodbye(s);
    else if (s->queued && r->code != 421)
        session_protocol_error(s, "a reply to a command that was not sent yet");
    else if (r->code == 421)
        closing(s, r);
    else
        row->reply(s, r);
}

void session_drop_partial(struct session *s)
{
    if (!s->partial)
        return;
    reply_free(s->partial);
    xfree(&s->partial);
}

static void take_input(struct session *s, struct slice in)
{
    static struct smtp_reply whole; /* for replies that come in one piece */
    bool begun = s->partial != NULL;
    struct smtp_reply *r = s->partial ? s->partial : &whole;
    if (whole.text.max == 0)
        reply_init(&whole);
    if (!begun)
        reply_reset(r);
    while (in.len > 0 && s->state != SESSION_CLOSED) {
        size_t used;
        r->utf8 = s->tx.utf8;
        enum reply_status status = reply_feed(r, in, &used);
        in = slice_from(in, used);
        begun = status == REPLY_MORE;
        if (status == REPLY_DONE && s->state == SESSION_STARTTLS && in.len > 0) {
            /* it would pass for something that was said under TLS (B48) */
            session_protocol_error(s, "plaintext behind its reply");
            in.len = 0;
        } else if (status == REPLY_DONE)
            take_reply(s, r);
        else if (status != REPLY_MORE && !s->job)
            session_close(s);
        else if (status != REPLY_MORE)
            session_protocol_error(s, reply_trouble(status));
        if (!begun)
            reply_reset(r);
    }
    if (s->state == SESSION_CLOSED)
        return;
    if (begun && !s->partial) {
        s->partial = xmalloc(sizeof *s->partial);
        *s->partial = whole;
        reply_init(&whole);
    } else if (!begun) {
        session_drop_partial(s);
    }
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct session *s = arg;
    struct slice got;
    (void)fd;
    (void)what;
    if (s->state == SESSION_CONNECT) {
        on_connected(s);
        return;
    }
    if (s->state == SESSION_HANDSHAKE) {
        starttls_go_on(s);
        return;
    }
    for (int i = 0; i < READS_PER_EVENT && s->state != SESSION_CLOSED; i++) {
        enum wire_status status = wire_read(&s->wire, &got);
        if (status == WIRE_AGAIN)
            break;
        if (status == WIRE_LOST) {
            session_lost(s, errno);
            return;
        }
        take_input(s, got);
        if (got.len < WIRE_READ_SIZE || s->state == SESSION_HANDSHAKE)
            break;
    }
    if (s->queued || s->state == SESSION_CONTENT)
        session_flush(s);
}

/* ---- beginning ------------------------------------------------------------- */

static void use_socket(struct session *s, int fd, bool connected)
{
    wire_open(&s->wire, s->relay->service->base, fd, on_readable, on_writable, s);
    session_enter(s, connected ? SESSION_GREETING : SESSION_CONNECT);
    if (!connected)
        wire_wait(&s->wire);
}

void session_open(struct session *s, int fd, bool connected)
{
    list_init(&s->link);
    list_init(&s->site_link);
    s->opened = clock_mono();
    s->relay->session_count++;
    s->wire.fd = -1;
    if (fd >= 0)
        use_socket(s, fd, connected);
    else
        session_enter(s, SESSION_CONNECT);
}

void session_connecting(struct session *s, int fd, struct slice why)
{
    s->asked = 0;
    list_remove(&s->link);
    if (fd >= 0) {
        use_socket(s, fd, false);
        return;
    }
    struct verdict v = connect_verdict(s->host, s->address, s->port, log_esc_n(why, 200));
    session_fail(s, &v, false);
}

/* The session may have been made for another domain, by another name of this server. */
static void set_host(const struct session *s, struct job *j)
{
    char address[NET_TEXT_MAX];
    for (unsigned i = 0; i < j->target_count; i++) {
        const struct ipc_target *t = &j->targets[i];
        net_text(t->address, t->port, address);
        if (t->port != s->port || strcmp(address, s->address) != 0)
            continue;
        char *host = slice_dup(t->host);
        job_set_host(j, host, s->address, s->port);
        free(host);
        return;
    }
    job_set_host(j, s->host, s->address, s->port);
}

void session_assign(struct session *s, struct job *j)
{
    s->job = j;
    j->session = s;
    set_host(s, j);
    transaction_begin(s);
    session_flush(s);
}
