/* Accounts and users: from the database when they are needed, in memory while they are used,
 * back with the next batch. */
#include "conf/sender_class.h"
#include "quota/quota.h"

#include "core/log.h"
#include "core/mem.h"

/* ---- reading -------------------------------------------------------------------- */

bool quota_get(struct quota *q, enum table t, struct slice key)
{
    struct err e;
    int rc = kv_get(q->kv, t, key, &q->value, &e);
    if (rc < 0) /* a start recovers or rebuilds it */
        panic("%s", e.text);
    return rc == 1;
}

json_t *quota_get_json(struct quota *q, enum table t, struct slice key)
{
    json_error_t error;
    if (!quota_get(q, t, key))
        return NULL;
    json_t *value = json_loadb(q->value.data, q->value.len, 0, &error);
    if (!json_is_object(value))
        log_error("%s %s: the record is not readable: %s", table_names[t], log_esc(key),
                  error.text);
    return value;
}

void quota_put_json(struct buf *batch, enum table t, struct slice key, const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT);
    if (!text || kv_put(batch, t, key, slice_str(text)) < 0)
        panic("a record that cannot be written");
    free(text);
}

const char *json_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static void copy(char *out, size_t size, const json_t *object, const char *name)
{
    snprintf(out, size, "%s", json_text(object, name));
}

/* ---- grants --------------------------------------------------------------------- */

static void grant_read(const json_t *j, uint64_t id, struct grant *g)
{
    *g = (struct grant){
        .id = id,
        .amount = (uint64_t)json_integer_value(json_object_get(j, "amount")),
        .used = (uint64_t)json_integer_value(json_object_get(j, "used")),
        .from = json_integer_value(json_object_get(j, "from")),
        .until = json_integer_value(json_object_get(j, "until")),
        .unit = strcmp(json_text(j, "unit"), "bytes") == 0 ? GRANT_BYTES : GRANT_MESSAGES,
        .bought = json_is_true(json_object_get(j, "bought")),
    };
}

struct grants_reading {
    struct account *a;
    struct slice prefix;
};

static bool on_grant(struct slice key, struct slice value, void *arg)
{
    struct grants_reading *r = arg;
    struct account *a = r->a;
    if (!slice_starts(key, r->prefix) || a->grant_count == GRANTS_MAX)
        return false;
    json_t *j = json_loadb(value.ptr, value.len, 0, NULL);
    if (j && !json_is_true(json_object_get(j, "over"))) {
        a->grants = xreallocarray(a->grants, a->grant_count + 1, sizeof *a->grants);
        grant_read(j, key_last_number(key), &a->grants[a->grant_count++]);
    }
    json_decref(j);
    return true;
}

static void read_grants(struct quota *q, struct account *a)
{
    struct key k;
    struct err e;
    key_begin(&k, slice_str(a->name));
    struct grants_reading r = {a, key_slice(&k)};
    if (kv_walk(q->kv, T_GRANT, key_slice(&k), on_grant, &r, &e) < 0)
        panic("%s", e.text);
    plan_sort_grants(a->grants, a->grant_count);
}

/* The used amounts go back into the records, which have more than we keep. */
static void write_grants(struct quota *q, struct account *a, struct buf *batch)
{
    for (size_t i = 0; i < a->grant_count; i++) {
        struct key k;
        key_begin(&k, slice_str(a->name));
        key_number(&k, a->grants[i].id);
        json_t *j = quota_get_json(q, T_GRANT, key_slice(&k));
        if (!j)
            continue;
        if ((uint64_t)json_integer_value(json_object_get(j, "used")) != a->grants[i].used) {
            json_object_set_new(j, "used", json_integer((json_int_t)a->grants[i].used));
            quota_put_json(batch, T_GRANT, key_slice(&k), j);
        }
        json_decref(j);
    }
    a->grants_dirty = false;
}

/* A grant that has ended leaves the list; what was bought and is left may become
 * a credit. Its record stays, for reports. */
