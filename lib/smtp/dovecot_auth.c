#include "smtp/dovecot_auth.h"

/* ---- reading --------------------------------------------------------------------- */

/* In values \1 stands before the replacement of a byte that separates. */
static uint8_t unescape(struct slice value, char out[static DOVECOT_TEXT_MAX])
{
    static const char coded[] = "01tnr", plain[] = "\0\1\t\n\r";
    size_t len = 0;
    for (size_t i = 0; i < value.len && len < DOVECOT_TEXT_MAX; i++) {
        char c = value.ptr[i];
        if (c == '\1' && i + 1 < value.len) {
            const char *at = memchr(coded, value.ptr[++i], sizeof coded - 1);
            c = at ? plain[at - coded] : value.ptr[i];
        }
        out[len++] = c;
    }
    return (uint8_t)len;
}

static unsigned trait_of(struct slice word)
{
    static const struct {
        const char *word;
        enum sasl_trait trait;
    } traits[] = {{"plaintext", SASL_PLAINTEXT},     {"anonymous", SASL_ANONYMOUS},
                  {"active", SASL_ACTIVE},           {"dictionary", SASL_DICTIONARY},
                  {"mutual-auth", SASL_MUTUAL_AUTH}, {"forward-secrecy", SASL_FORWARD_SECRECY}};
    for (size_t i = 0; i < sizeof traits / sizeof traits[0]; i++)
        if (slice_eq(word, slice_str(traits[i].word)))
            return traits[i].trait;
    return 0;
}

static int read_mechanism(struct slice rest, struct dovecot_line *out)
{
    out->name = slice_cut(&rest, '\t');
    while (rest.len) {
        struct slice word = slice_cut(&rest, '\t');
        out->traits |= trait_of(word);
        if (slice_eq(word, SLICE("private"))) /* for other services of Dovecot's */
            out->kind = DOVECOT_OTHER;
    }
    return 0;
}

/* Why a login failed. Dovecot 2.3 and later say code=WORD; before it was the bare word. */
static void read_code(struct slice word, struct dovecot_line *out)
{
    static const struct {
        struct slice word;
        const char *why; /* NULL: no verdict */
    } codes[] = {
        {{"temp_fail", 9}, NULL},
        {{"temp", 4}, NULL},
        {{"authz_fail", 10}, "may not act as the other user"},
        {{"authz", 5}, "may not act as the other user"},
        {{"user_disabled", 13}, "the user is disabled"},
        {{"login_disabled", 14}, "the user may not log in"},
        {{"pass_expired", 12}, "the password has expired"},
        {{"anonymous_denied", 16}, "a login without a user"},
    };
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (slice_eq(word, codes[i].word)) {
            out->why = codes[i].why;
            out->temporary = !codes[i].why;
        }
}

static int read_parameters(struct slice rest, struct dovecot_line *out)
{
    while (rest.len) {
        struct slice value = slice_cut(&rest, '\t'), name = slice_cut(&value, '=');
        if (slice_eq(name, SLICE("user")))
            out->user_len = unescape(value, out->user);
        else if (slice_eq(name, SLICE("reason")))
            out->reason_len = unescape(value, out->reason);
        else if (slice_eq(name, SLICE("resp")))
            out->data = value;
        else if (out->kind == DOVECOT_FAIL)
            read_code(slice_eq(name, SLICE("code")) ? value : name, out);
    }
    return 0;
}

int dovecot_parse(struct slice line, struct dovecot_line *out)
{
    static const struct {
        struct slice word;
        enum dovecot_kind kind;
    } kinds[] = {{{"VERSION", 7}, DOVECOT_VERSION}, {{"MECH", 4}, DOVECOT_MECH},
                 {{"DONE", 4}, DOVECOT_DONE},       {{"CONT", 4}, DOVECOT_CONT},
                 {{"OK", 2}, DOVECOT_OK},           {{"FAIL", 4}, DOVECOT_FAIL}};
    struct slice rest = line, word = slice_cut(&rest, '\t');
    out->kind = DOVECOT_OTHER;
    out->name = out->data = SLICE("");
    out->number = out->traits = out->user_len = out->reason_len = 0;
    out->temporary = false;
    out->why = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (slice_eq(word, kinds[i].word))
            out->kind = kinds[i].kind;
    if (out->kind == DOVECOT_OTHER || out->kind == DOVECOT_DONE)
        return 0;
    if (out->kind == DOVECOT_MECH)
        return read_mechanism(rest, out);
    if (slice_u64(slice_cut(&rest, '\t'), &out->number) < 0)
        return -1;
    if (out->kind == DOVECOT_CONT)
        out->data = slice_cut(&rest, '\t');
    return out->kind == DOVECOT_OK || out->kind == DOVECOT_FAIL ? read_parameters(rest, out) : 0;
}

/* ---- writing ----------------------------------------------------------------------- */

int dovecot_hello(unsigned process, struct buf *out)
{
    return buf_printf(out, "VERSION\t1\t2\nCPID\t%u\n", process);
}

int dovecot_request(const struct dovecot_request *r, struct buf *out)
{
    size_t before = out->len;
    int rc =
        buf_printf(out, "AUTH\t%llu\t%.*s\tservice=smtp\tnologin%s", (unsigned long long)r->number,
                   SLICE_ARG(r->mechanism), r->secured ? "\tsecured" : "");
    if (rc == 0 && r->client.len)
        rc = buf_printf(out, "\trip=%.*s", SLICE_ARG(r->client));
    if (rc == 0 && r->server.len)
        rc = buf_printf(out, "\tlip=%.*s", SLICE_ARG(r->server));
    if (rc == 0 && r->initial)
        rc = buf_printf(out, "\tresp=%.*s", SLICE_ARG(*r->initial)); /* always the last */
    if (rc == 0)
        rc = buf_addc(out, '\n');
    if (rc < 0)
        out->len = before;
    return rc;
}

int dovecot_continue(uint64_t number, struct slice data, struct buf *out)
{
    return buf_printf(out, "CONT\t%llu\t%.*s\n", (unsigned long long)number, SLICE_ARG(data));
}

int dovecot_cancel(uint64_t number, struct buf *out)
{
    return buf_printf(out, "CANCEL\t%llu\n", (unsigned long long)number);
}
