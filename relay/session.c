#include "relay/session.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "core/log.h"
#include "core/mem.h"
#include "relay/connect.h"
#include "relay/hosts.h"
#include "relay/outcome.h"
#include "relay/slots.h"

/* A server that closes so soon after a message has had enough of them. */
static const int64_t CLOSED_AT_ONCE = CLOCK_SECOND;
enum {
    PUT_OFF_MAX = 10, /* jobs in a row: it may be this connection that has had enough */
    UNLIMITED = 0
};

static const struct session_awaits rows[SESSION_STATES] = {
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

const struct session_awaits *session_awaits(const struct session *s)
{
    return &rows[s->state];
}

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

void session_free(struct session *s)
{
    list_remove(&s->link);
    session_drop_partial(s);
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
    const struct session_awaits *row = session_awaits(s);
    struct verdict v = verdict_local(row->stage, "4.5.0", "%s[%s] sent %s while %s", s->host,
                                     s->address, what, row->doing);
    session_fail(s, &v, false);
}

void session_lost(struct session *s, int error)
{
    const struct session_awaits *row = session_awaits(s);
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
    const struct session_awaits *row = session_awaits(s);
    struct verdict v;
    switch (s->state) {
    case SESSION_CONNECT:
        session_lost(s, ETIMEDOUT);
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
