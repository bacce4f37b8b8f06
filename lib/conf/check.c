/* What a parameter's type cannot say about its value. */
#include "conf/endpoint.h"
#include "conf/nets.h"
#include "conf/nexthop.h"
#include "conf/params.h"
#include "conf/restrictions.h"
#include "conf/sasl.h"
#include "conf/sender_class.h"
#include "core/log.h"
#include "smtp/address.h"
#include "smtp/ehlo.h"
#include "smtp/policy_reply.h"
#include "tls/policy.h"
#include "tls/protocols.h"

enum { HOSTNAME_MAX = 255, LABEL_MAX = 63 };

/* A host name as EHLO and Received need it (RFC 1123 section 2.1). */
static bool is_hostname(struct slice name)
{
    if (name.len == 0 || name.len > HOSTNAME_MAX)
        return false;
    while (name.len) {
        struct slice label = slice_cut(&name, '.');
        if (label.len == 0 || label.len > LABEL_MAX || label.ptr[0] == '-' ||
            label.ptr[label.len - 1] == '-')
            return false;
        for (size_t i = 0; i < label.len; i++) {
            char c = label.ptr[i], low = (char)(c | 0x20);
            if (!(low >= 'a' && low <= 'z') && !(c >= '0' && c <= '9') && c != '-')
                return false;
        }
    }
    return true;
}

static int check_hostname(const char *text, struct err *e)
{
    if (is_hostname(slice_str(text)))
        return 0;
    return err_set(e, "%s: is not a host name; give one such as mail.example.com",
                   log_esc_n(slice_str(text), 80));
}

static int check_networks(const char *text, struct err *e)
{
    struct nets n;
    if (nets_parse(&n, text, e) < 0)
        return -1;
    nets_free(&n);
    return 0;
}

static int check_sender_classes(const char *text, struct err *e)
{
    return sender_class_check(slice_str(text), e);
}

static int check_interfaces(const char *text, struct err *e)
{
    struct slice rest = slice_str(text), element;
    unsigned char bytes[16];
    bool any = false;
    while (config_list_next(&rest, &element)) {
        any = true;
        if (slice_eq(element, SLICE("all")) || slice_eq(element, SLICE("loopback-only")) ||
            network_address(element, bytes) > 0)
            continue;
        return err_set(e, "%s: is not an address; give addresses, all, or loopback-only",
                       log_esc_n(element, 80));
    }
    return any ? 0 : err_set(e, "is empty; give addresses, all, or loopback-only");
}

static int check_source(const char *text, int wanted, struct err *e)
{
    unsigned char bytes[16];
    if (!*text || network_address(slice_str(text), bytes) == wanted)
        return 0;
    return err_set(e, "%s: is not an %s address", log_esc_n(slice_str(text), 80),
                   wanted == 4 ? "IPv4" : "IPv6");
}

static int check_name_servers(const char *text, struct err *e)
{
    struct slice rest = slice_str(text), element;
    unsigned char bytes[16];
    while (config_list_next(&rest, &element)) {
        struct slice whole = element, address = slice_cut(&element, '@');
        uint64_t port = 53;
        if (network_address(address, bytes) < 0 ||
            (address.len < whole.len && (slice_u64(element, &port) < 0 || !port || port > 65535)))
            return err_set(e, "%s: is not a name server; write address or address@port",
                           log_esc_n(whole, 80));
    }
    return 0;
}

/* Text that ends up in SMTP lines: a control byte cannot occur (the file was
 * checked), other bytes must be ASCII and the line must fit. */
static int check_banner(const char *text, struct err *e)
{
    enum { BANNER_MAX = 400 };
    struct slice s = slice_str(text);
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] > 0x7e)
            return err_set(e, "%s: only ASCII is allowed here", log_esc_n(s, 80));
    if (s.len > BANNER_MAX)
        return err_set(e, "is longer than %d bytes", BANNER_MAX);
    return s.len ? 0 : err_set(e, "is empty; begin it with $myhostname");
}

static int check_sockets(const char *text, struct err *e)
{
    struct slice rest = slice_str(text), path;
    while (config_list_next(&rest, &path))
        if (path.ptr[0] != '/' || path.len > ENDPOINT_PATH_MAX)
            return err_set(e,
                           "%s: is no UNIX socket; give paths that begin with /, of at most %d "
                           "bytes",
                           log_esc_n(path, 120), ENDPOINT_PATH_MAX);
    return 0;
}

static int check_log_name(const char *text, struct err *e)
{
    enum { LOG_NAME_MAX = 40 };
    struct slice s = slice_str(text);
    bool good = s.len > 0 && s.len <= LOG_NAME_MAX;
    for (size_t i = 0; i < s.len; i++)
        good = good && s.ptr[i] > ' ' && s.ptr[i] < 0x7f && !strchr("[]:", s.ptr[i]);
    return good ? 0
                : err_set(e, "%s: give up to %d letters, digits, '-', '/' or '.'", log_esc_n(s, 80),
                          LOG_NAME_MAX);
}

