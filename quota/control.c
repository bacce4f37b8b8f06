#include "quota/control.h"

#include "core/log.h"
#include "core/mem.h"
#include "service/requests.h"

struct client {
    struct request_client base;
    struct quota *q;
    json_t *last; /* members of the last line, until the change is durable */
    void (*more)(struct client *c);
    json_t *warnings; /* the same; NULL: none */
    struct key position;
    void *state; /* of the request under way */
    void (*drop)(void *state);
};

struct control {
    struct request_socket *socket;
};

static struct client *client_of(struct request_client *base)
{
    return container_of(base, struct client, base);
}

struct quota *control_quota(const struct client *c)
{
    return c->q;
}

const json_t *control_request(const struct client *c)
{
    return c->base.request;
}

struct key *control_position(struct client *c)
{
    return &c->position;
}

void control_attach(struct client *c, void *state, void (*drop)(void *state))
{
    c->state = state;
    c->drop = drop;
}

void *control_state(const struct client *c)
{
    return c->state;
}

struct client *control_client_pin(struct client *c)
{
    requests_pin(&c->base);
    return c;
}

struct client *control_client_unpin(struct client *c)
{
    return requests_unpin(&c->base) ? c : NULL;
}

/* ---- results --------------------------------------------------------------------------- */

static void add_line(struct client *c, json_t *result, size_t flags)
{
    char *text = json_dumps(result, flags);
    if (!text)
        panic("a result that is no JSON");
    (void)buf_addstr(requests_line_begin(&c->base), text); /* without room it ends the client */
    requests_line_end(&c->base);
    free(text);
    json_decref(result);
}

void control_result(struct client *c, json_t *result)
{
    add_line(c, result, JSON_COMPACT);
}

void control_result_sorted(struct client *c, json_t *result)
{
    add_line(c, result, JSON_COMPACT | JSON_SORT_KEYS);
}

void control_warn(struct client *c, struct slice sentence)
{
    if (!c->warnings)
        c->warnings = json_array();
    if (sentence.len && json_array_size(c->warnings) < WARNINGS_MAX)
        json_array_append_new(c->warnings, json_stringn(sentence.ptr, sentence.len));
}

void control_done(struct client *c, json_t *more)
{
    json_t *line = json_pack("{s:b}", "done", 1);
    if (json_array_size(c->warnings))
        json_object_set(line, "warnings", c->warnings);
    if (more)
        json_object_update(line, more);
    json_decref(more);
    control_result(c, line);
    requests_over(&c->base);
}

void control_fail(struct client *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    requests_fail(&c->base, format, args);
    va_end(args);
}

static void make_more(struct request_client *base)
{
    struct client *c = client_of(base);
    c->more(c);
}

void control_continue(struct client *c, void (*more)(struct client *c))
{
    c->more = more;
    requests_continue(&c->base, make_more);
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

void audit_add(struct quota *q, struct buf *batch, long uid, const char *what, struct slice text)
{
    struct key k = {.len = 0};
    json_t *j =
        json_pack("{s:I,s:I,s:s,s:s%}", "time", (json_int_t)quota_now(), "uid", (json_int_t)uid,
                  "what", what, "request", text.ptr ? text.ptr : "", text.len);
    key_number(&k, (uint64_t)clock_wall());
    key_number(&k, q->audit_number++);
    if (j)
        quota_put_json(batch, T_AUDIT, key_slice(&k), j);
    json_decref(j);
}

void control_audit(struct client *c, struct buf *batch, const char *what, struct slice text)
{
    audit_add(c->q, batch, c->base.uid, what, text);
}

/* Who, when, what: the request without its secrets. */
static void add_audit(struct client *c, struct buf *batch, const char *what)
{
    json_t *copy = json_deep_copy(c->base.request);
    json_object_del(copy, "password");
    json_object_del(copy, "hash");
    json_object_del(copy, "scram");
    json_object_del(copy, "records"); /* of an import: control_audit tells what they changed */
    char *text = json_dumps(copy, JSON_COMPACT);
    control_audit(c, batch, what, slice_first(slice_str(text ? text : ""), (size_t)AUDIT_TEXT_MAX));
    log_info("%s: %s by uid %ld", what, json_text(c->base.request, "request"), c->base.uid);
    json_decref(copy);
    free(text);
}

void control_change_with(struct client *c, struct buf *batch, const char *what, json_t *more)
{
    add_audit(c, batch, what);
    json_decref(c->last);
    c->last = more;
    sync_apply(c->q, buf_slice(batch), on_durable, control_client_pin(c));
    book_ready(c->q);
}

void control_change(struct client *c, struct buf *batch, const char *what)
{
    control_change_with(c, batch, what, NULL);
}

/* ---- the socket ----------------------------------------------------------------------------- */

static void begin(struct request_client *base)
{
    client_of(base)->q = request_socket_arg(base->socket);
}

static void serve(struct request_client *base)
{
    struct client *c = client_of(base);
    control_serve *request = control_find(json_text(base->request, "request"));
    if (request)
        request(c);
    else
        control_fail(c, "There is no such request; see doc/control-protocol.md.");
}

static void over(struct request_client *base)
{
    struct client *c = client_of(base);
    json_decref(c->last);
    json_decref(c->warnings);
    c->last = c->warnings = NULL;
    c->position.len = 0;
    if (c->drop)
        c->drop(c->state);
    c->drop = NULL;
    c->state = NULL;
}

struct control *control_new(struct quota *q)
{
    static const struct request_ops ops = {
        .name = "the accounts' socket",
        .client_size = sizeof(struct client),
        .clients_max = CONTROL_CLIENTS_MAX,
        .idle_seconds = CONTROL_IDLE_SECONDS,
        .line_max = CONTROL_LINE_MAX,
        .output_low = CONTROL_OUTPUT_LOW,
        .output_high = CONTROL_OUTPUT_HIGH,
        .output_max = CONTROL_OUTPUT_MAX,
        .begin = begin,
        .serve = serve,
        .over = over,
    };
    if (q->s->listener_count == 0) {
        log_warning("no accounts' socket: 'postern account' cannot change anything");
        return NULL;
    }
    struct control *c = xcalloc(1, sizeof *c);
    c->socket = request_socket_new(q->s->base, q->s->listeners[0], &ops, q);
    return c;
}

void control_free(struct control *c)
{
    if (!c)
        return;
    request_socket_free(c->socket);
    free(c);
}
