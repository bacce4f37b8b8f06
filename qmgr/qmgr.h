/*
 * qmgr's inside: the struct that holds everything, and what its files offer
 * each other. For the control socket see queue.h.
 *
 *   intake     smtpd channels: COMMIT to the spool, answers, credits
 *   queue      all messages: map, due heap
 *   load       messages from the spool: found by the scan, or read back
 *   action     what the operator does; deleted: what can be undone; walk: lists
 *   sites      routes (domain or address to site), sites, the resolve channel
 *   brakes     senders that are slowed down or suspended at a destination
 *   dispatch   who is next: accounts, classes, lanes
 *   memory     what was learned about destinations, over restarts
 *   park       whose messages wait on the disk when memory is scarce
 *   relays     jobs at relay processes, results
 *   outcome    what a result means for a recipient; retry: when to try again
 *   notices    failure, delay and success notices; the bounce channel
 *   charges    what accounts pay for; the quota channel
 *   pools      from which source pool an account's mail goes
 *   events     log lines and the JSON event log
 */
#ifndef POSTERN_QMGR_QMGR_H
#define POSTERN_QMGR_QMGR_H

#include "core/clock.h"
#include "core/map.h"
#include "qmgr/greylist.h"
#include "qmgr/odd.h"
#include "qmgr/queue.h"
#include "qmgr/shaper.h"
#include "service/service.h"

enum {
    SMTPDS_MAX = 256,
    RELAYS_MAX = 256,
    COMMIT_CREDIT = 512,             /* COMMITs without an answer, of one smtpd */
    BYTE_CREDIT = 16 * 1024 * 1024,  /* bytes in them */
    INLINE_CONTENT_MAX = 80 * 1024,  /* prefix and body that travel in a frame */
    JOB_RECIPIENT_BYTES = 24 * 1024, /* recipients' part of a DELIVER frame */
    TARGET_BYTES_MAX = 12 * 1024,    /* targets' part */
    ACTIVATE_RECIPIENTS_MAX = 5000,  /* of one message in jobs at a time */
    LOADS_MAX = 64,                  /* envelopes being read back at a time */
    DUE_PER_TURN = 512,              /* messages that become due in one turn */
    SITE_NAME_MAX = 1024,
    NOTICE_LIST_MAX = 12 * 1024, /* recipients' part of a NOTICE_REQUEST */
    NOTICE_DIAGNOSTIC_MAX = 600, /* bytes of a reply in it */
    DOMAIN_MAX = ADDRESS_MAX
};

#define LOST_RELAY_DELAY (60 * CLOCK_SECOND)   /* F13 */
#define NOTICE_RETRY_DELAY (60 * CLOCK_SECOND) /* F22 */

struct brakes; /* brakes.h */
struct job;
struct source;        /* sources.h */
struct source_record; /* the same */
struct sources;       /* the same */
struct rule;
struct rules;

/* ---- destinations ----------------------------------------------------------- */

struct route; /* sites.c */

struct group; /* groups.c */

struct site {
    struct list all;
    struct group *group;
    char *key; /* transport digit, then the name */
    size_t key_len;
    uint8_t transport;
    struct buf targets; /* encoded ipc_target list */
    char *tls;          /* the last connection's: "Verified TLSv1.3 with ...", "" or NULL */
    uint32_t refs;      /* routes and jobs */
    uint8_t families;   /* of its targets: 1 IPv4, 2 IPv6 */
    uint64_t sessions;  /* the same for sites whose targets are the same: they share sessions */
};
static inline struct slice site_name(const struct site *s)
{
    return slice_make(s->key + 1, s->key_len - 1);
}

/* What resolve asks of connections for a destination, for relay: passed on as it
 * came. Shared by a route and its jobs. */
