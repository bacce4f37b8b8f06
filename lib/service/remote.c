#include "service/remote.h"

#include <errno.h>
#include <event2/event_struct.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"

struct remote_connection {
    struct list link; /* in remote->connections */
    struct remote *remote;
    struct remote_query *query; /* NULL: idle */
    uint64_t tag;
    int fd; /* -1: master has not answered yet */
    size_t sent;
    struct buf in;
    int64_t idle_since;
    struct event reading, writing;
};

static void start(struct remote_query *q, bool fresh);

/* ---- the end of a question ------------------------------------------------------ */

/* Its owner hears of it last, as it may ask again. */
static void finish(struct remote_query *q, struct slice reply, const char *why)
{
    list_remove(&q->link);
    list_remove(&q->waiting);
    q->remote = NULL;
    buf_free(&q->request);
    q->answered(q, reply, why);
}

static void on_doom(evutil_socket_t fd, short what, void *arg)
{
    struct remote *r = arg;
    struct list now, *n;
    char why[REMOTE_TROUBLE_MAX];
    (void)fd;
    (void)what;
    memcpy(why, r->trouble, sizeof why);
    list_init(&now); /* what is doomed meanwhile is told the next time */
    while ((n = list_pop(&r->doomed)))
        list_push(&now, n);
    while ((n = list_pop(&now)))
        finish(container_of(n, struct remote_query, link), SLICE(""), why);
}

/* There is no answer: r->trouble says why. The owner is told from the event loop,
 * because whoever is on the stack now may not be ready for it. */
static void doom(struct remote_query *q)
{
    struct remote *r = q->remote;
    if (!r->doom)
        r->doom = event_new(r->network->base, -1, 0, on_doom, r);
    if (!r->doom)
        panic("cannot make an event");
    list_remove(&q->link);
    list_remove(&q->waiting);
    list_push(&r->doomed, &q->link);
    event_active(r->doom, EV_TIMEOUT, 0);
}

/* It failed on a fresh connection, or gave no answer in time. */
static void back_off(struct remote *r)
{
    if (!r->backoff_max)
        return;
    int64_t next = r->backoff ? 2 * r->backoff : REMOTE_BACKOFF_FIRST;
    r->backoff = next < r->backoff_max ? next : r->backoff_max;
    r->not_before = clock_mono() + r->backoff * CLOCK_SECOND;
    while (!list_empty(&r->waiting))
        doom(container_of(r->waiting.next, struct remote_query, waiting));
}

/* ---- connections -------------------------------------------------------------- */

static void serve_waiting(struct remote *r)
{
    struct list *n = list_pop(&r->waiting);
    if (n)
        start(container_of(n, struct remote_query, waiting), false);
}

static void connection_free(struct remote_connection *c)
{
    struct remote *r = c->remote;
    if (c->query)
        c->query->connection = NULL;
    if (c->fd >= 0) {
        event_del(&c->reading);
        event_del(&c->writing);
        close(c->fd);
    }
    list_remove(&c->link);
    r->connection_count--;
    buf_free(&c->in);
    free(c);
}

/* The connection cannot be used any more. */
static void failed(struct remote_connection *c, const char *why)
{
    struct remote *r = c->remote;
    struct remote_query *q = c->query;
    if (q)
        snprintf(r->trouble, sizeof r->trouble, "%s", why);
    connection_free(c);
    if (q && ++q->tries < REMOTE_TRIES) {
        start(q, true);
    } else if (q) {
        doom(q);
        back_off(r);
    }
    serve_waiting(r);
}

static void send_request(struct remote_connection *c)
{
    struct buf *request = &c->query->request;
    while (c->sent < request->len) {
        ssize_t n = send(c->fd, request->data + c->sent, request->len - c->sent, MSG_NOSIGNAL);
        if (n >= 0) {
            c->sent += (size_t)n;
        } else if (errno == EAGAIN || errno == ENOTCONN) {
            event_add(&c->writing, NULL);
            return;
        } else if (errno != EINTR) {
            failed(c, strerror(errno));
            return;
        }
    }
}

static void use(struct remote_connection *c, struct remote_query *q)
{
    c->query = q;
    c->sent = 0;
    q->connection = c;
    if (c->fd >= 0)
        send_request(c);
}

/* A whole reply is in c->in. */
static void answered(struct remote_connection *c, struct slice answer, bool more)
{
    struct remote *r = c->remote;
    struct remote_query *q = c->query;
    struct buf reply = c->in;
    buf_init(&c->in, r->reply_max);
    c->query = NULL;
    q->connection = NULL;
    c->idle_since = r->heard = clock_mono();
    r->backoff = 0;
    r->not_before = 0;
    if (more) /* it is out of step */
        connection_free(c);
    serve_waiting(r);
    finish(q, answer, NULL);
    buf_free(&reply);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    enum { READ_SIZE = 4096 };
    struct remote_connection *c = arg;
    struct slice reply;
    size_t used = 0, room = c->in.max - c->in.len;
    (void)what;
    if (room > READ_SIZE)
        room = READ_SIZE;
    if (buf_reserve(&c->in, room) < 0)
        panic("no room for a reply");
    ssize_t n = recv(fd, c->in.data + c->in.len, room, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || !c->query) {
        failed(c, n < 0   ? strerror(errno)
                  : n > 0 ? "it speaks unasked"
                          : "it closed the connection");
        return;
    }
    c->in.len += (size_t)n;
    switch (c->remote->parse(buf_slice(&c->in), &reply, &used)) {
    case REMOTE_REPLY_MORE:
        if (c->in.len == c->in.max)
            failed(c, "its reply is too long");
        break;
    case REMOTE_REPLY_DONE:
        answered(c, reply, used < c->in.len);
        break;
    case REMOTE_REPLY_BAD:
        failed(c, "malformed reply");
        break;
    }
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct remote_connection *c = arg;
    (void)fd;
    (void)what;
    if (c->query)
        send_request(c);
}

