/*
 * Reports about TLS for domains that want them (RFC 8460): counters of one period,
 * which is a day, kept over restarts; then a report to each mailbox that the
 * domain's TXT record names, through qmgr.
 */
#ifndef POSTERN_RESOLVE_TLSRPT_H
#define POSTERN_RESOLVE_TLSRPT_H

#include "conf/config.h"
#include "core/map.h"
#include "ipc/channel.h"
#include "resolve/dns.h"
#include "resolve/https.h"
#include "resolve/policy.h"
#include "resolve/state.h"
#include "resolve/sts.h"
#include "tls/result.h"
#include "tls/tlsrpt.h"

enum {
    TLSRPT_DOMAINS_MAX = 10000, /* that are counted at a time; others are not */
    TLSRPT_FAILURES_MAX = 20,   /* kinds of failures told apart, for each policy of a domain */
    TLSRPT_TEXT_MAX = 255,      /* bytes of a host, an address, a reason */
    TLSRPT_TLSA_MAX = 4096,
    TLSRPT_OUTSTANDING = 8,      /* reports that qmgr has not taken yet, */
    TLSRPT_POSTS_MAX = 8,        /* or that are being posted */
    TLSRPT_POST_SECONDS = 60,    /* for one of these */
    TLSRPT_AGAIN_SECONDS = 1800, /* between two attempts; no more than an eighth of the period */
    TLSRPT_PER_TICK = 20
};

/* RFC 8460 section 4.2. */
enum tlsrpt_policy { TLSRPT_NONE, TLSRPT_STS, TLSRPT_TLSA, TLSRPT_POLICIES };

struct tlsrpt_failure {
    struct list link;
    uint64_t count;
    uint8_t result; /* enum tls_result */
    char *host, *address, *source, *why;
};

struct tlsrpt_counts {
    uint64_t good, failed;
    unsigned kinds; /* in failures */
    struct list failures;
};

struct tlsrpt_period {
    int64_t number; /* since 1970, of smtp_tlsrpt_period each */
    bool used;
    struct tlsrpt_counts policies[TLSRPT_POLICIES];
};

struct tlsrpt_domain {
    struct list link; /* in all->list */
    bool wanted;      /* the TXT record was there when it was asked for last */
    struct tlsrpt_record record;
    struct tlsrpt_period now, before; /* before: to be reported, if used */
    uint64_t tag;                     /* of the report that qmgr is asked to take, or 0 */
    unsigned place;                   /* the next one: mailboxes, then URLs */
    struct tlsrpt_post *post;         /* a report on its way to a URL, or NULL */
    int64_t again;                    /* clock_mono: not to a URL before */
    struct buf tlsa, hosts;           /* TLSA records as lines, and their hosts, as they were seen
                                       * last; up to TLSRPT_TLSA_MAX bytes each */
    size_t len;
    char domain[]; /* NUL-terminated */
};

struct tlsrpt {
    const struct config *config;
    struct sts *sts;        /* for the text of policies */
    struct dns *const *dns; /* for addresses of URLs: that of this moment */
    const struct policy *policy;
    struct https *https;
    unsigned posts;
    struct state state;
    struct event *tick;
    struct map domains;
    struct list list;
    struct channel *qmgr; /* or NULL */
    uint64_t next_tag;
    unsigned outstanding;
    bool changed;
};

/* Before the jail: opens the files of the counters. */
int tlsrpt_open(struct tlsrpt *all, const char *data_directory, struct err *e);
int tlsrpt_start(struct tlsrpt *all, struct event_base *base, const struct config *config,
                 struct sts *sts, struct err *e);
/* What URLs need: who is asked for addresses (and may be replaced), which may be used. */
void tlsrpt_network(struct tlsrpt *all, struct dns *const *dns, const struct policy *policy);
/* PEM certificates that the servers of URLs are verified with. */
void tlsrpt_authorities(struct tlsrpt *all, struct slice pem);
/* The answer about _smtp._tls.DOMAIN: whether reports are wanted. */
bool tlsrpt_record(struct tlsrpt *all, struct slice domain, const struct dns_answer *a);
/* How a session went (ipc_tls_session). 0; or -1 if the frame is malformed. */
int tlsrpt_count(struct tlsrpt *all, const struct ipc_tls_session *m, struct err *e);
/* What a lookup of the domain has found: TLSA records for its report, and whether its
 * MTA-STS policy could not be had, which is counted. */
void tlsrpt_facts(struct tlsrpt *all, struct slice domain, const struct tls_facts *f,
                  uint16_t port);
/* qmgr has taken a report, or not. */
void tlsrpt_taken(struct tlsrpt *all, const struct ipc_tls_reported *m);
/* The channel to qmgr, or NULL. */
void tlsrpt_qmgr(struct tlsrpt *all, struct channel *qmgr);
/* Writes down what has changed. */
void tlsrpt_save(struct tlsrpt *all);

/* ---- inside of tlsrpt*.c ---- */

/* NULL: there are too many. */
struct tlsrpt_domain *tlsrpt_domain_get(struct tlsrpt *all, struct slice domain);
/* What was written down before. */
void tlsrpt_load(struct tlsrpt *all);
/* The counters as lines, and back; a line that makes no sense is left out. */
void tlsrpt_write(const struct tlsrpt *all, struct buf *out);
void tlsrpt_read(struct tlsrpt *all, struct slice text);
/* An empty set of counters, and its end. */
void tlsrpt_init(struct tlsrpt *all);
void tlsrpt_free(struct tlsrpt *all);
/* Adds to the counters of a kind of failure. */
void tlsrpt_add_failure(struct tlsrpt_counts *c, const struct tlsrpt_failure *f);
void tlsrpt_period_clear(struct tlsrpt_period *p);
/* The report as gzip'ed JSON (tlsrpt_report.c). -1: it is too long. */
int tlsrpt_pack(const struct tlsrpt *all, const struct tlsrpt_domain *d, struct buf *out);
/* Begins to post the report to a URL (tlsrpt_post.c); tlsrpt_posted follows, not from
 * inside. */
void tlsrpt_post(struct tlsrpt *all, struct tlsrpt_domain *d, const char *url);
void tlsrpt_post_cancel(struct tlsrpt_domain *d);
/* why: NULL, or what went wrong. */
void tlsrpt_posted(struct tlsrpt *all, struct tlsrpt_domain *d, const char *why);
/* The whole message for one mailbox. -1: it is too long. */
int tlsrpt_compose(const struct tlsrpt *all, const struct tlsrpt_domain *d, const char *mailbox,
                   struct buf *out);

#endif
