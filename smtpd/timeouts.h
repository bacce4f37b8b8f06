/*
 * Deadlines of thousands of sessions with one timer: a list for each kind of
 * wait, in the order in which the waits began. As all waits of a kind last the
 * same time, the head is the next one due, and starting a wait anew is moving a
 * node to the end of a list. A tick every second looks at the heads.
 */
#ifndef POSTERN_SMTPD_TIMEOUTS_H
#define POSTERN_SMTPD_TIMEOUTS_H

#include <event2/event.h>
#include <stdint.h>

#include "core/list.h"

enum timeout_kind {
    TIMEOUT_CLIENT,   /* for the client: smtpd_timeout */
    TIMEOUT_PROXY,    /* for a PROXY header: smtpd_upstream_proxy_timeout */
    TIMEOUT_TLS,      /* for the end of a TLS handshake: smtpd_starttls_timeout */
    TIMEOUT_NAME,     /* for the client's host name: smtpd_peername_timeout */
    TIMEOUT_ACCOUNTS, /* for quota: ACCOUNTS_SECONDS */
    TIMEOUT_COMMIT,   /* for qmgr: COMMIT_SECONDS */
    TIMEOUT_SLEEP,    /* a delayed reply: smtpd_error_sleep_time */
    TIMEOUT_LINGER,   /* for the end of a connection that we have shut down */
    TIMEOUT_KINDS
};

struct timeout {
    struct list link;
    int64_t since; /* monotonic microseconds */
};

struct timeouts {
    struct list waits[TIMEOUT_KINDS];
    int64_t lasts[TIMEOUT_KINDS]; /* microseconds */
    struct event *tick;
    /* t was in the list of `kind` for its time; it is in no list now. */
    void (*expired)(struct timeout *t, enum timeout_kind kind);
    void (*every_second)(void *arg, int64_t now);
    void *arg;
};

void timeouts_init(struct timeouts *ts, struct event_base *base,
                   void (*expired)(struct timeout *t, enum timeout_kind kind),
                   void (*every_second)(void *arg, int64_t now), void *arg);
void timeouts_free(struct timeouts *ts);
/* Starts a wait; an earlier one of t is over. */
static inline void timeout_start(struct timeouts *ts, struct timeout *t, enum timeout_kind kind,
                                 int64_t now)
{
    t->since = now;
    list_remove(&t->link);
    list_push(&ts->waits[kind], &t->link);
}
static inline void timeout_stop(struct timeout *t)
{
    list_remove(&t->link);
}

#endif
