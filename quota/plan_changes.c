#include "quota/plan_changes.h"

#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "quota/control.h"
#include "quota/plan_json.h"

/* T_META: "plans" (they are known), and each as plan_json has it behind this. */
static const char PREFIX[] = "plan/", KNOWN[] = "plans";

static void plan_key(struct key *k, const char *name)
{
    k->len = 0;
    key_add(k, slice_str(PREFIX));
    key_add(k, slice_str(name));
}

/* "50000", "Europe/Berlin", "yes"; "none" where it is not set. */
static void add_value(struct buf *out, const json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    if (json_is_string(value))
        (void)buf_addstr(out, json_string_value(value));
    else if (json_is_boolean(value))
        (void)buf_addstr(out, json_is_true(value) ? "yes" : "no");
    else
        (void)buf_addstr(out, text ? text : "none");
    free(text);
}

static void add_change(struct buf *out, const char *name, const json_t *before, const json_t *after)
{
    if (json_equal(before, after))
        return;
    (void)buf_printf(out, "%s%s ", out->len ? ", " : "", name);
    add_value(out, before);
    (void)buf_addstr(out, " -> ");
    add_value(out, after);
}

/* The settings that differ, in the order of the new plan. */
static void compare(struct buf *out, json_t *before, json_t *after)
{
    const char *name;
    json_t *value;
    json_object_foreach(after, name, value)
        add_change(out, name, json_object_get(before, name), value);
    json_object_foreach(before, name, value) if (!json_object_get(after, name))
        add_change(out, name, value, NULL);
}

struct noting {
    struct quota *q;
    const char *path;
    struct buf *batch;
    bool loud; /* not the first time: an audit log has to have it */
};

static void tell(const struct noting *n, const char *plan, const char *verb, struct slice changes)
{
    struct buf text = BUF_INIT(AUDIT_TEXT_MAX);
    char what[PLAN_NAME_MAX + 8];
    if (!n->loud)
        return;
    snprintf(what, sizeof what, "plan %s", plan);
    (void)buf_printf(&text, "%s %s%s%.*s", verb, n->path, changes.len ? ": " : "",
                     (int)(changes.len < AUDIT_TEXT_MAX / 2 ? changes.len : AUDIT_TEXT_MAX / 2),
                     changes.len ? changes.ptr : "");
    audit_add(n->q, n->batch, (long)getuid(), what, buf_slice(&text));
    log_info("%s: %.*s", what, SLICE_ARG(buf_slice(&text)));
    buf_free(&text);
}

static void note_plan(const struct noting *n, const struct plan *p)
{
    struct key k;
    struct buf changes = BUF_INIT(AUDIT_TEXT_MAX);
    plan_key(&k, p->name);
    json_t *after = plan_json(p), *before = quota_get_json(n->q, T_META, key_slice(&k));
    if (!before)
        tell(n, p->name, "added in", SLICE(""));
    else if (!json_equal(before, after)) {
        compare(&changes, before, after);
        tell(n, p->name, "changed in", buf_slice(&changes));
    }
    if (!before || changes.len)
        quota_put_json(n->batch, T_META, key_slice(&k), after);
    json_decref(before);
    json_decref(after);
    buf_free(&changes);
}

static bool on_known(struct slice key, struct slice value, void *arg)
{
    const struct noting *n = arg;
    char name[PLAN_NAME_MAX + 1];
    struct slice text = slice_from(key, sizeof PREFIX - 1);
    (void)value;
    if (!slice_starts(key, slice_str(PREFIX)))
        return false;
    if (text.len > PLAN_NAME_MAX || plans_find(&n->q->plans, text))
        return true;
    snprintf(name, sizeof name, "%.*s", SLICE_ARG(text));
    tell(n, name, "taken out of", SLICE(""));
    (void)kv_remove(n->batch, T_META, key);
    return true;
}

void plan_changes_note(struct quota *q, const char *path)
{
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    struct noting n = {q, path, &batch, !q->empty && quota_get(q, T_META, slice_str(KNOWN))};
    struct err e;
    for (size_t i = 0; i < q->plans.count; i++)
        note_plan(&n, &q->plans.list[i]);
    if (kv_walk(q->kv, T_META, slice_str(PREFIX), on_known, &n, &e) < 0)
        panic("%s", e.text);
    if (!quota_get(q, T_META, slice_str(KNOWN)) &&
        kv_put(&batch, T_META, slice_str(KNOWN), SLICE("1")) < 0)
        panic("a batch that is full");
    if (batch.len)
        sync_apply(q, buf_slice(&batch), NULL, NULL);
    buf_free(&batch);
}
