/* The table of requests, and what they have in common. */
#include "quota/requests.h"

#include "conf/sender_class.h"
#include "core/mem.h"
#include "quota/hash.h"
#include "quota/owners.h"
#include "quota/pools.h"
#include "quota/prepare.h"
#include "quota/scram.h"

static const struct {
    const char *name;
    control_serve *serve;
} requests[] = {
    {"account.add", account_add},
    {"account.set", account_set},
    {"account.show", account_show},
    {"account.list", account_list},
    {"account.delete", account_delete},
    {"account.unguard", account_unguard},
    {"user.add", user_add},
    {"user.set", user_set},
    {"user.show", user_show},
    {"user.list", user_list},
    {"user.delete", user_delete},
    {"certificate.add", user_certificate_add},
    {"certificate.delete", user_certificate_delete},
    {"certificate.list", user_certificate_list},
    {"domain.add", domain_add},
    {"domain.delete", domain_delete},
    {"domain.list", domain_list},
    {"plan.list", plan_list},
    {"plan.show", plan_show},
    {"plan.used", plan_used},
    {"grant.add", grant_add},
    {"grant.list", grant_list},
    {"grant.delete", grant_delete},
    {"usage.show", usage_show},
    {"usage.list", usage_list},
    {"usage.report", usage_report},
    {"usage.failures", usage_failures},
    {"export", transfer_export},
    {"import", transfer_import},
    {"audit.list", audit_list},
    {"status", accounts_status},
    {"snapshot", accounts_snapshot},
};

control_serve *control_find(const char *name)
{
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++)
        if (strcmp(requests[i].name, name) == 0)
            return requests[i].serve;
    return NULL;
}

bool request_account(struct client *c, const char *name, char out[static ACCOUNT_NAME_MAX + 1])
{
    if (name_account(slice_str(json_text(control_request(c), name)), out) == 0)
        return true;
    control_fail(c, "%s: an account's name has up to %d letters, digits, '.', '_' and '-'.", name,
                 ACCOUNT_NAME_MAX);
    return false;
}

bool request_login(struct client *c, char out[static LOGIN_MAX + 1])
{
    if (prepare_login(slice_str(json_text(control_request(c), "login")), out) == 0)
        return true;
    control_fail(c, "A login name has up to %d printable ASCII characters, without space and '/'.",
                 LOGIN_MAX);
    return false;
}

bool request_identity(struct client *c, char out[static ADDRESS_TEXT_MAX + 1])
{
    if (name_identity(slice_str(json_text(control_request(c), "domain")), out) == 0)
        return true;
    control_fail(c, "Give a domain such as example.com, or an address such as news@example.com.");
    return false;
}

json_t *request_existing_account(struct client *c, const char *name)
{
    json_t *j = quota_get_json(control_quota(c), T_ACCOUNT, slice_str(name));
    if (!j)
        control_fail(c, "There is no account %s; 'postern account list' shows all.", name);
    return j;
}

json_t *request_existing_user(struct client *c, const char *login)
{
    json_t *j = quota_get_json(control_quota(c), T_USER, slice_str(login));
    if (!j)
        control_fail(c, "There is no user %s; 'postern user list' shows all.", login);
    return j;
}

bool request_listed_account(struct client *c)
{
    char name[ACCOUNT_NAME_MAX + 1];
    json_t *record;
    if (!*json_text(control_request(c), "account"))
        return true;
    if (!request_account(c, "account", name) || !(record = request_existing_account(c, name)))
        return false;
    json_decref(record);
    json_object_set_new((json_t *)(uintptr_t)control_request(c), "account", json_string(name));
    return true;
}

