/*
 * The queue as the control socket sees it: look at messages, walk over all of
 * them in slices, act on them. Everything runs on qmgr's loop.
 */
#ifndef POSTERN_QMGR_QUEUE_H
#define POSTERN_QMGR_QUEUE_H

#include "core/buf.h"
#include "core/err.h"
#include "qmgr/message.h"

struct qmgr;

/* ---- figures -------------------------------------------------------------- */

struct queue_counters {
    uint64_t accepted, accepted_bytes, refused; /* messages, by COMMIT */
    uint64_t delivered, deferred, bounced;      /* recipients, by attempt */
    uint64_t expired, removed;                  /* messages */
    uint64_t notices;                           /* made */
    uint64_t bad_peers;                         /* channels closed for breaking the rules */
};

struct queue_figures {
    struct queue_counters total;    /* since qmgr started */
    struct queue_counters a_minute; /* in the last sixty seconds, nearly */
    uint64_t messages;              /* in the queue, without the deleted ones */
    uint64_t deleted, deleted_bytes;
    uint64_t active, held, jobs_queued, jobs_in_flight, body_bytes, sites, routes;
    unsigned relays, smtpds, sources_listed; /* sources: those in a block list */
    bool resolve, bounce, scanning;
    int spool_state; /* enum spool_state, SPOOL_BUSY included */
    struct store_stats store;
    uint64_t heap_bytes;      /* allocated, of all that this process has */
    uint64_t heap_free_bytes; /* given back to the allocator, and maybe by that to the system */
    int64_t started;          /* wall microseconds */
};
void queue_figures(struct qmgr *q, struct queue_figures *out);

/* ---- looking at one message ------------------------------------------------ */

enum queue_status {
    QUEUE_ACTIVE,
    QUEUE_DEFERRED,
    QUEUE_HOLD,
    QUEUE_INCOMING,
    QUEUE_DELETED, /* kept for a while, to be brought back */
    QUEUE_STATUSES
};

struct message *queue_find(struct qmgr *q, struct slice id);
/* What Postfix would call its queue: being delivered, waiting, held, arriving. */
enum queue_status queue_status(const struct message *m);
/* Wall microseconds of the next thing that happens to it (a deleted one is purged);
 * 0: nothing planned. */
int64_t queue_next_attempt(struct qmgr *q, const struct message *m);

/* A recipient. Slices are valid until the next turn of the loop; needs m->env. */
struct queue_recipient {
    struct slice address, orcpt;
    enum recipient_state state;
    unsigned attempts;
    int64_t next;                /* wall microseconds, 0 unless it waits */
    const struct answer *answer; /* last one, or NULL; see answer_describe */
};
void queue_recipient(struct qmgr *q, const struct message *m, uint32_t i,
                     struct queue_recipient *out);

/* Reads prefix and at most `limit` bytes of the body; the slices are valid until
 * the callback returns; error is NULL or says what is wrong. The message cannot
 * vanish before the callback. */
void queue_read(struct qmgr *q, struct message *m, uint64_t limit,
                void (*done)(struct slice prefix, struct slice body, const char *error, void *arg),
                void *arg);

/* ---- walking over all ------------------------------------------------------- */

enum walk_answer {
    WALK_ON,
    WALK_PAUSE, /* until queue_walk_resume */
    WALK_STOP   /* ends the walk; `done` is called */
};
struct queue_walk;
enum walk_over { WALK_QUEUE, WALK_DELETED, WALK_BOTH /* queue_visit_one only */ };

/* Visits every message that is in the queue, or that was deleted and is kept, for as long as the
 * walk takes, in order of arrival in memory, a bounded number a turn. In `visit` m->env is there
 * (read back from disk if need be) and queue_act may be called on m as the last thing done with it.
 * Messages may come and go meanwhile. `done` is called once, at the end; not after
 * queue_walk_cancel. Neither is called before this function has returned. */
struct queue_walk *queue_walk_start(struct qmgr *q, enum walk_over over,
                                    enum walk_answer (*visit)(struct message *m, void *arg),
                                    void (*done)(void *arg), void *arg);
void queue_walk_resume(struct queue_walk *w);
void queue_walk_cancel(struct queue_walk *w);

/* The same for one message by ID: visit is called at most once. */
struct queue_walk *queue_visit_one(struct qmgr *q, enum walk_over over, struct slice id,
                                   enum walk_answer (*visit)(struct message *m, void *arg),
                                   void (*done)(void *arg), void *arg);

/* ---- acting ----------------------------------------------------------------- */

enum queue_action {
    QUEUE_DO_HOLD,         /* no new attempts until released; those under way go on */
    QUEUE_DO_RELEASE,      /* ends a hold; tried at once */
    QUEUE_DO_RELEASE_RATE, /* the same for what is held for its account's rate and nothing else */
    QUEUE_DO_FLUSH,        /* try now what waits */
    QUEUE_DO_REQUEUE,      /* the same, and look its destinations up anew */
    QUEUE_DO_EXPIRE,       /* return to the sender what is not delivered */
    QUEUE_DO_DELETE,       /* drop without a notice; what was deleted before is purged */
    QUEUE_DO_UNDELETE      /* back into the queue */
};
/* Acts on m, whose envelope must be there (as in a walk). True if it changed
 * anything. m may be gone afterwards. `by` names who asked, for the log; NULL: do
 * not log. */
bool queue_act(struct qmgr *q, struct message *m, enum queue_action action, const char *by);
/* Calls back when all that was done so far survives a power failure, or with an error:
 * part of it may not. */
void queue_make_durable(struct qmgr *q, void (*done)(const char *error, void *arg), void *arg);
/* As QUEUE_DO_FLUSH for the whole queue, and ends all suspensions of sites. */
void queue_flush_all(struct qmgr *q);

/* ---- destinations ------------------------------------------------------------ */

/* Appends a JSON object on the destination of a recipient or domain: route, site,
 * targets, queue, limits, suspension, last replies. Asks resolve if need be:
 * `done` may be called before the function returns, and exactly once. */
void queue_show_site(struct qmgr *q, struct slice recipient_or_domain,
                     void (*done)(struct slice json, void *arg), void *arg);

#endif