static int check_action(const char *text, struct err *e)
{
    struct policy_action action;
    policy_action_parse(slice_str(text), &action);
    if (action.verb != POLICY_UNSUPPORTED)
        return 0;
    return err_set(e, "%s: is no action; give DUNNO, or one such as 451 4.3.5 text",
                   log_esc_n(slice_str(text), 80));
}

static int check_tls_protocols(const char *text, struct err *e)
{
    struct tls_protocols protocols;
    return tls_protocols_parse(slice_str(text), &protocols, e);
}

static int check_tls_match(const char *text, struct err *e)
{
    return tls_match_check(slice_str(text), e);
}

static int check_server_name(const char *text, struct err *e)
{
    if (!*text || tls_is_host_name(slice_str(text)))
        return 0;
    return err_set(e, "%s: give hostname, nexthop, a host name, or nothing",
                   log_esc_n(slice_str(text), 80));
}

static int check_sasl_options(const char *text, struct err *e)
{
    struct slice rest = slice_str(text), element;
    while (config_list_next(&rest, &element))
        if (sasl_option(element) == 0)
            return err_set(e,
                           "%s: give noanonymous, noplaintext, noactive, nodictionary, "
                           "forward_secrecy or mutual_auth",
                           log_esc_n(element, 80));
    return 0;
}

static int check_sasl_filter(const char *text, struct err *e)
{
    struct slice rest = slice_str(text), element;
    while (config_list_next(&rest, &element))
        if (!sasl_filter_element(element))
            return err_set(e,
                           "%s: give names of mechanisms, such as plain or !scram-sha-256, or "
                           "static:all for all others",
                           log_esc_n(element, 80));
    return 0;
}

static int check_sasl_path(const char *text, struct err *e)
{
    char endpoint[SASL_ENDPOINT_MAX + 1];
    struct endpoint to;
    if (sasl_endpoint(text, endpoint) < 0)
        return err_set(e, "is longer than %d bytes", SASL_ENDPOINT_MAX);
    return endpoint_parse(slice_str(endpoint), "/", &to, e);
}

/* SHA-256 in the form that logs and 'openssl x509 -fingerprint -sha256' have. */
static int check_fingerprints(const char *text, struct err *e)
{
    enum { FINGERPRINT_LEN = 3 * 32 - 1 };
    struct slice rest = slice_str(text), element;
    while (config_list_next(&rest, &element)) {
        bool good = element.len == FINGERPRINT_LEN;
        for (size_t i = 0; good && i < element.len; i++)
            good = i % 3 == 2 ? element.ptr[i] == ':'
                              : element.ptr[i] && strchr("0123456789abcdefABCDEF", element.ptr[i]);
        if (!good)
            return err_set(e,
                           "%s: is not the SHA-256 fingerprint of a certificate or public key; it "
                           "has 32 pairs of hexadecimal digits with colons between them",
                           log_esc_n(element, 120));
    }
    return 0;
}

static int check_source_v4(const char *text, struct err *e)
{
    return check_source(text, 4, e);
}

static int check_source_v6(const char *text, struct err *e)
{
    return check_source(text, 16, e);
}

static int check_proxy_protocol(const char *text, struct err *e)
{
    if (!*text || strcmp(text, "haproxy") == 0)
        return 0;
    return err_set(e, "%s: give haproxy, or nothing", log_esc_n(slice_str(text), 80));
}

/* An address that mail can be sent to. */
static int check_mailbox(struct slice text, struct err *e)
{
    struct smtp_path path;
    if (address_parse(text, PATH_UTF8, &path) == PATH_OK && path_domain(&path).len > 0)
        return 0;
    return err_set(e, "%s: is not an address; give one such as postmaster@example.com",
                   log_esc_n(text, 80));
}

static int check_address(const char *text, struct err *e)
{
    return *text ? check_mailbox(slice_str(text), e) : 0;
}

/* As it stands in From: "a@b" or "Name <a@b>". */
static int check_from(const char *text, struct err *e)
{
    struct slice address = slice_trim(slice_str(text));
    size_t open = slice_rchr(address, '<');
    if (open < address.len && address.ptr[address.len - 1] == '>')
        address = slice_make(address.ptr + open + 1, address.len - open - 2);
    return check_mailbox(address, e);
}

static int check_transports(const char *text, struct err *e)
{
    struct slice rest = slice_str(text), name;
    while (config_list_next(&rest, &name))
        if (!slice_eq(name, SLICE("smtp")) && !slice_eq(name, SLICE("lmtp")))
            return err_set(e,
                           "%s: is not a transport that can be deferred; give smtp, lmtp or both",
                           log_esc_n(name, 80));
    return 0;
}

