#include "relay/session.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "core/fault.h"
#include "core/log.h"
#include "core/mem.h"
#include "relay/connect.h"
#include "relay/hosts.h"
#include "relay/outcome.h"
#include "relay/slots.h"

/* A server that closes so soon after a message has had enough of them. */
static const int64_t CLOSED_AT_ONCE = CLOCK_SECOND;
/* A server that has said 221 is given so long to close. */
static const int64_t GOODBYE = CLOCK_SECOND;

enum {
    READS_PER_EVENT = 4, /* of WIRE_READ_SIZE; then other sessions get their turn */
    PUT_OFF_MAX = 10,    /* jobs in a row: it may be this connection that has had enough */
    UNLIMITED = 0
};

/* What a session waits for in each state. A state without a handler awaits no
 * reply: one that comes all the same ends the session. */
static const struct state_row {
    const char *doing; /* "while ..." */
    enum smtp_stage stage;
    size_t timeout; /* offset of the limit in struct config, or 0 */
    void (*reply)(struct session *s, const struct smtp_reply *r);
} rows[SESSION_STATES] = {
#define LIMIT(name) offsetof(struct config, name)
    [SESSION_CONNECT] = {"connecting", STAGE_CONNECT, LIMIT(smtp_connect_timeout), NULL},
    [SESSION_GREETING] = {"waiting for the greeting", STAGE_GREETING, LIMIT(smtp_greeting_timeout),
                          hello_on_greeting},
    [SESSION_EHLO] = {"sending EHLO", STAGE_EHLO, LIMIT(smtp_helo_timeout), hello_on_ehlo},
    [SESSION_HELO] = {"sending HELO", STAGE_EHLO, LIMIT(smtp_helo_timeout), hello_on_helo},
    [SESSION_STARTTLS] = {"sending STARTTLS", STAGE_STARTTLS, LIMIT(smtp_starttls_timeout),
                          starttls_on_reply},
    [SESSION_HANDSHAKE] = {"starting TLS", STAGE_STARTTLS, LIMIT(smtp_starttls_timeout), NULL},
    [SESSION_RSET] = {"sending RSET", STAGE_MAIL, LIMIT(smtp_mail_timeout), transaction_on_rset},
    [SESSION_MAIL] = {"sending MAIL FROM", STAGE_MAIL, LIMIT(smtp_mail_timeout),
                      transaction_on_mail},
    [SESSION_RCPT] = {"sending RCPT TO", STAGE_RCPT, LIMIT(smtp_rcpt_timeout), transaction_on_rcpt},
    [SESSION_DATA] = {"sending DATA", STAGE_DATA, LIMIT(smtp_data_init_timeout),
                      transaction_on_data},
    [SESSION_CONTENT] = {"sending the content", STAGE_DATA, LIMIT(smtp_data_xfer_timeout),
                         transaction_on_content},
    [SESSION_DOT] = {"waiting for the reply to the end of data (the message may have been "
                     "delivered)",
                     STAGE_DOT, LIMIT(smtp_data_done_timeout), transaction_on_dot},
    [SESSION_IDLE] = {"idle", STAGE_NONE, LIMIT(smtp_connection_cache_time_limit), NULL},
    [SESSION_QUIT] = {"sending QUIT", STAGE_QUIT, LIMIT(smtp_quit_timeout), NULL},
    [SESSION_CLOSED] = {"closed", STAGE_NONE, 0, NULL},
#undef LIMIT
};

static const struct config *config_of(const struct session *s)
{
    return s->relay->service->config;
}

/* Whether a reply is awaited that tells what became of content: to leave before
 * it comes means a duplicate. */
static bool in_doubt(const struct session *s, enum session_state state)
{
    return state == SESSION_DOT && !s->tx.empty;
}

void session_enter(struct session *s, enum session_state state)
{
    int64_t limit;
    memcpy(&limit, (const char *)config_of(s) + rows[state].timeout, sizeof limit);
    int64_t at = clock_mono() + limit * CLOCK_SECOND;
    if (s->job && s->job->connected && s->job->deadline < at && !in_doubt(s, state))
        at = s->job->deadline;
    s->state = state;
    deadline_set(&s->relay->timers, &s->deadline, at);
}

