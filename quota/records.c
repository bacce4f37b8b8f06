#include "quota/records.h"

#include <idn2.h>

#include <stdio.h>

#include "core/mem.h"
#include "ipc/ipc.h"
#include "smtp/address.h"

const char *const table_names[T_COUNT] = {
    "meta",   "account", "user",    "identity", "member", "grant",       "usage",  "tally",
    "charge", "notice",  "failure", "audit",    "held",   "certificate", "parked", "owner"};

/* ---- names --------------------------------------------------------------------- */

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static int copy_lower(struct slice text, char *out, size_t max)
{
    if (text.len == 0 || text.len > max)
        return -1;
    for (size_t i = 0; i < text.len; i++)
        out[i] = lower(text.ptr[i]);
    out[text.len] = '\0';
    return 0;
}

int name_account(struct slice text, char out[static ACCOUNT_NAME_MAX + 1])
{
    if (copy_lower(text, out, ACCOUNT_NAME_MAX) < 0 || out[0] == '-' || out[0] == '.')
        return -1;
    for (const char *p = out; *p; p++)
        if (!(*p >= 'a' && *p <= 'z') && !(*p >= '0' && *p <= '9') && !strchr("._-", *p))
            return -1;
    return 0;
}

int name_login(struct slice text, char out[static LOGIN_MAX + 1])
{
    if (copy_lower(text, out, LOGIN_MAX) < 0)
        return -1;
    for (const char *p = out; *p; p++)
        if (*p <= ' ' || *p > '~' || *p == '/')
            return -1;
    return strlen(out) == text.len ? 0 : -1; /* a NUL inside */
}

bool name_is_ascii(struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.ptr[i] >= 0x80)
            return false;
    return true;
}

#define HOST_BYTES "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

/* The domain in `text` to A-labels (RFC 5891), in its place: one domain has one name. */
static int domain_to_ascii(char text[static ADDRESS_TEXT_MAX + 1])
{
    uint8_t *converted = NULL;
    const char *at = strrchr(text, '@');
    size_t before = at ? (size_t)(at + 1 - text) : 0;
    if (name_is_ascii(slice_str(text + before)))
        return 0;
    int rc = idn2_lookup_u8((const uint8_t *)text + before, &converted,
                            IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
    size_t len = rc == IDN2_OK ? strlen((const char *)converted) : 0;
    bool good = len && before + len <= ADDRESS_TEXT_MAX &&
                /* a full-width @ has become one, and what stands before it was never looked at */
                strspn((const char *)converted, HOST_BYTES) == len;
    if (good)
        memcpy(text + before, converted, len + 1);
    idn2_free(converted);
    return good ? 0 : -1;
}

int name_identity(struct slice text, char out[static ADDRESS_TEXT_MAX + 1])
{
    struct smtp_path path;
    char whole[ADDRESS_TEXT_MAX + 8];
    bool address = slice_chr(text, '@') < text.len;
    if (copy_lower(text, out, ADDRESS_TEXT_MAX) < 0)
        return -1;
    int n = snprintf(whole, sizeof whole, address ? "<%s>" : "<x@%s>", out);
    struct slice rest = slice_make(whole, (size_t)n);
    if (path_parse(&rest, PATH_RECIPIENT | PATH_UTF8, &path) != PATH_OK || rest.len)
        return -1;
    return domain_to_ascii(out);
}

int name_identity_letters(const char *identity, char out[static ADDRESS_TEXT_MAX + 1])
{
    char *converted = NULL;
    const char *at = strrchr(identity, '@');
    size_t before = at ? (size_t)(at + 1 - identity) : 0;
    int rc = idn2_to_unicode_8z8z(identity + before, &converted, IDN2_NONTRANSITIONAL);
    int n = rc == IDN2_OK
                ? snprintf(out, ADDRESS_TEXT_MAX + 1, "%.*s%s", (int)before, identity, converted)
                : -1;
    idn2_free(converted);
    return n > 0 && n <= ADDRESS_TEXT_MAX && strcmp(out, identity) != 0 ? 0 : -1;
}

int name_fingerprint(struct slice text, char out[static FINGERPRINT_MAX + 1])
{
    size_t len = 0;
    bool colons = text.len == FINGERPRINT_MAX / 2 * 3 - 1;
    if (!colons && text.len != FINGERPRINT_MAX)
        return -1;
    for (size_t i = 0; i < text.len; i++) {
        char c = lower(text.ptr[i]);
        if (colons && i % 3 == 2) {
            if (c != ':')
                return -1;
            continue;
        }
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f'))
            return -1;
        out[len++] = c;
    }
    out[len] = '\0';
    return 0;
}

/* ---- keys ---------------------------------------------------------------------- */

void key_begin(struct key *k, struct slice first)
{
    k->len = 0;
    key_add(k, first);
    key_add(k, SLICE("\0"));
}

void key_add(struct key *k, struct slice s)
{
    if (s.len > sizeof k->data - k->len)
        panic("a key of more than %zu bytes", sizeof k->data);
    if (s.len)
        memcpy(k->data + k->len, s.ptr, s.len);
    k->len += s.len;
}

void key_number(struct key *k, uint64_t n)
{
    char bytes[8];
    for (int i = 7; i >= 0; i--, n >>= 8)
        bytes[i] = (char)(n & 0xff);
    key_add(k, slice_make(bytes, sizeof bytes));
}

uint64_t key_last_number(struct slice key)
{
    uint64_t n = 0;
    if (key.len < 8)
        return 0;
    for (size_t i = key.len - 8; i < key.len; i++)
        n = n << 8 | (unsigned char)key.ptr[i];
    return n;
}

/* ---- numbers -------------------------------------------------------------------- */

static void put(struct buf *b, uint64_t n, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++, n >>= 8)
        buf_addc(b, (char)(n & 0xff));
}

