/* shaping.export, shaping.import: what was learned about destinations. */
#include "core/json.h"
#include "core/log.h"
#include "qmgr/control_client.h"
#include "qmgr/memory.h"
#include "qmgr/whole.h"

/* ---- out ------------------------------------------------------------------------------ */

static void put(struct control_client *c, struct slice object)
{
    json_raw(control_line_begin(c), "learned", object);
    control_line_end(c);
    c->request.matched++;
}

/* Lanes may come and go between two calls: then one is missed, or told twice. */
static void export_more(struct control_client *c)
{
    const struct qmgr *q = c->control->queue;
    struct control_request *r = &c->request;
    struct buf object = BUF_INIT(CONTROL_RESULT_MAX);
    size_t at = 0;
    list_each(&q->dispatch.lanes, n)
    {
        if (at++ < r->lanes_shown)
            continue;
        if (control_full(c))
            break;
        r->lanes_shown++;
        buf_clear(&object);
        if (memory_describe(q, container_of(n, struct lane, all), &object))
            put(c, buf_slice(&object));
    }
    struct whole *w;
    for (size_t cursor = 0; r->lanes_shown >= at && (w = map_next(&q->shaping.wholes, &cursor));) {
        if (at++ < r->lanes_shown)
            continue;
        if (control_full(c))
            break;
        r->lanes_shown++;
        buf_clear(&object);
        if (memory_describe_whole(w, &object))
            put(c, buf_slice(&object));
    }
    bool over = r->lanes_shown >= at;
    while (over && !control_full(c)) {
        buf_clear(&object);
        if (!memory_next(q, &r->memory_cursor, &object)) {
            control_more(c, NULL);
            control_done(c, NULL);
            break;
        }
        put(c, buf_slice(&object));
    }
    buf_free(&object);
}

void control_shaping_export(struct control_client *c)
{
    control_more(c, export_more);
    export_more(c);
}

/* ---- in ------------------------------------------------------------------------------- */

static int take(struct qmgr *q, const json_t *object, struct err *e)
{
    char *text = json_dumps(object, JSON_COMPACT);
    if (!text)
        return err_set(e, "not an object");
    int rc = memory_accept(q, slice_str(text), e);
    free(text);
    return rc;
}

static void put_taken(struct control_client *c, struct buf *b)
{
    json_int(b, "taken", (int64_t)c->request.changed);
    json_int(b, "older", (int64_t)c->request.older);
}

/* What was accepted goes where it belongs, but for what is older than what is known. */
static void apply(struct control_client *c)
{
    struct control_request *r = &c->request;
    size_t older = memory_apply(c->control->queue);
    r->older = older < r->changed ? older : r->changed;
    r->changed -= r->older;
}

void control_shaping_import(struct control_client *c)
{
    struct qmgr *q = c->control->queue;
    const json_t *list = control_asked(c, "learned");
    struct err e;
    size_t i;
    const json_t *object;
    if (!json_is_array(list)) {
        control_fail(c, "Give \"learned\": a list of objects as shaping.export writes them.");
        return;
    }
    queue_tick(q);
    json_array_foreach(list, i, object)
    {
        if (take(q, object, &e) < 0) {
            control_fail(c, "Entry %zu cannot be used, and those after it were not taken: %s.",
                         i + 1, e.text);
            apply(c);
            return;
        }
        c->request.changed++;
    }
    apply(c);
    memory_soon(q);
    log_info("shaping: %llu entries imported by %s, %llu were older than what is known",
             (unsigned long long)c->request.changed, c->by, (unsigned long long)c->request.older);
    control_done(c, put_taken);
}