struct tls_rules {
    uint32_t refs;
    uint16_t len, report_len;
    char bytes[]; /* encoded ipc_tls_rule list, then the domain that wants reports */
};
static inline struct slice tls_rules_list(const struct tls_rules *r)
{
    return r ? slice_make(r->bytes, r->len) : slice_make(NULL, 0);
}
static inline struct slice tls_rules_report(const struct tls_rules *r)
{
    return r ? slice_make(r->bytes + r->len, r->report_len) : slice_make(NULL, 0);
}
/* sites_tls.c; r may be NULL. */
struct tls_rules *tls_rules_ref(struct tls_rules *r);
void tls_rules_unref(struct tls_rules *r);

/* What providers see as one destination, and so the unit of limits: a provider, MX host
 * or domain that providers.conf has an entry for, or else the sites whose targets are the
 * same, whatever their names. */
struct group {
    struct list lanes;
    char *key;                      /* unique */
    char *stable;                   /* the same over restarts */
    char *name;                     /* for people: of the entry, or of the first site */
    char *provider, *site, *domain; /* entries of providers.conf that apply, or NULL */
    bool own;                /* relayhost or a table names it, not the MX records of the domain */
    unsigned provider_index; /* in the present set of rules; 0: none */
    uint32_t refs;           /* sites and lanes */
};

/* Whose turn it is among classes: what each is owed. */
struct class_turns {
    int32_t credit[3];
};

/* The unit of shaping: a group from one source address. */
struct lane {
    struct list of_group, all;
    struct group *group;          /* with `from` its key: they stay beside each other */
    struct source *from;          /* NULL: smtp_bind_address */
    struct source_record *record; /* of it at this provider; NULL without a source */
    bool blocked;                 /* its suspension is a block: other sources take over */
    struct odd odd;               /* its refusals that nobody understands */
    struct greylist greylist;
    struct rule_count {
        uint16_t rule, times;
        uint32_t since;     /* clock_tenths */
    } counts[4];            /* of rules that act from the n-th time on */
    struct shaper shaper;   /* its limits are a reference: limits_unref */
    struct heap_node wake;  /* when the shaper may allow more */
    struct list waiting[3]; /* queues that wait for room here, by class */
    struct list queues;     /* all of its queues */
    struct queue *recent;   /* that was used last */
    uint32_t queued, in_flight;
    struct class_turns turns;
    int64_t used;             /* monotonic: last job */
    struct answer *last;      /* last failure of the site */
    struct answer *suspended; /* what jobs are told while it is suspended */
    char *reason;             /* the operator's, of a suspension by hand; or NULL */
};

/* ---- jobs --------------------------------------------------------------------- */

enum job_state { JOB_ROUTING, JOB_QUEUED, JOB_READING, JOB_SENT };

/* Work for relay: some recipients of a message, one site, one source. */
struct job {
    struct list link; /* of a route's waiting, a queue's jobs or a relay's jobs */
    struct list of_message;
    struct message *m;
    struct route *route;   /* until it is submitted */
    struct site *site;     /* once routed; counts as a reference */
    struct queue *queue;   /* the same */
    struct relay *relay;   /* once chosen */
    struct tls_rules *tls; /* once routed */
    uint64_t number;       /* once chosen: in the job table */
    int64_t sent_at;       /* monotonic */
    uint32_t count, room, bytes;
    uint8_t state;
    bool dot;         /* its end of data is being sent */
    bool may_connect; /* what connect_rate_take has said */
    uint32_t rcpts[];
};

/* ---- everything --------------------------------------------------------------- */

struct dispatch {
    struct map accounts, queues, lanes_known; /* the latter by struct lane_key */
    struct account *recent;
    struct list active; /* accounts with ready queues */
    struct list lanes;
    struct heap wakes;
    uint64_t queued, in_flight;
    uint32_t busy_queues; /* that have jobs */
};

struct shaping {
    struct map groups;   /* by key */
    struct map limits;   /* that lanes share */
    struct rules *rules; /* providers.conf; NULL until master has sent it */
    struct memory *memory;
};