struct reader {
    struct slice rest;
    bool failed;
};

static uint64_t get(struct reader *r, unsigned bytes)
{
    uint64_t n = 0;
    if (r->rest.len < bytes) {
        r->failed = true;
        return 0;
    }
    for (unsigned i = bytes; i-- > 0;)
        n = n << 8 | (unsigned char)r->rest.ptr[i];
    r->rest = slice_from(r->rest, bytes);
    return n;
}

static void put_text(struct buf *b, const char *text)
{
    put(b, strlen(text), 1);
    buf_addstr(b, text);
}

static void get_text(struct reader *r, char *out, size_t max)
{
    size_t len = (size_t)get(r, 1);
    if (len > r->rest.len || len > max) {
        r->failed = true;
        len = 0;
    }
    memcpy(out, r->rest.ptr ? r->rest.ptr : "", len);
    out[len] = '\0';
    r->rest = slice_from(r->rest, len);
}

static int over(const struct reader *r)
{
    return r->failed || r->rest.len ? -1 : 0;
}

/* Every record begins with the version of its format; older ones are read, too. */
enum { USAGE_VERSION = 3, TALLY_VERSION = 2, CHARGE_VERSION = 2, TALLY_OLD_HOURS = 24 };

/* ---- usage, tally ------------------------------------------------------------------ */

void usage_encode(const struct plan_usage *u, struct buf *out)
{
    const struct volume volumes[] = {u->charged, u->delivered, u->refunded, u->granted};
    buf_clear(out);
    put(out, USAGE_VERSION, 1);
    put(out, (uint64_t)u->period.start, 8);
    put(out, (uint64_t)u->period.end, 8);
    for (int i = 0; i < 4; i++) {
        put(out, volumes[i].messages, 8);
        put(out, volumes[i].bytes, 8);
    }
    put(out, u->alerts, 4);
    put(out, u->reported, 1);
    put(out, u->over_told, 1);
    put(out, u->told_of, 8);
    put_text(out, u->terms.plan);
    put(out, u->terms.messages, 8);
    put(out, u->terms.bytes, 8);
    put(out, u->terms.overage_block, 8);
    put(out, u->terms.overage_bytes, 1);
    put(out, u->taken_count, 1);
    for (unsigned i = 0; i < u->taken_count; i++) {
        put(out, u->taken[i].grant, 8);
        put(out, u->taken[i].amount, 8);
        put(out, u->taken[i].unit, 1);
    }
}

/* What a period was billed by, and the grants that it used: since version 3. */
static void get_terms(struct reader *r, struct plan_usage *u)
{
    get_text(r, u->terms.plan, PLAN_NAME_MAX);
    u->terms.messages = get(r, 8);
    u->terms.bytes = get(r, 8);
    u->terms.overage_block = get(r, 8);
    u->terms.overage_bytes = get(r, 1) == 1;
    uint64_t count = get(r, 1);
    r->failed = r->failed || count > PLAN_TAKEN_MAX;
    for (uint64_t i = 0; i < count && !r->failed; i++) {
        u->taken[i].grant = get(r, 8);
        u->taken[i].amount = get(r, 8);
        u->taken[i].unit = get(r, 1) == GRANT_BYTES ? GRANT_BYTES : GRANT_MESSAGES;
        u->taken_count = (unsigned)i + 1;
    }
}

int usage_decode(struct slice s, struct plan_usage *u)
{
    *u = (struct plan_usage){.alerts = 0};
    struct reader r = {s, false};
    uint64_t version = get(&r, 1);
    struct volume *const volumes[] = {&u->charged, &u->delivered, &u->refunded, &u->granted};
    u->period.start = (int64_t)get(&r, 8);
    u->period.end = (int64_t)get(&r, 8);
    for (int i = 0; i < 4; i++) {
        volumes[i]->messages = get(&r, 8);
        volumes[i]->bytes = get(&r, 8);
    }
    u->alerts = (uint32_t)get(&r, 4);
    u->reported = (uint8_t)get(&r, 1);
    u->over_told = get(&r, 1) == 1;
    u->told_of = version >= 2 ? get(&r, 8) : 0;
    if (version >= 3)
        get_terms(&r, u);
    return version >= 1 && version <= USAGE_VERSION ? over(&r) : -1;
}

