/*
 * How much work a lane (a destination from one source address) gets: the adaptive
 * controller. doc/operators-guide.md explains it on a page ("Shaping").
 *
 * Four limits, each with its own loop, each moved only by what speaks of it:
 *   rate         recipients a second
 *   concurrency  deliveries at a time
 *   messages     on one connection
 *   connecting   new connections in a time (connect_rate.h); only where it is configured,
 *                or rules say so
 * A refusal cuts one of them once: what was started before the cut says nothing
 * more. The level at which it failed is remembered; recovery to just below it is
 * fast, going beyond is slow, and rarer where it fails again. While a door is shut
 * (everything is refused, or nobody answers) one delivery at a time knocks, at
 * growing intervals.
 *
 * Times are microseconds of the monotonic clock. No I/O, no allocation.
 */
#ifndef POSTERN_QMGR_SHAPER_H
#define POSTERN_QMGR_SHAPER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/buf.h"
#include "qmgr/connect_rate.h"
#include "qmgr/strain.h"

enum { SHAPER_EVENTS = 8 };

/* The controller's times, all divided by shaping_time_divisor (for simulations). */
struct shaper_times {
    int64_t growth;    /* the rate doubles in it until something is refused */
    int64_t hold;      /* a limit that failed is left alone for this long */
    int64_t knock;     /* first pause before a shut door; doubles */
    int64_t knock_max; /* the longest */
    int64_t defer;     /* a suspension longer than this sends messages back to wait */
};
void shaper_times_init(struct shaper_times *t, unsigned divisor);

/* Bounds and where to start: from the configuration. */
struct shaper_limits {
    uint32_t concurrency, initial, cohorts;
    int64_t rate_delay, suspend, suspend_max;
    int64_t unreachable_max;      /* as suspend_max, where nobody answers */
    double rate, start_rate;      /* recipients a second; 0: no bound, no limit to begin with */
    uint32_t messages;            /* on one connection; 0: no bound */
    double connection_rate;       /* new connections a second; 0: no bound */
    uint32_t account_connections; /* of one account while others wait; 0: no bound */
    /* of one account over all sources, not for the controller either: seats.h; 0: no bound */
    uint32_t account_connections_max;
    double account_message_rate; /* recipients a second */
    /* of one source, kept over restarts: sources_record.c */
    uint32_t daily_cap; /* recipients a day, by the clock (UTC); 0: none */
    bool own_cap;       /* of this destination alone, not of its provider */
    /* for relay, not for the controller */
    uint32_t recipients;   /* in one transaction; 0: no bound */
    uint32_t idle_seconds; /* an unused connection is kept; 0: as configured */
    uint8_t tls;           /* enum rules_tls */
    struct shaper_times times;
};

/* What became of a delivery, as far as the destination goes. */
enum shaper_signal {
    SHAPER_OK,          /* it worked */
    SHAPER_NEUTRAL,     /* says nothing about the destination */
    SHAPER_UNREACHABLE, /* no connection, no greeting, lost */
    SHAPER_TOO_FAST,    /* refused: rate, or volume */
    SHAPER_TOO_MANY,    /* refused: connections at a time */
    SHAPER_TOO_LONG,    /* refused: messages on one connection */
    SHAPER_TOO_MUCH,    /* refused: what is allowed an hour or day is used up */
    SHAPER_TOO_OFTEN,   /* refused: new connections in a time */
    SHAPER_GO_AWAY      /* refused for a while */
};

/* Cuts of the rate on trial: nobody knows whether it was the rate (odd.h). The rate does not
 * grow meanwhile. Any other change of it ends the trial, and nothing is undone then. */
enum shaper_trial {
    SHAPER_NO_TRIAL,
    SHAPER_TRIAL_PROVEN,   /* TOO_FAST: such a cut has helped before */
    SHAPER_TRIAL_UNPROVEN, /* TOO_FAST: nothing but a cut is made of it */
    SHAPER_TRIAL_FAILED    /* it has not: the cut is undone */
};

