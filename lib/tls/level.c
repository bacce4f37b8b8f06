#include "tls/level.h"

static const char *const levels[TLS_LEVELS] = {
    [TLS_LEVEL_NONE] = "none",           [TLS_LEVEL_MAY] = "may",
    [TLS_LEVEL_ENCRYPT] = "encrypt",     [TLS_LEVEL_DANE] = "dane",
    [TLS_LEVEL_DANE_ONLY] = "dane-only", [TLS_LEVEL_VERIFY] = "verify",
    [TLS_LEVEL_SECURE] = "secure",       [TLS_LEVEL_FORBIDDEN] = "forbidden",
};

static const char *const origins[TLS_ORIGINS] = {
    [TLS_ORIGIN_CONFIG] = "main.cf",
    [TLS_ORIGIN_TABLE] = "smtp_tls_policy_maps",
    [TLS_ORIGIN_DANE] = "DANE",
    [TLS_ORIGIN_STS] = "MTA-STS",
};

const char *tls_level_name(enum tls_level level)
{
    return level < TLS_LEVELS ? levels[level] : "unknown";
}

int tls_level_parse(struct slice word)
{
    for (int i = 0; i < TLS_LEVELS; i++)
        if (i != TLS_LEVEL_FORBIDDEN && slice_eq(word, slice_str(levels[i])))
            return i;
    return -1;
}

const char *tls_origin_name(enum tls_origin origin)
{
    return origin < TLS_ORIGINS ? origins[origin] : "unknown";
}
