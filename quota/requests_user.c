/* Users: who logs in. */
#include "core/mem.h"
#include "quota/hash.h"
#include "quota/requests.h"

/* A user that waits for its password to be hashed. */
struct user_change {
    struct client *c;
    json_t *record;
    char login[LOGIN_MAX + 1];
    bool fresh;
};

static void write_user(struct user_change *u, struct client *c)
{
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    char what[LOGIN_MAX + 16];
    struct key k;
    snprintf(what, sizeof what, "user %s", u->login);
    json_t *before = quota_get_json(control_quota(c), T_USER, slice_str(u->login));
    record_sessions(u->record, before);
    json_decref(before);
    quota_put_json(&batch, T_USER, slice_str(u->login), u->record);
    if (u->fresh) {
        certificates_index(&batch, u->login, u->record);
        member_key(&k, json_text(u->record, "account"), 'u', u->login);
        kv_put(&batch, T_MEMBER, key_slice(&k), SLICE(""));
    }
    login_changed(control_quota(c), u->login);
    book_look_at(control_quota(c), json_text(u->record, "account"), u->login);
    control_change(c, &batch, what);
    buf_free(&batch);
}

static void user_change_free(struct user_change *u)
{
    json_decref(u->record);
    free(u);
}

/* While the password was hashed others went on: what they did to the user stays. NULL:
 * answered. */
static json_t *record_now(struct user_change *u, struct client *c)
{
    struct err e;
    const char *account = json_text(u->record, "account");
    json_t *now = quota_get_json(control_quota(c), T_USER, slice_str(u->login));
    if (u->fresh && now)
        control_fail(c, "There is a user %s already.", u->login);
    else if (u->fresh && !quota_get(control_quota(c), T_ACCOUNT, slice_str(account)))
        control_fail(c, "Account %s was deleted meanwhile.", account);
    else if (u->fresh)
        return json_incref(u->record);
    else if (!now)
        control_fail(c, "The user %s was deleted meanwhile.", u->login);
    else if (record_set_user(now, control_request(c), &e) < 0)
        control_fail(c, "%s", e.text);
    else
        return now;
    json_decref(now);
    return NULL;
}

static void on_hashed(const char *hash, const char *scram, void *arg)
{
    struct user_change *u = arg;
    struct client *c = control_client_unpin(u->c);
    json_t *now = NULL;
    if (c && !hash)
        control_fail(c, "The password cannot be hashed; it must not have NUL bytes.");
    else if (c)
        now = record_now(u, c);
    if (now) {
        json_decref(u->record);
        u->record = now;
        json_object_set_new(now, "password", json_string(hash));
        if (*scram)
            json_object_set_new(now, "scram", json_string(scram));
        else
            json_object_del(now, "scram");
        write_user(u, c);
    }
    user_change_free(u);
}

/* Applies the request to the record, which is taken over. */
static void change(struct client *c, const char *login, json_t *record, bool fresh)
{
    struct err e;
    const char *password = json_text(control_request(c), "password");
    const char *certificate = json_text(control_request(c), "certificate");
    struct user_change *u = xcalloc(1, sizeof *u);
    *u = (struct user_change){.record = record, .fresh = fresh};
    snprintf(u->login, sizeof u->login, "%s", login);
    if (strlen(password) > PASSWORD_MAX) {
        control_fail(c, "A password has at most %d bytes.", PASSWORD_MAX);
    } else if (record_set_user(record, control_request(c), &e) < 0) {
        control_fail(c, "%s", e.text);
    } else if (fresh && *certificate &&
               certificate_add(control_quota(c), record, login, certificate, "", quota_now(), &e) <
                   0) {
        control_fail(c, "%s", e.text);
    } else if (fresh && !*password && !*certificate && !*json_text(record, "password") &&
               !*json_text(record, "scram")) {
        control_fail(c, "A user needs a password, the hash of one, or a certificate.");
    } else if (*password) {
        u->c = control_client_pin(c);
        login_hash(control_quota(c), slice_str(password), on_hashed, u);
        return;
    } else {
        write_user(u, c);
    }
    user_change_free(u);
}