static void end_grant(struct quota *q, struct account *a, const struct grant *g, struct buf *batch)
{
    struct key k;
    uint64_t credit = plan_credit(a->plan, g);
    key_begin(&k, slice_str(a->name));
    key_number(&k, g->id);
    json_t *j = quota_get_json(q, T_GRANT, key_slice(&k));
    if (!j)
        return;
    json_object_set_new(j, "used", json_integer((json_int_t)g->used));
    json_object_set_new(j, "over", json_true());
    quota_put_json(batch, T_GRANT, key_slice(&k), j);
    /* until the end of the year in which it was bought, not of the one that begins then */
    int64_t until = plan_calendar_end(a->plan, a->plan->credit_until, g->until - 1);
    if (credit && until > g->until) {
        json_t *fresh =
            json_pack("{s:I,s:i,s:s,s:I,s:I,s:s}", "amount", (json_int_t)credit, "used", 0, "unit",
                      g->unit == GRANT_BYTES ? "bytes" : "messages", "from", (json_int_t)g->until,
                      "until", (json_int_t)until, "note", "credit of unused volume");
        key_begin(&k, slice_str(a->name));
        key_number(&k, g->id + 1); /* the same however often it is done */
        quota_put_json(batch, T_GRANT, key_slice(&k), fresh);
        log_info("account %s: credit of %llu %s of a grant that ended", a->name,
                 (unsigned long long)credit, g->unit == GRANT_BYTES ? "bytes" : "messages");
        json_decref(fresh);
    }
    json_decref(j);
}

static void end_grants(struct quota *q, struct account *a)
{
    int64_t now = quota_now();
    bool any = false;
    for (size_t i = 0; i < a->grant_count; i++)
        any = any || a->grants[i].until <= now;
    if (!any || a->plan_missing) /* whose plan says whether what is left is credited */
        return;
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    book_apply(q);
    for (size_t i = 0; i < a->grant_count; i++)
        if (a->grants[i].until <= now)
            end_grant(q, a, &a->grants[i], &batch);
    sync_apply(q, buf_slice(&batch), NULL, NULL);
    buf_free(&batch);
    xfree(&a->grants);
    a->grant_count = 0;
    read_grants(q, a);
}

/* ---- accounts ------------------------------------------------------------------- */

static struct slice account_key(const void *value)
{
    return slice_str(((const struct account *)value)->name);
}

static void use_plan(struct quota *q, struct account *a)
{
    a->plan = *a->plan_name ? plans_find(&q->plans, slice_str(a->plan_name)) : &plan_unlimited;
    a->plan_missing = !a->plan;
    if (!a->plan) /* no mail is taken; what was taken before goes on by what was known */
        a->plan = plans_find(&q->missing.known, slice_str(a->plan_name));
    if (!a->plan)
        a->plan = &plan_unlimited;
}

static uint8_t class_named(const char *name)
{
    return strcmp(name, "transactional") == 0 ? CLASS_TRANSACTIONAL
           : strcmp(name, "bulk") == 0        ? CLASS_BULK
                                              : CLASS_NORMAL;
}

static struct account *account_read(struct quota *q, struct slice name)
{
    json_t *j = quota_get_json(q, T_ACCOUNT, name);
    if (!j)
        return NULL;
    struct account *a = xcalloc(1, sizeof *a);
    snprintf(a->name, sizeof a->name, "%.*s", SLICE_ARG(name));
    copy(a->parent, sizeof a->parent, j, "parent");
    copy(a->plan_name, sizeof a->plan_name, j, "plan");
    copy(a->reference, sizeof a->reference, j, "reference");
    copy(a->source, sizeof a->source, j, "source");
    if (*json_text(j, "destination_connections"))
        (void)plan_parse_connections(slice_str(json_text(j, "destination_connections")),
                                     &a->destination_connections);
    if (*json_text(j, "destination_rate"))
        (void)plan_parse_rate(slice_str(json_text(j, "destination_rate")), &a->destination_rate);
    a->began = json_integer_value(json_object_get(j, "began"));
    a->ends = json_integer_value(json_object_get(j, "ends"));
    a->epoch = json_integer_value(json_object_get(j, RECORD_EPOCH));
    a->since = json_integer_value(json_object_get(j, "since"));
    a->reported = json_integer_value(json_object_get(j, "reported"));
    a->any_sender = json_is_true(json_object_get(j, "any_sender"));
    const char *status = json_text(j, "status"), *most = json_text(j, "class_most");
    a->status = strcmp(status, "suspended") == 0 ? ACCOUNT_SUSPENDED
                : strcmp(status, "closed") == 0  ? ACCOUNT_CLOSED
                                                 : ACCOUNT_ACTIVE;
    a->mail_class = class_named(json_text(j, "class"));
    a->class_most = *most ? class_named(most) : a->mail_class;
    a->warned = (uint32_t)json_integer_value(json_object_get(j, RECORD_WARNED));
    a->warned_bits = (uint32_t)json_integer_value(json_object_get(j, RECORD_WARNED_BITS));
    json_decref(j);
    list_init(&a->link);
    list_init(&a->dirty);
    use_plan(q, a);
    read_grants(q, a);
    return a;
}

