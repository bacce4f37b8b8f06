/* Certificates of users: who shows one in a TLS handshake is the user. */
#include "core/mem.h"
#include "quota/requests.h"

enum { CERTIFICATES_MAX = 20 /* of one user */ };

/* As people write it: "AA:BB:...". */
static void print_fingerprint(const char *digits, char out[static FINGERPRINT_MAX / 2 * 3 + 1])
{
    char *p = out;
    for (size_t i = 0; digits[i]; i++) {
        if (i && i % 2 == 0)
            *p++ = ':';
        *p++ = digits[i] >= 'a' ? (char)(digits[i] - 32) : digits[i];
    }
    *p = '\0';
}

/* ---- records ----------------------------------------------------------------------------- */

int certificate_add(struct quota *q, json_t *record, const char *login, const char *fingerprint,
                    const char *note, int64_t added, struct err *e)
{
    char digits[FINGERPRINT_MAX + 1], text[FINGERPRINT_MAX / 2 * 3 + 1];
    if (name_fingerprint(slice_str(fingerprint), digits) < 0)
        return err_set(e,
                       "certificate: give its SHA-256 fingerprint, %d hexadecimal digits: "
                       "'openssl x509 -in FILE -noout -fingerprint -sha256' shows it.",
                       FINGERPRINT_MAX);
    if (q && quota_get(q, T_CERTIFICATE, slice_str(digits)) &&
        !slice_eq(buf_slice(&q->value), slice_str(login)))
        return err_set(e, "This certificate is that of user %.*s; delete it there first.",
                       SLICE_ARG(buf_slice(&q->value)));
    print_fingerprint(digits, text);
    json_t *list = json_object_get(record, "certificates"), *one;
    size_t at;
    json_array_foreach(list, at,
                       one) if (strcmp(json_text(one, "fingerprint"), text) == 0) return 0;
    if (json_array_size(list) >= CERTIFICATES_MAX)
        return err_set(e, "A user has at most %d certificates; delete one that is not used.",
                       CERTIFICATES_MAX);
    if (!list) {
        list = json_array();
        json_object_set_new(record, "certificates", list);
    }
    one = json_pack("{s:s,s:I}", "fingerprint", text, "added", (json_int_t)added);
    if (*note)
        json_object_set_new(one, "note", json_string(note));
    json_array_append_new(list, one);
    return 0;
}

int certificates_add(struct quota *q, json_t *record, const char *login, const json_t *from,
                     struct err *e)
{
    size_t at;
    json_t *one;
    json_array_foreach(from, at, one)
    {
        const char *text =
            json_is_string(one) ? json_string_value(one) : json_text(one, "fingerprint");
        const json_t *added = json_object_get(one, "added");
        int64_t when = json_is_integer(added) ? json_integer_value(added) : quota_now();
        if (certificate_add(q, record, login, text, json_text(one, "note"), when, e) < 0)
            return -1;
    }
    return 0;
}

static void each_index(struct buf *batch, const char *login, const json_t *record)
{
    size_t at;
    json_t *one;
    char digits[FINGERPRINT_MAX + 1];
    json_array_foreach(json_object_get(record, "certificates"), at, one)
    {
        if (name_fingerprint(slice_str(json_text(one, "fingerprint")), digits) < 0)
            continue;
        if (login)
            kv_put(batch, T_CERTIFICATE, slice_str(digits), slice_str(login));
        else
            kv_remove(batch, T_CERTIFICATE, slice_str(digits));
    }
}

void certificates_index(struct buf *batch, const char *login, const json_t *record)
{
    each_index(batch, login, record);
}

void certificates_unindex(struct buf *batch, const json_t *record)
{
    each_index(batch, NULL, record);
}

/* ---- requests ---------------------------------------------------------------------------- */

static void write_record(struct client *c, struct buf *batch, const char *login, json_t *record)
{
    char what[LOGIN_MAX + 16];
    snprintf(what, sizeof what, "user %s", login);
    quota_put_json(batch, T_USER, slice_str(login), record);
    control_change(c, batch, what);
}

void user_certificate_add(struct client *c)
{
    char login[LOGIN_MAX + 1];
    struct err e;
    const json_t *r = control_request(c);
    json_t *record;
    if (!request_login(c, login) || !(record = request_existing_user(c, login)))
        return;
    if (certificate_add(control_quota(c), record, login, json_text(r, "certificate"),
                        json_text(r, "note"), quota_now(), &e) < 0) {
        control_fail(c, "%s", e.text);
    } else {
        struct buf batch = BUF_INIT(KV_BATCH_MAX);
        certificates_index(&batch, login, record);
        write_record(c, &batch, login, record);
        buf_free(&batch);
    }
    json_decref(record);
}

static void take_away(json_t *record, const char *text)
{
    json_t *list = json_object_get(record, "certificates");
    for (size_t i = json_array_size(list); i-- > 0;)
        if (strcmp(json_text(json_array_get(list, i), "fingerprint"), text) == 0)
            json_array_remove(list, i);
    if (json_array_size(list) == 0)
        json_object_del(record, "certificates");
}

void user_certificate_delete(struct client *c)
{
    struct quota *q = control_quota(c);
    char digits[FINGERPRINT_MAX + 1], text[FINGERPRINT_MAX / 2 * 3 + 1], login[LOGIN_MAX + 1];
    json_t *record;
    if (name_fingerprint(slice_str(json_text(control_request(c), "certificate")), digits) < 0 ||
        !quota_get(q, T_CERTIFICATE, slice_str(digits))) {
        control_fail(
            c,
            "There is no user with this certificate; 'postern user list-certificates' shows all.");
        return;
    }
    snprintf(login, sizeof login, "%.*s", SLICE_ARG(buf_slice(&q->value)));
    if (!(record = request_existing_user(c, login)))
        return;
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    print_fingerprint(digits, text);
    take_away(record, text);
    record_end_sessions(record); /* whoever has the key is out */
    kv_remove(&batch, T_CERTIFICATE, slice_str(digits));
    write_record(c, &batch, login, record);
    buf_free(&batch);
    json_decref(record);
}

/* With what the user's record says of it. */
static json_t *show_certificate(struct client *c, struct slice key, struct slice value)
{
    char text[FINGERPRINT_MAX / 2 * 3 + 1], digits[FINGERPRINT_MAX + 1];
    const char *wanted = json_text(control_request(c), "login");
    size_t at;
    json_t *one;
    if (name_fingerprint(key, digits) < 0 || (*wanted && !slice_eq(value, slice_str(wanted))))
        return NULL;
    print_fingerprint(digits, text);
    json_t *out = json_pack("{s:s,s:s%}", "fingerprint", text, "login", value.ptr, value.len);
    json_t *user = quota_get_json(control_quota(c), T_USER, value);
    json_object_set_new(out, "account", json_string(json_text(user, "account")));
    json_array_foreach(json_object_get(user, "certificates"), at,
                       one) if (strcmp(json_text(one, "fingerprint"), text) == 0)
        json_object_update(out, one);
    json_decref(user);
    return out;
}

static void list_certificates(struct client *c)
{
    listing_go_on(c, &(struct listing){T_CERTIFICATE, SLICE(""), show_certificate});
}

void user_certificate_list(struct client *c)
{
    char login[LOGIN_MAX + 1];
    json_t *record;
    if (*json_text(control_request(c), "login")) {
        if (!request_login(c, login) || !(record = request_existing_user(c, login)))
            return;
        json_decref(record);
        json_object_set_new((json_t *)(uintptr_t)control_request(c), "login", json_string(login));
    }
    control_continue(c, list_certificates);
}
