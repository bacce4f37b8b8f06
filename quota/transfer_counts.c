#include "quota/transfer_counts.h"

#include "core/hex.h"
#include "core/mem.h"
#include "quota/requests.h"

/* ---- usage -------------------------------------------------------------------------- */

/* What the period is billed by, and what it has of which grant. */
static void show_terms(json_t *j, const struct plan_usage *u)
{
    json_t *taken = json_array();
    for (unsigned i = 0; i < u->taken_count; i++)
        json_array_append_new(taken, json_pack("[I,I,b]", (json_int_t)u->taken[i].grant,
                                               (json_int_t)u->taken[i].amount,
                                               u->taken[i].unit == GRANT_BYTES));
    json_object_set_new(j, "terms",
                        json_pack("[s,I,I,I,b]", u->terms.plan, (json_int_t)u->terms.messages,
                                  (json_int_t)u->terms.bytes, (json_int_t)u->terms.overage_block,
                                  u->terms.overage_bytes));
    json_object_set_new(j, "taken", taken);
}

/* Of exports of before neither is there. 0 or -1. */
static int read_terms(const json_t *in, struct plan_usage *u)
{
    const json_t *terms = json_object_get(in, "terms"), *taken = json_object_get(in, "taken");
    size_t count = json_array_size(taken);
    json_int_t messages, bytes, block, grant, amount;
    const char *plan;
    int of_bytes;
    if (!terms)
        return taken ? -1 : 0;
    if (json_unpack((json_t *)(uintptr_t)terms, "[s,I,I,I,b!]", &plan, &messages, &bytes, &block,
                    &of_bytes) < 0 ||
        strlen(plan) > PLAN_NAME_MAX || messages < 0 || bytes < 0 || block < 0 ||
        count > PLAN_TAKEN_MAX)
        return -1;
    u->terms = (struct plan_terms){.messages = (uint64_t)messages,
                                   .bytes = (uint64_t)bytes,
                                   .overage_block = (uint64_t)block,
                                   .overage_bytes = of_bytes};
    snprintf(u->terms.plan, sizeof u->terms.plan, "%s", plan);
    for (size_t i = 0; i < count; i++) {
        if (json_unpack(json_array_get(taken, i), "[I,I,b!]", &grant, &amount, &of_bytes) < 0 ||
            grant < 0 || amount < 0)
            return -1;
        u->taken[u->taken_count++] = (struct plan_taken){(uint64_t)grant, (uint64_t)amount,
                                                         of_bytes ? GRANT_BYTES : GRANT_MESSAGES};
    }
    return 0;
}

static json_t *show_usage(struct slice key, struct slice value)
{
    struct plan_usage u;
    struct slice owner = slice_cut(&key, '\0');
    if (usage_decode(value, &u) < 0)
        return NULL;
    json_t *j =
        json_pack("{s:s%,s:I,s:I,s:[IIIIIIII],s:I,s:i,s:b}", "owner", owner.ptr, owner.len, "start",
                  (json_int_t)u.period.start, "end", (json_int_t)u.period.end, "counts",
                  (json_int_t)u.charged.messages, (json_int_t)u.charged.bytes,
                  (json_int_t)u.delivered.messages, (json_int_t)u.delivered.bytes,
                  (json_int_t)u.refunded.messages, (json_int_t)u.refunded.bytes,
                  (json_int_t)u.granted.messages, (json_int_t)u.granted.bytes, "alerts",
                  (json_int_t)u.alerts, "reported", (int)u.reported, "over", (int)u.over_told);
    if (j && *u.terms.plan)
        show_terms(j, &u);
    return j;
}

static int owner_of(const json_t *in, struct slice *owner, struct err *e)
{
    char account[ACCOUNT_NAME_MAX + 1], user[LOGIN_MAX + 1];
    *owner = slice_str(json_text(in, "owner"));
    struct slice login = *owner, name = slice_cut(&login, '/');
    if (name_account(name, account) < 0 || !slice_eq(name, slice_str(account)) ||
        (name.len < owner->len &&
         (name_login(login, user) < 0 || !slice_eq(login, slice_str(user)))))
        return err_set(e, "owner: is no account, or account/user.");
    return 0;
}

