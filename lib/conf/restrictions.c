#include "conf/restrictions.h"

#include "conf/nets.h"
#include "core/log.h"
#include "smtp/policy_reply.h"

const char *restrictions_text(const struct config *c, enum restriction_list list)
{
    switch (list) {
    case RESTRICT_CLIENT:
        return c->smtpd_client_restrictions;
    case RESTRICT_HELO:
        return c->smtpd_helo_restrictions;
    case RESTRICT_SENDER:
        return c->smtpd_sender_restrictions;
    case RESTRICT_RECIPIENT:
        return c->smtpd_recipient_restrictions;
    case RESTRICT_DATA:
        return c->smtpd_data_restrictions;
    case RESTRICT_END_OF_DATA:
        return c->smtpd_end_of_data_restrictions;
    case RESTRICTION_LISTS:
        break;
    }
    return "";
}

/* ---- where a server is ------------------------------------------------------ */

static int parse_inet(struct slice text, struct policy_endpoint *out)
{
    unsigned char bytes[16];
    size_t colon = slice_rchr(text, ':');
    struct slice host = slice_first(text, colon), port = slice_from(text, colon + 1);
    uint64_t number;
    if (colon == text.len) {
        host = SLICE("127.0.0.1");
        port = text;
    } else if (slice_caseeq(host, SLICE("localhost"))) {
        host = SLICE("127.0.0.1");
    }
    int len = nets_address(host, bytes);
    if (len < 0 || slice_u64(port, &number) < 0 || number < 1 || number > UINT16_MAX)
        return -1;
    out->port = (uint16_t)number;
    out->len = (size_t)len;
    memcpy(out->address, bytes, out->len);
    return 0;
}

static int parse_unix(struct slice path, const char *directory, struct policy_endpoint *out)
{
    struct buf b = {out->address, 0, sizeof out->address, sizeof out->address};
    if (path.len == 0 || memchr(path.ptr, '\0', path.len))
        return -1;
    if (path.ptr[0] != '/' && buf_printf(&b, "%s/", directory) < 0)
        return -1;
    if (buf_adds(&b, path) < 0)
        return -1;
    out->port = 0;
    out->len = b.len;
    return 0;
}

int policy_endpoint_parse(struct slice text, const char *directory, struct policy_endpoint *out,
                          struct err *e)
{
    struct slice rest = text, type = slice_cut(&rest, ':');
    if (slice_eq(type, SLICE("inet")) && parse_inet(rest, out) == 0)
        return 0;
    if (slice_eq(type, SLICE("unix")) && parse_unix(rest, directory, out) == 0)
        return 0;
    return err_set(e,
                   "%s: is not a policy server; write inet:ADDRESS:PORT with a numeric address, or "
                   "unix:PATH of at most 100 bytes",
                   log_esc_n(text, 120));
}

/* ---- elements ----------------------------------------------------------------- */

static const struct {
    const char *word;
    enum restriction_kind kind;
} words[] = {
    {"permit", RESTRICTION_PERMIT},
    {"reject", RESTRICTION_REJECT},
    {"defer", RESTRICTION_DEFER},
    {"permit_mynetworks", RESTRICTION_PERMIT_NETWORKS},
    {"permit_sasl_authenticated", RESTRICTION_PERMIT_LOGIN},
    {"reject_unauth_destination", RESTRICTION_REJECT_UNAUTH},
};

static int unknown_word(struct slice word, struct err *e)
{
    return err_set(e,
                   "%s: is not known here; there are check_policy_service, permit, reject, defer, "
                   "permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination",
                   log_esc_n(word, 80));
}

/* Without the braces around it; false if there are none. */
static bool unwrap(struct slice *text)
{
    if (text->len < 2 || text->ptr[0] != '{' || text->ptr[text->len - 1] != '}')
        return false;
    *text = slice_trim(slice_make(text->ptr + 1, text->len - 2));
    return true;
}

static int set_timeout(struct slice value, struct restriction *out, struct err *e)
{
    enum { TIMEOUT_MAX = 3600 };
    uint64_t n;
    struct slice number = value;
    if (number.len && number.ptr[number.len - 1] == 's')
        number.len--;
    if (slice_u64(number, &n) < 0 || n < 1 || n > TIMEOUT_MAX)
        return err_set(e, "timeout=%s: give seconds, from 1s to %ds", log_esc_n(value, 40),
                       TIMEOUT_MAX);
    out->timeout = (int64_t)n;
    return 0;
}

static int set_option(struct slice option, struct restriction *out, struct err *e)
{
    struct slice whole = option;
    struct policy_action action;
    unwrap(&option);
    struct slice name = slice_trim(slice_cut(&option, '=')), value = slice_trim(option);
    if (slice_eq(name, SLICE("timeout")))
        return set_timeout(value, out, e);
    if (slice_eq(name, SLICE("policy_context"))) {
        out->context = value;
        return 0;
    }
    if (!slice_eq(name, SLICE("default_action")))
        return err_set(e,
                       "%s: is not known for a policy server; there are timeout, default_action, "
                       "policy_context",
                       log_esc_n(whole, 80));
    policy_action_parse(value, &action);
    if (action.verb == POLICY_UNSUPPORTED)
        return err_set(e, "default_action=%s: is no action", log_esc_n(value, 80));
    out->default_action = value;
    return 0;
}

/* What follows check_policy_service. */
static int parse_service(struct slice text, struct restriction *out, struct err *e)
{
    struct policy_endpoint endpoint;
    struct slice option;
    out->kind = RESTRICTION_SERVICE;
    if (!unwrap(&text)) {
        out->endpoint = text;
        text = SLICE("");
    } else if (!config_list_next(&text, &out->endpoint)) {
        out->endpoint = SLICE("");
    }
    if (policy_endpoint_parse(out->endpoint, "", &endpoint, e) < 0)
        return -1;
    while (config_list_next(&text, &option))
        if (set_option(option, out, e) < 0)
            return -1;
    return 0;
}

int restriction_next(struct slice *list, struct restriction *out, struct err *e)
{
    struct slice word, server;
    *out = (struct restriction){.kind = RESTRICTION_PERMIT};
    if (!config_list_next(list, &word))
        return 0;
    if (slice_eq(word, SLICE("check_policy_service"))) {
        if (!config_list_next(list, &server))
            return err_set(e, "check_policy_service: name a server behind it");
        return parse_service(server, out, e) < 0 ? -1 : 1;
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (slice_eq(word, slice_str(words[i].word))) {
            out->kind = words[i].kind;
            return 1;
        }
    return unknown_word(word, e);
}

int restrictions_check(const char *text, struct err *e)
{
    enum { RESTRICTIONS_MAX = 100 };
    struct slice list = slice_str(text);
    struct restriction r;
    int rc, count = 0;
    while ((rc = restriction_next(&list, &r, e)) == 1)
        if (++count > RESTRICTIONS_MAX)
            return err_set(e, "has more than %d elements", RESTRICTIONS_MAX);
    return rc;
}
