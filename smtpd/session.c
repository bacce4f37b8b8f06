#include "smtpd/session.h"

#include <errno.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "smtpd/auth.h"
#include "smtpd/content.h"
#include "smtpd/gate.h"
#include "smtpd/limits.h"
#include "smtpd/opening.h"
#include "smtpd/reply.h"
#include "smtpd/report.h"
#include "smtpd/verbs.h"
#include "smtpd/wire.h"

static void pump(struct session *s, struct slice in);
static void watch(struct session *s);
static void go_on_with_handshake(struct session *s);

/* ---- the end -------------------------------------------------------------- */

/* Keeps what cannot be handled yet, and counts it: clients may send as far ahead
 * as they like. */
static void keep(struct session *s, struct slice in)
{
    s->server->memory -= s->in.cap;
    if (s->in.len && s->in.len <= COMMAND_AUTH_LINE_MAX) /* it may be a part of a password */
        explicit_bzero(s->in.data, s->in.len);
    buf_free(&s->in);
    if (in.len && s->phase == PHASE_OPEN && buf_adds(&s->in, in) < 0)
        panic("%zu bytes of input to keep", in.len);
    s->server->memory += s->in.cap;
}

static void session_free(struct session *s)
{
    struct server *sv = s->server;
    event_del(&s->event);
    secure_close(s);
    close(s->fd);
    timeout_stop(&s->timeout);
    list_remove(&s->link);
    clients_disconnect(&sv->clients, s->client);
    names_forget(&sv->names, &s->name);
    auth_forget(s);
    nap_forget(s);
    keep(s, SLICE(""));
    buf_free(&s->out);
    login_free(&s->login);
    login_free(&s->host_login);
    free(s->helo);
    free(s->peer);
    free(s);
    sv->session_count--;
    if (sv->draining && sv->session_count == 0)
        sv->idle(sv->idle_arg);
}

/* Closing while the client still sends would reset the connection, and it might
 * never see our last reply: what it sends is read and dropped for a while. */
static bool linger(struct session *s)
{
    if (s->phase == PHASE_BROKEN || s->goodbye)
        return false;
    secure_close(s); /* before nothing can be sent any more */
    if (shutdown(s->fd, SHUT_WR) < 0)
        return false;
    s->phase = PHASE_LINGERS;
    timeout_start(&s->server->timeouts, &s->timeout, TIMEOUT_LINGER, clock_mono());
    watch(s);
    return true;
}

static void finish(struct session *s)
{
    if (s->mode != INPUT_PROXY)
        report_disconnect(s);
    auth_forget(s);
    tx_reset(s);
    s->wait = WAIT_NOTHING;
    keep(s, SLICE(""));
    if (!linger(s))
        session_free(s);
}

void session_end(struct session *s)
{
    if (s->phase == PHASE_OPEN)
        s->phase = PHASE_ENDING;
}

static void broken(struct session *s, const char *event)
{
    report_broken(s, event);
    s->phase = PHASE_BROKEN;
    buf_free(&s->out);
}

/* ---- output ---------------------------------------------------------------- */

/* Sends what is there; false when the client does not take it all now. */
static bool flush(struct session *s)
{
    enum wire_status status = wire_flush(s);
    if (status == WIRE_LOST)
        broken(s, "lost connection");
    return status != WIRE_LATER;
}

/* ---- waiting ---------------------------------------------------------------- */

static void on_event(evutil_socket_t fd, short what, void *arg);

/* The event stays on while a session waits for qmgr: mostly nothing comes in
 * meanwhile, and two system calls are saved. */
static void watch(struct session *s)
{
    bool writing = s->wait == WAIT_OUTPUT;
    if (writing != s->writing) {
        event_del(&s->event);
        event_assign(&s->event, s->server->base, s->fd, (writing ? EV_WRITE : EV_READ) | EV_PERSIST,
                     on_event, s);
        s->writing = writing;
        s->watched = false;
    }
    if (!s->watched && (writing || s->wait == WAIT_NOTHING)) {
        if (event_add(&s->event, NULL) < 0)
            panic("cannot watch a connection");
        s->watched = true;
    }
}

