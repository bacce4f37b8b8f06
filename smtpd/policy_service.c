#include "smtpd/policy_service.h"

#include <errno.h>
#include <event2/event_struct.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "smtpd/limits.h"

struct policy_connection {
    struct list link; /* in service->connections */
    struct policy_service *service;
    struct policy_query *query; /* NULL: idle */
    uint64_t tag;
    int fd; /* -1: master has not answered yet */
    size_t sent;
    struct buf in;
    int64_t idle_since;
    struct event reading, writing;
};

static void start(struct policy_query *q, bool fresh);

/* ---- connections -------------------------------------------------------------- */

static void serve_waiting(struct policy_service *v)
{
    struct list *n = list_pop(&v->waiting);
    if (n)
        start(container_of(n, struct policy_query, waiting), false);
}

static void connection_free(struct policy_connection *c)
{
    struct policy_service *v = c->service;
    if (c->query)
        c->query->connection = NULL;
    if (c->fd >= 0) {
        event_del(&c->reading);
        event_del(&c->writing);
        close(c->fd);
    }
    list_remove(&c->link);
    v->connection_count--;
    buf_free(&c->in);
    free(c);
}

/* The query is over; its owner hears of it last, as it may ask again. */
static void finish(struct policy_query *q, struct slice action)
{
    struct policy_action a;
    policy_action_parse(action, &a);
    list_remove(&q->link);
    list_remove(&q->waiting);
    q->service = NULL;
    buf_free(&q->request);
    q->answered(q, &a);
}

static void use_default(struct policy_query *q, const char *why)
{
    struct policy_service *v = q->service;
    log_warning("policy server %s: %s; its default action holds: %s", v->endpoint, why,
                v->default_action);
    finish(q, slice_str(v->default_action));
}

/* The connection cannot be used any more. */
static void failed(struct policy_connection *c, const char *why)
{
    struct policy_service *v = c->service;
    struct policy_query *q = c->query;
    connection_free(c);
    if (q && ++q->tries < POLICY_TRIES)
        start(q, true);
    else if (q && q->asking) {
        q->since = -v->timeout; /* over at the next tick: its owner is not ready for the answer */
        list_remove(&q->link);
        list_push_front(&v->queries, &q->link);
    } else if (q)
        use_default(q, why);
    serve_waiting(v);
}

static void send_request(struct policy_connection *c)
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

static void use(struct policy_connection *c, struct policy_query *q)
{
    c->query = q;
    c->sent = 0;
    q->connection = c;
    if (c->fd >= 0)
        send_request(c);
}

/* A whole reply is in c->in. */
static void answered(struct policy_connection *c, struct slice action, bool more)
{
    struct policy_service *v = c->service;
    struct policy_query *q = c->query;
    struct buf reply = c->in;
    buf_init(&c->in, POLICY_REPLY_MAX);
    c->query = NULL;
    q->connection = NULL;
    c->idle_since = clock_mono();
    if (more) /* it is out of step */
        connection_free(c);
    serve_waiting(v);
    finish(q, action);
    buf_free(&reply);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct policy_connection *c = arg;
    struct slice action;
    size_t used = 0;
    (void)what;
    size_t room = c->in.max - c->in.len;
    if (buf_reserve(&c->in, room) < 0)
        panic("no room for a reply");
    ssize_t n = recv(fd, c->in.data + c->in.len, room, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || !c->query) {
        failed(c, n < 0 ? strerror(errno) : "it closed the connection");
        return;
    }
    c->in.len += (size_t)n;
    switch (policy_reply_parse(buf_slice(&c->in), &action, &used)) {
    case POLICY_REPLY_MORE:
        break;
    case POLICY_REPLY_DONE:
        answered(c, action, used < c->in.len);
        break;
    case POLICY_REPLY_BAD:
        failed(c, "malformed reply");
        break;
    }
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct policy_connection *c = arg;
    (void)fd;
    (void)what;
    if (c->query)
        send_request(c);
}

