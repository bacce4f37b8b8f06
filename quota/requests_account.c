/* Accounts, their sending domains and addresses. */
#include "conf/sender_class.h"
#include "core/mem.h"
#include "quota/missing.h"
#include "quota/owners.h"
#include "quota/pools.h"
#include "quota/rates.h"
#include "quota/requests.h"
#include "quota/spike.h"
#include "quota/tree.h"

/* Before the database is changed: what was counted is written, and what is in
 * memory of the account is read again when it is needed. */
static void before_change(struct quota *q, const char *name)
{
    book_apply(q);
    account_forget(q, slice_str(name));
    periods_again(q);
    book_pools_changed(q);
    book_look_at(q, name, "");
}

/* Times may be dates in the plan's zone: seconds in a copy of the request. */
static bool take_times(struct client *c, json_t *fields)
{
    struct quota *q = control_quota(c);
    const struct plan *p = plans_find(&q->plans, slice_str(json_text(fields, "plan")));
    static const char *const names[] = {"began", "ends"};
    for (int i = 0; i < 2; i++) {
        int64_t t;
        if (!json_object_get(control_request(c), names[i]))
            continue;
        if (!request_time(c, names[i], p ? p : &plan_unlimited, &t))
            return false;
        if (i == 1 && t && t <= quota_now()) {
            control_fail(c, "ends: that is over already; 'postern account suspend' stops an "
                            "account at once.");
            return false;
        }
        json_object_set_new(fields, names[i], json_integer((json_int_t)t));
        if (i == 1) { /* the warnings are about the new end */
            json_object_set_new(fields, RECORD_WARNED, json_integer(0));
            json_object_set_new(fields, RECORD_WARNED_BITS, json_integer(0));
        }
    }
    return true;
}

static bool check_parent(struct client *c, const char *name, json_t *record)
{
    struct quota *q = control_quota(c);
    struct err e;
    const char *parent = json_text(record, "parent");
    char known[ACCOUNT_NAME_MAX + 1];
    if (!*parent)
        return true;
    if (name_account(slice_str(parent), known) < 0 || !account_find(q, slice_str(known))) {
        control_fail(c, "There is no account %.64s to be the parent.", parent);
        return false;
    }
    json_object_set_new(record, "parent", json_string(known));
    json_t *parents = json_pack("{s:s}", name, known);
    bool fits = tree_check(q, parents, &e) == 0;
    if (!fits)
        control_fail(c, "%s", e.text);
    json_decref(parents);
    return fits;
}

static void remove_behind(struct quota *q, struct buf *batch, enum table t, const struct key *k);

/* What is left of a deleted account of this name is not the new one's. */
static void remove_counts(struct quota *q, struct buf *batch, const char *name)
{
    struct key own, users = {.len = 0};
    key_begin(&own, slice_str(name));
    key_add(&users, slice_str(name));
    kv_remove(batch, T_TALLY, key_slice(&users));
    key_add(&users, SLICE("/"));
    remove_behind(q, batch, T_TALLY, &users);
    remove_behind(q, batch, T_USAGE, &own);
    remove_behind(q, batch, T_USAGE, &users);
    remove_behind(q, batch, T_FAILURE, &own);
}

/* Adds or changes: the same but for what is there before. */
static void change(struct client *c, const char *name, json_t *record, bool added)
{
    struct quota *q = control_quota(c);
    struct err e;
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    char *before = xstrdup(json_text(record, "parent"));
    json_t *fields = json_copy((json_t *)(uintptr_t)control_request(c));
    bool keeps_plan = !json_object_get(fields, "plan");
    if (keeps_plan)
        json_object_set(fields, "plan", json_object_get(record, "plan"));
    bool good = take_times(c, fields);
    if (keeps_plan) /* one that is missing hinders no other change */
        json_object_del(fields, "plan");
    if (good && record_set_account(q, record, fields, &e) < 0) {
        control_fail(c, "%s", e.text);
        good = false;
    }
    if (good && check_parent(c, name, record)) {
        char what[ACCOUNT_NAME_MAX + 16];
        snprintf(what, sizeof what, "account %s", name);
        json_t *old = quota_get_json(q, T_ACCOUNT, slice_str(name));
        record_sessions(record, old);
        const bool other_plan =
            old && strcmp(json_text(old, "plan"), json_text(record, "plan")) != 0;
        json_decref(old);
        before_change(q, name);
        if (other_plan)
            book_rates_changed(q, &batch, name);
        if (added)
            remove_counts(q, &batch, name);
        tree_index(&batch, name, before, json_text(record, "parent"));
        quota_put_json(&batch, T_ACCOUNT, slice_str(name), record);
        if (json_object_get(control_request(c), "source") ||
            json_object_get(control_request(c), "plan"))
            record_warn_pool(c, name, record);
        control_change(c, &batch, what);
        missing_changed(q);
        if (added)
            parties_again(q, name);
        struct account *a = account_find(q, slice_str(name));
        if (a) /* the running period is billed by the new plan from now on, used again or not */
            (void)party_find(q, a, SLICE(""));
    }
    free(before);
    buf_free(&batch);
    json_decref(fields);
    json_decref(record);
}

