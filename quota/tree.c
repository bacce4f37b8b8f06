#include "quota/tree.h"

#include "core/mem.h"
#include "quota/requests.h"

static void parent_of(struct quota *q, const json_t *parents, const char *name,
                      char out[static ACCOUNT_NAME_MAX + 1])
{
    char parent[ACCOUNT_NAME_MAX + 1];
    const json_t *changed = json_object_get(parents, name);
    json_t *record = changed ? NULL : quota_get_json(q, T_ACCOUNT, slice_str(name));
    snprintf(parent, sizeof parent, "%s",
             changed ? json_string_value(changed) : json_text(record, "parent"));
    json_decref(record);
    memcpy(out, parent, sizeof parent);
}

/* The account and those above it; more than CHARGE_LEVELS_MAX in a circle. */
static unsigned levels_of(struct quota *q, const json_t *parents, const char *name)
{
    char at[ACCOUNT_NAME_MAX + 1];
    unsigned n = 0;
    snprintf(at, sizeof at, "%s", name);
    for (; *at && n <= CHARGE_LEVELS_MAX; n++)
        parent_of(q, parents, at, at);
    return n;
}

struct children {
    struct slice prefix;
    const json_t *parents;
    json_t *names; /* that are not in `parents`: those are looked at by themselves */
};

static bool on_child(struct slice key, struct slice value, void *arg)
{
    struct children *c = arg;
    (void)value;
    if (!slice_starts(key, c->prefix))
        return false;
    struct slice name = slice_from(key, c->prefix.len);
    if (!json_object_getn(c->parents, name.ptr, name.len))
        json_array_append_new(c->names, json_stringn(name.ptr, name.len));
    return true;
}

static bool fit_below(struct quota *q, const json_t *parents, const char *name, unsigned level)
{
    struct key k;
    struct err e;
    size_t i;
    json_t *child;
    bool fit = true;
    member_key(&k, name, 'a', "");
    struct children c = {key_slice(&k), parents, json_array()};
    if (kv_walk(q->kv, T_MEMBER, c.prefix, on_child, &c, &e) < 0)
        panic("%s", e.text);
    json_array_foreach(c.names, i, child) fit =
        fit && level < CHARGE_LEVELS_MAX &&
        fit_below(q, parents, json_string_value(child), level + 1);
    json_decref(c.names);
    return fit;
}

static bool is_moved(struct quota *q, const char *name, const char *parent)
{
    json_t *old = quota_get_json(q, T_ACCOUNT, slice_str(name));
    bool moved = old && strcmp(json_text(old, "parent"), parent) != 0;
    json_decref(old);
    return moved;
}

int tree_check(struct quota *q, json_t *parents, struct err *e)
{
    const char *name;
    json_t *parent;
    json_object_foreach(parents, name, parent)
    {
        unsigned level = levels_of(q, parents, name);
        if (level > CHARGE_LEVELS_MAX ||
            (is_moved(q, name, json_string_value(parent)) && !fit_below(q, parents, name, level)))
            return err_set(e,
                           "Account %s cannot be below %s: accounts can be %d deep, and none can "
                           "be below itself.",
                           name, json_string_value(parent), CHARGE_LEVELS_MAX);
    }
    return 0;
}

void tree_index(struct buf *batch, const char *name, const char *before, const char *after)
{
    struct key k;
    if (*before && strcmp(before, after) != 0) {
        member_key(&k, before, 'a', name);
        if (kv_remove(batch, T_MEMBER, key_slice(&k)) < 0)
            panic("a batch that is full");
    }
    if (*after) {
        member_key(&k, after, 'a', name);
        if (kv_put(batch, T_MEMBER, key_slice(&k), SLICE("")) < 0)
            panic("a batch that is full");
    }
}
