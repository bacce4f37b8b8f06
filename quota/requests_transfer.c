/*
 * Import, the audit log, the database itself. An import takes what an export gives
 * (requests_export.c), in any order as long as an account comes before what belongs to it,
 * and is repeatable: what is there is replaced, except for charges, which are newer where they
 * are there. What is counted comes first, so that nothing is counted between an account and
 * its usage.
 */
#include "conf/sender_class.h"
#include "core/mem.h"
#include "quota/missing.h"
#include "quota/owners.h"
#include "quota/prepare.h"
#include "quota/requests.h"
#include "quota/transfer_counts.h"
#include "quota/tree.h"

static const struct {
    enum table table;
    const char *type;
} counted[] = {{T_USAGE, "usage"}, {T_TALLY, "rates"}, {T_HELD, "held"}, {T_CHARGE, "charge"}};

/* ---- import --------------------------------------------------------------------------------- */

struct importing {
    struct quota *q;
    struct client *c;
    struct buf *batch;
    json_t *fresh;        /* accounts of this request, with the one above it: they are not in the
                             database yet */
    json_t *users;        /* login names of this request */
    json_t *certificates; /* fingerprints of this request, with the user's login */
    struct buf index;     /* changes, after all that the batch removes */
    json_t *owned;        /* domains of this request: [account, domain] */
    json_t *owners;       /* whose usage or rates have changed */
    json_t *changes;      /* texts for the audit log */
    json_int_t without_scram; /* users who have a password's hash, and no SCRAM keys yet */
};

/* Members that nobody has set. */
static bool is_internal(const char *member)
{
    return strcmp(member, RECORD_EPOCH) == 0 || strcmp(member, "since") == 0;
}

/* What a record changes, for the audit log: the names of its members, never what they are. */
static void note_change(struct importing *i, const char *type, const char *name, json_t *before,
                        json_t *after)
{
    struct buf text = BUF_INIT(AUDIT_TEXT_MAX / 2);
    const char *member, *between = ": ";
    json_t *value;
    (void)buf_printf(&text, "%s %s%s", type, name, before ? "" : " (new)");
    if (before) {
        json_object_foreach(after, member, value)
        {
            if (is_internal(member) || json_equal(value, json_object_get(before, member)))
                continue;
            (void)buf_printf(&text, "%s%s", between, member);
            between = ", ";
        }
        json_object_foreach(before, member, value)
        {
            if (is_internal(member) || json_object_get(after, member))
                continue;
            (void)buf_printf(&text, "%sno %s", between, member);
            between = ", ";
        }
    }
    if (!before || *between == ',')
        json_array_append_new(i->changes, json_stringn(text.data, text.len));
    buf_free(&text);
    json_decref(before);
}

/* The audit log gets all of it, in records of limited length. */
static void audit_changes(struct client *c, const struct importing *i, struct buf *batch)
{
    struct buf text = BUF_INIT(AUDIT_TEXT_MAX);
    size_t at;
    json_t *change;
    json_array_foreach(i->changes, at, change)
    {
        size_t len = json_string_length(change);
        if (text.len && text.len + len + 2 > AUDIT_TEXT_MAX) {
            control_audit(c, batch, "import", buf_slice(&text));
            buf_clear(&text);
        }
        (void)buf_printf(&text, "%s%s", text.len ? "; " : "", json_string_value(change));
    }
    if (text.len)
        control_audit(c, batch, "import", buf_slice(&text));
    buf_free(&text);
}

static bool has_account(const struct importing *i, const char *name)
{
    return json_object_get(i->fresh, name) || quota_get(i->q, T_ACCOUNT, slice_str(name));
}

/* "" in *out: none. It stands as its record is named. */
static int import_parent(const struct importing *i, const char *name, json_t *record,
                         char out[static ACCOUNT_NAME_MAX + 1], struct err *e)
{
    const char *above = json_text(record, "parent");
    out[0] = '\0';
    if (!*above)
        return 0;
    if (name_account(slice_str(above), out) < 0 || !has_account(i, out) || strcmp(out, name) == 0)
        return err_set(e, "parent: there is no account %.64s before this record.", above);
    json_object_set_new(record, "parent", json_string(out));
    return 0;
}

