/* Plans of plans_file as it stands: those that accounts have and it has not, and what in it has
 * no effect. */
#include <stdio.h>

#include "core/mem.h"
#include "ctl/accounts.h"
#include "plan/advice.h"
#include "plan/tzfile.h"

enum { NAMES_SHOWN = 5, TEXT_MAX = 1000 };

struct looking {
    const struct plans *plans;
    const char *path;
    void (*found)(const char *sentence, void *arg);
    void *arg;
    int count;
};

static int on_line(json_t *line, void *arg)
{
    struct looking *l = arg;
    const char *plan = json_string_value(json_object_get(line, "plan"));
    json_int_t accounts = json_integer_value(json_object_get(line, "accounts"));
    struct buf text = BUF_INIT(TEXT_MAX);
    json_t *name;
    size_t i;
    if (!plan || plans_find(l->plans, slice_str(plan)))
        return 0;
    (void)buf_printf(&text, "%lld account%s (", (long long)accounts, plural(accounts));
    json_array_foreach(json_object_get(line, "names"), i, name) if (i < NAMES_SHOWN)(void)
        buf_printf(&text, "%s%s", i ? ", " : "", json_string_value(name));
    (void)buf_printf(&text,
                     "%s) ha%s plan %s, which is not in %s: mail of %s gets 451 with these plans; "
                     "put the plan back, or 'postern account set %s --plan NAME'",
                     accounts > NAMES_SHOWN ? ", ..." : "", accounts == 1 ? "s" : "ve", plan,
                     *l->path ? l->path : "plans_file (it is not set)",
                     accounts == 1 ? "it" : "them", accounts == 1 ? "it" : "each of them");
    (void)buf_addc(&text, '\0');
    l->found(text.data, l->arg);
    l->count++;
    buf_free(&text);
    return 0;
}

/* 0 or -1: master says what is wrong with it. */
static int read_plans(const struct ctl *ctl, const char *name, struct plans *out)
{
    struct buf text = BUF_INIT(PLANS_FILE_MAX + 1);
    struct err e;
    char *path = *name == '/' ? xstrdup(name) : xasprintf("%s/%s", ctl->directory, name);
    FILE *f = fopen(path, "re");
    size_t n = 0;
    free(path);
    if (f) {
        (void)buf_reserve(&text, PLANS_FILE_MAX + 1);
        n = fread(text.data, 1, PLANS_FILE_MAX + 1, f);
        fclose(f);
    }
    int rc = f ? plans_parse(slice_make(text.data, n), name, tzfile_lookup, NULL, out, &e) : -1;
    buf_free(&text);
    return rc;
}

void plans_advise_check(struct ctl *ctl, const struct config *c,
                        void (*found)(const char *sentence, void *arg), void *arg)
{
    struct plans plans = {NULL, 0};
    if (c->accounts_enable && *c->plans_file && read_plans(ctl, c->plans_file, &plans) == 0)
        plans_advise(&plans, c->plans_file, (uint64_t)c->message_size_limit, found, arg);
    plans_free(&plans);
}

int plans_used_check(struct ctl *ctl, const struct config *c,
                     void (*found)(const char *sentence, void *arg), void *arg)
{
    struct plans plans = {NULL, 0};
    struct looking l = {&plans, c->plans_file, found, arg, 0};
    if (!c->accounts_enable || (*c->plans_file && read_plans(ctl, c->plans_file, &plans) < 0))
        return 0;
    (void)accounts_ask(ctl, json_pack("{s:s}", "request", "plan.used"), on_line, &l, NULL);
    plans_free(&plans);
    return l.count;
}