struct sites {
    struct map routes, asked, sites;
    struct list lru; /* routes, least recently used first */
    struct list all;
    struct list unsent; /* routes whose question waits for room or a channel */
    struct channel *channel;
    bool broke_rules; /* the frame of it that came last was refused */
    uint64_t next_tag;
    uint32_t outstanding;
    unsigned reports;            /* about TLS, that are being committed */
    uint8_t deferred_transports; /* bits by enum transport: defer_transports */
    struct answer *deferred;     /* what their recipients are told */
};

struct relays {
    struct relay *list[RELAYS_MAX];
    unsigned count;
    struct job **table;
    uint32_t table_size, *free_slots, free_count;
    uint32_t generation;
    struct buf rcpts;
};

struct notices {
    struct channel *channel;
    bool broke_rules;   /* the frame of it that came last was refused */
    struct list wanted; /* struct notice, not sent yet */
    struct map asked;   /* by tag */
    uint64_t next_tag;
    uint32_t outstanding;
};

struct charges {
    struct channel *channel;
    bool broke_rules;                /* the frame of it that came last was refused */
    struct list batches;             /* struct charge_batch, not acknowledged */
    struct list waiting;             /* struct envelope.waiting */
    struct buf fresh, over;          /* charges and settlements of the batch that is gathered */
    uint32_t number;                 /* of that batch */
    uint32_t acknowledged;           /* all batches up to this one */
    uint32_t credit, unacknowledged; /* batches: allowed; sent */
    uint64_t question;               /* held until the scan is over */
    struct buf asked;                /* its IDs */
};

struct pools {
    struct map accounts; /* struct account_pool */
    struct list recent;  /* the same, least recently used first */
    uint32_t generation; /* answers of another one may be out of date */
    int64_t warned;      /* monotonic: that quota does not answer */
};

struct events {
    struct buf out;
    bool enabled;
    char queue[128], relay[128], bounce[128]; /* program names in the log */
    uint64_t dropped;
};

struct qmgr {
    struct service *s;
    struct store *store;
    struct map messages; /* by ID */
    struct list all;
    struct list deleted; /* messages that can be brought back */
    struct list walks;
    struct heap due;   /* messages whose envelope is in memory */
    struct heap stubs; /* those whose envelope must be read first */
    struct heap kept;  /* deleted ones: when they are purged */
    uint64_t deleted_count, deleted_bytes;
    uint64_t freed_count, freed_bytes; /* of them purged, and perhaps not free on the disk yet */
    int64_t freed_shows;               /* monotonic: when those are forgotten */
    int64_t deleted_look; /* monotonic: when the disk's free space is looked at for them */
    int64_t deleted_keep; /* queue_undelete_time that their dues were made with */
    struct event *timer;
    int64_t timer_at; /* 0: not armed */
    int64_t now;      /* monotonic, of this turn */
    int64_t mono_epoch;
    uint64_t active; /* envelopes in memory, those aside that walks look at only */
    uint64_t held, body_bytes, loading;
    uint64_t peeking; /* envelopes that are being read for walks */
    uint64_t open_commits, open_records;
    bool scanned, draining;
    bool orphaned; /* master is gone: smtpd finishes, and needs somebody to commit to (F17) */
    int store_state;
    struct smtpd *smtpds[SMTPDS_MAX];
    unsigned smtpd_count;
    struct list commits_free;
    unsigned commits_free_count;
    struct dispatch dispatch;
    struct shaping shaping;
    struct sources *from;  /* source addresses */
    struct brakes *brakes; /* senders that are slowed down or suspended somewhere */
    struct sites sites;
    struct relays relays;
    struct notices notices;
    struct charges charges;
    struct pools pools;
    struct events events;
    struct queue_counters counters, minute_start, a_minute;
    int64_t next_sweep, started;
};

/* Callbacks from outside begin with it: the turn's time may be long ago. */
static inline void queue_tick(struct qmgr *q)
{
    q->now = clock_mono();
}

/* A channel ended: says so, and counts and alarms if the peer broke the rules
 * (its frame was refused). */
void peer_gone(struct qmgr *q, const struct channel *c, const char *why, bool broke_rules);

