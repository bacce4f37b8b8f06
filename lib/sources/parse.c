/* From the text of sources.conf, by libconfuse, to a set. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/conf_text.h"
#include "core/log.h"
#include "core/mem.h"
#include "sources/read.h"

enum { LIST_INTERVAL = 3600, LIST_INTERVAL_MIN = 10 /* seconds */ };

/* ---- a source ------------------------------------------------------------------------- */

static int take_volume(cfg_t *s, struct source_ramp *out)
{
    const char *volume = sources_text(s, "volume"), *cap = sources_text(s, "daily_cap");
    uint64_t n;
    if (volume && (sources_parse_count(volume, UINT32_MAX, &out->volume) < 0 || !out->volume))
        return sources_bad(s, "volume", "volume is a number of recipients a month, from 1 on");
    if (!cap)
        return 0;
    if (sources_parse_count(cap, UINT32_MAX, &n) < 0 || n == 0)
        return sources_bad(s, "daily_cap", "daily_cap is a number of recipients a day, from 1 on");
    out->daily_cap = (uint32_t)n;
    out->has_cap = true;
    return 0;
}

static int take_ramp(cfg_t *s, struct source_ramp *out)
{
    const char *warmup = sources_text(s, "warmup");
    if (take_volume(s, out) < 0)
        return -1;
    if (warmup && strcmp(warmup, "none") == 0) {
        out->days = 0;
        out->has_warmup = true;
    } else if (warmup) {
        if (sources_parse_warmup(warmup, out) < 0)
            return sources_bad(s, "warmup",
                               "warmup is none, linear:30d (1 to %d days), or table: and the "
                               "recipients of each day, as in table:50,100,200",
                               SOURCES_DAYS_MAX);
        out->has_warmup = true;
    }
    return 0;
}

/* What the source says holds where a provider's section does not. */
static void inherit(const struct source_ramp *from, struct source_ramp *to)
{
    if (!to->has_warmup) {
        to->days = from->days;
        if (from->table) {
            to->table = xmalloc(from->days * sizeof *to->table);
            memcpy(to->table, from->table, from->days * sizeof *to->table);
        }
    }
    if (!to->volume)
        to->volume = from->volume;
    if (!to->has_cap)
        to->daily_cap = from->daily_cap;
}

static int check_ramp(cfg_t *s, const struct source_ramp *r)
{
    return r->days && !r->table && !r->volume
               ? sources_bad(
                     s, "warmup",
                     "a linear warm-up needs volume, the recipients a month that it leads to")
               : 0;
}

static int take_providers(cfg_t *s, struct source_conf *out)
{
    unsigned n = cfg_size(s, "provider");
    if (n > SOURCES_PROVIDERS_MAX)
        return sources_bad(s, "ipv4", "more than %d providers", SOURCES_PROVIDERS_MAX);
    out->providers = xcalloc(n ? n : 1, sizeof *out->providers);
    for (unsigned i = 0; i < n; i++) {
        cfg_t *p = cfg_getnsec(s, "provider", i);
        struct source_ramp *r = &out->providers[out->provider_count++];
        r->provider = xstrdup(cfg_title(p));
        if (!sources_is_name(r->provider))
            return sources_bad(p, "warmup", "is not a provider's name");
        if (take_ramp(p, r) < 0)
            return -1;
        inherit(&out->all, r);
        if (check_ramp(p, r) < 0)
            return -1;
    }
    return 0;
}

static int take_addresses(cfg_t *s, struct source_conf *out)
{
    const char *v4 = sources_text(s, "ipv4"), *v6 = sources_text(s, "ipv6");
    static const uint8_t none[16];
    out->has_v4 = v4 != NULL;
    out->has_v6 = v6 != NULL;
    out->line = sources_line(s, v4 ? "ipv4" : "ipv6");
    if (!v4 && !v6)
        return sources_bad(s, "ipv4", "has no address: give ipv4, ipv6 or both");
    if (v4 && (inet_pton(AF_INET, v4, out->v4) != 1 || out->v4[0] == 0 || out->v4[0] >= 224))
        return sources_bad(s, "ipv4", "\"%s\" is not an IPv4 address that can send",
                           log_esc_n(slice_str(v4), 60));
    if (v6 && (inet_pton(AF_INET6, v6, out->v6) != 1 || memcmp(out->v6, none, 16) == 0 ||
               out->v6[0] == 0xff))
        return sources_bad(s, "ipv6", "\"%s\" is not an IPv6 address that can send",
                           log_esc_n(slice_str(v6), 60));
    return 0;
}

