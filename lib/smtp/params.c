#include "smtp/params.h"

#include "smtp/address.h"

/* What a parameter's parser works on: one of mail and rcpt is set. */
struct target {
    struct mail_params *mail;
    struct rcpt_params *rcpt;
    bool smtputf8;
};

enum value_rule { NO_VALUE, NEEDS_VALUE };

struct parameter {
    const char *name;
    enum value_rule rule;
    int (*parse)(struct slice value, struct target *t);
};

/* ---- MAIL ------------------------------------------------------------------ */

static int parse_size(struct slice value, struct target *t)
{
    return slice_u64(value, &t->mail->size); /* B23: no sign, no overflow */
}

static int parse_body(struct slice value, struct target *t)
{
    if (slice_caseeq(value, SLICE("7BIT")))
        t->mail->body = BODY_7BIT;
    else if (slice_caseeq(value, SLICE("8BITMIME")))
        t->mail->body = BODY_8BITMIME;
    else
        return -1;
    return 0;
}

static int parse_smtputf8(struct slice value, struct target *t)
{
    (void)value;
    t->mail->smtputf8 = true;
    return 0;
}

static int parse_requiretls(struct slice value, struct target *t)
{
    (void)value;
    t->mail->requiretls = true;
    return 0;
}

static int parse_ret(struct slice value, struct target *t)
{
    if (slice_caseeq(value, SLICE("FULL")))
        t->mail->ret = RET_FULL;
    else if (slice_caseeq(value, SLICE("HDRS")))
        t->mail->ret = RET_HDRS;
    else
        return -1;
    return 0;
}

/* RFC 3461 4.4: what is decoded must be printable, lest it break a notice (B29). */
static bool printable(struct slice s, bool utf8)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c < 0x20 || c == 0x7f || (c >= 0x80 && !utf8))
            return false;
    }
    return !utf8 || utf8_valid(s);
}

static int parse_envid(struct slice value, struct target *t)
{
    struct buf decoded = BUF_INIT(ENVID_MAX);
    int rc = xtext_decode(value, &decoded);
    if (rc == 0 && !printable(buf_slice(&decoded), false))
        rc = -1;
    if (rc == 0) {
        memcpy(t->mail->envid, decoded.data, decoded.len);
        t->mail->envid_len = (uint8_t)decoded.len;
    }
    buf_free(&decoded);
    return rc;
}

/* RFC 4954 section 5: who the message comes from by the client's word. It counts
 * for nothing here, but has to be read. */
static int parse_auth(struct slice value, struct target *t)
{
    struct buf decoded = BUF_INIT(AUTH_PARAMETER_MAX);
    int rc = slice_eq(value, SLICE("<>")) ? 0 : xtext_decode(value, &decoded);
    (void)t;
    buf_free(&decoded);
    return rc;
}

static const struct parameter mail_parameters[] = {
    {"SIZE", NEEDS_VALUE, parse_size},      {"BODY", NEEDS_VALUE, parse_body},
    {"SMTPUTF8", NO_VALUE, parse_smtputf8}, {"RET", NEEDS_VALUE, parse_ret},
    {"ENVID", NEEDS_VALUE, parse_envid},    {"REQUIRETLS", NO_VALUE, parse_requiretls},
    {"AUTH", NEEDS_VALUE, parse_auth},
};

/* ---- RCPT ------------------------------------------------------------------ */

static int parse_notify(struct slice value, struct target *t)
{
    static const struct {
        const char *name;
        enum dsn_notify bit;
    } words[] = {{"NEVER", NOTIFY_NEVER},
                 {"SUCCESS", NOTIFY_SUCCESS},
                 {"FAILURE", NOTIFY_FAILURE},
                 {"DELAY", NOTIFY_DELAY}};
    unsigned bits = 0;
    if (value.ptr[value.len - 1] == ',')
        return -1;
    while (value.len) {
        struct slice word = slice_cut(&value, ',');
        unsigned bit = 0;
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
            if (slice_caseeq(word, slice_str(words[i].name)))
                bit = words[i].bit;
        if (!bit || bits & bit)
            return -1;
        bits |= bit;
    }
    if (bits & NOTIFY_NEVER && bits != NOTIFY_NEVER)
        return -1;
    t->rcpt->notify = (uint8_t)bits;
    return 0;
}

static int parse_orcpt(struct slice value, struct target *t)
{
    struct buf decoded = BUF_INIT(ORCPT_MAX);
    int rc = value.len <= ORCPT_MAX ? orcpt_decode(value, t->smtputf8, &decoded) : -1;
    struct slice text = buf_slice(&decoded);
    bool unicode = slice_casestarts(text, SLICE("utf-8;"));
    if (rc == 0 && !printable(text, unicode))
        rc = -1;
    if (rc == 0) {
        memcpy(t->rcpt->orcpt, text.ptr, text.len);
        t->rcpt->orcpt_len = (uint16_t)text.len;
    }
    buf_free(&decoded);
    return rc;
}

static const struct parameter rcpt_parameters[] = {
    {"NOTIFY", NEEDS_VALUE, parse_notify},
    {"ORCPT", NEEDS_VALUE, parse_orcpt},
};

/* ---- both ------------------------------------------------------------------ */

static int refuse(struct refusal *why, uint16_t code, const char *text)
{
    *why = (struct refusal){code, "5.5.4", text};
    return -1;
}

static int parse_one(struct slice word, const struct parameter *table, size_t count,
                     uint32_t *given, struct target *t, struct refusal *why)
{
    struct slice value = word, name = slice_cut(&value, '=');
    bool has_value = name.len < word.len;
    for (size_t i = 0; i < count; i++) {
        if (!slice_caseeq(name, slice_str(table[i].name)))
            continue;
        if (*given & 1u << i)
            return refuse(why, 501, "Parameter given twice");
        *given |= 1u << i;
        if (table[i].rule == NO_VALUE ? has_value : value.len == 0)
            return refuse(why, 501, "Parameter without its value, or with one it does not take");
        if (table[i].parse(value, t) < 0)
            return refuse(why, 501, "Bad value of a parameter");
        return 0;
    }
    return refuse(why, 555, "Unknown parameter");
}

static int parse_all(struct slice in, const struct parameter *table, size_t count, uint32_t *given,
                     struct target *t, struct refusal *why)
{
    while (in.len) {
        struct slice word = slice_cut(&in, ' ');
        if (word.len && parse_one(word, table, count, given, t, why) < 0)
            return -1;
    }
    return 0;
}

int mail_params_parse(struct slice in, struct mail_params *out, struct refusal *why)
{
    struct target t = {.mail = out};
    memset(out, 0, sizeof *out);
    return parse_all(in, mail_parameters, sizeof mail_parameters / sizeof mail_parameters[0],
                     &out->given, &t, why);
}

int rcpt_params_parse(struct slice in, bool smtputf8, struct rcpt_params *out, struct refusal *why)
{
    struct target t = {.rcpt = out, .smtputf8 = smtputf8};
    out->given = 0; /* not memset: most recipients have no ORCPT to make room for */
    out->notify = 0;
    out->orcpt_len = 0;
    return parse_all(in, rcpt_parameters, sizeof rcpt_parameters / sizeof rcpt_parameters[0],
                     &out->given, &t, why);
}