/* qmgr's clock in seconds, for struct recipient.due. */
static inline uint32_t queue_seconds(const struct qmgr *q, int64_t mono)
{
    return mono <= q->mono_epoch ? 0 : (uint32_t)((mono - q->mono_epoch) / CLOCK_SECOND);
}
static inline int64_t queue_mono(const struct qmgr *q, uint32_t seconds)
{
    return q->mono_epoch + seconds * CLOCK_SECOND;
}

/* ---- parts.c: all of them ----------------------------------------------------- */

/* Starts all parts; *q is zero. The store is the caller's to open. */
void qmgr_init(struct qmgr *q, struct service *s);
/* Once after each turn of the event loop; the event log is the caller's to flush. */
void qmgr_turn(struct qmgr *q);

/* ---- queue.c: the life of a message -------------------------------------------- */

void queue_init(struct qmgr *q);
/* A message whose ID is new; its envelope is the caller's to add. */
struct message *message_new(struct qmgr *q, const struct id *id);
/* Takes m out of the queue and frees it, now or when its pins are gone. */
void message_drop(struct qmgr *q, struct message *m);
void message_pin(struct message *m);
/* False if that freed the message. */
bool message_unpin(struct qmgr *q, struct message *m);
/* Half of the room for envelopes is taken: those that only wait make place. */
bool queue_crowded(const struct qmgr *q);
/* A stub that may be loaded now instead of later, or recipients that were parked. False:
 * there is nothing to hurry. */
bool message_hurry(struct qmgr *q, struct message *m);
/* When m is due next, in the heap that it belongs to; INT64_MAX: in none. */
void message_plan(struct qmgr *q, struct message *m, int64_t due);
/* When it needs attention next; needs m->env. */
int64_t message_next_due(struct qmgr *q, const struct message *m);
/* Drops its envelope until `due`. */
void message_stub(struct qmgr *q, struct message *m, int64_t due);
/* Whether that is better than keeping the envelope, for what only waits. */
bool message_better_as_stub(const struct qmgr *q, int64_t due);
bool queue_has_room(const struct qmgr *q); /* for an envelope more */
/* Its envelope was read for walks and comes into the schedule now. */
void message_stay(struct qmgr *q, struct message *m);
/* It is over: its file is free. */
void message_finish(struct qmgr *q, struct message *m);
/* m became durable, or was read back: enters the schedule. */
void message_enter(struct qmgr *q, struct message *m);
/* Puts every recipient that is due into a job. */
void message_activate(struct qmgr *q, struct message *m);
/* After any change of its recipients: starts notices, finishes the message,
 * plans the next due time, drops the envelope if memory is short. m may be gone
 * afterwards. */
void message_settle(struct qmgr *q, struct message *m);
void message_keep_body(struct qmgr *q, struct message *m, struct body *body);
void message_drop_body(struct qmgr *q, struct message *m);
/* Recipients' ways end: marks on disk unless the whole message ends with them. */
void recipients_done(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count,
                     enum spool_status status);
/* A recipient waits until `due` (seconds). */
void recipient_waits(struct message *m, uint32_t i, uint32_t due);
/* Takes the recipients of all jobs that no relay has back into waiting. */
void message_withdraw(struct qmgr *q, struct message *m);
/* Drops all recipients that no relay has, without a notice: there is no file. */
void message_discard(struct qmgr *q, struct message *m);
/* Changes m->flags, also on the disk. */
void message_set_flags(struct qmgr *q, struct message *m, uint32_t flags);
/* Everything that waits is due now; with `force` also what defer_transports
 * holds up. */
void queue_wake_all(struct qmgr *q, bool force);
/* Keeps q->held right after m->flags changed. */
void message_count_held(struct qmgr *q, struct message *m);
/* The due heap and load queue; called each turn. */
void queue_turn(struct qmgr *q);
/* Once a minute: figures, caches. */
void queue_sweep(struct qmgr *q);
/* When the next thing is due in the queue; INT64_MAX: nothing. */
int64_t queue_next_due(const struct qmgr *q);
/* Test builds: panics if the queue's counters and states do not fit (consistency.c). */
void queue_check(const struct qmgr *q);
/* ---- load.c ------------------------------------------------------------------------- */

