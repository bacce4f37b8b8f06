#include "quota/control.h"

#include <stdio.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "service/local.h"

struct client {
    struct list link;
    struct control *control; /* NULL: gone, only pinned */
    int fd;
    unsigned pins;
    long uid;
    struct buf in, out;
    struct event *readable, *writable;
    json_t *request; /* under way */
    json_t *last;    /* members of the last line, until the change is durable */
    void (*more)(struct client *c);
    struct key position;
    bool at_end, settling;
    int64_t moved; /* monotonic: the last time that a byte went or came */
};

struct control {
    struct quota *q;
    struct event *accept, *tick;
    struct list clients;
    unsigned count;
};

static void settle(struct client *c);

struct quota *control_quota(const struct client *c)
{
    return c->control->q;
}

const json_t *control_request(const struct client *c)
{
    return c->request;
}

struct key *control_position(struct client *c)
{
    return &c->position;
}

/* ---- life of a client ----------------------------------------------------------------- */

static void client_end(struct client *c)
{
    if (c->control) {
        list_remove(&c->link);
        c->control->count--;
        event_free(c->readable);
        event_free(c->writable);
        close(c->fd);
        buf_free(&c->in);
        buf_free(&c->out);
        json_decref(c->request);
        json_decref(c->last);
        c->control = NULL;
    }
    if (c->pins == 0 && !c->settling)
        free(c);
}

struct client *control_client_pin(struct client *c)
{
    c->pins++;
    return c;
}

struct client *control_client_unpin(struct client *c)
{
    c->pins--;
    if (c->control)
        return c;
    client_end(c);
    return NULL;
}

/* ---- output ------------------------------------------------------------------------------ */

static void add_line(struct client *c, json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT);
    if (!text)
        panic("a result that is no JSON");
    if (c->out.len == 0)
        c->moved = clock_mono();
    if (buf_addstr(&c->out, text) < 0 || buf_addc(&c->out, '\n') < 0)
        c->at_end = true; /* it does not read; the line is lost with it */
    free(text);
    json_decref(value);
    event_add(c->writable, NULL);
}

void control_result(struct client *c, json_t *result)
{
    add_line(c, result);
}

static void request_over(struct client *c)
{
    json_decref(c->request);
    c->request = NULL;
    c->more = NULL;
    c->position.len = 0;
    if (!c->settling)
        settle(c);
}

void control_done(struct client *c, json_t *more)
{
    json_t *line = json_pack("{s:b}", "done", 1);
    if (more)
        json_object_update(line, more);
    json_decref(more);
    add_line(c, line);
    request_over(c);
}

void control_fail(struct client *c, const char *format, ...)
{
    struct buf text = BUF_INIT(2048);
    va_list args;
    va_start(args, format);
    (void)buf_vprintf(&text, format, args);
    va_end(args);
    add_line(c, json_pack("{s:s%}", "error", text.data ? text.data : "", text.len));
    buf_free(&text);
    request_over(c);
}

void control_continue(struct client *c, void (*more)(struct client *c))
{
    c->more = more;
    if (!c->settling)
        settle(c);
}

/* ---- changes -------------------------------------------------------------------------------- */

static void on_durable(void *arg)
{
    struct client *c = control_client_unpin(arg);
    if (!c)
        return;
    json_t *more = c->last;
    c->last = NULL;
    control_done(c, more);
}

void control_audit(struct client *c, struct buf *batch, const char *what, struct slice text)
{
    struct quota *q = c->control->q;
    struct key k = {.len = 0};
    json_t *j =
        json_pack("{s:I,s:I,s:s,s:s%}", "time", (json_int_t)quota_now(), "uid", (json_int_t)c->uid,
                  "what", what, "request", text.ptr ? text.ptr : "", text.len);
    key_number(&k, (uint64_t)clock_wall());
    key_number(&k, q->audit_number++);
    if (j)
        quota_put_json(batch, T_AUDIT, key_slice(&k), j);
    json_decref(j);
}

/* Who, when, what: the request without its secrets. */
static void add_audit(struct client *c, struct buf *batch, const char *what)
{
    json_t *copy = json_deep_copy(c->request);
    json_object_del(copy, "password");
    json_object_del(copy, "hash");
    json_object_del(copy, "scram");
    json_object_del(copy, "records"); /* of an import: control_audit tells what they changed */
    char *text = json_dumps(copy, JSON_COMPACT);
    control_audit(c, batch, what, slice_first(slice_str(text ? text : ""), (size_t)AUDIT_TEXT_MAX));
    log_info("%s: %s by uid %ld", what, json_text(c->request, "request"), c->uid);
    json_decref(copy);
    free(text);
}

void control_change_with(struct client *c, struct buf *batch, const char *what, json_t *more)
{
    add_audit(c, batch, what);
    json_decref(c->last);
    c->last = more;
    sync_apply(c->control->q, buf_slice(batch), on_durable, control_client_pin(c));
    book_ready(c->control->q);
}

