/* Inside of sts*.c. */
#ifndef POSTERN_RESOLVE_STS_PRIVATE_H
#define POSTERN_RESOLVE_STS_PRIVATE_H

#include "core/map.h"
#include "resolve/state.h"
#include "resolve/sts.h"

struct sts_waiter {
    struct list link; /* in the domain's */
    void (*done)(void *arg);
    void *arg;
};

/* A domain that has been asked about. id empty: it has no policy that we know. */
struct sts_domain {
    struct list recent, busy; /* in those of struct sts; busy: while under way */
    struct list waiters;      /* of struct sts_waiter */
    struct sts *all;
    bool under_way, background; /* background: a policy is fetched anew, nobody asked for it */
    bool doubtful;              /* without a policy: there should be one, or nobody could tell */
    int64_t deadline, checked_until; /* clock_mono */
    int64_t retry;                   /* clock_mono: not fetched anew before, the last time failed */
    int64_t holds;                   /* s that the TXT record holds */
    char id[MTA_STS_ID_MAX + 1], wanted_id[MTA_STS_ID_MAX + 1];
    uint8_t mode;             /* enum mta_sts_mode */
    int64_t fetched, expires; /* wall, microseconds */
    struct buf mx;
    struct dns *dns; /* of the search under way */
    struct list questions;
    unsigned address_count;
    char addresses[STS_ADDRESSES_MAX * 48];
    struct https_fetch *fetch;
    uint8_t failure;   /* enum tls_result of the last search, until sts_failure tells it; 0: none */
    char *failure_why; /* or NULL */
    size_t len;
    char domain[]; /* NUL-terminated */
};

struct sts {
    const struct config *config;
    const struct policy *policy;
    struct https *https;
    struct state state;
    struct dns *const *dns;
    struct event *tick, *save, *look;
    struct map domains;
    struct list recent;          /* the one used last at the front */
    struct list busy;            /* the oldest first */
    unsigned fetches, refreshes; /* under way */
    bool changed, trusting; /* trusting: authorities have come, so that something can be fetched */
};

/* ---- sts.c ---- */
void sts_init(struct sts *all);
void sts_free_domains(struct sts *all);
struct sts_domain *sts_domain_get(struct sts *all, struct slice domain);
/* Looks for the domain's policy. */
void sts_search(struct sts_domain *d, struct dns *dns);
/* The time of a search is over. */
void sts_give_up(struct sts_domain *d);

/* ---- sts_refresh.c ---- */
/* How long the policy that is known still holds, in microseconds; at most 0: it does not. */
int64_t sts_left(const struct sts_domain *d);
/* Whether the policy that is known is to be fetched anew by now. */
bool sts_is_due(const struct sts_domain *d);
/* ... and ends so soon that mail has to wait for that. */
bool sts_is_pressing(const struct sts_domain *d);
/* It was to be fetched anew, and that failed. */
void sts_put_off(struct sts_domain *d);
/* Looks from now on, until the process ends. */
int sts_refresh_start(struct sts *all, struct event_base *base);

/* ---- sts_state.c ---- */
/* Something is to be written down, soon. */
void sts_changed(struct sts *all);
/* Deadlines are to be looked at. */
void sts_tick(struct sts *all);
/* Lines of what is known, and back; a line that makes no sense is left out. */
void sts_write(const struct sts *all, struct buf *out);
void sts_read(struct sts *all, struct slice text);

#endif
