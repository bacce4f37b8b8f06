/*
 * accounts-look: opens the accounts' database in directories, as quota does after a power cut,
 * and tells what is counted there.
 *
 * One directory a line on standard input; for each one line of JSON: how the database was
 * found, every charge with its levels and the state of each recipient (R reserved, D delivered,
 * F refunded), every usage, and how many accounts, and letters that wait for qmgr, there are. A
 * record that cannot be read is an error.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>

#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "quota/records.h"
#include "store/kv.h"

enum { OUT_MAX = 64 * 1024 * 1024, CACHE_BYTES = 1024 * 1024 };

struct look {
    struct buf out;
    const char *unreadable; /* a table with a record that cannot be read */
    int64_t count;
};

static void tell_levels(struct buf *b, const struct charge *c)
{
    json_list(b, "levels");
    for (unsigned i = 0; i < c->level_count; i++) {
        json_begin(b);
        json_str(b, "account", slice_str(c->levels[i].account));
        json_int(b, "period", c->levels[i].period);
        json_int(b, "each", (int64_t)c->levels[i].each);
        json_end(b);
    }
    json_list_end(b);
}

static bool on_charge(struct slice key, struct slice value, void *arg)
{
    struct look *l = arg;
    struct charge c;
    if (charge_decode(value, &c) < 0) {
        l->unreadable = "charge";
        return false;
    }
    for (uint32_t i = 0; i < c.recipients; i++)
        c.states[i] = (uint8_t) "RDF"[c.states[i]];
    json_begin(&l->out);
    json_str(&l->out, "id", key);
    json_str(&l->out, "user", slice_str(c.user));
    tell_levels(&l->out, &c);
    json_str(&l->out, "states", slice_make(c.states, c.recipients));
    json_int(&l->out, "open", c.open);
    json_bool(&l->out, "closed", c.closed_at != 0);
    json_end(&l->out);
    free(c.states);
    return true;
}

static void tell_volume(struct buf *b, const char *name, struct volume v)
{
    json_list(b, name);
    json_int(b, NULL, (int64_t)v.messages);
    json_int(b, NULL, (int64_t)v.bytes);
    json_list_end(b);
}

static bool on_usage(struct slice key, struct slice value, void *arg)
{
    struct look *l = arg;
    struct plan_usage u;
    if (usage_decode(value, &u) < 0) {
        l->unreadable = "usage";
        return false;
    }
    json_begin(&l->out);
    json_str(&l->out, "owner", slice_first(key, slice_chr(key, '\0')));
    json_int(&l->out, "period", u.period.start);
    tell_volume(&l->out, "charged", u.charged);
    tell_volume(&l->out, "delivered", u.delivered);
    tell_volume(&l->out, "refunded", u.refunded);
    json_end(&l->out);
    return true;
}

static bool on_any(struct slice key, struct slice value, void *arg)
{
    (void)key, (void)value;
    ((struct look *)arg)->count++;
    return true;
}

static int count(struct look *l, struct kv *kv, enum table t, const char *name, struct err *e)
{
    l->count = 0;
    int rc = kv_walk(kv, t, SLICE(""), on_any, l, e);
    json_int(&l->out, name, l->count);
    return rc;
}

static int tell(struct look *l, struct kv *kv, struct err *e)
{
    json_list(&l->out, "charges");
    int rc = kv_walk(kv, T_CHARGE, SLICE(""), on_charge, l, e);
    json_list_end(&l->out);
    json_list(&l->out, "usage");
    rc = rc < 0 ? rc : kv_walk(kv, T_USAGE, SLICE(""), on_usage, l, e);
    json_list_end(&l->out);
    rc = rc < 0 ? rc : count(l, kv, T_ACCOUNT, "accounts", e);
    rc = rc < 0 ? rc : count(l, kv, T_NOTICE, "letters", e);
    if (rc == 0 && l->unreadable)
        rc = err_set(e, "a record of the table %s cannot be read", l->unreadable);
    return rc;
}

static int look_at(struct look *l, const char *directory, struct err *e)
{
    static const char *const words[] = {"sound", "created", "rebuilt"};
    enum kv_condition condition;
    struct kv_config c = {.directory = directory,
                          .tables = table_names,
                          .table_count = T_COUNT,
                          .cache_bytes = CACHE_BYTES};
    struct kv *kv = kv_open(&c, &condition, e);
    if (!kv)
        return -1;
    l->unreadable = NULL;
    buf_clear(&l->out);
    json_begin(&l->out);
    json_str(&l->out, "condition", slice_str(words[condition]));
    json_str(&l->out, "told", slice_str(condition == KV_REBUILT ? e->text : ""));
    int rc = tell(l, kv, e);
    json_end(&l->out);
    kv_close(kv);
    return rc;
}

int main(void)
{
    struct look l = {.count = 0};
    char line[PATH_MAX];
    struct err e;
    buf_init(&l.out, OUT_MAX);
    log_set_level(LOG_LEVEL_PANIC);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        if (look_at(&l, line, &e) < 0) {
            buf_clear(&l.out);
            json_begin(&l.out);
            json_str(&l.out, "error", slice_str(e.text));
            json_end(&l.out);
        }
        if (printf("%.*s\n", SLICE_ARG(buf_slice(&l.out))) < 0 || fflush(stdout) != 0)
            return 1;
    }
    buf_free(&l.out);
    return 0;
}