struct shaper_report {
    enum shaper_signal signal;
    int64_t started;       /* when it was started */
    uint32_t recipients;   /* that were accepted */
    uint32_t put_off;      /* that were told to come again later, as strangers are */
    uint32_t use_count;    /* of the connection, this message included; 0: unknown */
    uint32_t taken_count;  /* messages that were taken on it before this one; 0: unknown */
    uint32_t closed_after; /* messages after which the server closes silently; 0: unknown */
    double factor;         /* TOO_FAST, TOO_MANY: what shall remain; 0: by measurement */
    double value;          /* TOO_...: the limit that shall hold; 0: none given */
    int64_t time;          /* GO_AWAY: how long */
    uint64_t latency;      /* microseconds that a command of the envelope took; 0: unknown */
    uint64_t greeting;     /* microseconds from connecting to the greeting; 0: unknown */
    uint32_t connections;  /* that were opened for it */
    bool may_connect;      /* what shaper_may_connect has said */
    bool of_all;           /* the signal is about all sources of the provider: whole.h */
    enum shaper_trial trial;
    uint16_t rule; /* number of the rule that said so, + 1; 0: none */
};

enum shaper_change {
    SHAPER_RATE_CUT,
    SHAPER_CONCURRENCY_CUT,
    SHAPER_MESSAGES_CUT,
    SHAPER_DOOR_SHUT,
    SHAPER_SUSPENDED_REFUSED,
    SHAPER_SUSPENDED_UNREACHABLE,
    SHAPER_OPEN_AGAIN,
    SHAPER_RATE_BEYOND,
    SHAPER_SET_BY_HAND,
    SHAPER_CONNECTING_CUT, /* connections a second */
    SHAPER_RATE_RESTORED,
    SHAPER_STRAINED,     /* seconds: usual and present, of a greeting or reply */
    SHAPER_STRAIN_WORSE, /* connections */
    SHAPER_STRAIN_OVER
};

struct shaper_event {
    uint32_t when;       /* clock_tenths; 0: none */
    float before, after; /* the limit, or seconds */
    uint16_t rule;       /* + 1 */
    uint8_t change;      /* enum shaper_change */
};

struct shaper {
    const struct shaper_limits *limits; /* outlives it; may change */
    /* rate */
    double rate, failed_rate; /* now; where it failed last, 0: never */
    double taken;             /* recipients since the last refusal */
    int64_t paced;            /* time since then while the pace was binding */
    int64_t started_last, next_start;
    int64_t free_since;                  /* without a rate: the present period of counting began */
    float free_taken, free_before;       /* recipients taken in it, and in the one before */
    int64_t accepted, grown, growth_due; /* last acceptance; last growth, not grown since */
    float answered, answered_taken; /* recipients lately, little of one that was put off; taken */
    int64_t rate_cut, rate_hold, rate_held; /* since when, how long, how long already */
    /* concurrency */
    double window;
    uint32_t in_flight, window_failed;
    int64_t window_cut, window_grown, window_hold;
    /* messages on one connection */
    uint32_t messages, messages_good, messages_patience;
    uint32_t closed_after, closed_count;
    uint32_t window_due; /* of the window: growth that was earned, one connection after another */
    /* doors */
    double failed_cohorts;
    int64_t suspended_until;        /* 0: not suspended */
    int64_t shut_since, shut_for;   /* the door that is shut; how long the last one was */
    int64_t suspend_time;           /* length of the last suspension, or pause */
    int64_t opened, period;         /* when a long shut door was found open last; how often it is */
    int64_t opened_after;           /* it was still shut then */
    int64_t period_least;           /* the period is between this and `period` */
    int64_t step, steps_until;      /* from knock to knock, until; 0: twice as long each time */
    float volume;                   /* recipients taken before the last cut, since the one before */
    float cut_from, cut_failed;     /* rate and failed_rate before the last cut */
    float trial_rate, trial_failed; /* the same before the cut that is on trial; 0: none is */
    /* bits, since there are very many of it */
    bool probing : 1;           /* one at a time, until one succeeds */
    bool unreachable : 1;       /* the suspension is for that, not a refusal */
    bool periodic : 1;          /* period was seen more than once */
    bool held : 1, binding : 1; /* the pace held a delivery back; the last one was such */
    bool window_full : 1;       /* it was what held a delivery back since it grew last */
    bool window_beyond : 1;     /* it is above what failed last, and nothing was refused since */
    bool blind : 1;             /* failed_rate was not measured */
    bool beyond : 1;            /* the rate is above what failed last */
    uint8_t events_next;
    int64_t proven; /* last success */
    struct connect_rate connecting;
    struct strain strain;
    struct shaper_event events[SHAPER_EVENTS];
};