static void start_timeout(struct session *s)
{
    static const enum timeout_kind kinds[] = {
        [WAIT_NOTHING] = TIMEOUT_CLIENT, [WAIT_OUTPUT] = TIMEOUT_CLIENT,
        [WAIT_LARGE] = TIMEOUT_COMMIT,   [WAIT_COMMIT] = TIMEOUT_COMMIT,
        [WAIT_SLEEP] = TIMEOUT_SLEEP,    [WAIT_NAME] = TIMEOUT_NAME,
        [WAIT_SIGN] = TIMEOUT_TLS,       [WAIT_ACCOUNTS] = TIMEOUT_ACCOUNTS,
    };
    if (s->wait == WAIT_POLICY || s->wait == WAIT_NAP) { /* these have their own time */
        timeout_stop(&s->timeout);
        return;
    }
    if (s->mode == INPUT_TLS) { /* a handshake has one deadline, whatever it waits for (B74) */
        if (s->taken)
            timeout_start(&s->server->timeouts, &s->timeout, TIMEOUT_TLS, clock_mono());
        s->taken = false;
        return;
    }
    enum timeout_kind kind = s->mode == INPUT_PROXY ? TIMEOUT_PROXY : kinds[s->wait];
    /* a command has its time as a whole, however slowly its bytes come in (F34) */
    if (s->wait != WAIT_NOTHING || s->taken)
        timeout_start(&s->server->timeouts, &s->timeout, kind, clock_mono());
}

/* After input was handled: replies leave, unless a later one joins them soon;
 * then the session ends or waits for what comes next. May free it. */
static void settle(struct session *s)
{
    bool ending = s->phase != PHASE_OPEN;
    if (s->wait == WAIT_NOTHING || (ending && s->wait != WAIT_SLEEP))
        s->wait = flush(s) ? WAIT_NOTHING : WAIT_OUTPUT;
    if (s->phase != PHASE_OPEN && s->wait == WAIT_NOTHING) {
        finish(s);
        return;
    }
    start_timeout(s);
    watch(s);
}

/* ---- input -------------------------------------------------------------------- */

static void check_errors(struct session *s)
{
    const struct config *config = s->server->config;
    if (s->errors < config->smtpd_hard_error_limit) {
        if (s->penalty && config->smtpd_error_sleep_time > 0)
            s->wait = WAIT_SLEEP;
    } else if (s->phase == PHASE_OPEN) {
        log_info("too many errors after %s from %s", s->where, s->peer);
        reply_goodbye(s, "4.7.0", "Error: too many errors");
    }
    s->penalty = false;
}

/* Takes one command line; returns the bytes used, 0 if there is none yet. */
static size_t take_command(struct session *s, struct slice in)
{
    static const struct refusal too_long = {500, "5.5.2", "Error: line too long"};
    size_t used;
    struct slice line;
    enum line_status status = line_next(&s->line, in, &used, &line);
    s->behind = in.len - used;
    switch (status) {
    case LINE_MORE:
        return used;
    case LINE_READY:
        s->taken = true;
        verbs_handle(s, line);
        if (s->verb == VERB_AUTH || s->verb == VERB_UNKNOWN) /* there may be a password in it */
            explicit_bzero((char *)(uintptr_t)in.ptr, used);
        break;
    case LINE_TOO_LONG:
    case LINE_FLOOD:
        s->verb = VERB_UNKNOWN;
        s->where = command_name(VERB_UNKNOWN);
        s->counts[VERB_UNKNOWN].all++;
        reply_refusal(s, &too_long);
        session_end(s);
        break;
    }
    return used;
}

/* A process that stops ends its sessions between messages, and a session has
 * its own time limit as well. */
void session_check_age(struct session *s)
{
    const struct server *sv = s->server;
    bool between = s->phase == PHASE_OPEN && s->wait == WAIT_NOTHING &&
                   (s->mode == INPUT_COMMAND || s->mode == INPUT_AUTH) &&
                   (s->state == STATE_READY || s->state == STATE_GREETED);
    if (!between)
        return;
    if (sv->closing)
        reply_goodbye(s, "4.3.2", "Service is restarting, try again");
    else if (clock_mono() - s->started > sv->config->smtpd_session_time_limit * CLOCK_SECOND)
        reply_goodbye(s, "4.3.2", "Error: the session is too long, connect again");
}

