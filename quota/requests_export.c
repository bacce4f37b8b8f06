/*
 * Export: all that import can bring back, one record a line: {"type":"account",...}. It is
 * one moment, however long it takes and whatever is charged meanwhile (frozen.h): usage is the
 * sum of the charges that are in it and of those that were forgotten before.
 */
#include "core/mem.h"
#include "quota/frozen.h"
#include "quota/requests.h"
#include "quota/transfer_counts.h"

/* In the order in which an import had best take them. */
enum place { USAGE, RATES, HELD, PARKED, CHARGES, ACCOUNTS, USERS, DOMAINS, GRANTS, PLACES };
static const enum table tables[PLACES] = {T_USAGE,   T_TALLY, T_HELD,     T_PARKED, T_CHARGE,
                                          T_ACCOUNT, T_USER,  T_IDENTITY, T_GRANT};
static const char *const types[PLACES] = {"usage",   "rates", "held",   "held", "charge",
                                          "account", "user",  "domain", "grant"};

struct export
{
    struct client *c;
    struct frozen *frozen;
    json_t *early; /* accounts that were shown before their turn: others are below them */
    struct buf value;
};

static void export_free(void *arg)
{
    struct export *x = arg;
    frozen_free(x->frozen);
    json_decref(x->early);
    buf_free(&x->value);
    free(x);
}

/* ---- records ----------------------------------------------------------------------- */

static json_t *show_account(struct slice key, json_t *record)
{
    json_t *out = json_pack("{s:s%}", "account", key.ptr, key.len);
    json_object_update(out, record);
    return out;
}

/* As user.set wants it. */
static json_t *show_user(struct slice key, json_t *record)
{
    json_t *out = json_pack("{s:s%}", "login", key.ptr, key.len);
    json_object_set(out, "hash", json_object_get(record, "password"));
    json_object_del(record, "password");
    json_object_update(out, record);
    return out;
}

static json_t *show_domain(struct slice key, json_t *record)
{
    struct slice account = slice_cut(&key, '\0');
    json_t *out =
        json_pack("{s:s%,s:s%}", "account", account.ptr, account.len, "domain", key.ptr, key.len);
    json_object_update(out, record);
    return out;
}

static json_t *show_grant(struct slice key, json_t *record)
{
    struct slice account = slice_first(key, slice_chr(key, '\0'));
    json_t *out = json_pack("{s:s%,s:I}", "account", account.ptr, account.len, "grant",
                            (json_int_t)key_last_number(key));
    json_object_update(out, record);
    return out;
}

/* NULL: it is not readable. */
static json_t *show(enum place place, struct slice key, struct slice value)
{
    static json_t *(*const shows[PLACES])(struct slice key,
                                          json_t * record) = {[ACCOUNTS] = show_account,
                                                              [USERS] = show_user,
                                                              [DOMAINS] = show_domain,
                                                              [GRANTS] = show_grant};
    json_t *out;
    if (shows[place]) {
        json_t *record = json_loadb(value.ptr, value.len, 0, NULL);
        if (!json_is_object(record)) {
            json_decref(record);
            return NULL;
        }
        json_object_del(record, RECORD_EPOCH);
        out = shows[place](key, record);
        json_decref(record);
    } else {
        out = counts_show(tables[place], key, value);
    }
    if (out)
        json_object_set_new(out, "type", json_string(types[place]));
    return out;
}

/* ---- accounts above ------------------------------------------------------------------ */

static void add(struct export *x, enum place place, struct slice key, struct slice value);

/* An import wants the account above before those below it, and names sort by their letters. */
static void add_parent(struct export *x, struct slice name)
{
    char key[ACCOUNT_NAME_MAX + 1];
    if (name_account(name, key) < 0 || json_object_get(x->early, key) ||
        !frozen_get(x->frozen, ACCOUNTS, slice_str(key), &x->value))
        return; /* it was shown already */
    char *value = slice_dup(buf_slice(&x->value));
    size_t len = x->value.len;
    json_object_set_new(x->early, key, json_true());
    add(x, ACCOUNTS, slice_str(key), slice_make(value, len));
    free(value);
}

static void add(struct export *x, enum place place, struct slice key, struct slice value)
{
    json_t *out = show(place, key, value);
    if (out && place == ACCOUNTS && *json_text(out, "parent"))
        add_parent(x, slice_str(json_text(out, "parent")));
    if (out)
        control_result_sorted(x->c, out);
}

static void on_record(unsigned place, struct slice key, struct slice value, void *arg)
{
    struct export *x = arg;
    char name[ACCOUNT_NAME_MAX + 1];
    if (place != ACCOUNTS || name_account(key, name) < 0 || json_object_del(x->early, name) < 0)
        add(x, (enum place)place, key, value);
}

/* ---- the request ---------------------------------------------------------------------- */

static void go_on(struct client *c)
{
    struct export *x = control_state(c);
    struct err e;
    int rc = frozen_read(x->frozen, CONTROL_SLICE, on_record, x, &e);
    if (rc < 0)
        control_fail(c, "%s", e.text);
    else if (rc == 0)
        control_done(c, NULL);
}

void transfer_export(struct client *c)
{
    struct quota *q = control_quota(c);
    book_apply(q);
    struct frozen *frozen = frozen_new(q, tables, PLACES);
    if (!frozen) {
        control_fail(c, "%d exports are under way already; try again when one is done.",
                     FROZEN_MAX);
        return;
    }
    struct export *x = xcalloc(1, sizeof *x);
    *x = (struct export){
        .c = c, .frozen = frozen, .early = json_object(), .value = BUF_INIT(KV_VALUE_MAX)};
    control_attach(c, x, export_free);
    control_continue(c, go_on);
}