/* The found callbacks of the store. */
void queue_found(const struct store_found *found, void *arg);
void queue_quarantined(const struct id *id, const char *why, void *arg);
void queue_scanned(uint64_t messages, uint64_t quarantined, void *arg);

/* Reads the envelope of a stub back, and schedules it. */
void message_load(struct qmgr *q, struct message *m);
/* Reads it back for walks; it stays a stub for the schedule. */
void message_peek(struct qmgr *q, struct message *m);
/* A walk has no more use for m: if its envelope is there for walks alone it goes. */
void message_viewed(struct qmgr *q, struct message *m);

/* ---- deleted.c ---------------------------------------------------------------------- */

/* Takes m out of the queue; it can be brought back for queue_undelete_time. Once
 * more: purges it now. The caller settles it. Both return whether anything changed. */
bool message_delete(struct qmgr *q, struct message *m);
bool message_undelete(struct qmgr *q, struct message *m);
/* message_settle for a deleted message: puts it aside as soon as nothing of it is
 * under way. */
void deleted_settle(struct qmgr *q, struct message *m);
void deleted_found(struct qmgr *q, struct message *m);  /* by the scan, its envelope is there */
void deleted_forget(struct qmgr *q, struct message *m); /* it leaves; harmless for others */
void deleted_turn(struct qmgr *q);                      /* purges what is due */
int64_t deleted_next_due(const struct qmgr *q);         /* INT64_MAX: nothing */
void deleted_reload(struct qmgr *q);                    /* queue_undelete_time may have changed */

/* ---- walk.c ------------------------------------------------------------------------- */

void walks_turn(struct qmgr *q);
bool walks_ready(const struct qmgr *q);
/* m leaves the queue; every walk that has it in view moves on. */
void walks_forget(struct qmgr *q, struct message *m);

/* ---- intake.c -------------------------------------------------------------------- */

void intake_peer(struct qmgr *q, unsigned slot, unsigned pid, int fd);
/* Tells every smtpd what the state is, if it changed. */
void intake_state(struct qmgr *q);
int intake_current_state(const struct qmgr *q);

/* ---- sites.c --------------------------------------------------------------------- */

void sites_init(struct qmgr *q);
/* Reads defer_transports; true if it changed. */
bool sites_reload(struct qmgr *q);
void sites_peer(struct qmgr *q, int fd);
/* Finds (or makes) the route of an address. */
struct route *sites_route(struct qmgr *q, struct slice address);
/* The job of the message that is being activated for this route, or NULL. Set it
 * to NULL again at the end: a route with an open job is never evicted. */
struct job *route_open_job(const struct route *r);
void route_set_open_job(struct route *r, struct job *j);
/* Hands over a job whose recipients are complete: to its lane's queue at once,
 * or when resolve has answered. May free the job; does not settle its message. */
void sites_submit(struct qmgr *q, struct job *j);
void sites_forget(struct qmgr *q, struct slice address); /* look it up anew */
/* Ends the suspension of the address's site, if it is known and suspended. */
void sites_unsuspend(struct qmgr *q, struct slice address);
/* After a change of the configuration: routes are looked up anew soon, but not
 * before resolve has it too. */
void sites_renew(struct qmgr *q);
/* sites_tls.c: relay tells how TLS went: on to resolve, which keeps the counters. */
/* How the site was connected to last, for `postern site show`. */
void site_note_tls(struct site *s, struct slice text, uint8_t peer);
/* "untrusted", "trusted", "verified"; "" for clear text. */
const char *tls_peer_name(uint8_t status);
int sites_tls_session(struct qmgr *q, struct slice body, struct err *e);
void site_unref(struct qmgr *q, struct site *s); /* frees it with the last reference */
void sites_sweep(struct qmgr *q);
void sites_turn(struct qmgr *q);

/* ---- dispatch.c ------------------------------------------------------------------- */