static int take_source(cfg_t *s, struct source_conf *out)
{
    const char *helo = sources_text(s, "helo"), *weight = sources_text(s, "weight"),
               *began = sources_text(s, "began");
    uint64_t n = 1;
    out->name = xstrdup(cfg_title(s));
    if (!sources_is_name(out->name))
        return sources_bad(s, "ipv4", "a name has 1 to %d printable characters without spaces",
                           SOURCES_NAME_MAX);
    if (take_addresses(s, out) < 0)
        return -1;
    if (helo && !sources_is_host(helo))
        return sources_bad(s, "helo", "helo is a host name");
    out->helo = helo ? xstrdup(helo) : NULL;
    if (weight && (sources_parse_count(weight, SOURCES_WEIGHT_MAX, &n) < 0 || n == 0))
        return sources_bad(s, "weight", "weight is a number from 1 to %d", SOURCES_WEIGHT_MAX);
    out->weight = (uint32_t)n;
    if (began && sources_parse_date(began, &out->began) < 0)
        return sources_bad(s, "began", "began is a day such as 2026-11-30");
    if (take_ramp(s, &out->all) < 0)
        return -1;
    /* a volume that only its provider sections have is fine: the source itself is warm */
    if (out->all.days && check_ramp(s, &out->all) < 0)
        return -1;
    return take_providers(s, out);
}

/* ---- the names of sources and pools ------------------------------------------------------ */

struct name {
    const char *text;
    uint32_t at;
};

static int by_text(const void *a, const void *b)
{
    return strcmp(((const struct name *)a)->text, ((const struct name *)b)->text);
}

static const struct name *name_find(const struct name *names, size_t count, const char *text)
{
    struct name key = {text, 0};
    return count ? bsearch(&key, names, count, sizeof *names, by_text) : NULL;
}

/* An address belongs to one source: what is learned of it must be in one place. */
static int check_once(const struct sources_conf *c, struct err *e)
{
    for (size_t i = 0; i < c->count; i++)
        for (size_t k = 0; k < i; k++) {
            const struct source_conf *a = &c->sources[i], *b = &c->sources[k];
            bool same4 = a->has_v4 && b->has_v4 && memcmp(a->v4, b->v4, 4) == 0;
            bool same6 = a->has_v6 && b->has_v6 && memcmp(a->v6, b->v6, 16) == 0;
            if (same4 || same6)
                return err_set(e, "%s:%d: source %s: its address is that of source %s, line %d",
                               c->file, a->line, a->name, b->name, b->line);
        }
    return 0;
}

static int take_sources(cfg_t *top, struct sources_conf *out, struct err *e)
{
    unsigned n = cfg_size(top, "source");
    if (n > SOURCES_MAX)
        return err_set(e, "%s: more than %d sources", out->file, SOURCES_MAX);
    out->sources = xcalloc(n ? n : 1, sizeof *out->sources);
    for (; out->count < n; out->count++) {
        cfg_t *s = cfg_getnsec(top, "source", (unsigned)out->count);
        if (take_source(s, &out->sources[out->count]) < 0) {
            out->count++; /* it is freed with the others */
            return -1;
        }
    }
    return check_once(out, e);
}

/* ---- pools --------------------------------------------------------------------------------- */

static void set_weights(const struct sources_conf *c, struct pool_conf *p)
{
    uint32_t sum = 0;
    p->weights = xcalloc(p->count ? p->count : 1, sizeof *p->weights);
    for (size_t i = 0; i < p->count; i++)
        p->weights[i] = sum += c->sources[p->members[i]].weight;
}

