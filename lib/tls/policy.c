#include "tls/policy.h"

#include "core/log.h"
#include "tls/protocols.h"

bool tls_is_host_name(struct slice name)
{
    size_t label = 0;
    if (name.len == 0 || name.len > TLS_NAME_LEN_MAX - 1)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i], low = (char)(c | 0x20);
        if (c == '.'
                ? label == 0
                : !(low >= 'a' && low <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '_')
            return false;
        label = c == '.' ? 0 : label + 1;
        if (label > 63)
            return false;
    }
    return label > 0;
}

static bool is_separator(char c)
{
    return c == ':' || c == ',' || c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

bool tls_match_next(struct slice *list, struct slice *name)
{
    size_t n = 0;
    while (list->len && is_separator(list->ptr[0]))
        *list = slice_from(*list, 1);
    while (n < list->len && !is_separator(list->ptr[n]))
        n++;
    *name = slice_first(*list, n);
    *list = slice_from(*list, n);
    return n > 0;
}

int tls_match_check(struct slice list, struct err *e)
{
    struct slice name;
    unsigned count = 0;
    while (tls_match_next(&list, &name)) {
        if (++count > TLS_NAMES_MAX)
            return err_set(e, "more than %d names to match", TLS_NAMES_MAX);
        bool domain = name.ptr[0] == '.';
        if (!tls_is_host_name(domain ? slice_from(name, 1) : name))
            return err_set(e,
                           "\"%s\" is no name to match; there are hostname, nexthop, "
                           "dot-nexthop, host names and .domains",
                           log_esc_n(name, 80));
    }
    return count ? 0 : err_set(e, "there is no name to match");
}

int tls_cipher_grade(struct slice word, struct err *e)
{
    if (slice_eq(word, SLICE("medium")))
        return TLS_CIPHERS_MEDIUM;
    if (slice_eq(word, SLICE("high")))
        return TLS_CIPHERS_HIGH;
    return err_set(e, "\"%s\" is no cipher grade; there are medium and high", log_esc_n(word, 40));
}

static int take_match(struct tls_policy *out, struct slice value, struct err *e)
{
    if (out->level != TLS_LEVEL_VERIFY && out->level != TLS_LEVEL_SECURE)
        return err_set(e, "match= is for the levels verify and secure");
    out->match = value;
    return tls_match_check(value, e);
}

static int take_attribute(struct tls_policy *out, struct slice attribute, struct err *e)
{
    struct tls_protocols protocols;
    struct slice value = attribute, name = slice_cut(&value, '=');
    if (name.len == attribute.len || value.len == 0)
        return err_set(e, "\"%s\" is no name=value", log_esc_n(attribute, 80));
    if (slice_eq(name, SLICE("match")))
        return take_match(out, value, e);
    if (slice_eq(name, SLICE("protocols"))) {
        out->protocols = value;
        return tls_protocols_parse(value, &protocols, e);
    }
    if (slice_eq(name, SLICE("ciphers"))) {
        out->ciphers = value;
        return tls_cipher_grade(value, e) < 0 ? -1 : 0;
    }
    if (slice_eq(name, SLICE("servername"))) {
        out->servername = value;
        return tls_is_host_name(value)
                   ? 0
                   : err_set(e, "servername=%s: is not a host name, hostname or nexthop",
                             log_esc_n(value, 80));
    }
    return err_set(e, "unknown attribute \"%s\"; there are match, protocols, ciphers, servername",
                   log_esc_n(name, 40));
}

static bool next_word(struct slice *text, struct slice *word)
{
    static const char separators[] = " \t\r\n,";
    size_t n = 0;
    while (text->len && memchr(separators, text->ptr[0], sizeof separators - 1))
        *text = slice_from(*text, 1);
    while (n < text->len && !memchr(separators, text->ptr[n], sizeof separators - 1))
        n++;
    *word = slice_first(*text, n);
    *text = slice_from(*text, n);
    return n > 0;
}

int tls_policy_parse(struct slice text, struct tls_policy *out, struct err *e)
{
    struct slice word;
    *out = (struct tls_policy){.level = TLS_LEVEL_NONE};
    if (text.len > TLS_POLICY_TEXT_MAX)
        return err_set(e, "is longer than %d bytes", TLS_POLICY_TEXT_MAX);
    if (!next_word(&text, &word))
        return err_set(e, "is empty; begin it with a level such as encrypt");
    int level = tls_level_parse(word);
    if (level < 0)
        return err_set(e,
                       "\"%s\" is no level; there are none, may, encrypt, dane, dane-only, "
                       "verify and secure",
                       log_esc_n(word, 40));
    out->level = (enum tls_level)level;
    while (next_word(&text, &word))
        if (take_attribute(out, word, e) < 0)
            return -1;
    return 0;
}
