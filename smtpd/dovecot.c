#include "smtpd/dovecot.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "smtp/dovecot_auth.h"
#include "smtpd/auth.h"
#include "smtpd/session.h"

static struct slice question_key(const void *value)
{
    const struct dovecot_question *q = value;
    return slice_make(&q->number, sizeof q->number);
}

void dovecot_init(struct dovecot *d, struct remote_network *network, const struct config *config)
{
    *d = (struct dovecot){.network = network, .fd = -1, .backoff = 1};
    buf_init(&d->in, DOVECOT_LINE_MAX);
    buf_init(&d->out, DOVECOT_OUT_MAX);
    map_init(&d->asked, question_key);
    if (!config->smtpd_sasl_auth_enable || strcmp(config->smtpd_sasl_type, "dovecot") != 0)
        return;
    if (sasl_endpoint(config->smtpd_sasl_path, d->endpoint) == 0)
        d->state = DOVECOT_DOWN;
}

/* ---- the connection's end ------------------------------------------------------------ */

static void wipe_out(struct dovecot *d)
{
    if (d->out.data)
        explicit_bzero(d->out.data, d->out.len);
    buf_clear(&d->out);
}

static void close_socket(struct dovecot *d)
{
    if (d->readable)
        event_free(d->readable);
    if (d->writable)
        event_free(d->writable);
    if (d->fd >= 0)
        close(d->fd);
    d->readable = d->writable = NULL;
    d->fd = -1;
    buf_clear(&d->in);
    wipe_out(d);
}

/* Nobody will answer what is open. */
static void give_up(struct dovecot *d)
{
    size_t count = 0, at = 0;
    struct dovecot_question *q,
        **all = xcalloc(d->asked.count + 1, sizeof(struct dovecot_question *));
    while ((q = map_next(&d->asked, &at)))
        all[count++] = q;
    for (size_t i = 0; i < count; i++) {
        map_remove(&d->asked, question_key(all[i]));
        all[i]->number = 0;
        auth_lost(container_of(all[i], struct session, dovecot));
    }
    free(all);
}

static void fail(struct dovecot *d, const char *why)
{
    if (d->state == DOVECOT_READY || d->backoff == 1)
        log_warning("Dovecot at %s: %s; logins get 454 until it answers", d->endpoint, why);
    if (d->state == DOVECOT_READY)
        d->backoff = 1;
    d->state = DOVECOT_DOWN;
    d->tag = 0;
    d->not_before = clock_mono() + d->backoff * CLOCK_SECOND;
    d->backoff = 2 * d->backoff < DOVECOT_BACKOFF_MAX ? 2 * d->backoff : DOVECOT_BACKOFF_MAX;
    close_socket(d);
    give_up(d);
}

void dovecot_free(struct dovecot *d)
{
    close_socket(d);
    buf_free(&d->in);
    buf_free(&d->out);
    map_free(&d->asked);
    d->state = DOVECOT_OFF;
}

/* ---- sending ------------------------------------------------------------------------- */

static void flush(struct dovecot *d)
{
    while (d->out.len) {
        ssize_t n = send(d->fd, d->out.data, d->out.len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            fail(d, strerror(errno));
            return;
        }
        if (n < 0) {
            event_add(d->writable, NULL);
            return;
        }
        if ((size_t)n == d->out.len)
            wipe_out(d);
        else
            buf_consume(&d->out, (size_t)n);
    }
}

/* ---- lines ----------------------------------------------------------------------------- */

static void add_mechanism(struct dovecot *d, const struct dovecot_line *l)
{
    if (d->mechanism_count == DOVECOT_MECHANISMS_MAX || !sasl_is_mechanism(l->name))
        return;
    struct dovecot_mechanism *m = &d->mechanisms[d->mechanism_count++];
    snprintf(m->name, sizeof m->name, "%.*s", SLICE_ARG(l->name));
    m->traits = l->traits;
}

static void answer(struct dovecot *d, const struct dovecot_line *l)
{
    char message[DOVECOT_LINE_MAX / 4 * 3];
    struct dovecot_question *q = map_get(&d->asked, slice_make(&l->number, sizeof l->number));
    long len = base64_decode(l->data, message, sizeof message);
    if (!q) /* it was given up */
        return;
    struct session *s = container_of(q, struct session, dovecot);
    if (l->kind != DOVECOT_CONT) {
        map_remove(&d->asked, question_key(q));
        q->number = 0;
    }
    if (len < 0)
        auth_lost(s);
    else
        auth_dovecot(s, l, slice_make(message, (size_t)len));
}

/* 0, or -1 with the reason to hang up. */
static int take_line(struct dovecot *d, struct slice line, const char **why)
{
    struct dovecot_line l;
    *why = "it breaks the protocol";
    if (dovecot_parse(line, &l) < 0)
        return -1;
    switch (l.kind) {
    case DOVECOT_VERSION:
        *why = "it speaks another version of the protocol";
        return l.number == 1 ? 0 : -1;
    case DOVECOT_MECH:
        if (d->state == DOVECOT_GREETED)
            add_mechanism(d, &l);
        return 0;
    case DOVECOT_DONE:
        if (d->state == DOVECOT_GREETED)
            log_info("Dovecot at %s knows the passwords", d->endpoint);
        d->state = DOVECOT_READY;
        d->backoff = 1;
        return 0;
    case DOVECOT_CONT:
    case DOVECOT_OK:
    case DOVECOT_FAIL:
        if (d->state != DOVECOT_READY)
            return -1;
        answer(d, &l);
        return 0;
    case DOVECOT_OTHER:
        break;
    }
    return 0;
}

