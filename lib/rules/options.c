/* What may stand in a providers.conf: every number, rate and time is text to libconfuse, which
 * would take 010 for 8, and is read by us. */
#include "rules/read.h"

#define TEXT(name) CFG_STR(name, NULL, CFGF_NODEFAULT)
#define TEXTS(name) CFG_STR_LIST(name, NULL, CFGF_NODEFAULT)
#define LIMITS                                                                                     \
    TEXT("connections"), TEXT("start_connections"), TEXT("message_rate"), TEXT("start_rate"),      \
        TEXT("connection_rate"), TEXT("messages_per_connection"), TEXT("recipients_per_message"),  \
        TEXT("account_connections"), TEXT("account_connections_max"),                              \
        TEXT("account_message_rate"), TEXT("daily_cap"), TEXT("cold_daily_cap"),                   \
        TEXT("cold_message_rate"), TEXT("idle_time"), TEXT("tls"), TEXT("total_connections"),      \
        TEXT("total_message_rate"), TEXT("total_connection_rate")
#define PLACE LIMITS, CFG_SEC("source", source, TITLED), CFG_BOOL("override", cfg_false, CFGF_NONE)

enum { TITLED = CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES };

static cfg_opt_t source[] = {LIMITS, CFG_END()};
static cfg_opt_t place[] = {PLACE, CFG_END()};
static cfg_opt_t everyone[] = {PLACE, CFG_END()};
static cfg_opt_t provider[] = {PLACE, TEXTS("mx"), TEXTS("hosts"), TEXTS("domains"), CFG_END()};
static cfg_opt_t rule[] = {TEXT("provider"),
                           TEXTS("stage"),
                           TEXT("code"),
                           TEXT("status"),
                           TEXT("text"),
                           TEXT("dimension"),
                           CFG_STR("scope", "source", CFGF_NONE),
                           CFG_STR("action", "note", CFGF_NONE),
                           TEXT("outcome"),
                           CFG_BOOL("alert", cfg_false, CFGF_NONE),
                           CFG_BOOL("fallback", cfg_false, CFGF_NONE),
                           CFG_BOOL("greylist", cfg_false, CFGF_NONE),
                           TEXT("factor"),
                           TEXT("value"),
                           TEXT("for"),
                           TEXT("retry_after"),
                           TEXT("after"),
                           TEXT("within"),
                           TEXT("fraction"),
                           TEXT("samples"),
                           TEXTS("matches"),
                           TEXTS("passes"),
                           CFG_END()};
static cfg_opt_t top[] = {TEXTS("include"),
                          CFG_SEC("default", everyone, CFGF_MULTI),
                          CFG_SEC("provider", provider, TITLED),
                          CFG_SEC("site", place, TITLED),
                          CFG_SEC("domain", place, TITLED),
                          CFG_SEC("rule", rule, TITLED),
                          CFG_END()};

cfg_opt_t *rules_options(void)
{
    return top;
}