void account_add(struct client *c)
{
    char name[ACCOUNT_NAME_MAX + 1];
    if (!request_account(c, "account", name))
        return;
    if (quota_get(control_quota(c), T_ACCOUNT, slice_str(name))) {
        control_fail(c, "There is an account %s already.", name);
        return;
    }
    json_int_t now = (json_int_t)quota_now();
    change(c, name,
           json_pack("{s:s,s:I,s:I,s:I}", "status", "active", "created", now, "began", now, "since",
                     now),
           true);
}

/* An operator has looked at what the spike guard found; `usual` is what it had better know. */
void account_unguard(struct client *c)
{
    struct quota *q = control_quota(c);
    char name[ACCOUNT_NAME_MAX + 1], what[ACCOUNT_NAME_MAX + 40];
    const json_t *value = json_object_get(control_request(c), "usual");
    struct slice text = slice_str(json_string_value(value) ? json_string_value(value) : "");
    uint64_t usual = 0;
    if (!request_account(c, "account", name))
        return;
    struct account *a = account_find(q, slice_str(name));
    if (!a) {
        control_fail(c, "There is no account %s.", name);
        return;
    }
    if (json_is_integer(value) && json_integer_value(value) >= 0)
        usual = (uint64_t)json_integer_value(value);
    else if (value && slice_u64(text, &usual) < 0) {
        control_fail(c, "usual: give the messages that the account sends in an hour.");
        return;
    }
    struct party *p = party_find(q, a, SLICE(""));
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    rates_roll(&p->tally, a->plan, a->plan->account_rates, quota_now());
    spike_end(&p->tally);
    if (value)
        spike_teach(&p->tally, usual, quota_now());
    party_touched(q, p);
    book_apply(q);
    snprintf(what, sizeof what, "spike guard of account %s", name);
    control_change(c, &batch, what);
    buf_free(&batch);
}

void account_set(struct client *c)
{
    char name[ACCOUNT_NAME_MAX + 1];
    json_t *record;
    book_apply(control_quota(c)); /* what was told of the account may be in memory only */
    if (request_account(c, "account", name) && (record = request_existing_account(c, name)))
        change(c, name, record, false);
}

/* ---- showing ---------------------------------------------------------------------------- */

static json_t *with_name(const char *member, struct slice name, json_t *record)
{
    json_t *out = json_pack("{s:s%}", member, name.ptr, name.len);
    if (out && record)
        json_object_update(out, record);
    if (out)
        json_object_del(out, RECORD_EPOCH);
    json_decref(record);
    return out;
}

static void mark_missing(struct quota *q, json_t *account)
{
    const char *plan = json_text(account, "plan");
    if (*plan && !plans_find(&q->plans, slice_str(plan)))
        json_object_set_new(account, "plan_missing", json_true());
}

static json_t *show_account(struct client *c, struct slice key, struct slice value)
{
    json_t *out = with_name("account", key, json_loadb(value.ptr, value.len, 0, NULL));
    mark_missing(control_quota(c), out);
    return out;
}

struct names {
    json_t *list;
    struct slice prefix;
    size_t max;
};

static bool on_name(struct slice key, struct slice value, void *arg)
{
    struct names *n = arg;
    (void)value;
    if (!slice_starts(key, n->prefix) || json_array_size(n->list) >= n->max)
        return false;
    key = slice_from(key, n->prefix.len);
    json_array_append_new(n->list, json_stringn(key.ptr, key.len));
    return true;
}

static json_t *gather_names(struct quota *q, enum table t, const struct key *prefix, size_t max)
{
    struct names n = {json_array(), key_slice(prefix), max};
    struct err e;
    if (kv_walk(q->kv, t, n.prefix, on_name, &n, &e) < 0)
        panic("%s", e.text);
    return n.list;
}

