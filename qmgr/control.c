/* The table of requests, and what a request on qmgr's socket has. */
#include "qmgr/control.h"

#include <stdio.h>

#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/control_client.h"

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

static struct control_client *client_of(struct request_client *base)
{
    return container_of(base, struct control_client, base);
}

/* ---- for the requests ------------------------------------------------------------- */

json_t *control_asked(const struct control_client *c, const char *name)
{
    return json_object_get(c->base.request, name);
}

struct slice control_text(const struct control_client *c, const char *name)
{
    const json_t *value = control_asked(c, name);
    return json_is_string(value) ? slice_make(json_string_value(value), json_string_length(value))
                                 : SLICE("");
}

bool control_id(struct control_client *c)
{
    bool is_id = id_parse(control_text(c, "id"), &c->request.id) == 0;
    if (!is_id)
        control_fail(c, "\"id\" must be a queue ID, as 'postern queue list' shows them.");
    return is_id;
}

void control_pin(struct control_client *c)
{
    requests_pin(&c->base);
}

bool control_unpin(struct control_client *c)
{
    return requests_unpin(&c->base);
}

struct buf *control_line_begin(struct control_client *c)
{
    struct buf *b = requests_line_begin(&c->base);
    json_begin(b);
    return b;
}

void control_line_end(struct control_client *c)
{
    json_end(&c->base.out);
    requests_line_end(&c->base);
}

bool control_full(struct control_client *c)
{
    return requests_full(&c->base);
}

static void make_more(struct request_client *base)
{
    struct control_client *c = client_of(base);
    c->more(c);
}

void control_more(struct control_client *c, void (*more)(struct control_client *))
{
    c->more = more;
    c->base.more = more ? make_more : NULL;
}

void control_done(struct control_client *c, void (*members)(struct control_client *, struct buf *))
{
    struct buf *b = control_line_begin(c);
    json_bool(b, "done", true);
    if (members)
        members(c, b);
    control_line_end(c);
    requests_over(&c->base);
}

void control_fail(struct control_client *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    requests_fail(&c->base, format, args);
    va_end(args);
}

/* ---- clients ---------------------------------------------------------------------- */

static void begin(struct request_client *base)
{
    struct control_client *c = client_of(base);
    c->control = request_socket_arg(base->socket);
    snprintf(c->by, sizeof c->by, "uid %ld", base->uid);
}

static void serve(struct request_client *base)
{
    struct control_client *c = client_of(base);
    const char *name = json_string_value(control_asked(c, "request"));
    c->request.content = BUF_INIT(CONTROL_CONTENT_MAX);
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++)
        if (name && strcmp(name, requests[i].name) == 0) {
            requests[i].serve(c);
            return;
        }
    control_fail(c, "There is no such request; see doc/control-protocol.md.");
}

static void over(struct request_client *base)
{
    struct control_client *c = client_of(base);
    struct control_request *r = &c->request;
    if (r->walk)
        queue_walk_cancel(r->walk);
    control_summary_free(r);
    buf_free(&r->content);
    *r = (struct control_request){.walk = NULL};
    c->more = NULL;
}

/* Waiting for master has its end. */
static void tick(struct request_client *base, int64_t now)
{
    struct control_client *c = client_of(base);
    if (c->request.status_tag && now >= c->request.status_deadline)
        control_done(c, NULL);
}

struct control *control_new(struct service *s, struct qmgr *q)
{
    static const struct request_ops ops = {
        .name = "the control socket",
        .client_size = sizeof(struct control_client),
        .clients_max = CONTROL_CLIENTS_MAX,
        .idle_seconds = CONTROL_IDLE_SECONDS,
        .line_max = CONTROL_LINE_MAX,
        .output_low = CONTROL_OUTPUT_LOW,
        .output_high = CONTROL_OUTPUT_HIGH,
        .output_max = CONTROL_OUTPUT_MAX,
        .begin = begin,
        .serve = serve,
        .over = over,
        .tick = tick,
    };
    if (s->listener_count == 0) {
        log_warning("no control socket: the postern command cannot see the queue");
        return NULL;
    }
    struct control *c = xcalloc(1, sizeof *c);
    c->service = s;
    c->queue = q;
    c->socket = request_socket_new(s->base, s->listeners[0], &ops, c);
    return c;
}

void control_free(struct control *c)
{
    if (!c)
        return;
    request_socket_free(c->socket);
    free(c);
}

void control_status_reply(struct control *c, const struct ipc_status_reply *reply)
{
    if (!c)
        return;
    list_each_safe(request_socket_clients(c->socket), n)
    {
        struct control_client *client = client_of(container_of(n, struct request_client, link));
        if (client->request.status_tag != reply->tag || reply->tag == 0)
            continue;
        if (reply->json.len && reply->json.len <= CONTROL_SERVICES_MAX) {
            json_raw(control_line_begin(client), "services", reply->json);
            control_line_end(client);
        }
        control_done(client, NULL);
    }
}