/* Gives input to whoever the mode says; returns how much was used. */
static size_t take(struct session *s, struct slice in)
{
    switch (s->mode) {
    case INPUT_PROXY:
        return opening_take_proxy(s, in);
    case INPUT_COMMAND:
        return take_command(s, in);
    case INPUT_AUTH:
        return auth_take(s, in);
    default:
        s->taken = true;
        return content_take(s, in);
    }
}

/* Handles input, which lies in the process's buffer. May free the session. */
static void pump(struct session *s, struct slice in)
{
    while (in.len && s->wait == WAIT_NOTHING && s->phase == PHASE_OPEN && s->mode != INPUT_TLS) {
        size_t used = take(s, in);
        check_errors(s);
        if (used == 0)
            break;
        in = slice_from(in, used);
        if (s->out.len > OUTPUT_HIGH && s->wait == WAIT_NOTHING && !flush(s))
            s->wait = WAIT_OUTPUT;
    }
    keep(s, in);
    if (in.len && s->mode == INPUT_TLS && s->phase == PHASE_OPEN) {
        go_on_with_handshake(s); /* behind a PROXY header */
        return;
    }
    if (in.len == 0)
        session_check_age(s);
    settle(s);
}

void session_resume(struct session *s)
{
    char *at = s->server->input;
    size_t len = s->in.len;
    s->wait = WAIT_NOTHING;
    s->taken = true; /* the wait that is over had its own time */
    check_errors(s); /* the answer may have been one */
    if (len)
        memcpy(at, s->in.data, len);
    pump(s, slice_make(at, len));
}

void session_go_on(struct session *s)
{
    if (s->wait == WAIT_NOTHING)
        session_resume(s);
    else
        settle(s);
}

static void drop_input(struct session *s)
{
    ssize_t n = recv(s->fd, s->server->input, INPUT_READ, 0);
    if (n > 0)
        s->lingered += (uint64_t)n;
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) || s->lingered > LINGER_BYTES)
        session_free(s);
}

/* How much to read at a time. What is read and cannot be handled yet has to be
 * kept, so that little is read when memory is short. */
static size_t reading_size(const struct session *s)
{
    const struct server *sv = s->server;
    if (sv->memory > (uint64_t)sv->config->smtpd_memory_limit / 2)
        return INPUT_TIGHT;
    return s->tx.content && s->tx.content->large >= 0 ? INPUT_SLICE : INPUT_READ;
}

static void lose(struct session *s)
{
    broken(s, "lost connection");
    settle(s);
}

/* The handshake is done; `in` is what came with its end. */
static void begin_encrypted(struct session *s, struct slice in)
{
    char *at = s->server->input + INPUT_AT;
    secure_established(s);
    s->taken = true;
    keep(s, SLICE(""));
    ssize_t n = wire_decrypt(s, in, at);
    if (n < 0 || wire_flush(s) == WIRE_LOST) {
        lose(s);
        return;
    }
    s->behind = (size_t)n;
    opening_secured(s);
    pump(s, slice_make(at, (size_t)n));
}

static void shake_hands(struct session *s, struct slice in)
{
    switch (secure_handshake(s, &in)) {
    case TLS_OK:
        begin_encrypted(s, in);
        return;
    case TLS_MORE:
    case TLS_SIGN:
        keep(s, in);
        break;
    default:
        broken(s, "lost connection");
        break;
    }
    settle(s);
}

static void go_on_with_handshake(struct session *s)
{
    struct slice in;
    if (wire_read_handshake(s, &in) < 0)
        lose(s);
    else
        shake_hands(s, in);
}

void session_signed(struct session *s, struct slice signature)
{
    s->wait = WAIT_NOTHING;
    tls_signed(s->tls, signature);
    if (s->in.len)
        go_on_with_handshake(s);
    else
        shake_hands(s, SLICE(""));
}

static void read_input(struct session *s)
{
    /* what the session kept from before is put right in front of it */
    char *at = s->server->input + INPUT_AT;
    s->taken = false;
    if (s->mode == INPUT_TLS) {
        go_on_with_handshake(s);
        return;
    }
    ssize_t n = wire_read(s, at, reading_size(s));
    if (n < 0)
        lose(s);
    else if (n == 0 && s->tls && tls_output(s->tls).len)
        settle(s);
    if (n <= 0)
        return;
    size_t kept = s->in.len;
    if (kept > INPUT_AT)
        panic("%zu bytes kept while reading", kept);
    if (kept)
        memcpy(at - kept, s->in.data, kept);
    pump(s, slice_make(at - kept, kept + (size_t)n));
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct session *s = arg;
    (void)fd;
    if (s->phase == PHASE_LINGERS) {
        drop_input(s);
    } else if (what & EV_WRITE) {
        if (!flush(s))
            return;
        session_resume(s);
    } else if (s->wait == WAIT_NOTHING) {
        read_input(s);
    } else {
        /* input, or the end of it, has to wait for our answer (B39, F38) */
        event_del(&s->event);
        s->watched = false;
    }
}

