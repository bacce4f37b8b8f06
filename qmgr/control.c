/* The socket: clients, their lines in and out, their time. */
#include "qmgr/control.h"

#include <stdio.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/control_client.h"
#include "service/local.h"

static const struct {
    const char *name;
    void (*serve)(struct control_client *c);
} requests[] = {
    {"ping", control_ping},
    {"status", control_status},
    {"queue.list", control_queue_list},
    {"queue.summary", control_queue_summary},
    {"queue.action", control_queue_action},
    {"message.show", control_message_show},
    {"site.show", control_site_show},
    {"shaping.list", control_shaping_list},
    {"shaping.show", control_shaping_show},
    {"shaping.act", control_shaping_act},
    {"shaping.why", control_shaping_why},
    {"source.list", control_source_list},
    {"source.show", control_source_show},
    {"source.act", control_source_act},
    {"source.pools", control_source_pools},
    {"shaping.export", control_shaping_export},
    {"shaping.import", control_shaping_import},
};

static void request_reset(struct control_client *c)
{
    struct control_request *r = &c->request;
    if (r->walk)
        queue_walk_cancel(r->walk);
    json_decref(r->json);
    control_summary_free(r);
    buf_free(&r->content);
    *r = (struct control_request){.content = BUF_INIT(CONTROL_CONTENT_MAX)};
    c->more = NULL;
    c->paused = c->busy = false;
}

/* Frees the client, or leaves that to the last callback that still refers to it. */
static void client_end(struct control_client *c)
{
    if (!c->dead) {
        c->dead = true;
        request_reset(c);
        list_remove(&c->link);
        c->control->count--;
        event_free(c->readable);
        event_free(c->writable);
        close(c->fd);
        buf_free(&c->in);
        buf_free(&c->out);
        c->control = NULL;
    }
    if (c->pins == 0)
        free(c);
}

void control_pin(struct control_client *c)
{
    c->pins++;
}

bool control_unpin(struct control_client *c)
{
    c->pins--;
    if (c->dead)
        client_end(c);
    else
        return true;
    return false;
}

/* ---- output ------------------------------------------------------------------- */

/* Output is sent by the event alone: a request's code may add lines without the
 * client ending under its feet. While a request makes more, little waits: else
 * a long list is sent line by line. */
static void want_to_write(struct control_client *c)
{
    if (c->out.len > 0 && (!c->busy || c->out.len >= CONTROL_OUTPUT_LOW))
        event_add(c->writable, NULL);
}

struct buf *control_line_begin(struct control_client *c)
{
    if (c->out.len == 0)
        c->last_moved = clock_mono(); /* from now on the client is waited for */
    json_begin(&c->out);
    return &c->out;
}

void control_line_end(struct control_client *c)
{
    json_end(&c->out);
    buf_addc(&c->out, '\n');
    want_to_write(c);
}

bool control_full(struct control_client *c)
{
    return c->out.len >= CONTROL_OUTPUT_HIGH;
}

void control_done(struct control_client *c, void (*members)(struct control_client *, struct buf *))
{
    struct buf *b = control_line_begin(c);
    json_bool(b, "done", true);
    if (members)
        members(c, b);
    control_line_end(c);
    request_reset(c);
    want_to_write(c);
}

void control_fail(struct control_client *c, const char *format, ...)
{
    struct buf text = BUF_INIT(2048);
    va_list args;
    va_start(args, format);
    buf_vprintf(&text, format, args);
    va_end(args);
    json_str(control_line_begin(c), "error", buf_slice(&text));
    control_line_end(c);
    buf_free(&text);
    request_reset(c);
    want_to_write(c);
}

/* ---- input -------------------------------------------------------------------- */

static void serve_line(struct control_client *c, struct slice line)
{
    json_error_t error;
    c->busy = true;
    c->request.json = json_loadb(line.ptr, line.len, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(c->request.json)) {
        control_fail(c, "A request must be one JSON object in one line.");
        return;
    }
    const json_t *name = json_object_get(c->request.json, "request");
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++)
        if (json_is_string(name) && strcmp(json_string_value(name), requests[i].name) == 0) {
            requests[i].serve(c);
            return;
        }
    control_fail(c, "There is no such request; see doc/control-protocol.md.");
}

/* Serves the next complete line unless a request is under way: results of
 * pipelined requests come one after another. */
static void serve_next(struct control_client *c)
{
    while (!c->busy && !control_full(c)) {
        struct slice rest = buf_slice(&c->in);
        size_t end = slice_chr(rest, '\n');
        if (end == rest.len) {
            if (c->in.len >= CONTROL_LINE_MAX) {
                control_fail(c, "The request is longer than %d bytes.", (int)CONTROL_LINE_MAX);
                buf_clear(&c->in);
                c->at_end = true; /* where the next request begins is unknown */
            }
            return;
        }
        struct buf line = BUF_INIT(CONTROL_LINE_MAX + 1);
        buf_adds(&line, slice_first(rest, end));
        buf_consume(&c->in, end + 1);
        serve_line(c, buf_slice(&line));
        buf_free(&line);
    }
}

