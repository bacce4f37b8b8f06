#include "conf/sasl.h"

#include <stdio.h>

#include "conf/config.h"

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
