/*
 * Plans: what an account may send in a period, and what happens beyond it. This
 * folder is pure: it reads plans.conf from memory and reckons; who has used what
 * is kept elsewhere.
 *
 * Everything is counted a recipient at a time: one recipient of one message is
 * one message of the plan, and costs its size in bytes, at least byte_minimum.
 * KB and MB are 1,000 and 1,000,000 bytes, as plans are sold.
 */
#ifndef POSTERN_PLAN_PLAN_H
#define POSTERN_PLAN_PLAN_H

#include "core/err.h"
#include "core/slice.h"
#include "plan/zone.h"

enum {
    PLAN_NAME_MAX = 64,
    PLAN_RATES_MAX = 4, /* of users, and of the account */
    PLAN_PERCENTS_MAX = 10,
    PLAN_WARNINGS_MAX = 8,
    PLANS_MAX = 1000,
    PLANS_FILE_MAX = 4 * 1024 * 1024
};

enum plan_period { PERIOD_NONE, PERIOD_DAY, PERIOD_WEEK, PERIOD_MONTH, PERIOD_YEAR };
enum plan_anchor {
    ANCHOR_CALENDAR,   /* from the first of the month, midnight in the plan's zone */
    ANCHOR_ANNIVERSARY /* from the day of the month on which the account's plan began */
};
enum plan_limit_action {
    AT_LIMIT_BLOCK,    /* refused until the next period; the default is stated in the file */
    AT_LIMIT_ALLOW,    /* goes on; what is over is counted in blocks */
    AT_LIMIT_SURCHARGE /* the same, and the owner is told that it costs */
};
enum plan_rate_unit { RATE_MINUTE, RATE_HOUR, RATE_DAY, RATE_MONTH };
enum plan_rate_action {
    RATE_DEFER, /* 450: the client tries again */
    RATE_QUEUE  /* taken, and held until the rate allows it */
};
enum plan_spike_action { SPIKE_OFF, SPIKE_SLOW, SPIKE_HOLD };

struct plan_rate {
    uint64_t count;
    uint8_t unit; /* enum plan_rate_unit */
};

struct plan {
    char name[PLAN_NAME_MAX + 1];
    char zone_name[PLAN_NAME_MAX + 1];
    struct zone zone;
    uint8_t period, anchor;   /* enums above */
    uint64_t messages, bytes; /* in a period; 0: unlimited */
    uint64_t byte_minimum;    /* least charge of one recipient */
    uint8_t at_limit;         /* enum plan_limit_action */
    uint64_t overage_block;   /* messages or bytes; 0: not counted in blocks */
    bool overage_bytes;       /* the block is of bytes */
    uint64_t recipient_limit; /* of one message; 0: none */
    uint64_t size_limit;      /* of one message; 0: none */
    struct plan_rate user_rates[PLAN_RATES_MAX], account_rates[PLAN_RATES_MAX];
    uint8_t rate_action;                       /* enum plan_rate_action */
    uint8_t alert_percents[PLAN_PERCENTS_MAX]; /* ascending, 0 ends */
    uint8_t report_percent;                    /* a report every so many percent; 0: none */
    uint8_t period_report;                     /* 1: a report of each period when it is over */
    uint64_t credit_unit;    /* unused bought volume is credited in these units; 0: never */
    uint64_t credit_minimum; /* a grant of less than this is never credited */
    uint8_t credit_until;    /* enum plan_period: until the end of the year ... */
    uint32_t end_warnings[PLAN_WARNINGS_MAX]; /* days before the plan's end, descending, 0 ends */
    uint32_t spike_factor;                    /* times its own usual hour; 0: no spike guard */
    uint64_t spike_minimum;                   /* messages in an hour that are never a spike */
    uint8_t spike_action;                     /* enum plan_spike_action */
    char source[PLAN_NAME_MAX + 1];           /* source pool, or empty */
    uint32_t destination_connections; /* deliveries at a time to any one destination; 0: no limit */
    struct plan_rate destination_rate; /* recipients there; count 0: no limit */
};

struct plans {
    struct plan *list;
    size_t count;
};

/* The POSIX rule ("CET-1CEST,M3.5.0,M10.5.0/3") of a zone's name into *out. 0 or
 * -1 if there is no such zone. */
typedef int plan_zone_lookup(const char *name, char *out, size_t size, void *arg);

/* Reads a plans.conf; `file` goes into errors, which name the line. 0 or -1 (then
 * *out is empty). */
int plans_parse(struct slice text, const char *file, plan_zone_lookup *lookup, void *arg,
                struct plans *out, struct err *e);
void plans_free(struct plans *p);
/* NULL if there is none of that name. */
const struct plan *plans_find(const struct plans *p, struct slice name);
/* A plan without limits: of accounts that have none. */
extern const struct plan plan_unlimited;

/* "600/hour" to *out; the units are minute, hour, day and month. 0 or -1. */
int plan_parse_rate(struct slice text, struct plan_rate *out);
/* A number of deliveries at a time, from 1 to 1000000. 0 or -1. */
int plan_parse_connections(struct slice text, uint32_t *out);
/* What is so much in a day; at least 1 unless there is no rate. */
uint64_t plan_rate_a_day(const struct plan_rate *rate);
/* "500MB", "10KB", "50MiB", "1GB", "2048" to bytes; 0 or -1. */
int plan_parse_size(struct slice text, uint64_t *out);

#endif