static void settle(struct control_client *c);

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct control_client *c = arg;
    (void)what;
    if (buf_reserve(&c->in, 4096) < 0 && c->in.len >= CONTROL_LINE_MAX) {
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
    struct control_client *c = arg;
    (void)what;
    enum local_status status = local_write(fd, &c->out);
    if (status == LOCAL_LOST) {
        client_end(c);
        return;
    }
    if (status == LOCAL_OK)
        c->last_moved = clock_mono();
    settle(c);
}

/* After anything happened: makes more results if there is room, takes the next
 * request, ends the client when all is said. */
static void settle(struct control_client *c)
{
    control_pin(c);
    if (!c->dead && !control_full(c)) {
        if (c->paused && c->request.walk) {
            c->paused = false;
            queue_walk_resume(c->request.walk);
        } else if (c->more) {
            c->more(c);
        }
    }
    serve_next(c);
    bool over = c->at_end && !c->busy && c->out.len == 0;
    if (!over)
        want_to_write(c);
    if (!over && !c->at_end && c->in.len < CONTROL_LINE_MAX)
        event_add(c->readable, NULL);
    if (control_unpin(c) && over)
        client_end(c);
}

/* ---- clients ------------------------------------------------------------------ */

static void client_new(struct control *control, int fd)
{
    struct control_client *c = xcalloc(1, sizeof *c);
    snprintf(c->by, sizeof c->by, "uid %ld", local_uid(fd));
    c->control = control;
    c->fd = fd;
    c->in = BUF_INIT(CONTROL_LINE_MAX + 4096);
    c->out = BUF_INIT(CONTROL_OUTPUT_MAX);
    c->request.content = BUF_INIT(CONTROL_CONTENT_MAX);
    c->last_moved = clock_mono();
    c->readable = event_new(control->service->base, fd, EV_READ | EV_PERSIST, on_readable, c);
    c->writable = event_new(control->service->base, fd, EV_WRITE, on_writable, c);
    event_add(c->readable, NULL);
    list_push(&control->clients, &c->link);
    control->count++;
}

static const char socket_name[] = "the control socket";

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

/* Once a second: sends what has waited for more, ends clients that neither read
 * nor write, and waiting for master. */
static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct control *control = arg;
    int64_t now = clock_mono();
    (void)fd, (void)what;
    event_add(control->accept, NULL);
    list_each_safe(&control->clients, n)
    {
        struct control_client *c = container_of(n, struct control_client, link);
        struct control_request *r = &c->request;
        bool waits_for_client = !c->busy || c->out.len > 0;
        if (r->status_tag && now >= r->status_deadline)
            control_done(c, NULL);
        else if (waits_for_client && now - c->last_moved >= CONTROL_IDLE_SECONDS * CLOCK_SECOND)
            client_end(c);
        else if (c->out.len > 0)
            event_add(c->writable, NULL);
    }
}

struct control *control_new(struct service *s, struct qmgr *q)
{
    if (s->listener_count == 0) {
        log_warning("no control socket: the postern command cannot see the queue");
        return NULL;
    }
    struct control *c = xcalloc(1, sizeof *c);
    static const struct timeval second = {1, 0};
    c->service = s;
    c->queue = q;
    list_init(&c->clients);
    evutil_make_socket_nonblocking(s->listeners[0]);
    c->accept = event_new(s->base, s->listeners[0], EV_READ | EV_PERSIST, on_accept, c);
    c->tick = event_new(s->base, -1, EV_PERSIST, on_tick, c);
    event_add(c->accept, NULL);
    event_add(c->tick, &second);
    return c;
}

void control_free(struct control *c)
{
    if (!c)
        return;
    list_each_safe(&c->clients, n) client_end(container_of(n, struct control_client, link));
    event_free(c->accept);
    event_free(c->tick);
    free(c);
}

void control_status_reply(struct control *c, const struct ipc_status_reply *reply)
{
    if (!c)
        return;
    list_each_safe(&c->clients, n)
    {
        struct control_client *client = container_of(n, struct control_client, link);
        if (client->request.status_tag != reply->tag || reply->tag == 0)
            continue;
        if (reply->json.len && reply->json.len <= CONTROL_SERVICES_MAX) {
            json_raw(control_line_begin(client), "services", reply->json);
            control_line_end(client);
        }
        control_done(client, NULL);
    }
}