/* At most CONTROL_SLICE names behind a prefix; lists have their own request. */
static json_t *names_behind(struct quota *q, enum table t, const struct key *prefix)
{
    return gather_names(q, t, prefix, CONTROL_SLICE);
}

static json_t *all_names_behind(struct quota *q, enum table t, const struct key *prefix)
{
    return gather_names(q, t, prefix, SIZE_MAX);
}

void account_show(struct client *c)
{
    struct quota *q = control_quota(c);
    char name[ACCOUNT_NAME_MAX + 1];
    struct key k;
    if (!request_account(c, "account", name))
        return;
    json_t *record = request_existing_account(c, name);
    if (!record)
        return;
    json_t *out = with_name("account", slice_str(name), record);
    json_object_del(out, RECORD_WARNED);
    json_object_del(out, RECORD_WARNED_BITS);
    json_object_del(out, "reported");
    json_object_del(out, "since");
    member_key(&k, name, 'u', "");
    json_object_set_new(out, "users", names_behind(q, T_MEMBER, &k));
    member_key(&k, name, 'a', "");
    json_object_set_new(out, "accounts", names_behind(q, T_MEMBER, &k));
    key_begin(&k, slice_str(name));
    json_object_set_new(out, "domains", names_behind(q, T_IDENTITY, &k));
    mark_missing(q, out);
    struct account *a = account_find(q, slice_str(name));
    const struct account *planless = a ? account_without_plan(q, a) : NULL;
    const char *why;
    if (a && !account_usable(q, a, &why)) /* by its own status, or an account's above it */
        json_object_set_new(out, "refused", json_string(why));
    else if (planless)
        json_object_set_new(out, "refused",
                            json_sprintf("plan %s of account %s is not in %s: mail gets 451 until "
                                         "it is, or the account has another plan",
                                         planless->plan_name, planless->name,
                                         q->s->config->plans_file));
    control_result(c, out);
    control_done(c, NULL);
}

static void list_accounts(struct client *c)
{
    listing_go_on(c,
                  &(struct listing){T_ACCOUNT, slice_str(json_text(control_request(c), "prefix")),
                                    show_account});
}

void account_list(struct client *c)
{
    control_continue(c, list_accounts);
}

/* ---- deleting ---------------------------------------------------------------------------- */

struct removal {
    struct buf *batch;
    enum table table;
    struct slice prefix;
};

static bool on_removed(struct slice key, struct slice value, void *arg)
{
    struct removal *r = arg;
    (void)value;
    return slice_starts(key, r->prefix) && kv_remove(r->batch, r->table, key) == 0;
}

static void remove_behind(struct quota *q, struct buf *batch, enum table t, const struct key *k)
{
    struct removal r = {batch, t, key_slice(k)};
    struct err e;
    if (kv_walk(q->kv, t, r.prefix, on_removed, &r, &e) < 0)
        panic("%s", e.text);
}

static void remove_owned(struct quota *q, struct buf *batch, const char *name)
{
    struct key k;
    size_t at;
    json_t *one;
    key_begin(&k, slice_str(name));
    json_t *all = all_names_behind(q, T_IDENTITY, &k);
    json_array_foreach(all, at, one) owners_remove(batch, name, json_string_value(one));
    json_decref(all);
}

/* Usage and failures stay for the last report, until an account of this name is added; charges that
 * are still open find no account and are charged to nobody. */
void account_delete(struct client *c)
{
    struct quota *q = control_quota(c);
    char name[ACCOUNT_NAME_MAX + 1], what[ACCOUNT_NAME_MAX + 16];
    struct key k;
    if (!request_account(c, "account", name))
        return;
    json_t *record = request_existing_account(c, name);
    if (!record)
        return;
    member_key(&k, name, 'u', "");
    json_t *users = names_behind(q, T_MEMBER, &k);
    member_key(&k, name, 'a', "");
    json_t *accounts = names_behind(q, T_MEMBER, &k);
    if (json_array_size(users) || json_array_size(accounts)) {
        control_fail(
            c, "Account %s still has users (%zu) or accounts below it (%zu); delete them first.",
            name, json_array_size(users), json_array_size(accounts));
    } else {
        struct buf batch = BUF_INIT(KV_BATCH_MAX);
        snprintf(what, sizeof what, "account %s", name);
        before_change(q, name);
        tree_index(&batch, name, json_text(record, "parent"), "");
        kv_remove(&batch, T_ACCOUNT, slice_str(name));
        key_begin(&k, slice_str(name));
        remove_owned(q, &batch, name);
        remove_behind(q, &batch, T_IDENTITY, &k);
        remove_behind(q, &batch, T_GRANT, &k);
        control_change(c, &batch, what);
        buf_free(&batch);
    }
    json_decref(users);
    json_decref(accounts);
    json_decref(record);
}