struct queue {
    struct list link; /* ready in its account, or waiting in its lane */
    struct list of_lane;
    struct list again; /* jobs that go first: refused before, their time has come */
    struct list jobs;
    struct list parked;      /* struct message: sent away for want of memory */
    struct account *account; /* with lane and mail_class its key: they stay beside each other */
    struct lane *lane;
    uint8_t mail_class, place;
    uint8_t debt; /* turns that it leaves to others of its class: it made up that window */
    uint32_t count;
    uint32_t in_flight; /* jobs that were started */
    uint32_t window;    /* recipients started since the lane was refused something last */
};

void dispatch_init(struct qmgr *q);
struct job *job_new(struct message *m, uint32_t room);
/* Unlinks the job from wherever it is and frees it; its recipients are the caller's. */
void job_free(struct qmgr *q, struct job *j);
void dispatch_add(struct qmgr *q, struct lane *lane, struct site *site, struct job *j);
/* A job that was started left its lane; `why` is its answer if the destination failed or
 * refused. May defer and settle other jobs of the lane. The job's own recipients must
 * still be QUEUED, so that its message stays. */
void dispatch_over(struct qmgr *q, struct job *j, const struct shaper_report *report,
                   struct answer *why);
/* A job that was started was not tried, for want of a connection: it is in line again,
 * as the first. */
void dispatch_return(struct qmgr *q, struct job *j);
void dispatch_turn(struct qmgr *q);
int64_t dispatch_next_due(const struct qmgr *q);
void dispatch_reload(struct qmgr *q);
void dispatch_unsuspend_all(struct qmgr *q);
void dispatch_sweep(struct qmgr *q);
/* The lane of a group from a source (NULL: the default one); made if need be. */
struct lane *dispatch_lane(struct qmgr *q, struct group *group, struct source *from);
/* The same if there is one, or NULL. */
struct lane *dispatch_lane_known(const struct qmgr *q, struct group *group, struct source *from);
/* Takes all jobs in line there off their queues, into the list. */
void dispatch_take_all(struct qmgr *q, struct lane *l, struct list *jobs);
/* Who gets a share of its own: the account, or where there is none '@' and the sender's
 * domain, in the buffer. */
struct slice dispatch_sharer(const struct message *m, char buffer[static ACCOUNT_MAX + 1]);
/* The queues of a lane may go on: its limits have changed. */
void dispatch_wake(struct qmgr *q, struct lane *l);
/* The lane has been suspended: its messages wait outside, with the reason. */
void dispatch_suspend(struct qmgr *q, struct lane *l);

/* ---- groups.c --------------------------------------------------------------------- */

void groups_init(struct qmgr *q);
/* The group of a site with these targets; `domain` of the recipients, `own` as in the
 * struct. Counts a reference. */
struct group *group_get(struct qmgr *q, const struct site *s, struct slice domain, bool own);
void group_unref(struct qmgr *q, struct group *g);
/* A lane's limits from main.cf and providers.conf; the source's address as bytes. Lanes
 * whose limits are the same share them: counts a reference. */
const struct shaper_limits *group_limits(struct qmgr *q, const struct group *g,
                                         struct slice source);
void limits_unref(struct qmgr *q, const struct shaper_limits *l);
/* A sum of the targets' addresses, the same for sites that have the same. */
uint64_t group_targets_sum(const struct site *s);
/* main.cf has changed: limits of all lanes. */
void groups_reload(struct qmgr *q);
/* Takes over a set of rules. */
void groups_set_rules(struct qmgr *q, struct rules *rules);

/* ---- verdict.c --------------------------------------------------------------------- */

/* What a result says of the destination. */
struct verdict {
    struct shaper_report report;
    const struct rule *rule; /* that said so, or NULL */
    bool failed;             /* `worst` is there: an outcome that was no success */
    struct ipc_outcome worst;
};
void verdict_of(struct qmgr *q, struct job *j, const struct ipc_result *in, struct verdict *out);
/* What becomes of a recipient. */
struct fate {
    int64_t after;   /* microseconds until it is tried again; 0: as usual; -1: as soon as
                      * the lane allows */
    int64_t since;   /* the first refusal of this kind in a row */
    bool greylisted; /* as in struct answer */
    bool odd;
};
/* What rules make of a recipient's outcome: may change o->status. */
void verdict_recipient(struct qmgr *q, const struct job *j, struct ipc_outcome *o,
                       struct fate *fate);