/* "2026-12-31" at midnight; 0 or -1. */
static int parse_date(const char *text, const struct plan *plan, int64_t *out)
{
    struct slice rest = slice_str(text);
    uint64_t year, month, day;
    if (rest.len != 10 || slice_u64(slice_cut(&rest, '-'), &year) < 0 ||
        slice_u64(slice_cut(&rest, '-'), &month) < 0 || slice_u64(rest, &day) < 0 || year < 1970 ||
        year > 9999 || month < 1 || month > 12 || day < 1 ||
        day > (uint64_t)civil_month_days((int64_t)year, (int)month))
        return -1;
    struct civil date = {.year = (int64_t)year, .month = (int)month, .day = (int)day};
    *out = zone_time(&plan->zone, &date);
    return 0;
}

bool request_time(struct client *c, const char *name, const struct plan *plan, int64_t *out)
{
    const json_t *value = json_object_get(control_request(c), name);
    *out = 0;
    if (!value || (json_is_string(value) && !*json_string_value(value)))
        return true;
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        *out = json_integer_value(value);
        return true;
    }
    if (json_is_string(value) && parse_date(json_string_value(value), plan, out) == 0)
        return true;
    control_fail(c, "%s: give a date such as 2026-12-31.", name);
    return false;
}

void member_key(struct key *k, const char *account, char kind, const char *name)
{
    key_begin(k, slice_str(account));
    key_add(k, slice_make(&kind, 1));
    key_add(k, slice_str(name));
}

/* ---- lists ------------------------------------------------------------------------------ */

enum { LIST_BYTES = 4 * 1024 * 1024 /* of records in one turn */ };

struct listing_walk {
    struct client *c;
    const struct listing *l;
    struct slice until;
    struct buf records; /* each with the lengths of its key and value before it */
    unsigned count;
    bool end;
};

static bool on_listed(struct slice key, struct slice value, void *arg)
{
    struct listing_walk *w = arg;
    const size_t lengths[2] = {key.len, value.len};
    if (!slice_starts(key, w->l->prefix) || (w->until.len && slice_cmp(key, w->until) >= 0))
        return false;
    if (w->count++ == CONTROL_SLICE || w->records.len > LIST_BYTES) {
        struct key *at = control_position(w->c);
        at->len = 0;
        key_add(at, key);
        w->end = false;
        return false;
    }
    (void)buf_add(&w->records, lengths, sizeof lengths);
    (void)buf_adds(&w->records, key);
    (void)buf_adds(&w->records, value);
    return true;
}

static void show_listed(const struct listing_walk *w)
{
    struct slice rest = buf_slice(&w->records);
    size_t lengths[2];
    while (rest.len) {
        memcpy(lengths, rest.ptr, sizeof lengths);
        struct slice key = slice_first(slice_from(rest, sizeof lengths), lengths[0]);
        struct slice value = slice_first(slice_from(rest, sizeof lengths + key.len), lengths[1]);
        json_t *result = w->l->show(w->c, key, value);
        if (result)
            control_result_sorted(w->c, result); /* an import writes members in another order */
        rest = slice_from(rest, sizeof lengths + key.len + value.len);
    }
}

/* Shown when nothing is read any more: what is looked up for it may be written first. */
void listing_go_on_until(struct client *c, const struct listing *l, struct slice end)
{
    struct listing_walk w = {.c = c,
                             .l = l,
                             .until = end,
                             .records =
                                 BUF_INIT(LIST_BYTES + KV_VALUE_MAX + sizeof(struct key) + 64),
                             .end = true};
    struct key from = *control_position(c);
    struct err e;
    if (from.len == 0)
        key_add(&from, l->prefix);
    if (kv_walk(control_quota(c)->kv, l->table, key_slice(&from), on_listed, &w, &e) < 0) {
        control_fail(c, "%s", e.text);
    } else {
        show_listed(&w);
        if (w.end)
            control_done(c, NULL);
    }
    buf_free(&w.records);
}

void listing_go_on(struct client *c, const struct listing *l)
{
    listing_go_on_until(c, l, SLICE(""));
}

/* ---- records ------------------------------------------------------------------------------ */