enum shaper_room {
    SHAPER_GO,
    SHAPER_FULL,     /* until a delivery is over */
    SHAPER_LATER,    /* not before *when */
    SHAPER_SUSPENDED /* left alone until *when; defer its messages */
};

void shaper_init(struct shaper *s, const struct shaper_limits *limits);
/* May a delivery start now? */
enum shaper_room shaper_room(struct shaper *s, int64_t now, int64_t *when);
/* One of `recipients` recipients has started. */
void shaper_started(struct shaper *s, uint32_t recipients, int64_t now);
/* After shaper_started: whether that delivery may open a connection. */
bool shaper_may_connect(struct shaper *s, int64_t now);
/* After it has said yes: the delivery may not, for another reason. */
void shaper_may_not_connect(struct shaper *s, int64_t now);
/* What started then was not tried, for want of a connection: it will be started again. Gives
 * back what it used up of the pace, and no more. */
void shaper_returned(struct shaper *s, uint32_t recipients, int64_t started, int64_t now);
/* New connections a second that are allowed; 0: any. */
double shaper_connection_rate(const struct shaper *s);
/* Ends what shaper_started began. True if the lane has just been suspended. */
bool shaper_finished(struct shaper *s, const struct shaper_report *r, int64_t now);
/* Before shaper_finished: whether the report may move it. While it is suspended, what was started
 * before that says nothing new: neither a success nor a failure. */
bool shaper_believes(const struct shaper *s, const struct shaper_report *r, int64_t now);
/* Another lane's delivery was told that this one, too, shall stay away (r->time, r->rule).
 * True if the lane has just been suspended. */
bool shaper_told_to_go(struct shaper *s, const struct shaper_report *r, int64_t now);
/* Whether a cut of the rate is on trial; ends that: the cut stays. */
static inline bool shaper_on_trial(const struct shaper *s)
{
    return s->trial_rate > 0;
}
void shaper_end_trial(struct shaper *s);
/* Ends a suspension: the next delivery is a probe. */
void shaper_unsuspend(struct shaper *s);
/* Goes on with a suspension that was in force before a restart. */
void shaper_keep_away(struct shaper *s, int64_t until, int64_t now);
/* After it: tells in its events who it was. */
void shaper_note_kept(struct shaper *s, uint16_t rule, int64_t now);
/* Sets learned limits by hand; 0: leaves that one. They are moved on from there. */
void shaper_set(struct shaper *s, double rate, uint32_t concurrency, uint32_t messages,
                int64_t now);
/* Messages that one connection may carry; 0: no limit. */
uint32_t shaper_messages(const struct shaper *s);
/* Deliveries at a time. */
uint32_t shaper_window(const struct shaper *s);
/* Whether it has worked lately: a refusal then speaks of us, not of a host. */
bool shaper_works(const struct shaper *s, int64_t now);
/* Whether it still counts what only it knows: a pace that is slower than lanes are kept. */
bool shaper_remembers(const struct shaper *s, int64_t now);
/* Learned limits, for keeping over restarts. */
struct shaper_memory {
    double rate, failed_rate;
    double connection_rate, connection_rate_failed;
    bool blind;
    uint32_t window, window_failed, messages;
    int64_t period, shut_for;
};
void shaper_remember(const struct shaper *s, struct shaper_memory *out);
void shaper_recall(struct shaper *s, const struct shaper_memory *m);
const char *shaper_change_name(uint8_t change);

#endif
