/*
 * providers.conf: what mailbox providers allow, and what their replies mean.
 *
 * A set is read from a text (and those that it includes) as a whole: it is valid
 * or refused with file and line. No I/O here: the caller supplies the texts. The
 * syntax is libconfuse's; etc/providers.conf explains it by example.
 *
 * Limits are inherited: default, provider, site (MX host), domain; and at each
 * level what is said for one source address goes before what is said for all.
 *
 * Rules say what a reply speaks of. Those of the provider go before those for
 * everyone, and fallbacks after all others; of several that match, the strictest holds. A pattern
 * that exceeds PCRE2's match limits is skipped, and reported.
 */
#ifndef POSTERN_RULES_RULES_H
#define POSTERN_RULES_RULES_H

#include "core/buf.h"
#include "core/err.h"

enum {
    RULES_TEXT_MAX = 1024 * 1024, /* bytes of one file */
    RULES_FILES_MAX = 32,
    RULES_PROVIDERS_MAX = 1000, /* sections of limits of one kind in a set */
    RULES_MAX = 2000,           /* rules in a set */
    RULES_SAMPLES_MAX = 200,    /* of one rule */
    RULES_NAME_MAX = 64,
    RULES_PATTERN_MAX = 4096,
    RULES_SUBJECT_MAX = 2048,   /* bytes of a reply that patterns see */
    RULES_REPLY_MAX = 8192,     /* bytes that are looked at for them */
    RULES_LOCAL_PART_MAX = 256, /* bytes of a quoted local part: RFC 5321 allows 64, and escapes */
    /* for PCRE2's interpreter, which serves where there is no JIT and counts each step: the shipped
     * patterns take up to 110,000 for RULES_SUBJECT_MAX bytes of what servers say, some
     * milliseconds; a pattern that explodes ends after ten */
    RULES_PCRE_MATCH_LIMIT = 200000,
    RULES_PCRE_DEPTH_LIMIT = 500,
    RULES_PCRE_HEAP_LIMIT = 256 /* KiB */
};

#define RULES_RATE_LEAST 1e-6 /* of rates, a second: about one in 12 days */

struct rules;

/* ---- limits ---------------------------------------------------------------- */

enum rules_tls { RULES_TLS_UNSET, RULES_TLS_NONE, RULES_TLS_MAY, RULES_TLS_ENCRYPT };

/* 0: not said, except where RULES_UNLIMITED. */
struct rules_limits {
    double message_rate;    /* recipients a second: never more */
    double start_rate;      /* the same, to begin with */
    double connection_rate; /* new connections a second */
    /* the same over all source addresses of a provider: of default and provider sections */
    double total_message_rate, total_connection_rate;
    uint32_t total_connections;
    uint32_t connections, start_connections;
    uint32_t messages_per_connection, recipients_per_message;
    uint32_t account_connections; /* of one account while others wait */
    /* of one account over all source addresses, ever; not of source sections */
    uint32_t account_connections_max;
    double account_message_rate; /* recipients a second */
    uint32_t daily_cap;          /* recipients a day from one source address */
    /* the same as daily_cap and message_rate, from a source address that warms up there */
    uint32_t cold_daily_cap;
    bool own_daily_cap, own_cold_daily_cap; /* a site or domain section says it: of that alone */
    double cold_message_rate;
    int64_t idle_time; /* microseconds */
    enum rules_tls tls;
};

/* ---- where mail goes ------------------------------------------------------------ */

/* What a destination is to the rules. Names live as long as the set. */
struct rules_place {
    const char *provider;    /* name of its section, or NULL */
    unsigned provider_index; /* for rules_match; 0: none */
    const char *site;        /* own section of its MX host, or NULL */
    const char *domain;      /* own section of the domain, or NULL */
};

/* Finds the place of a destination: its MX hosts, best first (host names without
 * a final dot), and the recipients' domain. */
void rules_place(const struct rules *r, const struct slice *hosts, size_t count,
                 struct slice domain, struct rules_place *out);
/* The limits in force there from this source address (text form, or empty). */
void rules_limits(const struct rules *r, const struct rules_place *p, struct slice source,
                  struct rules_limits *out);

/* Appends where one of them is said, by its name in the file: "providers.conf:71: provider gmail:
 * connections = 20". False: nowhere. */
bool rules_tell_origin(const struct rules *r, const struct rules_place *p, struct slice source,
                       const char *limit, struct buf *out);

/* For mail from one of two addresses, of which nobody knows which: of each bound the stricter. */
void rules_limits_stricter(struct rules_limits *to, const struct rules_limits *other);

/* ---- what replies mean ------------------------------------------------------------ */