static int import_account(struct importing *i, const json_t *in, struct err *e)
{
    char name[ACCOUNT_NAME_MAX + 1], parent[ACCOUNT_NAME_MAX + 1];
    if (name_account(slice_str(json_text(in, "account")), name) < 0)
        return err_set(e, "account: is no name of one.");
    json_t *record = json_pack("{s:s,s:I,s:I}", "status", "active", "created",
                               (json_int_t)quota_now(), "began", (json_int_t)quota_now());
    int rc = record_set_account(i->q, record, in, e);
    if (rc == 0)
        rc = import_parent(i, name, record, parent, e);
    if (rc == 0) {
        json_t *old = quota_get_json(i->q, T_ACCOUNT, slice_str(name));
        const json_t *before = json_object_get(i->fresh, name); /* in this request already */
        tree_index(i->batch, name, before ? json_string_value(before) : json_text(old, "parent"),
                   parent);
        record_sessions(record, old);
        note_change(i, "account", name, old, record);
        record_warn_pool(i->c, name, record);
        quota_put_json(i->batch, T_ACCOUNT, slice_str(name), record);
        json_object_set_new(i->fresh, name, json_string(parent));
        account_forget(i->q, slice_str(name));
        book_look_at(i->q, name, "");
    }
    json_decref(record);
    return rc;
}

/* A list of hashes that is imported again does not take the SCRAM keys that were made since. */
static void retain_keys(json_t *record, const json_t *old)
{
    json_t *keys = json_object_get(old, "scram");
    if (keys && *json_text(record, "password") && !*json_text(record, "scram") &&
        strcmp(json_text(record, "password"), json_text(old, "password")) == 0)
        json_object_set(record, "scram", keys);
}

/* The user may come to another account than it was in, with other certificates. */
static void leave_account(struct importing *i, const char *login, json_t *record)
{
    struct key k;
    json_t *old = quota_get_json(i->q, T_USER, slice_str(login));
    retain_keys(record, old);
    record_sessions(record, old);
    if (!old)
        return;
    member_key(&k, json_text(old, "account"), 'u', login);
    kv_remove(i->batch, T_MEMBER, key_slice(&k));
    certificates_unindex(i->batch, old);
    json_decref(old);
}

/* None may be in the request a second time. */
static int new_certificates(struct importing *i, const char *login, const json_t *record,
                            struct err *e)
{
    size_t at;
    json_t *one;
    json_array_foreach(json_object_get(record, "certificates"), at, one)
    {
        const char *fingerprint = json_text(one, "fingerprint");
        if (json_object_get(i->certificates, fingerprint))
            return err_set(e, "certificate %s is another user's in this import.", fingerprint);
        json_object_set_new(i->certificates, fingerprint, json_string(login));
    }
    return 0;
}

static bool has_user(const struct importing *i, const char *login)
{
    return json_object_get(i->users, login) != NULL;
}

static int import_user(struct importing *i, const json_t *in, struct err *e)
{
    char login[LOGIN_MAX + 1], account[ACCOUNT_NAME_MAX + 1];
    struct key k;
    if (prepare_login(slice_str(json_text(in, "login")), login) < 0)
        return err_set(e, "login: is no name of a user.");
    if (name_account(slice_str(json_text(in, "account")), account) < 0 || !has_account(i, account))
        return err_set(e, "account: there is none of that name before this record.");
    json_t *record = json_pack("{s:s,s:s}", "account", account, "status", "active");
    int rc = record_set_user(record, in, e);
    if (rc == 0)
        rc = certificates_add(NULL, record, login, json_object_get(in, "certificates"), e);
    if (rc == 0)
        rc = new_certificates(i, login, record, e);
    if (rc == 0) {
        leave_account(i, login, record);
        certificates_index(&i->index, login, record);
        const json_t *created = json_object_get(in, "created");
        if (json_is_integer(created))
            json_object_set_new(record, "created", json_integer(json_integer_value(created)));
        i->without_scram += *json_text(record, "password") && !*json_text(record, "scram");
        note_change(i, "user", login, quota_get_json(i->q, T_USER, slice_str(login)), record);
        quota_put_json(i->batch, T_USER, slice_str(login), record);
        json_object_set_new(i->users, login, json_true());
        member_key(&k, account, 'u', login);
        kv_put(i->batch, T_MEMBER, key_slice(&k), SLICE(""));
    }
    json_decref(record);
    return rc;
}

