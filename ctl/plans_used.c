/* Plans of plans_file as it stands: those that accounts have and it has not, and what in it has
 * no effect. And source pools that plans or accounts name and source_config_file does not have. */
#include <stdio.h>

#include "core/mem.h"
#include "ctl/accounts.h"
#include "ctl/check.h"
#include "plan/advice.h"
#include "plan/tzfile.h"
#include "sources/sources.h"

enum { NAMES_SHOWN = 5, TEXT_MAX = 1000 };

struct looking {
    const struct plans *plans;
    const char *path;
    void (*found)(const char *sentence, void *arg), (*no_pool)(const char *sentence, void *arg);
    void *arg;
    struct sources_conf *sources;
    const char *sources_path;
    int count;
};

/* 7 accounts (a, b, ...) */
static void add_accounts(struct buf *text, const json_t *line)
{
    json_int_t accounts = json_integer_value(json_object_get(line, "accounts"));
    json_t *name;
    size_t i;
    (void)buf_printf(text, "%lld account%s (", (long long)accounts, plural(accounts));
    json_array_foreach(json_object_get(line, "names"), i, name) if (i < NAMES_SHOWN)(void)
        buf_printf(text, "%s%s", i ? ", " : "", json_string_value(name));
    (void)buf_printf(text, "%s)", accounts > NAMES_SHOWN ? ", ..." : "");
}

/* Whether there is such a pool; else it is told. `sources` NULL: there is no file. */
static void check_pool(const struct looking *l, struct slice whose, const char *pool)
{
    struct buf text = BUF_INIT(TEXT_MAX);
    if (!*pool || (l->sources && sources_pool(l->sources, slice_str(pool))))
        return;
    (void)buf_printf(&text, "%.*s: source = %s: ", SLICE_ARG(whose), pool);
    if (l->sources)
        (void)buf_printf(&text,
                         "%s has no pool %s, so the mail goes from the default one; correct "
                         "the name, or add the pool",
                         l->sources_path, pool);
    else
        (void)buf_printf(&text,
                         "source_config_file is not set, so there is no pool %s, and the "
                         "mail goes from the default addresses; set it, or take the name "
                         "away",
                         pool);
    (void)buf_addc(&text, '\0');
    l->no_pool(text.data, l->arg);
    buf_free(&text);
}

/* False: source_config_file cannot be read, which master tells. */
static bool look_at_sources(struct looking *l, const struct config *c)
{
    l->sources_path = c->source_config_file;
    l->sources = *l->sources_path ? check_load_sources(l->sources_path) : NULL;
    return l->sources || !*l->sources_path;
}

static void on_pool(const struct looking *l, const json_t *line, const char *pool)
{
    struct buf whose = BUF_INIT(TEXT_MAX);
    add_accounts(&whose, line);
    check_pool(l, buf_slice(&whose), pool);
    buf_free(&whose);
}

static int on_line(json_t *line, void *arg)
{
    struct looking *l = arg;
    const char *pool = json_string_value(json_object_get(line, "source"));
    const char *plan = json_string_value(json_object_get(line, "plan"));
    json_int_t accounts = json_integer_value(json_object_get(line, "accounts"));
    struct buf text = BUF_INIT(TEXT_MAX);
    if (pool && l->no_pool)
        on_pool(l, line, pool);
    if (!plan || plans_find(l->plans, slice_str(plan)))
        return 0;
    add_accounts(&text, line);
    (void)buf_printf(&text,
                     " ha%s plan %s, which is not in %s: mail of %s gets 451 with these plans; "
                     "put the plan back, or 'postern account set %s --plan NAME'",
                     accounts == 1 ? "s" : "ve", plan,
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
    struct looking l = {.no_pool = found, .arg = arg};
    if (!c->accounts_enable || !*c->plans_file || read_plans(ctl, c->plans_file, &plans) < 0)
        return;
    plans_advise(&plans, c->plans_file, (uint64_t)c->message_size_limit, found, arg);
    bool known = look_at_sources(&l, c);
    for (size_t i = 0; known && i < plans.count; i++) {
        struct buf whose = BUF_INIT(TEXT_MAX);
        (void)buf_printf(&whose, "%s: plan %s", c->plans_file, plans.list[i].name);
        check_pool(&l, buf_slice(&whose), plans.list[i].source);
        buf_free(&whose);
    }
    sources_conf_free(l.sources);
    plans_free(&plans);
}

/* Where there is no such account nothing is taken of clients in mynetworks. */
static void check_mynetworks_account(struct looking *l, struct ctl *ctl, const char *account)
{
    json_t *last;
    (void)accounts_ask_quietly(
        ctl, json_pack("{s:s,s:s}", "request", "account.show", "account", account), &last);
    const char *error = json_string_value(json_object_get(last, "error"));
    if (error) {
        char *text = xasprintf("mynetworks_account = %s: %s Name one of 'postern account list', or "
                               "add it: 'postern account add %s'",
                               account, error, account);
        l->found(text, l->arg);
        l->count++;
        free(text);
    }
    json_decref(last);
}

int plans_used_check(struct ctl *ctl, const struct config *c,
                     void (*found)(const char *sentence, void *arg),
                     void (*no_pool)(const char *sentence, void *arg), void *arg)
{
    struct plans plans = {NULL, 0};
    struct looking l = {.plans = &plans, .path = c->plans_file, .found = found, .arg = arg};
    if (!c->accounts_enable || (*c->plans_file && read_plans(ctl, c->plans_file, &plans) < 0))
        return 0;
    if (look_at_sources(&l, c))
        l.no_pool = no_pool;
    int status = accounts_ask(ctl, json_pack("{s:s}", "request", "plan.used"), on_line, &l, NULL);
    if (status == CTL_OK && *c->mynetworks_account)
        check_mynetworks_account(&l, ctl, c->mynetworks_account);
    sources_conf_free(l.sources);
    plans_free(&plans);
    return l.count;
}