static struct policy_connection *connection_new(struct policy_service *v)
{
    struct policy_connection *c = xcalloc(1, sizeof *c);
    c->service = v;
    c->fd = -1;
    c->tag = ++v->network->next_tag;
    buf_init(&c->in, POLICY_REPLY_MAX);
    list_push(&v->connections, &c->link);
    v->connection_count++;
    return c;
}

bool policy_connecting(struct policy_service *v, uint64_t tag, int fd, struct slice why)
{
    list_each(&v->connections, n)
    {
        struct policy_connection *c = container_of(n, struct policy_connection, link);
        if (c->tag != tag || c->fd >= 0)
            continue;
        if (fd < 0) {
            failed(c, log_esc(why));
            return true;
        }
        c->fd = fd;
        event_assign(&c->reading, v->network->base, fd, EV_READ | EV_PERSIST, on_readable, c);
        event_assign(&c->writing, v->network->base, fd, EV_WRITE, on_writable, c);
        if (event_add(&c->reading, NULL) < 0)
            panic("cannot watch a policy server");
        if (c->query)
            send_request(c);
        return true;
    }
    return false;
}

/* ---- queries -------------------------------------------------------------------- */

static struct policy_connection *find_idle(const struct policy_service *v)
{
    list_each(&v->connections, n)
    {
        struct policy_connection *c = container_of(n, struct policy_connection, link);
        if (!c->query && c->fd >= 0)
            return c;
    }
    return NULL;
}

/* fresh: on a new connection, as an older one has just failed. */
static void start(struct policy_query *q, bool fresh)
{
    struct policy_service *v = q->service;
    struct policy_connection *c = fresh ? NULL : find_idle(v);
    if (c) {
        use(c, q);
    } else if (v->connection_count < POLICY_CONNECTIONS_MAX) {
        c = connection_new(v);
        use(c, q);
        if (!v->network->connect(v->network->arg, c->tag, slice_str(v->endpoint)))
            failed(c, "master is not there to connect");
    } else {
        list_push(&v->waiting, &q->waiting);
    }
}

void policy_ask(struct policy_service *v, struct policy_query *q)
{
    q->service = v;
    q->connection = NULL;
    q->since = clock_mono();
    q->tries = 0;
    list_init(&q->waiting);
    list_init(&q->link);
    list_push(&v->queries, &q->link);
    q->asking = true;
    start(q, false);
    q->asking = false;
}

void policy_forget(struct policy_query *q)
{
    struct policy_service *v = q->service;
    if (!v)
        return;
    list_remove(&q->link);
    list_remove(&q->waiting);
    q->service = NULL;
    buf_free(&q->request);
    if (q->connection) {
        connection_free(q->connection); /* its reply would be taken for the next one's */
        serve_waiting(v);
    }
}

/* ---- servers ---------------------------------------------------------------------- */

void policy_service_init(struct policy_service *v, struct policy_network *network)
{
    *v = (struct policy_service){.network = network};
    list_init(&v->connections);
    list_init(&v->queries);
    list_init(&v->waiting);
}

void policy_service_free(struct policy_service *v)
{
    list_each_safe(&v->connections, n)
        connection_free(container_of(n, struct policy_connection, link));
    free(v->endpoint);
    free(v->default_action);
    free(v->context);
}

static void expire_queries(struct policy_service *v, int64_t now)
{
    while (!list_empty(&v->queries)) {
        struct policy_query *q = container_of(v->queries.next, struct policy_query, link);
        if (now < q->since + v->timeout)
            return;
        bool doomed = q->since < 0;
        if (q->connection)
            connection_free(q->connection);
        use_default(q, doomed ? "it cannot be asked" : "no answer in time");
        serve_waiting(v);
    }
}

void policy_tick(struct policy_service *v, int64_t now)
{
    expire_queries(v, now);
    list_each_safe(&v->connections, n)
    {
        struct policy_connection *c = container_of(n, struct policy_connection, link);
        if (!c->query && c->fd >= 0 && now - c->idle_since > POLICY_IDLE_SECONDS * CLOCK_SECOND)
            connection_free(c);
    }
}
