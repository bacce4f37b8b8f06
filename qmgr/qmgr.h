/*
 * qmgr's inside: the struct that holds everything, and what its files offer
 * each other. For the control socket see queue.h.
 *
 *   intake     smtpd channels: COMMIT to the spool, answers, credits
 *   queue      all messages: map, due heap
 *   load       messages from the spool: found by the scan, or read back
 *   action     what the operator does; deleted: what can be undone; walk: lists
 *   sites      routes (domain or address to site), sites, the resolve channel
 *   alerts     what rules want the operator to know
 *   brakes     senders that are slowed down or suspended at a destination
 *   halts      destinations that the operator has suspended
 *   dispatch   who is next: accounts, classes, lanes
 *   moves      jobs in line whose destination is another one now
 *   whole      limits over all source addresses of a provider
 *   memory     what was learned about destinations, over restarts
 *   park       whose messages wait on the disk when memory is scarce
 *   relays     jobs at relay processes, results
 *   outcome    what a result means for a recipient; retry: when to try again
 *   notices    failure, delay and success notices; the bounce channel
 *   charges    what accounts pay for; the quota channel
 *   tokens     which mail of accounts was reserved, and may be committed
 *   pools      from which source pool an account's mail goes
 *   events     log lines and the JSON event log
 */
#ifndef POSTERN_QMGR_QMGR_H
#define POSTERN_QMGR_QMGR_H

#include "core/clock.h"
#include "core/map.h"
#include "qmgr/greylist.h"
#include "qmgr/odd.h"
#include "qmgr/peer.h"
#include "qmgr/queue.h"
#include "qmgr/shaper.h"
#include "qmgr/tokens.h"
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

struct alerts; /* alerts.h */
struct brake;  /* brakes.h */
struct brakes; /* the same */
struct job;
struct source;        /* sources.h */
struct source_record; /* the same */
struct sources;       /* the same */
struct rule;
struct rules;
struct tallies;
struct whole; /* whole.h */

/* ---- destinations ----------------------------------------------------------- */

struct route; /* sites.c */

struct group; /* groups.c */