void tally_encode(const struct tally *t, struct buf *out)
{
    buf_clear(out);
    put(out, TALLY_VERSION, 1);
    for (int i = 0; i < TALLY_UNITS; i++) {
        put(out, (uint64_t)t->window[i].start, 8);
        put(out, t->window[i].count, 8);
    }
    put(out, (uint64_t)t->hour, 8);
    put(out, t->hour_count, 8);
    put(out, t->usual, 8);
    put(out, (uint64_t)t->spike_until, 8);
    put(out, t->usual_before, 8);
    put(out, (uint64_t)t->day, 8);
    put(out, t->busy_hours, 4);
    put(out, (uint64_t)t->spike_since, 8);
    put(out, (uint64_t)t->spike_told, 8);
}

int tally_decode(struct slice s, struct tally *t)
{
    struct reader r = {s, false};
    uint64_t version = get(&r, 1);
    *t = (struct tally){.hour = 0};
    for (int i = 0; i < TALLY_UNITS; i++) {
        t->window[i].start = (int64_t)get(&r, 8);
        t->window[i].count = get(&r, 8);
    }
    t->hour = (int64_t)get(&r, 8);
    t->hour_count = get(&r, 8);
    t->usual = get(&r, 8);
    t->spike_until = (int64_t)get(&r, 8);
    if (version == 1) { /* before there was more: the history that it has is taken as it is */
        t->usual_before = t->usual;
        t->busy_hours = t->usual ? TALLY_OLD_HOURS : 0;
        t->spike_until = 0;
        return over(&r);
    }
    t->usual_before = get(&r, 8);
    t->day = (int64_t)get(&r, 8);
    t->busy_hours = (uint32_t)get(&r, 4);
    t->spike_since = (int64_t)get(&r, 8);
    t->spike_told = (int64_t)get(&r, 8);
    return version == TALLY_VERSION ? over(&r) : -1;
}

/* ---- charges ------------------------------------------------------------------------- */

/* States are runs of equal ones: most messages are one run. */
static void put_states(struct buf *out, const struct charge *c)
{
    for (uint32_t i = 0, end; i < c->recipients; i = end) {
        for (end = i + 1; end < c->recipients && c->states[end] == c->states[i]; end++)
            ;
        put(out, c->states[i], 1);
        put(out, end - i, 4);
    }
}

void charge_encode(const struct charge *c, struct buf *out)
{
    buf_clear(out);
    put(out, CHARGE_VERSION, 1);
    put_text(out, c->user);
    put(out, c->level_count, 1);
    for (unsigned i = 0; i < c->level_count; i++) {
        put_text(out, c->levels[i].account);
        put(out, (uint64_t)c->levels[i].period, 8);
        put(out, c->levels[i].each, 8);
    }
    put(out, c->size, 8);
    put(out, (uint64_t)c->charged_at, 8);
    put(out, (uint64_t)c->closed_at, 8);
    put(out, (uint64_t)c->held_until, 8);
    put(out, c->recipients, 4);
    put_states(out, c);
}

static void get_states(struct reader *r, struct charge *c)
{
    uint32_t at = 0;
    while (at < c->recipients && !r->failed) {
        uint64_t state = get(r, 1), run = get(r, 4);
        if (state > CHARGE_REFUNDED || run == 0 || run > c->recipients - at) {
            r->failed = true;
            return;
        }
        memset(c->states + at, (int)state, run);
        at += (uint32_t)run;
        c->open += state == CHARGE_RESERVED ? (uint32_t)run : 0;
    }
}

int charge_decode(struct slice s, struct charge *out)
{
    struct reader r = {s, false};
    uint64_t version = get(&r, 1);
    *out = (struct charge){.states = NULL};
    get_text(&r, out->user, LOGIN_MAX);
    uint64_t levels = get(&r, 1);
    if (levels > CHARGE_LEVELS_MAX)
        return -1;
    out->level_count = (unsigned)levels;
    for (unsigned i = 0; i < out->level_count; i++) {
        get_text(&r, out->levels[i].account, ACCOUNT_NAME_MAX);
        out->levels[i].period = (int64_t)get(&r, 8);
        out->levels[i].each = get(&r, 8);
    }
    out->size = get(&r, 8);
    out->charged_at = (int64_t)get(&r, 8);
    out->closed_at = (int64_t)get(&r, 8);
    if (version == CHARGE_VERSION)
        out->held_until = (int64_t)get(&r, 8);
    uint64_t recipients = get(&r, 4);
    if (r.failed || version == 0 || version > CHARGE_VERSION || recipients == 0 ||
        recipients > CHARGE_RECIPIENTS_MAX)
        return -1;
    out->recipients = (uint32_t)recipients;
    out->states = xcalloc(recipients, 1);
    get_states(&r, out);
    if (over(&r) == 0)
        return 0;
    xfree(&out->states);
    return -1;
}
