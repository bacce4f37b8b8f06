/* check: what sources.conf says of providers that providers.conf does not have. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/buf.h"
#include "core/mem.h"
#include "ctl/check.h"
#include "rules/rules.h"
#include "sources/sources.h"

struct sources_conf *check_load_sources(const char *path)
{
    struct buf text = BUF_INIT(SOURCES_FILE_MAX + 1);
    struct sources_conf *sources = NULL;
    struct err e;
    FILE *f = fopen(path, "r");
    if (f && buf_reserve(&text, SOURCES_FILE_MAX + 1) == 0) {
        text.len = fread(text.data, 1, SOURCES_FILE_MAX + 1, f);
        sources = sources_conf_parse(buf_slice(&text), path, &e);
    }
    if (f)
        fclose(f);
    buf_free(&text);
    return sources;
}

/* Names of providers are lower case in the rules. */
static bool is_known(const struct rules *rules, const char *provider)
{
    char *lower = xstrdup(provider);
    for (char *p = lower; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    bool known = rules && rules_provider_index(rules, lower) > 0;
    free(lower);
    return known;
}

void check_sources(struct check *c)
{
    const struct config *config = c->config;
    struct sources_conf *sources =
        *config->source_config_file ? check_load_sources(config->source_config_file) : NULL;
    struct rules *rules = sources && *config->provider_config_file
                              ? provider_load(c->ctl, config->provider_config_file)
                              : NULL;
    for (size_t i = 0; sources && i < sources->count; i++) {
        const struct source_conf *s = &sources->sources[i];
        for (size_t k = 0; k < s->provider_count; k++)
            if (!is_known(rules, s->providers[k].provider))
                check_say(c, CHECK_WARNING,
                          "%s:%d: source %s: there is no provider %s in %s, so what is said for it "
                          "(warm-up, daily cap) never holds; correct the name",
                          sources->file, s->line, s->name, s->providers[k].provider,
                          rules ? config->provider_config_file
                                : "provider_config_file, which is "
                                  "empty");
    }
    rules_free(rules);
    sources_conf_free(sources);
}