/* ---- the beginning --------------------------------------------------------------- */

void session_named(struct session *s, struct slice name)
{
    s->wait = WAIT_NOTHING;
    if (name.len)
        opening_set_name(s, name);
    opening_greet(s);
    settle(s);
}

void session_open(struct server *sv, int fd, const struct sockaddr *from)
{
    struct session *s = xcalloc(1, sizeof *s);
    s->server = sv;
    s->fd = fd;
    s->where = "CONNECT";
    s->taken = true;
    s->started = clock_mono();
    buf_init(&s->in, SERVER_INPUT);
    buf_init(&s->out, OUTPUT_MAX);
    line_init(&s->line, COMMAND_LINE_MAX);
    list_init(&s->timeout.link);
    list_init(&s->link);
    list_push(&sv->sessions, &s->link);
    sv->session_count++;
    tx_init(&s->tx);
    event_assign(&s->event, sv->base, fd, EV_READ | EV_PERSIST, on_event, s);
    opening_begin(s, from);
    settle(s);
}

/* ---- what others tell it ------------------------------------------------------------ */

void session_expired(struct session *s, enum timeout_kind kind)
{
    static const struct slice late = {"Error: the queue does not answer", 32};
    switch (kind) {
    case TIMEOUT_CLIENT:
        if (s->wait == WAIT_OUTPUT) {
            broken(s, "timeout");
            s->wait = WAIT_NOTHING;
        } else {
            report_broken(s, "timeout");
            reply_goodbye(s, "4.4.2", "Error: timeout exceeded");
        }
        settle(s);
        break;
    case TIMEOUT_COMMIT:
        log_warning("%s: no answer from qmgr in %d s", s->tx.id.text, COMMIT_SECONDS);
        link_abort(&s->server->link, s);
        session_refused(s, 451, SLICE("4.3.0"), late);
        break;
    case TIMEOUT_NAME:
        names_forget(&s->server->names, &s->name);
        session_named(s, SLICE(""));
        break;
    case TIMEOUT_ACCOUNTS:
        log_warning("no answer in %d s about a login or mail of %s", ACCOUNTS_SECONDS, s->peer);
        if (!auth_late(s))
            accounts_late(s);
        break;
    case TIMEOUT_SLEEP:
        session_resume(s);
        break;
    case TIMEOUT_TLS:
        keys_forget(&s->server->keys, &s->key);
        s->wait = WAIT_NOTHING;
        broken(s, "timeout");
        settle(s);
        break;
    case TIMEOUT_PROXY:
        broken(s, "timeout");
        settle(s);
        break;
    default:
        session_free(s);
        break;
    }
}

void session_drain(struct session *s)
{
    if (s->in.len || s->phase != PHASE_OPEN)
        return;
    session_check_age(s);
    if (s->phase != PHASE_OPEN)
        settle(s);
}

void session_committed(struct session *s)
{
    reply(s, 250, "2.0.0", "Ok: queued as %s", s->tx.id.text);
    s->errors = s->junk = 0;
    gate_committed(s);
    tx_reset(s);
    session_resume(s);
}

void session_refused(struct session *s, int code, struct slice enhanced, struct slice text)
{
    if (s->wait == WAIT_COMMIT) {
        char status[16];
        snprintf(status, sizeof status, "%.*s", SLICE_ARG(enhanced));
        reject_text(s, tx_single_recipient(&s->tx), code, status, "%s", log_esc(text));
        tx_reset(s);
        session_resume(s);
        return;
    }
    if (s->tx.content)
        content_large_refused(s, code);
    if (s->wait == WAIT_LARGE)
        session_resume(s);
}

void session_large_ready(struct session *s, int fd)
{
    content_large_ready(s, fd);
    session_resume(s);
}
