#include "service/requests.h"

#include <stdlib.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "service/local.h"

enum { READ_SIZE = 64 * 1024 };

struct request_socket {
    const struct request_ops *ops;
    void *arg;
    struct event_base *base;
    struct event *accept, *tick;
    struct list clients;
    unsigned count;
};

/* ---- the end ---------------------------------------------------------------------- */

static void request_reset(struct request_client *c)
{
    c->socket->ops->over(c);
    json_decref(c->request);
    c->request = NULL;
    c->more = NULL;
}

/* Frees the client, or leaves that to the last callback that still refers to it. */
static void client_end(struct request_client *c)
{
    if (c->socket) {
        request_reset(c);
        list_remove(&c->link);
        c->socket->count--;
        event_free(c->readable);
        event_free(c->writable);
        close(c->fd);
        buf_free(&c->in);
        buf_free(&c->out);
        c->socket = NULL;
    }
    if (c->pins == 0)
        free(c);
}

void requests_pin(struct request_client *c)
{
    c->pins++;
}

bool requests_unpin(struct request_client *c)
{
    c->pins--;
    if (c->socket)
        return true;
    client_end(c);
    return false;
}

/* ---- output ----------------------------------------------------------------------- */

/* While a request makes more, little waits: else a long list is sent line by line. */
static void want_to_write(struct request_client *c)
{
    if (c->out.len > 0 && (!c->request || c->out.len >= c->socket->ops->output_low))
        event_add(c->writable, NULL);
}

struct buf *requests_line_begin(struct request_client *c)
{
    if (c->out.len == 0)
        c->last_moved = clock_mono(); /* from now on the client is waited for */
    return &c->out;
}

void requests_line_end(struct request_client *c)
{
    if (buf_addc(&c->out, '\n') < 0)
        c->at_end = true; /* it does not read; what did not fit is lost with it */
    want_to_write(c);
}

bool requests_full(const struct request_client *c)
{
    return c->out.len >= c->socket->ops->output_high;
}

void requests_over(struct request_client *c)
{
    request_reset(c);
    want_to_write(c);
}

void requests_fail(struct request_client *c, const char *format, va_list args)
{
    struct buf text = BUF_INIT(2048);
    (void)buf_vprintf(&text, format, args);
    struct buf *b = requests_line_begin(c);
    json_begin(b);
    json_str(b, "error", buf_slice(&text));
    json_end(b);
    requests_line_end(c);
    buf_free(&text);
    requests_over(c);
}

static void next_turn(struct request_client *c)
{
    static const struct timeval at_once = {0, 0};
    event_add(c->writable, &at_once); /* by its time if not by the socket */
}

void requests_continue(struct request_client *c, void (*more)(struct request_client *c))
{
    c->more = more;
    next_turn(c);
}

/* ---- input ------------------------------------------------------------------------ */

