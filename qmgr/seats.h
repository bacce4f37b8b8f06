/*
 * Seats: what one account may use of one destination (a group: provider, site or domain with
 * an entry in providers.conf, or what has the same addresses), over all source addresses and
 * classes: deliveries at a time, recipients a second. The stricter holds of what
 * providers.conf says (account_connections_max, account_message_rate) and what quota says of
 * the account (destination_connections, destination_rate).
 *
 * Where such a limit holds, the account's queues there share their seats. A queue that finds
 * none stands in their line instead of its lane's, so it keeps nobody else from going. When one
 * comes free the next queue goes to its lane; if that has no room it waits there as others do,
 * and the seat is offered to the next.
 */
#ifndef POSTERN_QMGR_SEATS_H
#define POSTERN_QMGR_SEATS_H

#include "qmgr/qmgr.h"

struct seats {
    struct account *account; /* with group the key */
    struct group *group;
    struct list of_account;
    struct list due;        /* in dispatch.seats_due: its line is to be looked at */
    struct list waiting[3]; /* queues, by class: longest first */
    struct class_turns turns;
    struct heap_node wake;     /* of dispatch.seats_wakes: when the rate allows the next */
    uint32_t connections;      /* at a time; 0: no limit */
    uint32_t in_flight, ready; /* deliveries under way; queues that may start one */
    uint32_t refs;             /* queues */
    double rate;               /* recipients a second; 0: no limit */
    int64_t next_start;
};

void seats_init(struct qmgr *q);
/* providers.conf has changed. */
void seats_reload(struct qmgr *q);
/* What quota said of an account: deliveries at a time and recipients a day at any one
 * destination; 0: no limit. Whoever waits for more goes on, if that is more. */
void seats_account(struct qmgr *q, struct slice account, uint32_t connections,
                   uint64_t recipients_a_day);

/* Recipients a second, of so many a day. */
double seats_rate(uint64_t recipients_a_day);

/* Whether k's account may start a delivery there now, as far as its own limits go. Takes
 * limits over that have changed. */
bool seats_free(struct qmgr *q, struct queue *k);
/* k, which is idle and has jobs, waits for a seat; `first`: before the others. */
void seats_wait(struct qmgr *q, struct queue *k, bool first);
/* k became ready, or is so no longer (turns.c). */
void seats_ready(struct qmgr *q, struct queue *k, bool ready);
/* A delivery of k's starts; is over; was not tried. */
void seats_started(struct qmgr *q, struct queue *k, uint32_t recipients);
void seats_over(struct qmgr *q, struct queue *k);
void seats_returned(struct qmgr *q, struct queue *k, uint32_t recipients);
/* k goes. */
void seats_leave(struct qmgr *q, struct queue *k);
/* Seats that came free are given to those that wait. */
void seats_turn(struct qmgr *q);
/* When it has something to do; INT64_MAX: not before something else happens. */
int64_t seats_next_due(const struct qmgr *q);

/* What k waits for, in words; false: for no seat. */
bool seats_describe(const struct qmgr *q, const struct queue *k, struct buf *text);
/* Appends a list "accounts" of those that have a limit of their own at the group and mail under
 * way or waiting for it, if there are any. */
void seats_show(const struct qmgr *q, const struct group *g, struct buf *b);

#endif
