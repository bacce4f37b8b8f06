#include "quota/missing.h"

#include "core/log.h"
#include "core/mem.h"
#include "quota/requests.h"

enum {
    ACCOUNTS_A_TICK = 5000, /* that are looked at */
    NAMES_TOLD = 20,        /* accounts of one plan that are named in the log */
    START_SECONDS = 10      /* plans_file, if there is one, has come by then */
};

/* ---- what they were ------------------------------------------------------------------- */

static void keep_gone(const struct quota *q, const struct plans *from, struct plans *out)
{
    for (size_t i = 0; i < from->count && out->count < PLANS_MAX; i++) {
        struct slice name = slice_str(from->list[i].name);
        if (plans_find(&q->plans, name) || plans_find(out, name))
            continue;
        out->list = xreallocarray(out->list, out->count + 1, sizeof *out->list);
        out->list[out->count++] = from->list[i];
    }
}

void missing_keep(struct quota *q, const struct plans *old)
{
    struct plans known = {NULL, 0}, before = q->missing.known;
    keep_gone(q, old, &known);
    keep_gone(q, &before, &known);
    q->missing.known = known;
    accounts_reload(q); /* none points into what is freed now */
    plans_free(&before);
}

/* ---- a census: the name of a plan (or pool) -> its accounts: how many, the first names ---- */

static void census_add(json_t *census, struct slice account, const char *name)
{
    json_t *of = *name ? json_object_get(census, name) : NULL;
    if (*name && !of) {
        of = json_pack("{s:i,s:[]}", "accounts", 0, "names");
        json_object_set_new(census, name, of);
    }
    if (of) {
        json_t *names = json_object_get(of, "names");
        json_int_t n = json_integer_value(json_object_get(of, "accounts"));
        json_object_set_new(of, "accounts", json_integer(n + 1));
        if (json_array_size(names) < NAMES_TOLD)
            json_array_append_new(names, json_stringn(account.ptr, account.len));
    }
}

struct census_walk {
    json_t *plans, *sources; /* NULL: not wanted */
    struct key *at;
    unsigned left;
    bool end;
};

static bool on_account(struct slice key, struct slice value, void *arg)
{
    struct census_walk *w = arg;
    if (w->left-- == 0) {
        w->at->len = 0;
        key_add(w->at, key);
        w->end = false;
        return false;
    }
    json_t *j = json_loadb(value.ptr, value.len, 0, NULL);
    census_add(w->plans, key, json_text(j, "plan"));
    if (w->sources)
        census_add(w->sources, key, json_text(j, "source"));
    json_decref(j);
    return true;
}

/* True when all accounts were looked at. */
static bool census_go_on(struct quota *q, json_t *plans, json_t *sources, struct key *at,
                         unsigned most)
{
    struct key from = *at;
    struct census_walk w = {plans, sources, at, most, true};
    struct err e;
    if (kv_walk(q->kv, T_ACCOUNT, key_slice(&from), on_account, &w, &e) < 0)
        panic("%s", e.text);
    return w.end;
}

/* ---- the log ---------------------------------------------------------------------------- */

static void tell(const struct quota *q, const char *plan, const json_t *of)
{
    const char *path = q->s->config->plans_file;
    size_t i, count = json_array_size(json_object_get(of, "names"));
    json_int_t all = json_integer_value(json_object_get(of, "accounts"));
    json_t *name;
    json_array_foreach(json_object_get(of, "names"), i, name)
        log_error("account %s has plan %s, which is not in %s: its mail gets 451; put the plan "
                  "back and reload, or 'postern account set %s --plan NAME'",
                  json_string_value(name), plan, *path ? path : "plans_file (it is not set)",
                  json_string_value(name));
    if (all > (json_int_t)count)
        log_error("%lld more accounts have plan %s, and their mail gets 451; 'postern account "
                  "list' marks them",
                  (long long)all - (long long)count, plan);
}

static void census_over(struct quota *q)
{
    struct missing *m = &q->missing;
    uint64_t before = m->accounts;
    const char *plan;
    json_t *of;
    m->accounts = 0;
    json_object_foreach(m->census, plan, of)
    {
        if (plans_find(&q->plans, slice_str(plan)))
            continue;
        m->accounts += (uint64_t)json_integer_value(json_object_get(of, "accounts"));
        if (m->tell)
            tell(q, plan, of);
    }
    if (before && m->accounts == 0)
        log_info("the plans of all accounts are in %s again", q->s->config->plans_file);
    json_decref(m->census);
    m->census = NULL;
}

static void go_on(struct quota *q)
{
    struct missing *m = &q->missing;
    if (m->census && census_go_on(q, m->census, NULL, &m->at, ACCOUNTS_A_TICK))
        census_over(q);
}

void missing_count(struct quota *q, bool loud)
{
    struct missing *m = &q->missing;
    json_decref(m->census);
    m->census = json_object();
    m->at.len = 0;
    m->tell = loud;
    m->begun = true;
    go_on(q);
}

void missing_changed(struct quota *q)
{
    if (q->missing.accounts && !q->missing.census)
        missing_count(q, false);
}

void missing_tick(struct quota *q)
{
    if (!q->missing.begun && clock_mono() - q->book.began > START_SECONDS * CLOCK_SECOND)
        missing_count(q, true);
    else
        go_on(q);
}

void missing_free(struct quota *q)
{
    json_decref(q->missing.census);
    q->missing.census = NULL;
    plans_free(&q->missing.known);
}

/* ---- plan.used --------------------------------------------------------------------------- */

static void drop_census(void *state)
{
    json_decref(state);
}

static void list_used(struct client *c)
{
    static const char *const kinds[] = {"plan", "source"};
    json_t *census = control_state(c), *of;
    const char *name;
    if (!census_go_on(control_quota(c), json_object_get(census, kinds[0]),
                      json_object_get(census, kinds[1]), control_position(c), CONTROL_SLICE))
        return;
    for (int i = 0; i < 2; i++)
        json_object_foreach(json_object_get(census, kinds[i]), name, of)
        {
            json_t *line = json_pack("{s:s}", kinds[i], name);
            json_object_update(line, of);
            control_result(c, line);
        }
    control_done(c, NULL);
}

/* Which plans, and source pools of their own, accounts have, and how many. */
void plan_used(struct client *c)
{
    control_attach(c, json_pack("{s:{},s:{}}", "plan", "source"), drop_census);
    control_continue(c, list_used);
}