static int check_word(const json_t *value, const char *const *words)
{
    for (size_t i = 0; words[i]; i++)
        if (strcmp(json_string_value(value), words[i]) == 0)
            return 0;
    return -1;
}

static int check_text(const json_t *value)
{
    const char *text = json_string_value(value);
    if (strlen(text) > 200)
        return -1;
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 127)
            return -1;
    return 0;
}

int record_check_text(const char *name, const json_t *value, struct err *e)
{
    return json_is_string(value) && check_text(value) == 0
               ? 0
               : err_set(e, "%s: give up to 200 printable characters.", name);
}

static int check_member(struct quota *q, const char *name, const json_t *value, struct err *e)
{
    static const char *const states[] = {"active", "suspended", "closed", NULL};
    static const char *const classes[] = {"normal", "transactional", "bulk", NULL};
    char text[ADDRESS_TEXT_MAX + 1], account[ACCOUNT_NAME_MAX + 1];
    const char *s = json_string_value(value);
    if (strcmp(name, "any_sender") == 0)
        return json_is_boolean(value) ? 0 : err_set(e, "any_sender: give true or false.");
    if (strcmp(name, "began") == 0 || strcmp(name, "ends") == 0 || strcmp(name, "created") == 0 ||
        strcmp(name, RECORD_WARNED) == 0 || strcmp(name, RECORD_WARNED_BITS) == 0 ||
        strcmp(name, "reported") == 0 || strcmp(name, "since") == 0)
        return json_is_integer(value) && json_integer_value(value) >= 0
                   ? 0
                   : err_set(e, "%s: give seconds since 1970.", name);
    if (!s)
        return err_set(e, "%s: give a text.", name);
    if (!*s)
        return 0; /* takes it away */
    if (strcmp(name, "status") == 0)
        return check_word(value, states) == 0
                   ? 0
                   : err_set(e, "status: give active, suspended or closed.");
    if (strcmp(name, "class") == 0 || strcmp(name, "class_most") == 0)
        return check_word(value, classes) == 0
                   ? 0
                   : err_set(e, "%s: give normal, transactional or bulk.", name);
    if (strcmp(name, "destination_connections") == 0)
        return plan_parse_connections(slice_str(s), &(uint32_t){0}) == 0
                   ? 0
                   : err_set(e, "destination_connections: give a number from 1 to 1000000.");
    if (strcmp(name, "destination_rate") == 0)
        return plan_parse_rate(slice_str(s), &(struct plan_rate){0}) == 0
                   ? 0
                   : err_set(e, "destination_rate: give a rate such as 600/hour; the units are "
                                "minute, hour, day and month.");
    if (strcmp(name, "plan") == 0)
        return plans_find(&q->plans, slice_str(s))
                   ? 0
                   : err_set(e, "There is no plan %.64s; 'postern plan list' shows all.", s);
    if (strcmp(name, "reference") == 0)
        return strchr(s, '@') && *s != '@' && name_identity(slice_str(s), text) == 0
                   ? 0
                   : err_set(e, "reference: give a mail address.");
    if (strcmp(name, "parent") == 0)
        return name_account(slice_str(s), account) == 0
                   ? 0
                   : err_set(e, "parent: give an account's name.");
    return record_check_text(name, value, e);
}

static const char *const account_members[] = {"plan",
                                              "parent",
                                              "reference",
                                              "status",
                                              "class",
                                              "class_most",
                                              "source",
                                              "note",
                                              "destination_connections",
                                              "destination_rate",
                                              "any_sender",
                                              "began",
                                              "ends",
                                              "created",
                                              RECORD_WARNED,
                                              RECORD_WARNED_BITS,
                                              "reported",
                                              "since",
                                              NULL};

