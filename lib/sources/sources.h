/*
 * sources.conf: the addresses that mail is sent from, the pools that they form, how much
 * a new one may send (warm-up), and the block lists that they are looked up in. This
 * folder is pure: it reads the file from memory and reckons; what was sent is kept
 * elsewhere. etc/sources.conf explains the file by example.
 */
#ifndef POSTERN_SOURCES_SOURCES_H
#define POSTERN_SOURCES_SOURCES_H

#include "core/err.h"
#include "core/slice.h"

enum {
    SOURCES_FILE_MAX = 4 * 1024 * 1024,
    SOURCES_MAX = 4000,
    SOURCES_POOLS_MAX = 1000,
    SOURCES_BINDINGS_MAX = 100000, /* accounts and sender domains that pools name */
    SOURCES_PROVIDERS_MAX = 64,    /* provider sections of one source */
    SOURCES_LISTS_MAX = 32,
    SOURCES_DAYS_MAX = 366, /* of a warm-up */
    SOURCES_NAME_MAX = 64,
    SOURCES_HOST_MAX = 253,
    SOURCES_ADDRESS_MAX = 254, /* alert_address */
    SOURCES_WEIGHT_MAX = 1000,
    SOURCES_OVERFLOW_MAX = 4 /* pools behind one another */
};

/* How much may go to one provider, by the days since the source began. */
struct source_ramp {
    char *provider;           /* as in providers.conf; NULL: all that are not named */
    uint64_t volume;          /* recipients a month that it shall grow to; 0: not given */
    uint32_t daily_cap;       /* recipients a day, always; 0: none */
    uint16_t days;            /* of a linear warm-up, or of the table; 0: it is warm */
    uint32_t *table;          /* recipients on each of those days; NULL: linear */
    bool has_warmup, has_cap; /* said here, not inherited */
};

struct source_conf {
    char *name, *helo;     /* helo NULL: smtp_helo_name */
    uint8_t v4[4], v6[16]; /* network order */
    bool has_v4, has_v6;
    uint32_t weight;
    int64_t began; /* seconds since 1970; 0: when it is used first */
    int line;      /* in the file: of its addresses */
    struct source_ramp all, *providers;
    size_t provider_count;
};

struct pool_conf {
    char *name;
    uint32_t *members; /* positions in sources */
    uint32_t *weights; /* sums of the weights up to each member */
    size_t count;
    int overflow; /* position of the pool that takes what this one may not send; -1: none */
};

/* A list of addresses that send what nobody wants, in the DNS (RFC 5782). */
struct list_conf {
    char *zone;
    bool quarantine; /* a source that is listed is not used */
};

/* What belongs to a pool without the account's plan saying so. */
struct source_binding {
    char *text; /* an account, '@' and a sender's domain, or '=' and a class */
    uint32_t pool;
};

struct sources_conf {
    struct source_conf *sources;
    size_t count;
    struct pool_conf *pools; /* the first is "default" */
    size_t pool_count;
    struct source_binding *bindings; /* in order of their texts */
    size_t binding_count;
    struct list_conf *lists;
    size_t list_count;
    int64_t list_interval; /* microseconds */
    char *alert_address;   /* NULL: none */
    char *file;
};

/* Reads and validates the whole; `file` is for errors, which name the line. NULL with *e.
 * sources_conf_free(NULL) is fine. */
struct sources_conf *sources_conf_parse(struct slice text, const char *file, struct err *e);
void sources_conf_free(struct sources_conf *c);

/* The pool of that name, or NULL. */
const struct pool_conf *sources_pool(const struct sources_conf *c, struct slice name);
/* The pool that the file itself names for a message: by account, then by its plan's
 * `wanted` (a name; empty or unknown: none), then by sender's domain, then by class
 * ("normal", "transactional", "bulk"); else the default one. */
const struct pool_conf *sources_pool_for(const struct sources_conf *c, struct slice account,
                                         struct slice wanted, struct slice sender_domain,
                                         struct slice class);
/* What holds for this provider (a name, or empty). */
const struct source_ramp *source_ramp_for(const struct source_conf *s, struct slice provider);
/* Recipients that may be sent to on the day-th day (0: the first); UINT64_MAX: any. */
uint64_t source_allowance(const struct source_ramp *r, int64_t day);
/* Whether the warm-up is over on that day. */
bool source_is_warm(const struct source_ramp *r, int64_t day);

#endif
