/*
 * How many connections a lane may open in a time: the fourth loop of the controller. A
 * token bucket, whose rate is what is configured (connection_rate), or what was learned
 * where rules say so (dimension = "connection_rate"), whichever is less.
 *
 * Whether a delivery needs a connection only relay knows. So a delivery takes a token
 * with it where there is one; else it may only use a connection that is open
 * (ipc_deliver.reuse_only). The result says how many were opened, and the account is
 * put right.
 *
 * Times are microseconds of the monotonic clock. No I/O, no allocation.
 */
#ifndef POSTERN_QMGR_CONNECT_RATE_H
#define POSTERN_QMGR_CONNECT_RATE_H

#include <stdbool.h>
#include <stdint.h>

struct connect_rate {
    double tokens;      /* below 0: more were opened than there were tokens for */
    float rate, failed; /* connections a second; 0: nothing was learned */
    float recent;       /* opened lately: each counts less and less, see connect_rate.c */
    bool none_open;     /* relay has said so: without a token there is nothing to try */
    int64_t filled;     /* tokens and recent are as of then; 0: never used */
    int64_t cut, grown; /* refused last; rate grown last */
};

/* What the loop needs of struct shaper_limits. */
struct connect_bounds {
    double rate;          /* configured; 0: none */
    int64_t growth, hold; /* as in struct shaper_times */
};

/* In force: connections a second; 0: no limit. */
double connect_rate_limit(const struct connect_rate *c, const struct connect_bounds *b);
/* Whether a delivery may start; if not, *when: a connection may be opened then. */
bool connect_rate_room(struct connect_rate *c, const struct connect_bounds *b, int64_t now,
                       int64_t *when);
/* A delivery starts. True: it may open a connection. */
bool connect_rate_take(struct connect_rate *c, const struct connect_bounds *b, int64_t now);
/* It is over: it had opened so many; `taken` is what connect_rate_take said. */
void connect_rate_result(struct connect_rate *c, const struct connect_bounds *b, bool taken,
                         uint32_t opened, int64_t now);
/* Opening them was refused to a delivery that started at `started`. value: the rate that
 * shall hold; factor: what shall remain of it; 0: by what was opened lately. Returns false
 * if a cut since then has answered it. */
bool connect_rate_refused(struct connect_rate *c, const struct connect_bounds *b, int64_t started,
                          double value, double factor, int64_t now);

#endif