static int take_members(cfg_t *s, const struct sources_conf *c, const struct name *names,
                        struct pool_conf *out)
{
    unsigned n = cfg_size(s, "sources");
    if (n == 0 || n > c->count)
        return sources_bad(s, "sources", "name its sources, each once");
    out->members = xcalloc(n, sizeof *out->members);
    bool *seen = xcalloc(c->count, sizeof *seen);
    for (unsigned i = 0; i < n; i++) {
        const char *text = cfg_getnstr(s, "sources", i);
        const struct name *found = name_find(names, c->count, text);
        if (!found || seen[found->at]) {
            free(seen);
            return sources_bad(s, "sources",
                               found ? "\"%s\" is named twice"
                                     : "there is no source \"%s\" in this file",
                               log_esc_n(slice_str(text), 80));
        }
        seen[found->at] = true;
        out->members[out->count++] = found->at;
    }
    free(seen);
    set_weights(c, out);
    return 0;
}

static int add_binding(cfg_t *s, const char *option, struct sources_conf *c, char sign,
                       const char *text, uint32_t pool)
{
    if (c->binding_count == SOURCES_BINDINGS_MAX)
        return sources_bad(s, option, "more than %d accounts and senders in the file",
                           SOURCES_BINDINGS_MAX);
    if (c->binding_count % 64 == 0)
        c->bindings = xreallocarray(c->bindings, c->binding_count + 64, sizeof *c->bindings);
    char *key = sign ? xasprintf("%c%s", sign, text) : xstrdup(text);
    for (char *p = key; sign && *p; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p + 32);
    c->bindings[c->binding_count++] = (struct source_binding){key, pool};
    return 0;
}

static int take_bindings(cfg_t *s, struct sources_conf *c, uint32_t pool)
{
    static const char *const classes[] = {"normal", "transactional", "bulk"};
    for (unsigned i = 0; i < cfg_size(s, "accounts"); i++) {
        const char *text = cfg_getnstr(s, "accounts", i);
        if (!*text || strlen(text) > SOURCES_HOST_MAX || strchr("@=", *text))
            return sources_bad(s, "accounts", "\"%s\" is not an account's name",
                               log_esc_n(slice_str(text), 80));
        if (add_binding(s, "accounts", c, '\0', text, pool) < 0)
            return -1;
    }
    for (unsigned i = 0; i < cfg_size(s, "senders"); i++) {
        const char *text = cfg_getnstr(s, "senders", i);
        if (!sources_is_host(text))
            return sources_bad(s, "senders", "\"%s\" is not a sender's domain",
                               log_esc_n(slice_str(text), 80));
        if (add_binding(s, "senders", c, '@', text, pool) < 0)
            return -1;
    }
    for (unsigned i = 0; i < cfg_size(s, "classes"); i++) {
        const char *text = cfg_getnstr(s, "classes", i);
        size_t k = 0;
        while (k < 3 && strcmp(classes[k], text) != 0)
            k++;
        if (k == 3)
            return sources_bad(s, "classes", "a class is normal, transactional or bulk");
        if (add_binding(s, "classes", c, '=', text, pool) < 0)
            return -1;
    }
    return 0;
}

static int by_binding(const void *a, const void *b)
{
    return slice_cmp(slice_str(((const struct source_binding *)a)->text),
                     slice_str(((const struct source_binding *)b)->text));
}

static int sort_bindings(struct sources_conf *c, struct err *e)
{
    if (c->binding_count)
        qsort(c->bindings, c->binding_count, sizeof *c->bindings, by_binding);
    for (size_t i = 1; i < c->binding_count; i++)
        if (by_binding(&c->bindings[i - 1], &c->bindings[i]) == 0)
            return err_set(e, "%s: %s belongs to pool %s and to pool %s", c->file,
                           log_esc(slice_str(c->bindings[i].text)),
                           c->pools[c->bindings[i - 1].pool].name,
                           c->pools[c->bindings[i].pool].name);
    return 0;
}

/* Without a pool of that name all sources are in it. */
static void add_default(struct sources_conf *c)
{
    struct pool_conf *p = &c->pools[c->pool_count++];
    *p = (struct pool_conf){.name = xstrdup("default"), .overflow = -1};
    p->members = xcalloc(c->count ? c->count : 1, sizeof *p->members);
    for (; p->count < c->count; p->count++)
        p->members[p->count] = (uint32_t)p->count;
    set_weights(c, p);
}