static void take_lines(struct dovecot *d)
{
    const char *why;
    for (;;) {
        struct slice in = buf_slice(&d->in);
        size_t end = slice_chr(in, '\n');
        if (end == in.len)
            break;
        if (take_line(d, slice_first(in, end), &why) < 0) {
            fail(d, why);
            return;
        }
        buf_consume(&d->in, end + 1);
    }
    if (d->in.len == DOVECOT_LINE_MAX)
        fail(d, "it sends a line without end");
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct dovecot *d = arg;
    (void)what;
    if (buf_reserve(&d->in, DOVECOT_LINE_MAX - d->in.len) < 0)
        panic("no room for Dovecot's line");
    ssize_t n = recv((int)fd, d->in.data + d->in.len, DOVECOT_LINE_MAX - d->in.len, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        fail(d, n < 0 ? strerror(errno) : "it has closed the connection");
        return;
    }
    d->in.len += (size_t)n;
    take_lines(d);
}

/* ---- the connection's beginning ---------------------------------------------------------- */

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct dovecot *d = arg;
    int number = 0;
    socklen_t len = sizeof number;
    (void)what;
    if (d->state != DOVECOT_CONNECTING) {
        flush(d);
        return;
    }
    if (getsockopt((int)fd, SOL_SOCKET, SO_ERROR, &number, &len) < 0 || number) {
        fail(d, strerror(number ? number : errno));
        return;
    }
    d->state = DOVECOT_GREETED;
    d->mechanism_count = 0;
    dovecot_hello((unsigned)getpid(), &d->out);
    event_add(d->readable, NULL);
    flush(d);
}

bool dovecot_connecting(struct dovecot *d, uint64_t tag, int fd, struct slice why)
{
    char text[160];
    if (!d->tag || tag != d->tag)
        return false;
    d->tag = 0;
    if (fd < 0) {
        snprintf(text, sizeof text, "%s", log_esc_n(why, 30));
        fail(d, text);
        return true;
    }
    d->fd = fd;
    d->readable = event_new(d->network->base, fd, EV_READ | EV_PERSIST, on_readable, d);
    d->writable = event_new(d->network->base, fd, EV_WRITE, on_writable, d);
    if (!d->readable || !d->writable || event_add(d->writable, NULL) < 0)
        panic("cannot watch a connection");
    return true;
}

void dovecot_tick(struct dovecot *d, int64_t now)
{
    bool opening = d->state == DOVECOT_CONNECTING || d->state == DOVECOT_GREETED;
    if (opening && now - d->since > DOVECOT_HANDSHAKE_SECONDS * CLOCK_SECOND)
        fail(d, "it does not answer");
    if (d->state != DOVECOT_DOWN || now < d->not_before || !d->network->connect)
        return;
    d->since = now;
    d->tag = ++d->network->next_tag;
    d->state = DOVECOT_CONNECTING;
    if (!d->network->connect(d->network->arg, d->tag, slice_str(d->endpoint)))
        fail(d, "master is not there");
}

/* ---- exchanges --------------------------------------------------------------------------- */

int dovecot_begin(struct session *s, struct slice mechanism, const struct slice *text)
{
    struct dovecot *d = &s->server->dovecot;
    if (d->state != DOVECOT_READY || d->asked.count >= DOVECOT_OPEN_MAX)
        return -1;
    s->dovecot.number = ++d->next_number;
    struct dovecot_request r = {.number = s->dovecot.number,
                                .mechanism = mechanism,
                                .client = s->address_len ? session_client_address(s) : SLICE(""),
                                .secured = secure_is_on(s),
                                .initial = text};
    if (dovecot_request(&r, &d->out) < 0) {
        s->dovecot.number = 0;
        return -1;
    }
    map_put(&d->asked, &s->dovecot);
    event_add(d->writable, NULL); /* sent from there: a failure must not come from within */
    return 0;
}

int dovecot_go_on(struct session *s, struct slice text)
{
    struct dovecot *d = &s->server->dovecot;
    if (!s->dovecot.number || dovecot_continue(s->dovecot.number, text, &d->out) < 0)
        return -1;
    event_add(d->writable, NULL);
    return 0;
}

void dovecot_forget(struct session *s)
{
    struct dovecot *d = &s->server->dovecot;
    if (!s->dovecot.number)
        return;
    map_remove(&d->asked, question_key(&s->dovecot));
    if (d->state == DOVECOT_READY && dovecot_cancel(s->dovecot.number, &d->out) == 0)
        event_add(d->writable, NULL);
    s->dovecot.number = 0;
}