struct account *account_find(struct quota *q, struct slice name)
{
    struct account *a = name.len ? map_get(&q->accounts, name) : NULL;
    if (!a && name.len) {
        a = account_read(q, name);
        if (a)
            map_put(&q->accounts, a);
    }
    if (!a)
        return NULL;
    list_remove(&a->link);
    list_push(&q->account_lru, &a->link);
    end_grants(q, a);
    return a;
}

unsigned account_chain(struct quota *q, struct account *a,
                       struct account *chain[static CHARGE_LEVELS_MAX])
{
    unsigned n = 0;
    while (a && n < CHARGE_LEVELS_MAX) {
        chain[n++] = a;
        a = account_find(q, slice_str(a->parent));
    }
    return n;
}

static uint64_t smaller_limit(uint64_t a, uint64_t b)
{
    return a && (!b || a < b) ? a : b;
}

struct message_limits account_message_limits(struct account *const *chain, unsigned levels)
{
    struct message_limits l = {0, 0};
    for (unsigned i = 0; i < levels; i++) {
        l.size = smaller_limit(chain[i]->plan->size_limit, l.size);
        l.recipients = smaller_limit(chain[i]->plan->recipient_limit, l.recipients);
    }
    return l;
}

const char *account_pool(struct quota *q, struct account *a)
{
    struct account *chain[CHARGE_LEVELS_MAX];
    unsigned n = account_chain(q, a, chain);
    for (unsigned i = 0; i < n; i++) {
        if (*chain[i]->source)
            return chain[i]->source;
        if (*chain[i]->plan->source)
            return chain[i]->plan->source;
    }
    return "";
}

void account_at_destination(struct quota *q, struct account *a, uint32_t *connections,
                            uint64_t *recipients_a_day)
{
    struct account *chain[CHARGE_LEVELS_MAX];
    unsigned n = account_chain(q, a, chain);
    *connections = 0;
    *recipients_a_day = 0;
    for (unsigned i = 0; i < n; i++) {
        const struct plan *p = chain[i]->plan;
        uint32_t most = chain[i]->destination_connections ? chain[i]->destination_connections
                                                          : p->destination_connections;
        uint64_t rate = plan_rate_a_day(
            chain[i]->destination_rate.count ? &chain[i]->destination_rate : &p->destination_rate);
        if (most && (!*connections || most < *connections))
            *connections = most;
        if (rate && (!*recipients_a_day || rate < *recipients_a_day))
            *recipients_a_day = rate;
    }
}

const struct account *account_stopped(struct quota *q, struct account *a, const char **why)
{
    struct account *chain[CHARGE_LEVELS_MAX];
    unsigned n = account_chain(q, a, chain);
    for (unsigned i = 0; i < n; i++) {
        if (chain[i]->status == ACCOUNT_SUSPENDED)
            *why = "the account is suspended";
        else if (chain[i]->status == ACCOUNT_CLOSED)
            *why = "the account is closed";
        else if (chain[i]->ends && chain[i]->ends <= quota_now())
            *why = "the account's plan has ended";
        else
            continue;
        return chain[i];
    }
    return NULL;
}

const struct account *account_without_plan(struct quota *q, struct account *a)
{
    struct account *chain[CHARGE_LEVELS_MAX];
    unsigned n = account_chain(q, a, chain);
    for (unsigned i = 0; i < n; i++)
        if (chain[i]->plan_missing)
            return chain[i];
    return NULL;
}

bool account_usable(struct quota *q, struct account *a, const char **why)
{
    return !account_stopped(q, a, why);
}

static bool has_identity(struct quota *q, const char *account, struct slice identity)
{
    struct key k;
    key_begin(&k, slice_str(account));
    key_add(&k, identity);
    return quota_get(q, T_IDENTITY, key_slice(&k));
}

/* One of them has the address or its domain. */
static bool any_has(struct quota *q, struct account *const *chain, unsigned n, struct slice address)
{
    struct slice domain = slice_from(address, slice_rchr(address, '@') + 1);
    for (unsigned i = 0; i < n; i++)
        if (has_identity(q, chain[i]->name, address) || has_identity(q, chain[i]->name, domain))
            return true;
    return false;
}