void control_change(struct client *c, struct buf *batch, const char *what)
{
    control_change_with(c, batch, what, NULL);
}

/* ---- input ---------------------------------------------------------------------------------- */

static void serve_line(struct client *c, struct slice line)
{
    json_error_t error;
    c->request = json_loadb(line.ptr, line.len, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(c->request)) {
        control_fail(c, "A request must be one JSON object in one line.");
        return;
    }
    control_serve *serve = control_find(json_text(c->request, "request"));
    if (serve)
        serve(c);
    else
        control_fail(c, "There is no such request; see doc/control-protocol.md.");
}

/* The next whole line, if no request is under way. False: there is none. */
static bool serve_next(struct client *c)
{
    struct slice rest = buf_slice(&c->in);
    if (c->request || c->out.len >= CONTROL_OUTPUT_HIGH)
        return false;
    size_t end = slice_chr(rest, '\n');
    if (end == rest.len) {
        if (c->in.len < CONTROL_LINE_MAX)
            return false;
        buf_clear(&c->in);
        c->at_end = true; /* where the next request begins is unknown */
        control_fail(c, "The request is longer than %d bytes.", (int)CONTROL_LINE_MAX);
        return false;
    }
    char *line = slice_dup(slice_first(rest, end));
    buf_consume(&c->in, end + 1);
    serve_line(c, slice_make(line, end));
    explicit_bzero(line, end); /* it may have had a password */
    free(line);
    return true;
}

/* After anything happened: more results, the next request, the end. */
static void settle(struct client *c)
{
    c->settling = true;
    do
        while (c->control && c->request && c->more && c->out.len < CONTROL_OUTPUT_HIGH)
            c->more(c);
    while (c->control && serve_next(c));
    c->settling = false;
    if (!c->control) {
        client_end(c);
        return;
    }
    if (c->at_end && !c->request && c->out.len == 0)
        client_end(c);
    else if (!c->at_end && c->in.len < CONTROL_LINE_MAX)
        event_add(c->readable, NULL);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct client *c = arg;
    (void)what;
    if (buf_reserve(&c->in, 65536) < 0) {
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
    c->moved = clock_mono();
    settle(c);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct client *c = arg;
    (void)what;
    enum local_status status = local_write(fd, &c->out);
    if (status == LOCAL_LOST) {
        client_end(c);
        return;
    }
    if (status == LOCAL_OK)
        c->moved = clock_mono();
    if (c->out.len)
        event_add(c->writable, NULL);
    settle(c);
}

/* ---- clients ----------------------------------------------------------------------------------
 */

static void client_new(struct control *control, int fd)
{
    struct client *c = xcalloc(1, sizeof *c);
    c->control = control;
    c->fd = fd;
    c->uid = local_uid(fd);
    c->in = BUF_INIT(CONTROL_LINE_MAX + 65536);
    c->out = BUF_INIT(CONTROL_OUTPUT_MAX);
    c->moved = clock_mono();
    c->readable = event_new(control->q->s->base, fd, EV_READ | EV_PERSIST, on_readable, c);
    c->writable = event_new(control->q->s->base, fd, EV_WRITE, on_writable, c);
    event_add(c->readable, NULL);
    list_push(&control->clients, &c->link);
    control->count++;
}

static const char socket_name[] = "the accounts' socket";

static void on_accept(evutil_socket_t listener, short what, void *arg)
{
    struct control *control = arg;
    (void)what;
    int fd = local_accept(listener, control->accept, socket_name);
    if (fd < 0)
        return;
    if (control->count >= CONTROL_CLIENTS_MAX) {
        local_refuse(fd, socket_name);
        return;
    }
    client_new(control, fd);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct control *control = arg;
    int64_t old = clock_mono() - CONTROL_IDLE_SECONDS * CLOCK_SECOND;
    (void)fd, (void)what;
    event_add(control->accept, NULL);
    list_each_safe(&control->clients, n)
    {
        struct client *c = container_of(n, struct client, link);
        if ((!c->request || c->out.len) && c->moved < old)
            client_end(c);
    }
}

struct control *control_new(struct quota *q)
{
    static const struct timeval second = {1, 0};
    if (q->s->listener_count == 0) {
        log_warning("no accounts' socket: 'postern account' cannot change anything");
        return NULL;
    }
    struct control *c = xcalloc(1, sizeof *c);
    c->q = q;
    list_init(&c->clients);
    evutil_make_socket_nonblocking(q->s->listeners[0]);
    c->accept = event_new(q->s->base, q->s->listeners[0], EV_READ | EV_PERSIST, on_accept, c);
    c->tick = event_new(q->s->base, -1, EV_PERSIST, on_tick, c);
    event_add(c->accept, NULL);
    event_add(c->tick, &second);
    return c;
}

void control_free(struct control *c)
{
    if (!c)
        return;
    list_each_safe(&c->clients, n) client_end(container_of(n, struct client, link));
    event_free(c->accept);
    event_free(c->tick);
    free(c);
}