/* ---- domains and addresses ------------------------------------------------------------------ */

/* Its class stays as it is unless one is given; an empty one takes it away. */
static void put_identity(struct quota *q, struct buf *batch, const struct key *k,
                         const json_t *class)
{
    json_t *record = quota_get_json(q, T_IDENTITY, key_slice(k));
    if (!record)
        record = json_object();
    if (class && *json_string_value(class))
        json_object_set_new(record, "class", json_string(json_string_value(class)));
    else if (class)
        json_object_del(record, "class");
    quota_put_json(batch, T_IDENTITY, key_slice(k), record);
    json_decref(record);
}

/* Whether the account has it. *identity becomes the name by which it is stored: a database of
 * before may have U-labels. */
static bool find_identity(struct quota *q, const char *account,
                          char identity[static ADDRESS_TEXT_MAX + 1], struct key *k)
{
    char letters[ADDRESS_TEXT_MAX + 1];
    key_begin(k, slice_str(account));
    key_add(k, slice_str(identity));
    if (quota_get(q, T_IDENTITY, key_slice(k)))
        return true;
    if (name_identity_letters(identity, letters) < 0)
        return false;
    key_begin(k, slice_str(account));
    key_add(k, slice_str(letters));
    if (!quota_get(q, T_IDENTITY, key_slice(k)))
        return false;
    memcpy(identity, letters, sizeof letters);
    return true;
}

static void domain_change(struct client *c, bool add)
{
    const json_t *class = json_object_get(control_request(c), "class");
    const char *word = json_text(control_request(c), "class");
    struct quota *q = control_quota(c);
    char name[ACCOUNT_NAME_MAX + 1], identity[ADDRESS_TEXT_MAX + 1];
    char what[ACCOUNT_NAME_MAX + ADDRESS_TEXT_MAX + 32];
    struct key k;
    if (!request_account(c, "account", name) || !request_identity(c, identity))
        return;
    if (class && (!json_is_string(class) ||
                  (*word && sender_class_word(slice_str(word)) == SENDER_CLASS_NONE))) {
        control_fail(c, "class: give normal, transactional or bulk.");
        return;
    }
    json_t *record = request_existing_account(c, name);
    if (!record)
        return;
    json_decref(record);
    key_begin(&k, slice_str(name));
    key_add(&k, slice_str(identity));
    if (!add && !find_identity(q, name, identity, &k)) {
        control_fail(c, "There is no domain or address %s in account %s.", identity, name);
        return;
    }
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    snprintf(what, sizeof what, "%s of account %s", identity, name);
    if (add) {
        put_identity(q, &batch, &k, class);
        owners_put(&batch, name, identity);
        record_warn_owner(c, name, identity);
    } else {
        kv_remove(&batch, T_IDENTITY, key_slice(&k));
        owners_remove(&batch, name, identity);
    }
    control_change(c, &batch, what);
    buf_free(&batch);
}

void domain_add(struct client *c)
{
    domain_change(c, true);
}

void domain_delete(struct client *c)
{
    domain_change(c, false);
}

static json_t *show_domain(struct client *c, struct slice key, struct slice value)
{
    struct slice domain = key, account = slice_cut(&domain, '\0');
    (void)c;
    json_t *out = json_pack("{s:s%,s:s%}", "account", account.ptr, account.len, "domain",
                            domain.ptr, domain.len),
           *record = json_loadb(value.ptr, value.len, 0, NULL);
    if (out && record)
        json_object_update(out, record);
    json_decref(record);
    return out;
}

static void list_domains(struct client *c)
{
    struct key k = {.len = 0};
    const char *account = json_text(control_request(c), "account");
    if (*account)
        key_begin(&k, slice_first(slice_str(account), ACCOUNT_NAME_MAX));
    listing_go_on(c, &(struct listing){T_IDENTITY, key_slice(&k), show_domain});
}

void domain_list(struct client *c)
{
    if (!request_listed_account(c))
        return;
    control_continue(c, list_domains);
}