/* Until when to try this job is known to be in vain, because it is greylisted; 0: it is not. */
int64_t verdict_in_vain(const struct qmgr *q, const struct lane *l, const struct job *j);
/* Whether it goes before others: it was refused before, and its time has come. */
bool verdict_goes_first(const struct job *j);
/* ---- park.c ----------------------------------------------------------------------- */

/* Whether a job more for this queue had better wait on the disk. */
bool park_wanted(const struct qmgr *q, const struct queue *k);
/* Frees the job; its message waits until the queue is shorter. The caller settles it. */
void park(struct qmgr *q, struct queue *k, struct job *j);
/* A job has left the queue: messages that were parked may come. */
void park_release(struct qmgr *q, struct queue *k);

/* ---- relays.c --------------------------------------------------------------------- */

void relays_init(struct qmgr *q);
void relays_peer(struct qmgr *q, unsigned slot, unsigned pid, int fd);
/* A relay process with room, the one that has sessions to this site first. */
struct relay *relays_pick(struct qmgr *q, const struct lane *lane);
/* Sends the job to r (reading content first if need be). */
void relays_send(struct qmgr *q, struct relay *r, struct job *j);
/* Takes the job out of the table and off its relay; harmless before it is in. */
void relays_release(struct qmgr *q, struct job *j);
unsigned relays_ready(const struct qmgr *q);

/* ---- outcome.c, retry.c -------------------------------------------------------------- */

/* What a job (or the lack of one) came to, for log lines. */
struct attempt {
    const struct site *site; /* or NULL */
    struct slice host, address, tls;
    struct slice source; /* our address, as text; empty: the system chose it */
    uint8_t tls_status;  /* enum tls_peer_status */
    uint16_t port;
    uint32_t use_count;
    int64_t sent; /* monotonic: handed to relay; 0: now */
    uint64_t wait_us, connect_us, transfer_us;
    bool dsn_taken_over, lmtp;
};

void outcome_sent(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count,
                  struct answer *a, const struct attempt *t);
/* not_before: earliest next attempt (monotonic), 0: by back-off; record: make
 * it durable (a real attempt) or not (the site was suspended). */
void outcome_deferred(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count,
                      struct answer *a, const struct attempt *t, int64_t not_before, bool record);
void outcome_failed(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count,
                    struct answer *a, const struct attempt *t);
/* Fails without an attempt: expiry. */
void outcome_expired(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count);

/* Microseconds to wait after `attempts` attempts, with jitter. */
int64_t retry_backoff(const struct config *c, unsigned attempts);
/* Evenly distributed from 0 to below span. */
int64_t retry_jitter(int64_t span);
int64_t retry_age(const struct qmgr *q, const struct message *m);
bool retry_expired(const struct qmgr *q, const struct message *m);
bool retry_is_late(const struct qmgr *q, const struct message *m); /* delay warning time */
/* When a recipient that waits would expire, wall microseconds. */
int64_t retry_until(const struct qmgr *q, const struct message *m);

/* ---- notices.c -------------------------------------------------------------------------- */

void notices_init(struct qmgr *q);
void notices_peer(struct qmgr *q, int fd);
/* Starts the notices that m owes, if none is under way. True if one is under way. */
bool notices_start(struct qmgr *q, struct message *m);
void notices_turn(struct qmgr *q);
/* Whether m is a notice of ours. */
bool notices_is_one(const struct message *m);
/* When the scan is over, before a notice that it found is delivered: recipients
 * of m whose notice is in the queue, made before a crash, are done (F10). The
 * caller settles m. */
void notices_found(struct qmgr *q, struct message *m);
/* Whether anybody hears of a failure of m: its sender, or for a notice whoever
 * gets double bounces. */