/* The pool's section, or NULL for the default one that the file does not have. */
static cfg_t *section_of(cfg_t *top, const struct sources_conf *c, size_t pool)
{
    return cfg_gettsec(top, "pool", c->pools[pool].name);
}

static int take_overflows(cfg_t *top, struct sources_conf *c, const struct name *names)
{
    for (size_t i = 0; i < c->pool_count; i++) {
        cfg_t *s = section_of(top, c, i);
        const char *text = s ? sources_text(s, "overflow") : NULL;
        const struct name *found = text ? name_find(names, c->pool_count, text) : NULL;
        if (text && !found)
            return sources_bad(s, "overflow", "there is no pool \"%s\" in this file",
                               log_esc_n(slice_str(text), 80));
        if (found)
            c->pools[i].overflow = (int)found->at;
    }
    for (size_t i = 0; i < c->pool_count; i++) {
        int steps = 0;
        for (int at = (int)i; at >= 0; at = c->pools[at].overflow)
            if (steps++ > SOURCES_OVERFLOW_MAX)
                return sources_bad(section_of(top, c, i), "overflow",
                                   "leads on through more than %d pools, or back to itself",
                                   SOURCES_OVERFLOW_MAX);
    }
    return 0;
}

static int take_pool(cfg_t *s, struct sources_conf *c, const struct name *names)
{
    struct pool_conf *p = &c->pools[c->pool_count++];
    *p = (struct pool_conf){.name = xstrdup(cfg_title(s)), .overflow = -1};
    if (!sources_is_name(p->name))
        return sources_bad(s, "sources", "a name has 1 to %d printable characters without spaces",
                           SOURCES_NAME_MAX);
    if (take_members(s, c, names, p) < 0)
        return -1;
    return take_bindings(s, c, (uint32_t)(p - c->pools));
}

static struct name *sorted_names(size_t count,
                                 const char *(*of)(const struct sources_conf *, size_t),
                                 const struct sources_conf *c)
{
    struct name *names = xcalloc(count ? count : 1, sizeof *names);
    for (size_t i = 0; i < count; i++)
        names[i] = (struct name){of(c, i), (uint32_t)i};
    qsort(names, count, sizeof *names, by_text);
    return names;
}

static const char *source_name(const struct sources_conf *c, size_t i)
{
    return c->sources[i].name;
}

static const char *pool_name(const struct sources_conf *c, size_t i)
{
    return c->pools[i].name;
}

static int take_pools(cfg_t *top, struct sources_conf *c, struct err *e)
{
    unsigned n = cfg_size(top, "pool");
    cfg_t *everyone = cfg_gettsec(top, "pool", "default");
    if (n > SOURCES_POOLS_MAX)
        return err_set(e, "%s: more than %d pools", c->file, SOURCES_POOLS_MAX);
    c->pools = xcalloc(n + 1, sizeof *c->pools);
    struct name *names = sorted_names(c->count, source_name, c);
    int rc = 0;
    if (everyone)
        rc = take_pool(everyone, c, names);
    else
        add_default(c);
    for (unsigned i = 0; i < n && rc == 0; i++)
        if (cfg_getnsec(top, "pool", i) != everyone)
            rc = take_pool(cfg_getnsec(top, "pool", i), c, names);
    free(names);
    if (rc < 0)
        return -1;
    names = sorted_names(c->pool_count, pool_name, c);
    rc = take_overflows(top, c, names);
    free(names);
    return rc == 0 ? sort_bindings(c, e) : -1;
}

/* ---- the rest -------------------------------------------------------------------------------- */

static int take_list(cfg_t *s, struct list_conf *out)
{
    const char *quarantine = sources_text(s, "quarantine");
    enum { REVERSED_MAX = 64 }; /* of an address, before the zone */
    out->zone = xstrdup(cfg_title(s));
    if (!sources_is_host(out->zone) || strlen(out->zone) + REVERSED_MAX > SOURCES_HOST_MAX)
        return sources_bad(s, "quarantine", "a list is a domain such as zen.spamhaus.org");
    if (quarantine && strcmp(quarantine, "yes") != 0 && strcmp(quarantine, "no") != 0)
        return sources_bad(s, "quarantine", "quarantine is yes or no");
    out->quarantine = !quarantine || strcmp(quarantine, "yes") == 0;
    return 0;
}