static int import_domain(struct importing *i, const json_t *in, struct err *e)
{
    char account[ACCOUNT_NAME_MAX + 1], domain[ADDRESS_TEXT_MAX + 1];
    struct key k;
    if (name_account(slice_str(json_text(in, "account")), account) < 0 || !has_account(i, account))
        return err_set(e, "account: there is none of that name before this record.");
    if (name_identity(slice_str(json_text(in, "domain")), domain) < 0)
        return err_set(e, "domain: is no domain or address.");
    key_begin(&k, slice_str(account));
    key_add(&k, slice_str(domain));
    if (!quota_get(i->q, T_IDENTITY, key_slice(&k))) {
        char what[ACCOUNT_NAME_MAX + ADDRESS_TEXT_MAX + 16];
        snprintf(what, sizeof what, "%s of account %s", domain, account);
        note_change(i, "domain", what, NULL, NULL);
    }
    const char *class = json_text(in, "class");
    if (*class && sender_class_word(slice_str(class)) == SENDER_CLASS_NONE)
        return err_set(e, "class: give normal, transactional or bulk.");
    owners_put(i->batch, account, domain);
    json_array_append_new(i->owned, json_pack("[ss]", account, domain));
    json_t *record = *class ? json_pack("{s:s}", "class", class) : json_object();
    quota_put_json(i->batch, T_IDENTITY, key_slice(&k), record);
    json_decref(record);
    return 0;
}

/* A grant as 'grant add' makes them, and what became of it. */
static json_t *grant_record(const json_t *in, struct err *e)
{
    static const char *const numbers[] = {"amount", "used", "from", "until"};
    static const char *const flags[] = {"bought", "over"};
    const char *unit = json_text(in, "unit");
    json_int_t n[4];
    json_t *record = json_object(), *value;
    for (int i = 0; i < 4; i++) { /* none of it is used, from the beginning */
        bool may_lack = i == 1 || i == 2;
        value = json_object_get(in, numbers[i]);
        n[i] = json_integer_value(value);
        err_set(e, "grant: %s: give a number.", numbers[i]);
        if (value ? !json_is_integer(value) || n[i] < 0 : !may_lack)
            goto wrong;
        json_object_set_new(record, numbers[i], json_integer(n[i]));
    }
    err_set(e, "grant: amount, used, from and until do not fit.");
    if (n[0] == 0 || n[1] > n[0] || n[3] <= n[2])
        goto wrong;
    err_set(e, "grant: unit: give messages or bytes.");
    if (strcmp(unit, "messages") != 0 && strcmp(unit, "bytes") != 0)
        goto wrong;
    json_object_set_new(record, "unit", json_string(unit));
    for (int i = 0; i < 2; i++) {
        err_set(e, "grant: %s: give true or false.", flags[i]);
        if (!(value = json_object_get(in, flags[i])))
            continue;
        if (!json_is_boolean(value))
            goto wrong;
        json_object_set(record, flags[i], value);
    }
    if (!(value = json_object_get(in, "note")))
        return record;
    if (record_check_text("note", value, e) < 0)
        goto wrong;
    json_object_set(record, "note", value);
    return record;
wrong:
    json_decref(record);
    return NULL;
}