struct buf *session_queue(struct session *s)
{
    s->queued = true;
    return wire_out(&s->wire);
}

/* ---- the end of a session, or of its job ----------------------------------- */

void session_close(struct session *s)
{
    if (s->state == SESSION_CLOSED)
        return;
    if (s->job)
        panic("a session is closed while it has a job");
    s->state = SESSION_CLOSED;
    if (s->greeted)
        hosts_left(s->address, s->port);
    slots_close(s);
    pool_leave(&s->relay->pool, s);
    deadline_clear(&s->relay->timers, &s->deadline);
    wire_close(&s->wire);
    s->relay->session_count--;
    list_push(&s->relay->dead, &s->link);
}

static void drop_partial(struct session *s)
{
    if (!s->partial)
        return;
    reply_free(s->partial);
    xfree(&s->partial);
}

void session_free(struct session *s)
{
    list_remove(&s->link);
    drop_partial(s);
    tls_sessions_drop(s);
    free(s->host);
    free(s);
}

void session_quit(struct session *s)
{
    if (s->job)
        panic("QUIT while there is a job");
    pool_remove(s);
    slots_leave(s);
    if (buf_addstr(session_queue(s), "QUIT\r\n") < 0) {
        session_close(s);
        return;
    }
    session_enter(s, SESSION_QUIT);
    pool_leaving(&s->relay->pool, s);
    session_flush(s);
}

void session_leave(struct session *s)
{
    session_quit(s);
    session_close(s);
}

bool session_usable(const struct session *s, const struct job *j)
{
    const struct config *config = config_of(s);
    int64_t age = clock_mono() - s->opened;
    return s->transactions < config->smtp_connection_reuse_count_limit &&
           (j->m.session_messages == UNLIMITED || s->transactions < j->m.session_messages) &&
           (s->ehlo.mail_max == 0 || s->transactions < s->ehlo.mail_max) &&
           age < config->smtp_connection_reuse_time_limit * CLOCK_SECOND;
}

/* Some servers say by "4xx", and go on saying it, that one connection has carried enough.
 * At MAIL they do not mean the recipient: then a new connection tells at once. */
static void count_put_off(struct session *s, const struct job *j)
{
    bool at_mail = false;
    for (unsigned i = 0; i < j->recipient_count; i++) {
        const struct recipient *r = &j->recipients[i];
        if (r->status != OUTCOME_DEFERRED || r->local) {
            s->put_off = 0;
            return;
        }
        at_mail = r->stage == STAGE_MAIL;
    }
    s->put_off += at_mail ? PUT_OFF_MAX : 1;
}

void session_finish_job(struct session *s)
{
    struct job *j = s->job;
    count_put_off(s, j);
    bool many = j->m.sessions && s->site->sessions > j->m.sessions;
    bool keep = session_usable(s, j) && !many && s->put_off < PUT_OFF_MAX && !s->relay->draining &&
                config_of(s)->smtp_connection_cache_time_limit > 0;
    int64_t idle = j->m.idle_seconds * CLOCK_SECOND;
    s->job = NULL;
    slots_result(s, j, keep);
    relay_job_done(s->relay, j);
    if (!keep) {
        session_quit(s);
        return;
    }
    session_enter(s, SESSION_IDLE);
    s->idle_since = clock_mono();
    if (idle)
        deadline_set(&s->relay->timers, &s->deadline, s->idle_since + idle);
    pool_put(&s->relay->pool, s);
}

/* A connection that was idle may have been closed by the other side just as we
 * used it again: nobody's failure, and nothing has been done yet. */
static bool was_stale(const struct session *s)
{
    return (s->state == SESSION_RSET || s->state == SESSION_MAIL) && s->transactions > 1 &&
           !s->job->retried;
}