struct site {
    struct list all;
    struct group *group;
    char *key; /* transport digit and name; then what else tells it from its likes: sites.c */
    size_t key_len, name_len;
    char *domain; /* one whose mail goes there: providers.conf may name it */
    bool own;     /* as in struct group */
    uint8_t transport;
    struct buf targets; /* encoded ipc_target list */
    char *tls;          /* the last connection's: "Verified TLSv1.3 with ...", "" or NULL */
    uint32_t refs;      /* routes and jobs */
    uint8_t families;   /* of its targets: 1 IPv4, 2 IPv6 */
    uint64_t sessions;  /* the same for sites whose targets are the same: they share sessions */
};
static inline struct slice site_name(const struct site *s)
{
    return slice_make(s->key + 1, s->name_len);
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
/* Whether two ask for the same. */
bool tls_rules_same(const struct tls_rules *a, const struct tls_rules *b);
void tls_rules_unref(struct tls_rules *r);

/* What providers see as one destination, and so the unit of limits: a provider, MX host
 * or domain that providers.conf has an entry for, or else the sites whose targets are the
 * same, whatever their names. */
struct group {
    struct list lanes;
    struct list line; /* struct job: in line at its lanes, oldest first but for what came back */
    struct heap_node look; /* in dispatch.looks */
    int64_t looked;        /* monotonic: when its lines were gone through last; 0: never */
    char *key;             /* unique */
    char *stable;          /* the same over restarts */
    char *name;            /* for people: of the entry, or of the first site */
    struct {
        uint64_t sum, own; /* group_targets_sum, and whether it is an own next hop */
    } at;                  /* where that site's servers are: sites of other names are met there */
    bool met;              /* in shaping.groups_at */
    char *provider, *site, *domain; /* entries of providers.conf that apply, or NULL */
    bool braked;                    /* some sender is or was slowed or suspended here: brakes.h */
    bool own;                /* relayhost or a table names it, not the MX records of the domain */
    unsigned provider_index; /* in the present set of rules; 0: none */
    uint32_t refs;           /* sites and lanes */
    struct whole *whole;     /* limits over all sources; NULL: there are none */
};

/* Whose turn it is among classes: what each is owed. */
struct class_turns {
    int32_t credit[3];
};

/* The unit of shaping: a group from one source address. */
struct lane {
    struct list of_group, all;
    struct list of_whole;         /* while it waits there: whole.h */
    struct group *group;          /* with `from` its key: they stay beside each other */
    struct source *from;          /* NULL: smtp_bind_address */
    struct source_record *record; /* of it at this provider; NULL without a source */
    struct source_record *capped; /* what its daily cap counts, perhaps the same; NULL: no cap */
    struct odd odd;               /* its refusals that nobody understands */
    struct greylist greylist;
    struct shaper shaper;  /* its limits are a reference: limits_unref */
    struct heap_node wake; /* when the shaper may allow more */
    struct list waiting;   /* accounts that wait for room here: one queue of each */
    struct list queues;    /* all of its queues */
    struct queue *recent;  /* that was used last */
    uint32_t queued, in_flight;
    uint32_t recipients;            /* in line or under way */
    uint32_t number;                /* connections.h, as the following */
    uint16_t open, leaving, claims; /* connections */
    bool no_reuse;
    bool cold;                /* its source warms up there */
    bool blocked;             /* its suspension is a block: other sources take over */
    bool paced;               /* what it waited for last was the rate, not a connection */
    uint16_t mail_max;        /* messages on one connection, by the server's EHLO; 0: not said */
    uint32_t used;            /* clock_tenths: last job */
    int64_t blamed;           /* monotonic: when accounts were blamed for a refusal last */
    struct answer *last;      /* last failure of the site */
    struct answer *suspended; /* what jobs are told while it is suspended */
};

/* ---- jobs --------------------------------------------------------------------- */

enum job_state { JOB_ROUTING, JOB_QUEUED, JOB_READING, JOB_SENT };

/* Work for relay: some recipients of a message, one site, one source. */
struct job {
    struct list link; /* of a route's waiting, a queue's or relay's jobs, a brake's line */
    struct list of_message;
    struct list of_line; /* while it is in line: of its group's, or of dispatch.looking */
    struct message *m;
    struct route *route;   /* until it is submitted */
    struct site *site;     /* once routed; counts as a reference */
    struct queue *queue;   /* once in line */
    struct relay *relay;   /* once chosen */
    struct lane_at *at;    /* the same: of its lane there */
    struct tls_rules *tls; /* once routed */
    uint64_t number;       /* once chosen: in the job table */
    int64_t sent_at;       /* monotonic */
    uint32_t count, room, bytes;
    uint8_t state;
    bool dot;            /* its end of data is being sent */
    bool may_connect;    /* what connect_rate_take has said */
    bool paid;           /* its brake's token */
    bool probe;          /* of its brake: others wait for what becomes of it */
    struct brake *brake; /* in whose line it waits, instead of in its queue; or NULL */
    uint32_t rcpts[];
};

/* ---- everything --------------------------------------------------------------- */

struct dispatch {
    struct map accounts, queues, lanes_known; /* the latter by struct lane_key */
    struct account *recent;
    struct list active; /* accounts with ready queues */
    struct list lanes;
    struct heap looks;              /* groups whose jobs in line may belong elsewhere: moves.h */
    struct list looking;            /* struct job: in line, and gone through just now */
    struct heap wakes, whole_wakes; /* of lanes; of struct whole */
    struct map seats;               /* by account and group: seats.h */
    struct list seats_due;
    struct heap seats_wakes;
    uint32_t lane_number;      /* of the lane that was made last */
    uint32_t seats_generation; /* of the limits in providers.conf */
    uint64_t queued, in_flight;
    uint32_t busy_queues;  /* that have jobs */
    uint64_t lanes_looked; /* overdue.c: of the list, in this round */
};

struct shaping {
    struct map groups;       /* by key */
    struct map groups_at;    /* those without an entry in providers.conf, by their servers */
    struct map limits;       /* that lanes share */
    struct map wholes;       /* of providers, over all sources: whole.h */
    struct rules *rules;     /* providers.conf; NULL until master has sent it */
    struct tallies *tallies; /* of rules that act from the n-th time on, or on a fraction */
    unsigned counted_scopes; /* of the latter: bits 1 << enum rules_scope */
    struct memory *memory;
};

struct sites {
    struct map routes, asked, sites;
    struct list lru; /* routes, least recently used first */
    struct list all;
    struct list unsent; /* routes whose question waits for room or a channel */
    struct peer peer;   /* resolve */
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
    struct peer peer;   /* bounce */
    struct list wanted; /* struct notice, not sent yet */
    struct map asked;   /* by tag */
    uint64_t next_tag;
    uint32_t outstanding;
};

struct charges {
    struct peer peer;                /* quota */
    uint64_t generation;             /* of the channel: how many there were */
    struct list batches;             /* struct charge_batch, not acknowledged */
    struct list waiting;             /* struct envelope.waiting */
    struct buf fresh, over;          /* charges and settlements of the batch that is gathered */
    uint32_t number;                 /* of that batch */
    uint32_t acknowledged;           /* all batches up to this one */
    uint32_t credit, unacknowledged; /* batches: allowed; sent */
    uint64_t question;               /* held until the scan is over */
    bool looked;                     /* for its messages in corrupt/ */
    struct buf asked;                /* its IDs */
};

struct pools {
    struct map accounts; /* struct account_pool */
    struct list recent;  /* the same, least recently used first */
    uint32_t generation; /* answers of another one may be out of date */
    bool stale;          /* those with mail in line are to be asked about again */
    int64_t asked;       /* monotonic: when that was done last */
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
    uint32_t
        owners_only; /* process number of an smtpd that comes, all of whose mail is of accounts */
    struct list commits_free;
    unsigned commits_free_count;
    struct dispatch dispatch;
    struct shaping shaping;
    struct sources *from;  /* source addresses */
    struct alerts *alerts; /* for the operator */
    struct brakes *brakes; /* senders that are slowed down or suspended somewhere */
    struct halts *halts;   /* destinations that are suspended by hand */
    struct sites sites;
    struct relays relays;
    struct notices notices;
    struct charges charges;
    struct tokens tokens;
    struct pools pools;
    struct events events;
    uint64_t deliveries; /* whose results came: numbers of the event log */
    struct queue_counters counters, minute_start, a_minute;
    int64_t next_sweep, started;
};

/* Callbacks from outside begin with it: the turn's time may be long ago. */
static inline void queue_tick(struct qmgr *q)
{
    q->now = clock_mono();
}

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

/* ---- sites.c --------------------------------------------------------------------- */

void sites_init(struct qmgr *q);
/* Reads defer_transports; true if it changed. */
bool sites_reload(struct qmgr *q);
void sites_peer(struct qmgr *q, int fd);
/* providers.conf has changed: what is known of destinations belongs to the groups that it says now,
 * and what is in line in others moves. */
void sites_regroup(struct qmgr *q);
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

/* ---- lanes.c, sharer.c, turns.c, jobs.c, dispatch.c
 * ------------------------------------------------------------------- */

enum place { PLACE_IDLE, PLACE_READY, PLACE_WAITING, PLACE_SEATS, PLACE_ROUTE };

struct queue {
    struct list link; /* ready in its account, waiting in its lane, for a seat, or for a route */
    struct list of_lane;
    struct list
        again; /* jobs that were refused before, their time has come: by turns with others */
    struct list jobs;
    struct list parked;      /* struct message: sent away for want of memory */
    struct account *account; /* with lane and mail_class its key: they stay beside each other */
    struct lane *lane;
    uint8_t mail_class;
    uint8_t place : 7;
    bool took_again : 1; /* the last one that was started was of `again` */
    uint8_t debt;        /* turns that it leaves to others: it made up that window */
    uint8_t kin;         /* bits: classes of which its account has a queue there */
    int16_t credit;      /* among those that wait there: whose turn it is */
    uint16_t owed;       /* turns that it leaves to others for the size of its jobs */
    uint32_t count;      /* of its jobs that were not started, also those in brakes' lines */
    uint32_t in_flight;  /* jobs that were started */
    uint32_t window;     /* recipients started since accounts were blamed there last */
    uint32_t seats_seen; /* of which generation of limits seats are */
    uint32_t asked;      /* clock_tenths: when it began to wait for routes of its first job */
    uint32_t routed;     /* the same: one of them was known; 0: a job started since */
    struct seats *seats; /* of its account there, where that has limits of its own; or NULL */
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
/* A job leaves a brake's line: it is in its queue again, before those that came later. */
void dispatch_again(struct qmgr *q, struct job *j);
void dispatch_turn(struct qmgr *q);
int64_t dispatch_next_due(const struct qmgr *q);
void dispatch_reload(struct qmgr *q);
void dispatch_unsuspend_all(struct qmgr *q);
void dispatch_sweep(struct qmgr *q);
/* overdue.c: whose message is in line for longer than delay_warning_time is told, and what is
 * older than its lifetime expires. Once a minute. */
void overdue_sweep(struct qmgr *q);
/* The lane of a group from a source (NULL: the default one); made if need be. */
struct lane *dispatch_lane(struct qmgr *q, struct group *group, struct source *from);
/* The same if there is one, or NULL. */
struct lane *dispatch_lane_known(const struct qmgr *q, struct group *group, struct source *from);
/* Takes a job that is in line out of it. */
void dispatch_take(struct qmgr *q, struct job *j);
/* Takes all jobs in line there off their queues, into the list. */
void dispatch_take_all(struct qmgr *q, struct lane *l, struct list *jobs);
/* Who gets a share of its own: the account, or where there is none '@' and the organisational
 * domain of the sender's (domain/organisation.h), in the buffer: whoever has a domain makes as many
 * below it as he likes. '@' alone: there is no sender either. */
struct slice dispatch_sharer(const struct message *m, char buffer[static ACCOUNT_MAX + 1]);
/* The same of mail without an account from a domain. */
struct slice dispatch_sharer_of(struct slice domain, char buffer[static ACCOUNT_MAX + 1]);
/* Goes through those who have a share, an account each or as dispatch_sharer says; ptr NULL: no
 * more. */
struct slice account_next(const struct qmgr *q, size_t *cursor);
/* The queues of a lane may go on: its limits have changed. True: one of them does. */
bool dispatch_wake(struct qmgr *q, struct lane *l);
/* The lane has been suspended: its messages wait outside, with the reason. */
void dispatch_suspend(struct qmgr *q, struct lane *l);

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

/* ---- parts with a header of their own ------------------------------------------------------ */

#include "qmgr/charges.h" /* quota's channel */
#include "qmgr/events.h"
#include "qmgr/groups.h"
#include "qmgr/intake.h"
#include "qmgr/life.h"    /* queue.c, load.c, deleted.c, walk.c */
#include "qmgr/outcome.h" /* outcome.c, retry.c, notices.c */
#include "qmgr/verdict.h"

#endif
