#include "conf/restrictions.h"

#include "conf/endpoint.h"
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
    {"permit_tls_clientcerts", RESTRICTION_PERMIT_CERTIFICATE},
    {"reject_unauth_destination", RESTRICTION_REJECT_UNAUTH},
};

static int unknown_word(struct slice word, struct err *e)
{
    return err_set(e,
                   "%s: is not known here; there are check_policy_service, permit, reject, defer, "
                   "permit_mynetworks, permit_sasl_authenticated, permit_tls_clientcerts, "
                   "reject_unauth_destination",
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
    struct endpoint endpoint;
    struct slice option;
    out->kind = RESTRICTION_SERVICE;
    if (!unwrap(&text)) {
        out->endpoint = text;
        text = SLICE("");
    } else if (!config_list_next(&text, &out->endpoint)) {
        out->endpoint = SLICE("");
    }
    if (endpoint_parse(out->endpoint, "", &endpoint, e) < 0)
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
