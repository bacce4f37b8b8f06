/*
 * Import. It takes what an export gives (requests_export.c), in any order as long as an account
 * comes before what belongs to it, and is repeatable: definitions that are there are replaced.
 * What is counted comes first, so that nothing is counted between an account and its usage.
 *
 * An empty database takes all of it. In one that is in service what was counted since the file
 * was written would be lost by that, so what it has counted itself stays, unless the request says
 * otherwise.
 */
#include "conf/sender_class.h"
#include "core/mem.h"
#include "quota/import.h"
#include "quota/missing.h"
#include "quota/owners.h"
#include "quota/prepare.h"
#include "quota/tree.h"

/* ---- import --------------------------------------------------------------------------------- */

/* Members that nobody has set. */
static bool is_internal(const char *member)
{
    return strcmp(member, RECORD_EPOCH) == 0 || strcmp(member, "since") == 0;
}

void import_note(struct importing *i, const char *type, const char *name, json_t *before,
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

bool import_has_account(const struct importing *i, const char *name)
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
    if (name_account(slice_str(above), out) < 0 || !import_has_account(i, out) ||
        strcmp(out, name) == 0)
        return err_set(e, "parent: there is no account %.64s before this record.", above);
    json_object_set_new(record, "parent", json_string(out));
    return 0;
}

/* What the owner was told and billed, and since when there is such an account, is no definition. */
static void retain_told(const struct importing *i, json_t *record, const json_t *old)
{
    static const char *const members[] = {"reported", "since", RECORD_WARNED, RECORD_WARNED_BITS};
    const size_t of_end = 2; /* the last ones */
    bool other_end = !json_equal(json_object_get(record, "ends"), json_object_get(old, "ends"));
    if (!old || i->counts == COUNTS_REPLACE)
        return;
    for (size_t m = 0; m < sizeof members / sizeof members[0] - (other_end ? of_end : 0); m++) {
        json_t *value = json_object_get(old, members[m]);
        if (value)
            json_object_set(record, members[m], value);
        else
            json_object_del(record, members[m]);
    }
}

/* What a record of the file does not say: as it is, or now. Periods may be reckoned from it. */
static json_int_t since(const json_t *old, const char *member)
{
    const json_t *value = json_object_get(old, member);
    return json_is_integer(value) ? json_integer_value(value) : (json_int_t)quota_now();
}

static int import_account(struct importing *i, const json_t *in, struct err *e)
{
    char name[ACCOUNT_NAME_MAX + 1], parent[ACCOUNT_NAME_MAX + 1];
    if (name_account(slice_str(json_text(in, "account")), name) < 0)
        return err_set(e, "account: is no name of one.");
    json_t *old = quota_get_json(i->q, T_ACCOUNT, slice_str(name));
    json_t *record = json_pack("{s:s,s:I,s:I}", "status", "active", "created",
                               since(old, "created"), "began", since(old, "began"));
    int rc = record_set_account(i->q, record, in, e);
    if (rc == 0)
        rc = import_parent(i, name, record, parent, e);
    if (rc == 0) {
        const json_t *before = json_object_get(i->fresh, name); /* in this request already */
        tree_index(i->batch, name, before ? json_string_value(before) : json_text(old, "parent"),
                   parent);
        record_sessions(record, old);
        retain_told(i, record, old);
        if (old && strcmp(json_text(old, "plan"), json_text(record, "plan")) != 0)
            book_rates_changed(i->q, i->batch, name);
        import_note(i, "account", name, old, record);
        record_warn_pool(i->c, name, record);
        quota_put_json(i->batch, T_ACCOUNT, slice_str(name), record);
        json_object_set_new(i->fresh, name, json_string(parent));
        account_forget(i->q, slice_str(name));
        book_look_at(i->q, name, "");
    } else {
        json_decref(old);
    }
    json_decref(record);
    return rc;
}

/* A list of hashes that is imported again does not take the SCRAM keys that were made since, nor
 * when the user was made. */
