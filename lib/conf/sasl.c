#include "conf/sasl.h"

#include <stdio.h>

#include "conf/config.h"

const struct slice sasl_own_names[SASL_OWN_COUNT] = {
    [SASL_OWN_SCRAM_PLUS] = {"SCRAM-SHA-256-PLUS", 18},
    [SASL_OWN_SCRAM] = {"SCRAM-SHA-256", 13},
    [SASL_OWN_PLAIN] = {"PLAIN", 5},
    [SASL_OWN_LOGIN] = {"LOGIN", 5},
    [SASL_OWN_EXTERNAL] = {"EXTERNAL", 8},
};

/* "!NAME" to NAME; true if the '!' was there. */
static bool take_not(struct slice *element)
{
    bool is_not = slice_starts(*element, SLICE("!"));
    *element = slice_from(*element, is_not);
    return is_not;
}

bool sasl_filter_element(struct slice element)
{
    char capitals[SASL_MECHANISM_MAX];
    (void)take_not(&element);
    if (slice_starts(element, SLICE("static:")))
        return true;
    if (element.len > sizeof capitals)
        return false;
    for (size_t i = 0; i < element.len; i++) {
        char c = element.ptr[i];
        capitals[i] = c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
    }
    return sasl_is_mechanism(slice_make(capitals, element.len));
}

bool sasl_filter_permits(const char *filter, struct slice mechanism)
{
    struct slice rest = slice_str(filter), element;
    bool is_empty = true;
    while (config_list_next(&rest, &element)) {
        bool is_not = take_not(&element);
        is_empty = false;
        if (slice_starts(element, SLICE("static:")) || slice_caseeq(element, mechanism))
            return !is_not;
    }
    return is_empty;
}

bool sasl_filter_leaves_any(const char *filter)
{
    for (int i = 0; i < SASL_OWN_COUNT; i++)
        if (sasl_filter_permits(filter, sasl_own_names[i]))
            return true;
    return false;
}

unsigned sasl_option(struct slice option)
{
    static const struct {
        const char *name;
        enum sasl_trait trait;
    } options[] = {
        {"noplaintext", SASL_PLAINTEXT},   {"noanonymous", SASL_ANONYMOUS},
        {"noactive", SASL_ACTIVE},         {"nodictionary", SASL_DICTIONARY},
        {"mutual_auth", SASL_MUTUAL_AUTH}, {"forward_secrecy", SASL_FORWARD_SECRECY},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        if (slice_eq(option, slice_str(options[i].name)))
            return options[i].trait;
    return 0;
}

unsigned sasl_options(const char *list)
{
    struct slice rest = slice_str(list), element;
    unsigned all = 0;
    while (config_list_next(&rest, &element))
        all |= sasl_option(element);
    return all;
}

int sasl_endpoint(const char *path, char out[static SASL_ENDPOINT_MAX + 1])
{
    struct slice text = slice_str(path);
    bool prefixed = slice_starts(text, SLICE("inet:")) || slice_starts(text, SLICE("unix:"));
    int n = snprintf(out, SASL_ENDPOINT_MAX + 1, "%s%s", prefixed ? "" : "unix:", path);
    return n > SASL_ENDPOINT_MAX ? -1 : 0;
}
