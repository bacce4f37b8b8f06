/*
 * The part of an import that is counted: usage, rates, held mail, charges, and what is used of
 * grants. What the database has counted itself is newer than a file.
 */
#include "core/mem.h"
#include "quota/import.h"
#include "quota/transfer_counts.h"

static const struct {
    enum table table;
    const char *type;
} counted[] = {{T_USAGE, "usage"}, {T_TALLY, "rates"}, {T_HELD, "held"}, {T_CHARGE, "charge"}};

/* T_COUNT: it is none of them. */
static enum table table_of(const char *type)
{
    for (size_t i = 0; i < sizeof counted / sizeof counted[0]; i++)
        if (strcmp(counted[i].type, type) == 0)
            return counted[i].table;
    return T_COUNT;
}

bool import_is_counted(const char *type)
{
    return table_of(type) != T_COUNT;
}

/* The database's own count is newer, and stays. */
static void count_kept(const struct importing *i, const char *type)
{
    json_int_t n = json_integer_value(json_object_get(i->kept, type));
    json_object_set_new(i->kept, type, json_integer(n + 1));
}

static bool is_over(const json_t *grant)
{
    return json_is_true(json_object_get(grant, "over"));
}

/* One more that is not over: GRANTS_MAX, as 'grant add' has it. */
static int check_room(struct importing *i, const char *account, struct err *e)
{
    json_t *known = json_object_get(i->granted, account);
    json_int_t n = json_integer_value(known);
    struct account *a = known ? NULL : account_find(i->q, slice_str(account));
    if (a)
        n = (json_int_t)a->grant_count;
    if (n >= GRANTS_MAX)
        return err_set(e, "grant: account %s has %d grants that are not over, which is the limit.",
                       account, GRANTS_MAX);
    return json_object_set_new(i->granted, account, json_integer(n + 1));
}

/* A grant that is there has been used since the file was written. */
static void retain_use(const struct importing *i, json_t *record, const json_t *old)
{
    json_int_t used = json_integer_value(json_object_get(old, "used"));
    if (!old || i->counts == COUNTS_REPLACE ||
        (used == json_integer_value(json_object_get(record, "used")) &&
         is_over(old) == is_over(record)))
        return;
    count_kept(i, "grant");
    if (used > json_integer_value(json_object_get(record, "amount")) ||
        strcmp(json_text(record, "unit"), json_text(old, "unit")) != 0) {
        json_object_clear(record); /* what was used does not fit: all of it stays */
        json_object_update(record, (json_t *)(uintptr_t)old);
        return;
    }
    json_object_set_new(record, "used", json_integer(used));
    json_object_del(record, "over");
    if (is_over(old))
        json_object_set_new(record, "over", json_true());
}

int import_grant(struct importing *i, const json_t *in, struct err *e)
{
    char account[ACCOUNT_NAME_MAX + 1], what[ACCOUNT_NAME_MAX + 40];
    struct key k;
    const json_t *id = json_object_get(in, "grant");
    if (name_account(slice_str(json_text(in, "account")), account) < 0 ||
        !import_has_account(i, account))
        return err_set(e, "account: there is none of that name before this record.");
    if (!json_is_integer(id) || json_integer_value(id) <= 0)
        return err_set(e, "grant: give its number.");
    json_t *record = grant_of_export(in, e);
    if (!record)
        return -1;
    key_begin(&k, slice_str(account));
    key_number(&k, (uint64_t)json_integer_value(id));
    json_t *old = quota_get_json(i->q, T_GRANT, key_slice(&k));
    retain_use(i, record, old);
    if (!is_over(record) && (!old || is_over(old)) && check_room(i, account, e) < 0) {
        json_decref(record);
        json_decref(old);
        return -1;
    }
    snprintf(what, sizeof what, "%llu of account %s", (unsigned long long)json_integer_value(id),
             account);
    import_note(i, "grant", what, old, record);
    quota_put_json(i->batch, T_GRANT, key_slice(&k), record);
    account_forget(i->q, slice_str(account));
    json_decref(record);
    return 0;
}

/* Whether the database has usage of the owner in that time, whenever its period began. */
static bool has_usage(const struct importing *i, const char *owner, struct slice value)
{
    struct plan_usage u, last;
    return usage_decode(value, &u) == 0 && party_last_usage(i->q, owner, u.period.end - 1, &last) &&
           last.period.end > u.period.start;
}

/* Whether a count of the file would go back behind what the database has. Charges, and mail that
 * is held, are of the queue that the file was written beside: those of our own queue are known. */
static bool is_outdated(const struct importing *i, enum table t, const json_t *in, bool there,
                        struct slice value)
{
    if (i->counts == COUNTS_REPLACE)
        return false;
    if (t == T_USAGE)
        return has_usage(i, json_text(in, "owner"), value);
    return t == T_TALLY ? there : true;
}

int import_counts(struct importing *i, const char *type, const json_t *in, struct err *e)
{
    enum table t = table_of(type);
    struct key k;
    struct buf value = BUF_INIT(KV_VALUE_MAX);
    int rc = counts_read(t, in, &k, &value, e);
    bool there = rc == 0 && quota_get(i->q, t, key_slice(&k));
    bool same = there && slice_eq(buf_slice(&i->q->value), buf_slice(&value));
    bool newer = t == T_CHARGE && (there || map_get(&i->q->book.open, key_slice(&k)));
    bool kept = rc == 0 && !same && !newer &&
                (i->counts == COUNTS_NONE || is_outdated(i, t, in, there, buf_slice(&value)));
    if (kept)
        count_kept(i, type);
    if (rc == 0 && !newer && !same && !kept) {
        const char *name = json_text(in, t == T_USAGE || t == T_TALLY ? "owner" : "id");
        json_array_append_new(i->changes,
                              json_sprintf("%s %s%s", type, name, there ? "" : " (new)"));
        rc = kv_put(i->batch, t, key_slice(&k), buf_slice(&value));
        i->charges = i->charges || t == T_CHARGE;
        if (t == T_USAGE || t == T_TALLY)
            json_array_append_new(i->owners, json_string(name));
    }
    buf_free(&value);
    return rc;
}

void import_counting(const struct importing *i)
{
    if (i->charges)
        book_restored_put(i->q, i->batch);
}

void import_counted(const struct importing *i)
{
    size_t at;
    json_t *owner;
    json_array_foreach(i->owners, at, owner) party_again(i->q, slice_str(json_string_value(owner)));
}