static void fail(struct request_client *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void fail(struct request_client *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    requests_fail(c, format, args);
    va_end(args);
}

static void serve_line(struct request_client *c, struct slice line)
{
    json_error_t error;
    c->request = json_loadb(line.ptr, line.len, JSON_REJECT_DUPLICATES, &error);
    if (json_is_object(c->request))
        c->socket->ops->serve(c);
    else
        fail(c, "A request must be one JSON object in one line.");
}

/* The next whole line, if no request is under way. False: there is none. */
static bool serve_next(struct request_client *c)
{
    struct slice rest = buf_slice(&c->in);
    size_t line_max = c->socket->ops->line_max;
    if (c->request || requests_full(c))
        return false;
    size_t end = slice_chr(rest, '\n');
    if (end == rest.len && rest.len < line_max)
        return false;
    if (end == rest.len) {
        buf_clear(&c->in);
        c->at_end = true; /* where the next request begins is unknown */
        fail(c, "The request is longer than %zu bytes.", line_max);
        return false;
    }
    char *line = slice_dup(slice_first(rest, end));
    buf_consume(&c->in, end + 1);
    serve_line(c, slice_make(line, end));
    explicit_bzero(line, end); /* it may have had a password */
    free(line);
    return true;
}

/* After anything happened: makes more results if there is room, takes the next request,
 * ends the client when all is said. One step of what makes results in a turn of the loop:
 * a long list keeps nobody waiting. */
static void settle(struct request_client *c)
{
    if (c->request && c->more && !requests_full(c))
        c->more(c);
    while (serve_next(c))
        ;
    if (c->at_end && !c->request && c->out.len == 0) {
        client_end(c);
        return;
    }
    want_to_write(c);
    if (c->request && c->more && !requests_full(c))
        next_turn(c);
    if (!c->at_end && c->in.len < c->socket->ops->line_max)
        event_add(c->readable, NULL);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct request_client *c = arg;
    (void)what;
    if (buf_reserve(&c->in, READ_SIZE) < 0) {
        event_del(c->readable); /* until the request under way is answered */
        return;
    }
    enum local_status status = local_read(fd, &c->in);
    if (status == LOCAL_AGAIN)
        return;
    if (status == LOCAL_LOST) {
        client_end(c);
        return;
    }
    if (status == LOCAL_END) {
        c->at_end = true;
        event_del(c->readable);
    }
    c->last_moved = clock_mono();
    settle(c);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct request_client *c = arg;
    (void)what;
    enum local_status status = c->out.len > 0 ? local_write(fd, &c->out) : LOCAL_AGAIN;
    if (status == LOCAL_LOST) {
        client_end(c);
        return;
    }
    if (status == LOCAL_OK)
        c->last_moved = clock_mono();
    settle(c);
}

/* ---- clients ---------------------------------------------------------------------- */

static void client_new(struct request_socket *s, int fd)
{
    struct request_client *c = xcalloc(1, s->ops->client_size);
    c->socket = s;
    c->fd = fd;
    c->uid = local_uid(fd);
    c->in = BUF_INIT(s->ops->line_max + READ_SIZE);
    c->out = BUF_INIT(s->ops->output_max);
    c->last_moved = clock_mono();
    c->readable = event_new(s->base, fd, EV_READ | EV_PERSIST, on_readable, c);
    c->writable = event_new(s->base, fd, EV_WRITE, on_writable, c);
    if (!c->readable || !c->writable)
        panic("cannot watch a connection");
    if (s->ops->begin)
        s->ops->begin(c);
    event_add(c->readable, NULL);
    list_push(&s->clients, &c->link);
    s->count++;
}

static void on_accept(evutil_socket_t listener, short what, void *arg)
{
    struct request_socket *s = arg;
    (void)what;
    int fd = local_accept(listener, s->accept, s->ops->name);
    if (fd < 0)
        return;
    if (s->count >= s->ops->clients_max) {
        local_refuse(fd, s->ops->name);
        return;
    }
    client_new(s, fd);
}

/* Once a second: sends what has waited for more, ends clients that neither read nor
 * write. */
static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct request_socket *s = arg;
    int64_t now = clock_mono();
    (void)fd, (void)what;
    event_add(s->accept, NULL);
    list_each_safe(&s->clients, n)
    {
        struct request_client *c = container_of(n, struct request_client, link);
        if (s->ops->tick && c->request)
            s->ops->tick(c, now);
        bool waited_for = !c->request || c->out.len > 0;
        if (waited_for && now - c->last_moved >= s->ops->idle_seconds * CLOCK_SECOND)
            client_end(c);
        else if (c->out.len > 0)
            event_add(c->writable, NULL);
    }
}

struct request_socket *request_socket_new(struct event_base *base, int listener,
                                          const struct request_ops *ops, void *arg)
{
    static const struct timeval second = {1, 0};
    struct request_socket *s = xcalloc(1, sizeof *s);
    s->ops = ops;
    s->arg = arg;
    s->base = base;
    list_init(&s->clients);
    evutil_make_socket_nonblocking(listener);
    s->accept = event_new(base, listener, EV_READ | EV_PERSIST, on_accept, s);
    s->tick = event_new(base, -1, EV_PERSIST, on_tick, s);
    if (!s->accept || !s->tick)
        panic("cannot watch %s", ops->name);
    event_add(s->accept, NULL);
    event_add(s->tick, &second);
    return s;
}

void request_socket_free(struct request_socket *s)
{
    if (!s)
        return;
    list_each_safe(&s->clients, n) client_end(container_of(n, struct request_client, link));
    event_free(s->accept);
    event_free(s->tick);
    free(s);
}

void *request_socket_arg(const struct request_socket *s)
{
    return s->arg;
}

struct list *request_socket_clients(struct request_socket *s)
{
    return &s->clients;
}