static int import_grant(struct importing *i, const json_t *in, struct err *e)
{
    char account[ACCOUNT_NAME_MAX + 1], what[ACCOUNT_NAME_MAX + 40];
    struct key k;
    const json_t *id = json_object_get(in, "grant");
    if (name_account(slice_str(json_text(in, "account")), account) < 0 || !has_account(i, account))
        return err_set(e, "account: there is none of that name before this record.");
    if (!json_is_integer(id) || json_integer_value(id) <= 0)
        return err_set(e, "grant: give its number.");
    json_t *record = grant_record(in, e);
    if (!record)
        return -1;
    key_begin(&k, slice_str(account));
    key_number(&k, (uint64_t)json_integer_value(id));
    snprintf(what, sizeof what, "%llu of account %s", (unsigned long long)json_integer_value(id),
             account);
    note_change(i, "grant", what, quota_get_json(i->q, T_GRANT, key_slice(&k)), record);
    quota_put_json(i->batch, T_GRANT, key_slice(&k), record);
    account_forget(i->q, slice_str(account));
    json_decref(record);
    return 0;
}

/* Usage, rates, held, charge. */
static int import_counts(struct importing *i, const char *type, enum table t, const json_t *in,
                         struct err *e)
{
    struct key k;
    struct buf value = BUF_INIT(KV_VALUE_MAX);
    int rc = counts_read(t, in, &k, &value, e);
    bool there = rc == 0 && quota_get(i->q, t, key_slice(&k));
    bool newer = t == T_CHARGE && (there || map_get(&i->q->book.open, key_slice(&k)));
    if (rc == 0 && !newer && !(there && slice_eq(buf_slice(&i->q->value), buf_slice(&value)))) {
        const char *name = json_text(in, t == T_USAGE || t == T_TALLY ? "owner" : "id");
        json_array_append_new(i->changes,
                              json_sprintf("%s %s%s", type, name, there ? "" : " (new)"));
        rc = kv_put(i->batch, t, key_slice(&k), buf_slice(&value));
        if (t == T_USAGE || t == T_TALLY)
            json_array_append_new(i->owners, json_string(name));
    }
    buf_free(&value);
    return rc;
}

static int import_record(struct importing *i, const json_t *in, struct err *e)
{
    static const struct {
        const char *type;
        int (*take)(struct importing *i, const json_t *in, struct err *e);
    } types[] = {{"account", import_account},
                 {"user", import_user},
                 {"domain", import_domain},
                 {"grant", import_grant}};
    const char *type = json_text(in, "type");
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++)
        if (strcmp(types[t].type, type) == 0)
            return types[t].take(i, in, e);
    for (size_t t = 0; t < sizeof counted / sizeof counted[0]; t++)
        if (strcmp(counted[t].type, type) == 0)
            return import_counts(i, type, counted[t].table, in, e);
    return err_set(e, "type: give account, user, domain, grant, usage, rates, held or charge.");
}

/* What one user had may be another's now, if this import says so of both. */
static int check_certificates(const struct importing *i, struct err *e)
{
    char digits[FINGERPRINT_MAX + 1], before[LOGIN_MAX + 1];
    const char *fingerprint;
    json_t *login;
    json_object_foreach(i->certificates, fingerprint, login)
    {
        if (name_fingerprint(slice_str(fingerprint), digits) < 0 ||
            !quota_get(i->q, T_CERTIFICATE, slice_str(digits)) ||
            name_login(buf_slice(&i->q->value), before) < 0 ||
            strcmp(before, json_string_value(login)) == 0 || has_user(i, before))
            continue;
        return err_set(e,
                       "certificate %s, for user %s: it is that of user %s; delete it there, or "
                       "import that user, too",
                       fingerprint, json_string_value(login), before);
    }
    return 0;
}

/* Their passwords may be others now. */
static void users_changed(const struct importing *i)
{
    const char *login;
    json_t *unused;
    json_object_foreach(i->users, login, unused) login_changed(i->q, login);
}

/* What memory has of these was counted before the import, which has replaced it. */
static void counts_changed(const struct importing *i)
{
    size_t at;
    json_t *owner;
    json_array_foreach(i->owners, at, owner) party_again(i->q, slice_str(json_string_value(owner)));
}

static void warn_owners(const struct importing *i)
{
    size_t at;
    json_t *one;
    json_array_foreach(i->owned, at, one) record_warn_owner(
        i->c, json_string_value(json_array_get(one, 0)), json_string_value(json_array_get(one, 1)));
}