bool account_owns(struct quota *q, struct account *a, struct slice address)
{
    char text[ADDRESS_TEXT_MAX + 1], ascii[ADDRESS_TEXT_MAX + 1];
    struct account *chain[CHARGE_LEVELS_MAX];
    unsigned n = account_chain(q, a, chain);
    if (a->any_sender)
        return true;
    size_t at = slice_rchr(address, '@');
    if (at >= address.len || address.len > ADDRESS_TEXT_MAX)
        return false;
    for (size_t i = 0; i < address.len; i++)
        text[i] = address.ptr[i] >= 'A' && address.ptr[i] <= 'Z' ? (char)(address.ptr[i] + 32)
                                                                 : address.ptr[i];
    struct slice lower = slice_make(text, address.len);
    if (lookups_own(&q->lookups, a->name, lower))
        return true;
    bool owned = any_has(q, chain, n, lower); /* also of a database with U-labels in it */
    if (!owned && !name_is_ascii(lower) && name_identity(lower, ascii) == 0)
        owned = any_has(q, chain, n, slice_str(ascii));
    if (owned)
        lookups_add_owned(&q->lookups, a->name, lower);
    return owned;
}

static int identity_class(struct quota *q, const char *account, struct slice identity)
{
    struct key k;
    key_begin(&k, slice_str(account));
    key_add(&k, identity);
    json_t *j = quota_get_json(q, T_IDENTITY, key_slice(&k));
    int mail_class = j ? sender_class_word(slice_str(json_text(j, "class"))) : SENDER_CLASS_NONE;
    json_decref(j);
    return mail_class;
}

int account_sender_class(struct quota *q, struct account *a, struct slice sender)
{
    char text[ADDRESS_TEXT_MAX + 1];
    struct account *chain[CHARGE_LEVELS_MAX];
    unsigned n = account_chain(q, a, chain);
    int found = SENDER_CLASS_NONE;
    if (slice_rchr(sender, '@') >= sender.len || name_identity(sender, text) < 0)
        return SENDER_CLASS_NONE;
    struct slice lower = slice_str(text);
    if (lookups_class(&q->lookups, a->name, lower, &found))
        return found;
    for (unsigned i = 0; i < n && found == SENDER_CLASS_NONE; i++) {
        found = identity_class(q, chain[i]->name, lower);
        if (found == SENDER_CLASS_NONE)
            found =
                identity_class(q, chain[i]->name, slice_from(lower, slice_rchr(lower, '@') + 1));
    }
    lookups_add_class(&q->lookups, a->name, lower, found);
    return found;
}

int user_find(struct quota *q, struct slice login, struct user *out)
{
    if (name_login(login, out->login) < 0)
        return 0;
    const struct user *known = lookups_user(&q->lookups, out->login);
    if (known) {
        *out = *known;
        return 1;
    }
    json_t *j = quota_get_json(q, T_USER, slice_str(out->login));
    if (!j)
        return 0;
    copy(out->account, sizeof out->account, j, "account");
    copy(out->hash, sizeof out->hash, j, "password");
    copy(out->scram, sizeof out->scram, j, "scram");
    out->suspended = strcmp(json_text(j, "status"), "suspended") == 0;
    out->epoch = json_integer_value(json_object_get(j, RECORD_EPOCH));
    const char *class = json_text(j, "class"), *most = json_text(j, "class_most");
    out->classed = *class != '\0' || *most != '\0';
    out->mail_class = class_named(class);
    out->class_most = *most ? class_named(most) : out->mail_class;
    json_decref(j);
    lookups_add_user(&q->lookups, out);
    return 1;
}

void account_touched(struct quota *q, struct account *a)
{
    a->grants_dirty = true;
    if (list_empty(&a->dirty))
        list_push(&q->dirty_accounts, &a->dirty);
}

void accounts_gather(struct quota *q, struct buf *batch)
{
    struct list *n;
    parties_gather(q, batch);
    while ((n = list_pop(&q->dirty_accounts)))
        write_grants(q, container_of(n, struct account, dirty), batch);
}

static void account_free(struct account *a)
{
    list_remove(&a->link);
    list_remove(&a->dirty);
    free(a->grants);
    free(a);
}

void account_forget(struct quota *q, struct slice name)
{
    struct account *a = map_remove(&q->accounts, name);
    if (a)
        account_free(a);
}

void accounts_trim(struct quota *q)
{
    parties_trim(q);
    list_each_safe(&q->account_lru, n)
    {
        struct account *a = container_of(n, struct account, link);
        if (q->accounts.count <= ACCOUNTS_CACHED)
            break;
        if (a->grants_dirty)
            continue;
        map_remove(&q->accounts, slice_str(a->name));
        account_free(a);
    }
}

void accounts_reload(struct quota *q)
{
    if (!q->accounts.key) {
        map_init(&q->accounts, account_key);
        parties_init(q);
        list_init(&q->account_lru);
        list_init(&q->dirty_accounts);
        return;
    }
    book_apply(q);
    list_each(&q->account_lru, n) use_plan(q, container_of(n, struct account, link));
    periods_again(q);
}