static void retain_made(json_t *record, const json_t *old)
{
    json_t *keys = json_object_get(old, "scram"), *created = json_object_get(old, "created");
    if (created)
        json_object_set(record, "created", created);
    if (keys && *json_text(record, "password") && !*json_text(record, "scram") &&
        strcmp(json_text(record, "password"), json_text(old, "password")) == 0)
        json_object_set(record, "scram", keys);
}

/* The user may come to another account than it was in, with other certificates. */
static void leave_account(struct importing *i, const char *login, json_t *record)
{
    struct key k;
    json_t *old = quota_get_json(i->q, T_USER, slice_str(login));
    retain_made(record, old);
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
    if (name_account(slice_str(json_text(in, "account")), account) < 0 ||
        !import_has_account(i, account))
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
        import_note(i, "user", login, quota_get_json(i->q, T_USER, slice_str(login)), record);
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
    if (name_account(slice_str(json_text(in, "account")), account) < 0 ||
        !import_has_account(i, account))
        return err_set(e, "account: there is none of that name before this record.");
    if (name_identity(slice_str(json_text(in, "domain")), domain) < 0)
        return err_set(e, "domain: is no domain or address.");
    key_begin(&k, slice_str(account));
    key_add(&k, slice_str(domain));
    if (!quota_get(i->q, T_IDENTITY, key_slice(&k))) {
        char what[ACCOUNT_NAME_MAX + ADDRESS_TEXT_MAX + 16];
        snprintf(what, sizeof what, "%s of account %s", domain, account);
        import_note(i, "domain", what, NULL, NULL);
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
    if (import_is_counted(type))
        return import_counts(i, type, in, e);
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

static void warn_owners(const struct importing *i)
{
    size_t at;
    json_t *one;
    json_array_foreach(i->owned, at, one) record_warn_owner(
        i->c, json_string_value(json_array_get(one, 0)), json_string_value(json_array_get(one, 1)));
}

/* False: answered. */
static bool read_counts(struct client *c, enum counts *out, bool *first)
{
    const json_t *value = json_object_get(control_request(c), "counts");
    const char *word = json_string_value(value);
    *out = COUNTS_KEEP;
    if (!value || (word && strcmp(word, "keep") == 0)) {
        *first = control_quota(c)->empty; /* also between two parts of its first import */
        if (*first)
            *out = COUNTS_REPLACE;
        return true;
    }
    *out = word && strcmp(word, "replace") == 0 ? COUNTS_REPLACE : COUNTS_NONE;
    if (*out == COUNTS_REPLACE || (word && strcmp(word, "none") == 0))
        return true;
    control_fail(c, "counts: give keep, replace or none.");
    return false;
}

/* The last line. */
static json_t *told(const struct importing *i, size_t count)
{
    json_t *out =
        json_pack("{s:I,s:I}", "records", (json_int_t)count, "without_scram", i->without_scram);
    if (json_object_size(i->kept))
        json_object_set(out, "kept", i->kept);
    if (i->first)
        json_object_set_new(out, "first", json_true());
    return out;
}

/* All of it is good: written, and then answered. */
static void import_write(struct importing *i, size_t count)
{
    char what[64];
    snprintf(what, sizeof what, "%zu records", count);
    users_changed(i);
    periods_again(i->q);
    book_pools_changed(i->q);
    audit_changes(i->c, i, i->batch);
    import_counting(i);
    control_change_with(i->c, i->batch, what, told(i, count));
    import_counted(i);
    missing_changed(i->q);
    warn_owners(i); /* all of the request is there now; it is answered later */
}

/* All records of the request, or none. */
void transfer_import(struct client *c)
{
    struct quota *q = control_quota(c);
    const json_t *records = json_object_get(control_request(c), "records");
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    enum counts counts;
    bool first = false;
    if (!read_counts(c, &counts, &first))
        return;
    struct importing i = {.q = q,
                          .c = c,
                          .counts = counts,
                          .first = first,
                          .kept = json_object(),
                          .granted = json_object(),
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
        import_write(&i, count);
    }
    json_decref(i.kept);
    json_decref(i.granted);
    json_decref(i.fresh);
    json_decref(i.users);
    json_decref(i.owned);
    json_decref(i.owners);
    json_decref(i.changes);
    json_decref(i.certificates);
    buf_free(&i.index);
    buf_free(&batch);
}