void session_fail(struct session *s, const struct verdict *v, bool answered)
{
    struct relay *relay = s->relay;
    struct job *j = s->job;
    enum session_state state = s->state;
    /* a refusal in words is an answer: it may speak of rates or of this connection */
    bool stale = j && was_stale(s) && !answered, doubt = in_doubt(s, state) && !answered;
    if (!j) {
        if (state == SESSION_IDLE && clock_mono() - s->idle_since < CLOSED_AT_ONCE)
            hosts_closed(s->address, s->port, s->transactions);
        session_close(s);
        return;
    }
    if (s->dropped)
        j->sessions_tried++; /* as good as a refusal in words */
    else if (state <= SESSION_GREETING)
        connect_failed(relay, s->address, s->port);
    s->job = NULL;
    if (state < SESSION_RSET || stale)
        slots_hand_on(s, j);
    if (!answered || v->code == 421 || s->queued)
        session_close(s);
    else if (state < SESSION_RSET) /* the job goes on over another one */
        session_leave(s);
    else
        session_quit(s);
    if (state < SESSION_RSET) {
        if (s->refused)
            job_note_refusal(j, v);
        else if (s->unfit)
            job_note_unfit(j, v);
        else
            job_note_failure(j, v);
        connect_next(relay, j);
        return;
    }
    if (stale) {
        hosts_closed(s->address, s->port, s->transactions - 1);
        j->retried = true;
        j->connected = 0;
        for (unsigned i = 0; i < j->recipient_count; i++)
            if (j->recipients[i].state == RECIPIENT_CHOSEN)
                j->recipients[i].state = RECIPIENT_PENDING;
        connect_restart(relay, j);
        return;
    }
    j->after_dot = j->after_dot || doubt;
    job_widen(j, SCOPE_SITE);
    job_decide_all(j, RECIPIENT_DONE, OUTCOME_DEFERRED, v);
    if (s->state == SESSION_QUIT)
        slots_result(s, j, false);
    relay_job_done(relay, j);
}

void session_protocol_error(struct session *s, const char *what)
{
    const struct state_row *row = &rows[s->state];
    struct verdict v = verdict_local(row->stage, "4.5.0", "%s[%s] sent %s while %s", s->host,
                                     s->address, what, row->doing);
    session_fail(s, &v, false);
}

static void lost(struct session *s, int error)
{
    const struct state_row *row = &rows[s->state];
    struct verdict v;
    if (s->state == SESSION_STARTTLS) {
        starttls_lost(s, error ? strerror(error) : "the connection was closed");
        return;
    }
    s->dropped = s->state == SESSION_GREETING && hosts_serves(s->address, s->port);
    if (s->state == SESSION_CONNECT)
        v = connect_verdict(s->host, s->address, s->port, strerror(error));
    else
        v = verdict_local(row->stage, "4.4.2", "lost connection with %s[%s] while %s%s%s", s->host,
                          s->address, row->doing, error ? ": " : "", error ? strerror(error) : "");
    session_fail(s, &v, false);
}

void session_expired(struct deadline *d)
{
    struct session *s = container_of(d, struct session, deadline);
    const struct state_row *row = &rows[s->state];
    struct verdict v;
    switch (s->state) {
    case SESSION_CONNECT:
        lost(s, ETIMEDOUT);
        break;
    case SESSION_IDLE:
        session_quit(s);
        break;
    case SESSION_QUIT:
        session_close(s);
        break;
    case SESSION_STARTTLS:
    case SESSION_HANDSHAKE: /* B74 */
        starttls_lost(s, "timed out");
        break;
    default:
        v = verdict_local(row->stage, "4.4.2", "conversation with %s[%s] timed out while %s",
                          s->host, s->address, row->doing);
        session_fail(s, &v, false);
    }
}

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
        lost(s, errno);
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
        lost(s, errno);
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
        lost(s, error);
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
    struct verdict v = verdict_of_reply(rows[s->state].stage, r);
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
    const struct state_row *row = &rows[s->state];
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
        drop_partial(s);
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
            lost(s, errno);
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