/* Postfix's words that are without effect here are taken, those of nobody are slips. */
static int check_keywords(const char *text, struct err *e)
{
    static const char *const known[] = {
#define EHLO_KEYWORD(enumerator, bit, keyword) keyword,
        EHLO_KEYWORDS
#undef EHLO_KEYWORD
        "ETRN",
        "VERP",
        "VRFY",
        "XCLIENT",
        "XFORWARD",
        "SILENT-DISCARD"};
    struct slice rest = slice_str(text), word;
    while (config_list_next(&rest, &word)) {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof known[0] && !found; i++)
            found = slice_caseeq(word, slice_str(known[i]));
        if (!found)
            return err_set(e, "%s: is not an EHLO keyword that Postern knows", log_esc_n(word, 80));
    }
    return 0;
}

static int (*const checks[PARAM_COUNT])(const char *text, struct err *e) = {
    [PARAM_INDEX_myhostname] = check_hostname,
    [PARAM_INDEX_mydomain] = check_hostname,
    [PARAM_INDEX_myorigin] = check_hostname,
    [PARAM_INDEX_smtp_helo_name] = check_hostname,
    [PARAM_INDEX_lmtp_lhlo_name] = check_hostname,
    [PARAM_INDEX_mynetworks] = check_networks,
    [PARAM_INDEX_smtpd_client_event_limit_exceptions] = check_networks,
    [PARAM_INDEX_resolver_permit_networks] = check_networks,
    [PARAM_INDEX_smtpd_authorized_xclient_hosts] = check_networks,
    [PARAM_INDEX_smtpd_authorized_xforward_hosts] = check_networks,
    [PARAM_INDEX_smtpd_proxy_networks] = check_networks,
    [PARAM_INDEX_inet_interfaces] = check_interfaces,
    [PARAM_INDEX_smtp_bind_address] = check_source_v4,
    [PARAM_INDEX_smtp_bind_address6] = check_source_v6,
    [PARAM_INDEX_resolver_nameservers] = check_name_servers,
    [PARAM_INDEX_relayhost] = nexthops_check,
    [PARAM_INDEX_defer_transports] = check_transports,
    [PARAM_INDEX_smtpd_discard_ehlo_keywords] = check_keywords,
    [PARAM_INDEX_smtp_discard_ehlo_keywords] = check_keywords,
    [PARAM_INDEX_smtpd_banner] = check_banner,
    [PARAM_INDEX_smtpd_upstream_proxy_protocol] = check_proxy_protocol,
    [PARAM_INDEX_mail_class_senders] = check_sender_classes,
    [PARAM_INDEX_smtpd_client_restrictions] = restrictions_check,
    [PARAM_INDEX_smtpd_helo_restrictions] = restrictions_check,
    [PARAM_INDEX_smtpd_sender_restrictions] = restrictions_check,
    [PARAM_INDEX_smtpd_recipient_restrictions] = restrictions_check,
    [PARAM_INDEX_smtpd_data_restrictions] = restrictions_check,
    [PARAM_INDEX_smtpd_end_of_data_restrictions] = restrictions_check,
    [PARAM_INDEX_lmtp_permit_sockets] = check_sockets,
    [PARAM_INDEX_smtpd_policy_service_default_action] = check_action,
    [PARAM_INDEX_smtp_tls_verify_cert_match] = check_tls_match,
    [PARAM_INDEX_smtp_tls_secure_cert_match] = check_tls_match,
    [PARAM_INDEX_smtp_tls_protocols] = check_tls_protocols,
    [PARAM_INDEX_smtp_tls_mandatory_protocols] = check_tls_protocols,
    [PARAM_INDEX_smtpd_tls_protocols] = check_tls_protocols,
    [PARAM_INDEX_smtpd_tls_mandatory_protocols] = check_tls_protocols,
    [PARAM_INDEX_smtp_tls_servername] = check_server_name,
    [PARAM_INDEX_relay_clientcerts] = check_fingerprints,
    [PARAM_INDEX_syslog_name] = check_log_name,
    [PARAM_INDEX_double_bounce_recipient] = check_address,
    [PARAM_INDEX_notice_from] = check_from,
    [PARAM_INDEX_notice_contact] = check_address,
    [PARAM_INDEX_smtp_tlsrpt_from] = check_address,
    [PARAM_INDEX_smtpd_sasl_security_options] = check_sasl_options,
    [PARAM_INDEX_smtpd_sasl_tls_security_options] = check_sasl_options,
    [PARAM_INDEX_smtpd_sasl_mechanism_filter] = check_sasl_filter,
    [PARAM_INDEX_smtpd_sasl_path] = check_sasl_path,
};

int param_check(int index, const char *text, struct err *e)
{
    struct err inner = {0, ""};
    if (!checks[index] || checks[index](text, &inner) == 0)
        return 0;
    return err_set(e, "%s: %s", params[index].name, inner.text);
}