static int read_usage(const json_t *in, struct key *key, struct buf *value, struct err *e)
{
    struct plan_usage u = {
        .alerts = (uint32_t)json_integer_value(json_object_get(in, "alerts")),
        .reported = (uint8_t)json_integer_value(json_object_get(in, "reported")),
        .over_told = json_is_true(json_object_get(in, "over")),
    };
    struct volume *const volumes[] = {&u.charged, &u.delivered, &u.refunded, &u.granted};
    const json_t *counts = json_object_get(in, "counts");
    struct slice owner;
    if (owner_of(in, &owner, e) < 0)
        return -1;
    if (json_array_size(counts) != 8 || read_terms(in, &u) < 0)
        return err_set(e, "usage: is not readable.");
    u.period.start = json_integer_value(json_object_get(in, "start"));
    u.period.end = json_integer_value(json_object_get(in, "end"));
    for (size_t n = 0; n < 8; n++) {
        json_int_t count = json_integer_value(json_array_get(counts, n));
        if (count < 0)
            return err_set(e, "counts: a number is below zero.");
        *(n % 2 ? &volumes[n / 2]->bytes : &volumes[n / 2]->messages) = (uint64_t)count;
    }
    key_begin(key, owner);
    key_number(key, (uint64_t)u.period.start);
    usage_encode(&u, value);
    return 0;
}

/* ---- binary records ------------------------------------------------------------------- */

static json_t *show_binary(const char *name, struct slice key, struct slice value)
{
    static const char digits[] = "0123456789abcdef";
    char *text = xmalloc(2 * value.len + 1);
    for (size_t i = 0; i < value.len; i++) {
        text[2 * i] = digits[(unsigned char)value.ptr[i] >> 4];
        text[2 * i + 1] = digits[(unsigned char)value.ptr[i] & 15];
    }
    text[2 * value.len] = '\0';
    json_t *out = json_pack("{s:s%,s:s}", name, key.ptr, key.len, "record", text);
    free(text);
    return out;
}

static int read_binary(const json_t *in, struct buf *value, struct err *e)
{
    struct slice text = slice_str(json_text(in, "record"));
    buf_clear(value);
    for (size_t i = 0; i + 1 < text.len; i += 2) {
        int high = hex_digit(text.ptr[i]), low = hex_digit(text.ptr[i + 1]);
        if (high < 0 || low < 0 || buf_addc(value, (char)(high << 4 | low)) < 0)
            return err_set(e, "record: is not readable.");
    }
    return text.len % 2 ? err_set(e, "record: is not readable.") : 0;
}

static int read_tally(const json_t *in, struct key *key, struct buf *value, struct err *e)
{
    struct slice owner;
    struct tally t;
    if (owner_of(in, &owner, e) < 0 || read_binary(in, value, e) < 0)
        return -1;
    if (tally_decode(buf_slice(value), &t) < 0)
        return err_set(e, "record: is not readable.");
    key_add(key, owner);
    return 0;
}

static int id_of(const json_t *in, struct key *key, struct err *e)
{
    struct id id;
    struct slice text = slice_str(json_text(in, "id"));
    if (id_parse(text, &id) < 0)
        return err_set(e, "id: is no queue ID.");
    key_add(key, text);
    return 0;
}

static int read_charge(const json_t *in, struct key *key, struct buf *value, struct err *e)
{
    struct charge c;
    if (id_of(in, key, e) < 0 || read_binary(in, value, e) < 0)
        return -1;
    if (charge_decode(buf_slice(value), &c) < 0)
        return err_set(e, "record: is not readable.");
    free(c.states);
    return 0;
}

/* ---- held ----------------------------------------------------------------------------- */

static json_t *show_held(struct slice key)
{
    if (key.len <= 8)
        return NULL;
    struct slice id = slice_from(key, 8);
    return json_pack("{s:s%,s:I}", "id", id.ptr, id.len, "until",
                     (json_int_t)key_last_number(slice_first(key, 8)));
}

static int read_held(const json_t *in, struct key *key, struct buf *value, struct err *e)
{
    json_int_t until = json_integer_value(json_object_get(in, "until"));
    buf_clear(value);
    if (until <= 0)
        return err_set(e, "until: give seconds.");
    key_number(key, (uint64_t)until);
    return id_of(in, key, e);
}

/* ---- grants ----------------------------------------------------------------------------- */

json_t *grant_of_export(const json_t *in, struct err *e)
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

/* ---- all -------------------------------------------------------------------------------- */

json_t *counts_show(enum table t, struct slice key, struct slice value)
{
    switch (t) {
    case T_USAGE:
        return show_usage(key, value);
    case T_TALLY:
        return show_binary("owner", key, value);
    case T_CHARGE:
        return show_binary("id", key, value);
    case T_PARKED: /* an import holds it, and its account parks it again */
        (void)slice_cut(&key, '\0');
        return show_held(key);
    case T_HELD:
        return show_held(key);
    default:
        return NULL;
    }
}

int counts_read(enum table t, const json_t *in, struct key *key, struct buf *value, struct err *e)
{
    key->len = 0;
    switch (t) {
    case T_USAGE:
        return read_usage(in, key, value, e);
    case T_TALLY:
        return read_tally(in, key, value, e);
    case T_CHARGE:
        return read_charge(in, key, value, e);
    case T_HELD:
        return read_held(in, key, value, e);
    default:
        return err_set(e, "type: is not counted.");
    }
}