void user_add(struct client *c)
{
    struct quota *q = control_quota(c);
    char login[LOGIN_MAX + 1], account[ACCOUNT_NAME_MAX + 1];
    if (!request_login(c, login) || !request_account(c, "account", account))
        return;
    json_t *owner = request_existing_account(c, account);
    if (!owner)
        return;
    json_decref(owner);
    if (quota_get(q, T_USER, slice_str(login))) {
        control_fail(c, "There is a user %s already.", login);
        return;
    }
    change(c, login,
           json_pack("{s:s,s:s,s:I}", "account", account, "status", "active", "created",
                     (json_int_t)quota_now()),
           true);
}

void user_set(struct client *c)
{
    char login[LOGIN_MAX + 1];
    json_t *record;
    if (request_login(c, login) && (record = request_existing_user(c, login)))
        change(c, login, record, false);
}

/* Without what a thief could use. */
static json_t *public_user(const char *login, size_t len, json_t *record)
{
    json_t *out = json_pack("{s:s%}", "login", login, len);
    if (!out || !record) {
        json_decref(record);
        return out;
    }
    struct slice hash = slice_str(json_text(record, "password")), kind = SLICE("none");
    if (hash.len) {
        size_t end = slice_chr(slice_from(hash, 1), '$');
        kind = slice_first(hash, end + 2);
    }
    json_object_set_new(record, "hash_kind", json_stringn(kind.ptr, kind.len));
    json_object_set_new(record, "scram", json_boolean(*json_text(record, "scram")));
    json_object_del(record, "password");
    json_object_del(record, RECORD_EPOCH);
    json_object_update(out, record);
    json_decref(record);
    return out;
}

void user_show(struct client *c)
{
    char login[LOGIN_MAX + 1];
    json_t *record;
    if (!request_login(c, login) || !(record = request_existing_user(c, login)))
        return;
    control_result(c, public_user(login, strlen(login), record));
    control_done(c, NULL);
}

static json_t *show_user(struct client *c, struct slice key, struct slice value)
{
    (void)c;
    return public_user(key.ptr, key.len, json_loadb(value.ptr, value.len, 0, NULL));
}

/* Of one account: its members, each looked up. */
static json_t *show_member(struct client *c, struct slice key, struct slice value)
{
    struct slice login = key;
    (void)value;
    (void)slice_cut(&login, '\0');
    login = slice_from(login, 1);
    return public_user(login.ptr, login.len, quota_get_json(control_quota(c), T_USER, login));
}

static void list_users(struct client *c)
{
    struct key k;
    const char *account = json_text(control_request(c), "account");
    const char *prefix = json_text(control_request(c), "prefix");
    if (*account) {
        key_begin(&k, slice_first(slice_str(account), ACCOUNT_NAME_MAX));
        key_add(&k, SLICE("u"));
        key_add(&k, slice_first(slice_str(prefix), LOGIN_MAX));
        listing_go_on(c, &(struct listing){T_MEMBER, key_slice(&k), show_member});
    } else {
        listing_go_on(
            c, &(struct listing){T_USER, slice_first(slice_str(prefix), LOGIN_MAX), show_user});
    }
}

void user_list(struct client *c)
{
    if (!request_listed_account(c))
        return;
    control_continue(c, list_users);
}

void user_delete(struct client *c)
{
    char login[LOGIN_MAX + 1], what[LOGIN_MAX + 16];
    struct key k;
    json_t *record;
    if (!request_login(c, login) || !(record = request_existing_user(c, login)))
        return;
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    snprintf(what, sizeof what, "user %s", login);
    kv_remove(&batch, T_USER, slice_str(login));
    member_key(&k, json_text(record, "account"), 'u', login);
    kv_remove(&batch, T_MEMBER, key_slice(&k));
    certificates_unindex(&batch, record);
    login_changed(control_quota(c), login);
    book_look_at(control_quota(c), json_text(record, "account"), login);
    control_change(c, &batch, what);
    buf_free(&batch);
    json_decref(record);
}
