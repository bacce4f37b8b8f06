/* queue.list and queue.action: walks over the selected messages. */
#include "core/clock.h"
#include "core/json.h"
#include "qmgr/control_client.h"

bool control_selection(struct control_client *c)
{
    struct err e;
    if (selection_parse(&c->request.select, control_asked(c, "select"), &e) == 0)
        return true;
    control_fail(c, "%s.", e.text);
    return false;
}

/* ---- walking ------------------------------------------------------------------ */

static void resume_walk(struct control_client *c)
{
    control_more(c, NULL);
    queue_walk_resume(c->request.walk);
}

/* What a walk carries: its client and what to do there. It lives in the client's
 * request, and the walk is cancelled with that. */
static enum walk_answer visit_any(struct message *m, void *arg)
{
    struct control_client *c = arg;
    struct control_request *r = &c->request;
    r->found = true;
    if (!selection_matches(c->control->queue, &r->select, m, clock_wall()))
        return WALK_ON;
    r->matched++;
    r->bytes += message_size(m);
    r->recipients += m->env->left;
    enum walk_answer answer = r->visit(c, m);
    if (answer == WALK_ON && control_full(c)) {
        control_more(c, resume_walk);
        return WALK_PAUSE;
    }
    return answer;
}

static void walk_over(void *arg)
{
    struct control_client *c = arg;
    c->request.walk = NULL;
    control_more(c, NULL);
    c->request.end(c);
}

static void next_id(struct control_client *c);

static enum walk_over over(const struct control_request *r)
{
    return r->select.deleted ? WALK_DELETED : WALK_QUEUE;
}

static void id_over(void *arg)
{
    struct control_client *c = arg;
    struct control_request *r = &c->request;
    r->walk = NULL;
    if (!r->found) {
        r->missing++;
        struct buf *b = control_line_begin(c);
        json_str(b, "missing",
                 slice_str(json_string_value(json_array_get(r->select.ids, r->next_id))));
        control_line_end(c);
    }
    r->next_id++;
    next_id(c);
}

/* Visits the next ID, when the client has room for what comes of it. */
static void next_id(struct control_client *c)
{
    struct control_request *r = &c->request;
    control_more(c, NULL);
    if (r->next_id >= json_array_size(r->select.ids) || (r->limit && r->matched >= r->limit)) {
        r->end(c);
        return;
    }
    if (control_full(c)) {
        control_more(c, next_id);
        return;
    }
    const json_t *id = json_array_get(r->select.ids, r->next_id);
    r->found = false;
    r->walk = queue_visit_one(c->control->queue, over(r),
                              slice_make(json_string_value(id), json_string_length(id)), visit_any,
                              id_over, c);
}

void control_walk(struct control_client *c,
                  enum walk_answer (*visit)(struct control_client *, struct message *),
                  void (*end)(struct control_client *))
{
    c->request.visit = visit;
    c->request.end = end;
    if (c->request.select.ids)
        next_id(c);
    else
        c->request.walk =
            queue_walk_start(c->control->queue, over(&c->request), visit_any, walk_over, c);
}

/* ---- queue.list ---------------------------------------------------------------- */

static void counts(struct control_client *c, struct buf *b)
{
    json_int(b, "matched", (int64_t)c->request.matched);
    json_int(b, "missing", (int64_t)c->request.missing);
}

static void end_list(struct control_client *c)
{
    control_done(c, counts);
}

static enum walk_answer list_one(struct control_client *c, struct message *m)
{
    control_describe(c, control_line_begin(c), m);
    control_line_end(c);
    return c->request.limit && c->request.matched >= c->request.limit ? WALK_STOP : WALK_ON;
}

void control_queue_list(struct control_client *c)
{
    const json_t *limit = control_asked(c, "limit");
    if (!control_selection(c))
        return;
    if (limit && (!json_is_integer(limit) || json_integer_value(limit) < 1)) {
        control_fail(c, "\"limit\" must be a number above 0.");
        return;
    }
    c->request.limit = (uint64_t)json_integer_value(limit);
    c->request.brief = json_is_true(control_asked(c, "brief"));
    control_walk(c, list_one, end_list);
}

/* ---- queue.action --------------------------------------------------------------- */

static const struct {
    const char *name;
    enum queue_action action;
} actions[] = {
    {"hold", QUEUE_DO_HOLD},         {"release", QUEUE_DO_RELEASE}, {"flush", QUEUE_DO_FLUSH},
    {"requeue", QUEUE_DO_REQUEUE},   {"expire", QUEUE_DO_EXPIRE},   {"delete", QUEUE_DO_DELETE},
    {"undelete", QUEUE_DO_UNDELETE},
};

static void action_counts(struct control_client *c, struct buf *b)
{
    counts(c, b);
    json_int(b, "recipients", (int64_t)c->request.recipients);
    json_int(b, "bytes", (int64_t)c->request.bytes);
    json_int(b, "changed", (int64_t)c->request.changed);
    json_bool(b, "dry_run", c->request.dry_run);
}

static void on_durable(const char *error, void *arg)
{
    struct control_client *c = arg;
    if (!control_unpin(c))
        return;
    if (error)
        control_fail(c, "It is done, but part of it may be lost when the power fails: %s.", error);
    else
        control_done(c, action_counts);
}

/* Who was told that it is done finds it done after a power failure, too. */
static void end_action(struct control_client *c)
{
    if (c->request.changed == 0) {
        control_done(c, action_counts);
        return;
    }
    control_pin(c);
    queue_make_durable(c->control->queue, on_durable, c);
}

static enum walk_answer act_on_one(struct control_client *c, struct message *m)
{
    struct control_request *r = &c->request;
    struct id id = m->id; /* m may be gone after the action */
    if (r->dry_run) {
        if (r->list) {
            control_describe(c, control_line_begin(c), m);
            control_line_end(c);
        }
        return WALK_ON;
    }
    bool changed = queue_act(c->control->queue, m, r->action, c->by);
    r->changed += changed;
    if (changed && r->list) {
        json_str(control_line_begin(c), "id", id_slice(&id));
        control_line_end(c);
    }
    return WALK_ON;
}

static bool take_action(struct control_client *c)
{
    const json_t *name = control_asked(c, "action");
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++)
        if (json_is_string(name) && strcmp(json_string_value(name), actions[i].name) == 0) {
            c->request.action = actions[i].action;
            return true;
        }
    control_fail(c,
                 "\"action\" must be hold, release, flush, requeue, expire, delete or undelete.");
    return false;
}

void control_queue_action(struct control_client *c)
{
    struct control_request *r = &c->request;
    if (!take_action(c) || !control_selection(c))
        return;
    if (r->action == QUEUE_DO_UNDELETE)
        r->select.deleted = true;
    if (r->select.deleted && r->action < QUEUE_DO_DELETE) {
        control_fail(c, "Deleted messages can only be undeleted, or deleted for good.");
        return;
    }
    r->dry_run = json_is_true(control_asked(c, "dry_run"));
    r->list = json_is_true(control_asked(c, "list"));
    r->brief = json_is_true(control_asked(c, "brief"));
    /* the whole queue at once, which also ends the suspensions of sites */
    if (r->action == QUEUE_DO_FLUSH && !r->dry_run && selection_is_all(&r->select) &&
        !r->select.deleted) {
        struct queue_figures figures;
        queue_figures(c->control->queue, &figures);
        r->matched = r->changed = figures.messages;
        queue_flush_all(c->control->queue);
        control_done(c, action_counts);
        return;
    }
    control_walk(c, act_on_one, end_action);
}