int record_set_account(struct quota *q, json_t *record, const json_t *from, struct err *e)
{
    for (size_t i = 0; account_members[i]; i++) {
        const char *name = account_members[i];
        json_t *value = json_object_get(from, name);
        if (!value)
            continue;
        if (check_member(q, name, value, e) < 0)
            return -1;
        if (json_is_string(value) && !*json_string_value(value))
            json_object_del(record, name);
        else
            json_object_set(record, name, value);
    }
    return 0;
}

int record_set_user(json_t *record, const json_t *from, struct err *e)
{
    const char *hash = json_text(from, "hash"), *scram = json_text(from, "scram");
    const char *status = json_text(from, "status");
    struct scram_keys keys;
    if (*hash) {
        struct slice text = slice_str(hash);
        if (!hash_known(&text))
            return err_set(e, "hash: is no hash of yescrypt, bcrypt, SHA-512, SHA-256 or PBKDF2 "
                              "that can be used.");
        if (!slice_eq(text, slice_str(json_text(record, "password"))))
            json_object_del(record, "scram"); /* those of another password */
        json_object_set_new(record, "password", json_stringn(text.ptr, text.len));
    }
    if (*scram) {
        if (scram_parse(slice_str(scram), &keys) < 0)
            return err_set(e, "scram: give SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey.");
        json_object_set_new(record, "scram", json_string(scram));
    }
    if (*status && strcmp(status, "active") != 0 && strcmp(status, "suspended") != 0)
        return err_set(e, "status: give active or suspended.");
    if (*status)
        json_object_set_new(record, "status", json_string(status));
    if (*json_text(from, "note"))
        json_object_set_new(record, "note", json_string(json_text(from, "note")));
    static const char *const classes[] = {"class", "class_most"};
    for (int i = 0; i < 2; i++) {
        const json_t *class = json_object_get(from, classes[i]);
        const char *word = json_text(from, classes[i]);
        if (class && (!json_is_string(class) ||
                      (*word && sender_class_word(slice_str(word)) == SENDER_CLASS_NONE)))
            return err_set(e, "%s: give normal, transactional or bulk.", classes[i]);
        if (class && !*word)
            json_object_del(record, classes[i]); /* as its account's */
        else if (class)
            json_object_set_new(record, classes[i], json_string(word));
    }
    return 0;
}

void record_warn_pool(struct client *c, const char *account, const json_t *record)
{
    struct buf text = BUF_INIT(2000), line = BUF_INIT(2400);
    struct quota *q = control_quota(c);
    const char *own = json_text(record, "source");
    const struct plan *p = plans_find(&q->plans, slice_str(json_text(record, "plan")));
    pools_wrong(q, *own || !p ? own : p->source, &text);
    if (text.len)
        (void)buf_printf(&line, "account %s%s%s: %.*s", account, *own ? "" : ", by its plan ",
                         *own ? "" : p->name, SLICE_ARG(buf_slice(&text)));
    control_warn(c, buf_slice(&line));
    buf_free(&text);
    buf_free(&line);
}

void record_warn_owner(struct client *c, const char *account, const char *identity)
{
    struct buf text = BUF_INIT(2000);
    owners_others(control_quota(c), account, identity, &text);
    control_warn(c, buf_slice(&text));
    buf_free(&text);
}

void record_end_sessions(json_t *record)
{
    json_object_set_new(record, RECORD_EPOCH, json_integer((json_int_t)clock_wall()));
}

void record_sessions(json_t *record, const json_t *before)
{
    static const char *const members[] = {"password", "scram", "status"};
    bool same = before != NULL;
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        same = same && strcmp(json_text(record, members[i]), json_text(before, members[i])) == 0;
    /* smtpd has been told that it need not collect the addresses of From: */
    if (json_is_true(json_object_get(before, "any_sender")))
        same = same && json_is_true(json_object_get(record, "any_sender"));
    json_t *epoch = json_object_get(before, RECORD_EPOCH);
    if (!same)
        record_end_sessions(record);
    else if (epoch)
        json_object_set(record, RECORD_EPOCH, epoch);
}