/* All records of the request, or none. */
void transfer_import(struct client *c)
{
    struct quota *q = control_quota(c);
    const json_t *records = json_object_get(control_request(c), "records");
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    struct importing i = {.q = q,
                          .c = c,
                          .batch = &batch,
                          .fresh = json_object(),
                          .users = json_object(),
                          .index = BUF_INIT(KV_BATCH_MAX / 2),
                          .certificates = json_object(),
                          .owned = json_array(),
                          .owners = json_array(),
                          .changes = json_array()};
    struct err e = {0, "The import is too large"};
    size_t n = 0, count = json_array_size(records);
    bool more = json_is_true(json_object_get(control_request(c), "more"));
    q->import_until = more ? clock_mono() + IMPORT_SECONDS * CLOCK_SECOND : 0;
    book_apply(q);
    while (n < count && import_record(&i, json_array_get(records, n), &e) == 0)
        n++;
    if (n < count) {
        control_fail(c, "record %zu: %s", n + 1, e.text);
    } else if (tree_check(q, i.fresh, &e) < 0) {
        control_fail(c, "%s", e.text);
    } else if (check_certificates(&i, &e) < 0 || buf_adds(&batch, buf_slice(&i.index)) < 0) {
        control_fail(c, "%s.", e.text);
    } else if (count == 0) {
        book_ready(q);
        control_done(c, json_pack("{s:i}", "records", 0));
    } else {
        char what[64];
        snprintf(what, sizeof what, "%zu records", count);
        users_changed(&i);
        periods_again(q);
        book_pools_changed(q);
        audit_changes(c, &i, &batch);
        control_change_with(
            c, &batch, what,
            json_pack("{s:I,s:I}", "records", (json_int_t)count, "without_scram", i.without_scram));
        counts_changed(&i);
        missing_changed(q);
        warn_owners(&i); /* all of the request is there now; it is answered later */
    }
    json_decref(i.fresh);
    json_decref(i.users);
    json_decref(i.owned);
    json_decref(i.owners);
    json_decref(i.changes);
    json_decref(i.certificates);
    buf_free(&i.index);
    buf_free(&batch);
}

/* ---- the rest -----------------------------------------------------------------------------------
 */

static json_t *show_audit(struct client *c, struct slice key, struct slice value)
{
    int64_t from = json_integer_value(json_object_get(control_request(c), "from"));
    json_t *record = json_loadb(value.ptr, value.len, 0, NULL);
    (void)key;
    if (record && json_integer_value(json_object_get(record, "time")) >= from)
        return record;
    json_decref(record);
    return NULL;
}

static void list_audit(struct client *c)
{
    listing_go_on(c, &(struct listing){T_AUDIT, SLICE(""), show_audit});
}

void audit_list(struct client *c)
{
    control_continue(c, list_audit);
}

void accounts_status(struct client *c)
{
    struct quota *q = control_quota(c);
    control_done(c,
                 json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:b,s:b,s:I,s:I}", "charged",
                           (json_int_t)q->book.charged, "delivered", (json_int_t)q->book.delivered,
                           "refunded", (json_int_t)q->book.refunded, "repeated",
                           (json_int_t)q->book.repeated, "strangers", (json_int_t)q->book.strangers,
                           "reservations", (json_int_t)q->reservations.count, "plans",
                           (json_int_t)q->plans.count, "qmgr", q->book.channel != NULL, "disk_full",
                           q->disk_full, "log_bytes", (json_int_t)kv_log_bytes(q->kv),
                           "accounts_without_plan", (json_int_t)q->missing.accounts));
}

static void on_snapshot(const char *error, void *arg)
{
    struct client *c = control_client_unpin(arg);
    if (!c)
        return;
    if (error)
        control_fail(c, "%s", error);
    else
        control_done(c, NULL);
}

void accounts_snapshot(struct client *c)
{
    book_apply(control_quota(c));
    if (sync_snapshot(control_quota(c), on_snapshot, control_client_pin(c)) == 0)
        return;
    if (control_client_unpin(c))
        control_fail(c, "A snapshot is being made already; try again when it is done.");
}