/* As enum smtp_stage of ipc/ipc.h. */
enum rules_stage {
    RULES_CONNECT = 1,
    RULES_GREETING,
    RULES_EHLO,
    RULES_STARTTLS,
    RULES_AUTH,
    RULES_MAIL,
    RULES_RCPT,
    RULES_DATA,
    RULES_DOT
};
enum rules_dimension {
    RULES_NO_DIMENSION,
    RULES_CONCURRENCY,
    RULES_RATE,
    RULES_MESSAGES,
    RULES_VOLUME,
    RULES_CONNECTION_RATE
};
enum rules_scope {
    RULES_OF_RECIPIENT, /* nothing about the destination */
    RULES_OF_ACCOUNT,
    RULES_OF_DKIM,
    RULES_OF_SOURCE,
    RULES_OF_PROVIDER
};
/* From mild to strict. */
enum rules_action { RULES_NOTE, RULES_SLOW, RULES_SET, RULES_SUSPEND, RULES_SWITCH };
/* What becomes of the recipients. */
enum rules_outcome { RULES_AS_REPLIED, RULES_RETRY, RULES_FAIL };

struct rule {
    const char *name, *file;
    int line;
    uint32_t stages;   /* bits 1 << enum rules_stage; 0: any */
    unsigned provider; /* index; 0: any */
    enum rules_dimension dimension;
    enum rules_scope scope;
    enum rules_action action;
    enum rules_outcome outcome;
    bool alert, fallback; /* fallback: only where no rule without it matches */
    bool greylist;        /* the recipient will be taken later, and only later */
    double factor;        /* SLOW: what remains of the limit, 0 to 1 */
    double value;         /* SET: the limit */
    int64_t time;         /* SUSPEND, SWITCH: microseconds */
    int64_t retry_after;  /* microseconds until the recipients are tried again; 0: as usual */
    /* acts from the n-th time in a period on (with scope "recipient" and outcome "fail" it is
     * the recipient's attempts that count), or when that fraction of the recent
     * attempts got such replies */
    unsigned after;
    int64_t period;
    double fraction;
    unsigned samples;
};

struct rules_reply {
    enum rules_stage stage;
    unsigned code;         /* 421 */
    struct slice enhanced; /* "4.7.0", or empty */
    struct slice text;     /* without the code */
    unsigned provider;     /* rules_place.provider_index */
};

/* What the text patterns see: a reply's text, each word with a mail address in it blanked to "@".
 * A reply often echoes the recipient, whose name its sender chose: rbl@example.com must not count
 * as a word of the server. A quoted local part goes with the spaces in it. The result is in `out`,
 * of at most RULES_SUBJECT_MAX bytes; blanked again it stays as it is. rules_match, the samples
 * and so everything that judges replies go this way. */
struct slice rules_subject(struct slice text, char out[static RULES_SUBJECT_MAX]);

/* The rule that holds for a reply, or NULL. Its addresses are blanked here. Replies that are our
 * own words must not be given. Valid as long as the set. */
const struct rule *rules_match(struct rules *r, const struct rules_reply *reply);

/* ---- a set ---------------------------------------------------------------------------- */

/* Supplies a file's text; `name` as in include(). -1 with *e. */
typedef int rules_reader(const char *name, struct buf *text, void *arg, struct err *e);

/* Reads and validates the set; NULL with *e ("file:line: what"). */
struct rules *rules_load(const char *name, rules_reader *reader, void *arg, struct err *e);
void rules_free(struct rules *r);
/* Called for a rule whose pattern was too costly for a reply, with "file:line". */
void rules_on_costly(struct rules *r, void (*costly)(const struct rule *rule, void *arg),
                     void *arg);
unsigned rules_count(const struct rules *r);
const struct rule *rules_at(const struct rules *r, unsigned i);
/* The position of a rule that rules_match gave. */
unsigned rules_index(const struct rules *r, const struct rule *rule);
/* The index of a provider's section by name; 0: none. */
unsigned rules_provider_index(const struct rules *r, const char *name);
unsigned rules_providers(const struct rules *r);

/* What sections with override = true have changed, for people: the i-th, or NULL. */
const char *rules_override(const struct rules *r, unsigned i);
/* Tries every sample of every rule, and looks for rules that contradict each other.
 * Calls `say` for each finding; `error` is false for a warning. Returns the number of
 * errors. */
unsigned rules_check(struct rules *r, void (*say)(const char *text, bool error, void *arg),
                     void *arg);
/* Whether each rule matches those of its samples that it must, and no other; -1 with *e, which
 * names the first that does not ("file:line: ..."). */
int rules_samples_hold(struct rules *r, struct err *e);
/* Reads "421 4.7.0 text", as samples are written, into *out (stage stays). 0 or -1. */
int rules_parse_reply(struct slice line, struct rules_reply *out);
/* "5", "5/s", "100/min", "1000/h", "50000/d" into events a second, at least RULES_RATE_LEAST;
 * 0 or -1. */
int rules_parse_rate(const char *text, double *out);
/* The words of the enums, as in the file. */
const char *rules_dimension_name(enum rules_dimension d);
const char *rules_scope_name(enum rules_scope s);
const char *rules_action_name(enum rules_action a);
const char *rules_stage_name(enum rules_stage s);

#endif