static struct remote_connection *connection_new(struct remote *r)
{
    struct remote_connection *c = xcalloc(1, sizeof *c);
    c->remote = r;
    c->fd = -1;
    c->tag = ++r->network->next_tag;
    buf_init(&c->in, r->reply_max);
    list_push(&r->connections, &c->link);
    r->connection_count++;
    return c;
}

bool remote_connecting(struct remote *r, uint64_t tag, int fd, struct slice why)
{
    list_each(&r->connections, n)
    {
        struct remote_connection *c = container_of(n, struct remote_connection, link);
        if (c->tag != tag || c->fd >= 0)
            continue;
        if (fd < 0) {
            failed(c, log_esc(why));
            return true;
        }
        c->fd = fd;
        event_assign(&c->reading, r->network->base, fd, EV_READ | EV_PERSIST, on_readable, c);
        event_assign(&c->writing, r->network->base, fd, EV_WRITE, on_writable, c);
        if (event_add(&c->reading, NULL) < 0)
            panic("cannot watch a connection");
        if (c->query)
            send_request(c);
        return true;
    }
    return false;
}

/* ---- questions -------------------------------------------------------------------- */

static struct remote_connection *find_idle(const struct remote *r)
{
    list_each(&r->connections, n)
    {
        struct remote_connection *c = container_of(n, struct remote_connection, link);
        if (!c->query && c->fd >= 0)
            return c;
    }
    return NULL;
}

/* fresh: on a new connection, as an older one has just failed. */
static void start(struct remote_query *q, bool fresh)
{
    struct remote *r = q->remote;
    struct remote_connection *c = fresh ? NULL : find_idle(r);
    if (clock_mono() < r->not_before) {
        doom(q);
    } else if (c) {
        use(c, q);
    } else if (r->connection_count < r->connections_max) {
        c = connection_new(r);
        use(c, q);
        if (!r->network->connect(r->network->arg, c->tag, slice_str(r->endpoint)))
            failed(c, "master is not there to connect");
    } else {
        list_push(&r->waiting, &q->waiting);
    }
}

void remote_ask(struct remote *r, struct remote_query *q)
{
    q->remote = r;
    q->connection = NULL;
    q->since = clock_mono();
    q->tries = 0;
    list_init(&q->waiting);
    list_init(&q->link);
    list_push(&r->queries, &q->link);
    start(q, false);
}

void remote_forget(struct remote_query *q)
{
    struct remote *r = q->remote;
    if (!r)
        return;
    list_remove(&q->link);
    list_remove(&q->waiting);
    q->remote = NULL;
    buf_free(&q->request);
    if (q->connection) {
        connection_free(q->connection); /* its reply would be taken for the next one's */
        serve_waiting(r);
    }
}

/* ---- servers ---------------------------------------------------------------------- */

void remote_init(struct remote *r)
{
    list_init(&r->connections);
    list_init(&r->queries);
    list_init(&r->waiting);
    list_init(&r->doomed);
    r->doom = NULL;
    r->connection_count = 0;
    r->backoff = r->not_before = r->heard = 0;
    r->trouble[0] = '\0';
}

void remote_free(struct remote *r)
{
    list_each_safe(&r->connections, n)
        connection_free(container_of(n, struct remote_connection, link));
    if (r->doom)
        event_free(r->doom);
    r->doom = NULL;
}

static void expire_queries(struct remote *r, int64_t now)
{
    while (!list_empty(&r->queries)) {
        struct remote_query *q = container_of(r->queries.next, struct remote_query, link);
        if (now < q->since + r->timeout)
            return;
        (void)snprintf(r->trouble, sizeof r->trouble, "no answer in time");
        /* one question that is too hard for it is no reason to leave the others */
        bool dead = q->connection && r->heard < q->since;
        if (q->connection)
            connection_free(q->connection);
        finish(q, SLICE(""), r->trouble);
        if (dead)
            back_off(r);
        serve_waiting(r);
    }
}

void remote_tick(struct remote *r, int64_t now)
{
    expire_queries(r, now);
    list_each_safe(&r->connections, n)
    {
        struct remote_connection *c = container_of(n, struct remote_connection, link);
        if (!c->query && c->fd >= 0 && now - c->idle_since > r->idle)
            connection_free(c);
    }
}