bool notices_has_reader(const struct qmgr *q, const struct message *m);

/* ---- charges.c --------------------------------------------------------------------------- */

void charges_init(struct qmgr *q);
void charges_peer(struct qmgr *q, int fd);
/* A message became durable, or was found by the scan with what its status bytes say. */
void charges_committed(struct qmgr *q, struct message *m);
void charges_found(struct qmgr *q, struct message *m, const struct store_found *found);
/* Recipients' ways ended. */
void charges_over(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count,
                  enum spool_status status);
/* It goes without having been delivered to those that are left. */
void charges_lost(struct qmgr *q, struct message *m);
/* Whether quota has, durably, what it cannot find out without m's file. */
bool charges_known(const struct qmgr *q, const struct message *m);
/* The same; if not, m is settled again when it does. */
bool charges_wait(struct qmgr *q, struct message *m);
void charges_turn(struct qmgr *q);

/* ---- pools.c ----------------------------------------------------------------------------- */

void pools_init(struct qmgr *q);
/* The source pool of m's account, as far as it is known: empty: the default one. Valid
 * until the next call. */
struct slice pools_name(struct qmgr *q, const struct message *m);
/* Whether m has to wait for it; then it is planned anew when the answer comes, and its
 * wait ends at pools_due (0: it does not wait). */
bool pools_wait(struct qmgr *q, struct message *m);
int64_t pools_due(struct qmgr *q, const struct message *m);
void pools_connected(struct qmgr *q); /* quota's channel is new */
int pools_answer(struct qmgr *q, struct slice body, struct err *e);

/* ---- intake.c: committing what is not from smtpd ------------------------------------------ */

/* Commits a notice under `id`; on success it is in the queue when done is called. */
void intake_commit_notice(struct qmgr *q, const struct id *id, const struct message *about,
                          struct slice recipient, uint32_t flags, struct slice content,
                          void (*done)(const char *error, void *arg), void *arg);
/* Commits a report of our own to a stranger: a message with the null sender. */
void intake_commit_report(struct qmgr *q, struct slice recipient, struct slice content,
                          void (*done)(const char *error, void *arg), void *arg);

/* The same for a message that is about none; `owner` is charged nothing. */
void intake_commit_own(struct qmgr *q, const struct id *id, struct slice owner,
                       struct slice recipient, uint32_t flags, struct slice content,
                       void (*done)(const char *error, void *arg), void *arg);

/* ---- events.c ------------------------------------------------------------------------------ */

void events_reload(struct qmgr *q);
void events_flush(struct qmgr *q);
void events_accepted(struct qmgr *q, const struct message *m, struct slice client,
                     struct slice message_id);
void events_active(struct qmgr *q, const struct message *m);
void events_removed(struct qmgr *q, const struct message *m, const char *why);
void events_expired(struct qmgr *q, const struct message *m);
/* The event log's line for one of its recipients; `last` is the last answer about it. */
void events_expired_recipient(struct qmgr *q, const struct message *m, uint32_t rcpt,
                              const struct answer *last);
void events_notice(struct qmgr *q, const struct message *m, const struct id *notice,
                   enum notice_kind kind, uint32_t recipients);
/* An event of no message: begins an object, or NULL if there is no event log. */
struct buf *events_begin(struct qmgr *q, const char *name);
void events_end(struct buf *b);
/* What the shaper has changed at a lane since its event number `from`
 * (shaping_show.c). */
void events_shaping(struct qmgr *q, const struct lane *l, uint8_t from);
/* A change by the operator: "held", "released" ... */
void events_purged(struct qmgr *q,
                   const struct message *m); /* a deleted message is gone for good */
void events_action(struct qmgr *q, const struct message *m, const char *action, const char *by);
enum attempt_status { ATTEMPT_SENT, ATTEMPT_DEFERRED, ATTEMPT_BOUNCED };
void events_attempt(struct qmgr *q, const struct message *m, uint32_t rcpt,
                    enum attempt_status status, const struct answer *a, const struct attempt *t);

#endif