/* A plain address: what is written into an envelope and a header without quotes. */
static bool is_address(const char *text)
{
    const char *at = strrchr(text, '@');
    if (!at || at == text || strlen(text) > SOURCES_ADDRESS_MAX || !sources_is_host(at + 1))
        return false;
    for (const char *p = text; p < at; p++)
        if (*p <= ' ' || *p > '~' || strchr("\"\\()<>[]:;,@", *p))
            return false;
    return true;
}

static int take_monitor(cfg_t *top, struct sources_conf *c, struct err *e)
{
    const char *interval = sources_text(top, "dnsbl_interval"),
               *alert = sources_text(top, "alert_address");
    unsigned n = cfg_size(top, "dnsbl");
    c->list_interval = LIST_INTERVAL * INT64_C(1000000);
    if (n > SOURCES_LISTS_MAX)
        return err_set(e, "%s: more than %d lists", c->file, SOURCES_LISTS_MAX);
    c->lists = xcalloc(n ? n : 1, sizeof *c->lists);
    while (c->list_count < n) {
        cfg_t *s = cfg_getnsec(top, "dnsbl", (unsigned)c->list_count);
        if (take_list(s, &c->lists[c->list_count++]) < 0)
            return -1;
    }
    if (interval && (sources_parse_time(interval, &c->list_interval) < 0 ||
                     c->list_interval < LIST_INTERVAL_MIN * INT64_C(1000000)))
        return sources_bad(top, "dnsbl_interval", "give a time of %d seconds or more, as 10m, 1h",
                           LIST_INTERVAL_MIN);
    if (alert && !is_address(alert))
        return sources_bad(top, "alert_address", "is not a plain mail address");
    c->alert_address = alert ? xstrdup(alert) : NULL;
    return 0;
}

static int take_all(cfg_t *top, struct sources_conf *c, struct err *e)
{
    return take_sources(top, c, e) < 0 || take_pools(top, c, e) < 0 ? -1 : take_monitor(top, c, e);
}

struct sources_conf *sources_conf_parse(struct slice text, const char *file, struct err *e)
{
    struct err ours = {0, ""};
    struct reading r = {.file = file, .e = &ours};
    if (conf_text_check(text, SOURCES_FILE_MAX, file, e) < 0)
        return NULL;
    struct sources_conf *c = xcalloc(1, sizeof *c);
    char *copy = slice_dup(text);
    conf_text_blank(copy);
    c->file = xstrdup(file);
    cfg_t *top = cfg_init(sources_options(), CFGF_NONE);
    if (!top)
        panic("no memory for a configuration");
    sources_reading = &r;
    cfg_set_error_function(top, sources_on_error);
    int rc = cfg_parse_buf(top, copy) == CFG_SUCCESS && !r.failed ? take_all(top, c, &ours) : -1;
    if (rc < 0 && !ours.text[0])
        err_set(&ours, "%s: is not readable as a configuration", file);
    sources_reading = NULL;
    cfg_free(top);
    free(copy);
    free(r.met);
    if (rc == 0)
        return c;
    sources_conf_free(c);
    err_set(e, "%s", ours.text);
    return NULL;
}

static void source_free(struct source_conf *s)
{
    for (size_t i = 0; i < s->provider_count; i++) {
        free(s->providers[i].provider);
        free(s->providers[i].table);
    }
    free(s->providers);
    free(s->all.table);
    free(s->name);
    free(s->helo);
}

void sources_conf_free(struct sources_conf *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->count; i++)
        source_free(&c->sources[i]);
    for (size_t i = 0; i < c->pool_count; i++) {
        free(c->pools[i].name);
        free(c->pools[i].members);
        free(c->pools[i].weights);
    }
    for (size_t i = 0; i < c->binding_count; i++)
        free(c->bindings[i].text);
    for (size_t i = 0; i < c->list_count; i++)
        free(c->lists[i].zone);
    free(c->sources);
    free(c->pools);
    free(c->bindings);
    free(c->lists);
    free(c->alert_address);
    free(c->file);
    free(c);
}
