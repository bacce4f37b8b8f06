/*
 * quota's inside: the struct that holds everything, and what its files offer each
 * other.
 *
 *   accounts   accounts and users in memory, parties: what is counted for them; reading and
 *              writing
 *   lookups    users and addresses that were looked up lately
 *   sync       making changes durable, off the loop
 *   login      AUTH: login_password, login_scram; prepare: names and passwords as Unicode
 *              has them; recent: those that were right a moment ago; verify: the threads
 *              that hash; tickets: what stands for a login later
 *   failures   failed logins and what they cost
 *   gate       MAIL: may it be sent? reservations: the end of data; guard, spike: an account
 *              that sends far more than it used to; rates
 *   book       charges and settlements from qmgr: book_count counts, book_sweep asks
 *              about old ones, book_held releases mail that is held for its rate,
 *              book_link is the channel
 *   letters    alerts and warnings, handed to qmgr; reports: of a whole period
 *   control    the socket of `postern account`, requests_*: what it serves
 *   owners     which accounts own a domain; pools: names of source pools
 *   missing    accounts whose plan is not in plans_file; plan_changes: what else has changed there
 *   frozen     tables as they were at one moment, for export
 *
 * One thread runs all of it and alone changes the database; what it changes is
 * seen at once and durable when sync says so. Helpers fsync, hash passwords and
 * make snapshots.
 */
#ifndef POSTERN_QUOTA_QUOTA_H
#define POSTERN_QUOTA_QUOTA_H

#include <jansson.h>

#include "core/clock.h"
#include "core/id.h"
#include "core/list.h"
#include "core/map.h"
#include "quota/records.h"
#include "service/service.h"
#include "store/kv.h"
#include "token/token.h"

enum {
    SMTPDS_MAX = 256,
    QUESTION_CREDIT = 20000, /* questions of one smtpd without an answer */
    BATCH_CREDIT = 64,       /* batches of charges of qmgr without CHARGED */
    ACCOUNTS_CACHED = 20000, /* accounts and parties in memory that are not in use */
    GRANTS_MAX = 1000,       /* of one account */
    AUTHORS_MAX = 50,        /* addresses of From: that are looked at */
    /* a reservation without a charge ends, and not before a COMMIT of it can be charged */
    RESERVE_SECONDS = TOKEN_SECONDS + 60,
    CLOSED_SECONDS = 900, /* a finished charge is kept, for what a power cut repeats */
    TICKET_MAX = 512,
    IMPORT_SECONDS = 60,                    /* between two parts of an import that goes on */
    PENDING_MAX = 1000000,                  /* reservations in memory */
    RESERVATIONS_OF_SMTPD = PENDING_MAX / 4 /* one that misbehaves leaves room for others */
};

/* ---- accounts.c --------------------------------------------------------------------- */

/* What is counted for an account, or for one of its users. */
struct party {
    struct list link; /* of the cache, least recently used first */
    struct list dirty;
    char owner[OWNER_MAX + 1];
    struct plan_usage usage; /* of the current period */
    struct tally tally;
    struct volume pending; /* reserved and not charged yet */
    uint32_t reservations; /* that point here: it stays in memory */
    bool usage_dirty, tally_dirty;
    bool again; /* the plan may be another one: the period is looked up */
};

enum account_status { ACCOUNT_ACTIVE, ACCOUNT_SUSPENDED, ACCOUNT_CLOSED };

struct account {
    struct list link, dirty;
    char name[ACCOUNT_NAME_MAX + 1];
    char parent[ACCOUNT_NAME_MAX + 1]; /* or empty */
    char plan_name[PLAN_NAME_MAX + 1];
    char reference[ADDRESS_TEXT_MAX + 1];
    char source[PLAN_NAME_MAX + 1];
    uint32_t destination_connections; /* its own; 0: its plan's */
    struct plan_rate destination_rate;
    const struct plan *plan; /* never NULL; see plan_missing */
    int64_t began, ends;     /* of the plan, seconds; ends 0: never */
    int64_t epoch;           /* changes when its users' sessions shall end (tickets.c) */
    int64_t since;           /* it was added; charges before that were of another of its name */
    uint8_t status;          /* enum account_status */
    bool any_sender;
    bool plan_missing; /* plans_file has no plan_name: `plan` is what it was, or unlimited, and
                          the account's mail gets 451 */
    uint8_t mail_class;
    uint8_t class_most;   /* the highest that a message's header may ask for */
    struct grant *grants; /* those that are not over, in the order of use */
    size_t grant_count;
    bool grants_dirty;
    int64_t reported;     /* when the period after the last reported one ends; 0: none was */
    uint32_t warned;      /* the fewest days before its end that its owner was told of; 0: none */
    uint32_t warned_bits; /* the same in older records: by the places in the plan's list */
};

struct user {
    char login[LOGIN_MAX + 1], account[ACCOUNT_NAME_MAX + 1];
    char hash[512], scram[340];
    bool suspended;
    bool classed;                   /* it has a class of its own: */
    uint8_t mail_class, class_most; /* as struct account's */
    int64_t epoch;                  /* changes when its sessions shall end (tickets.c) */
};

/* The member of an account's or user's record that changes when its sessions shall end. */
#define RECORD_EPOCH "epoch"
/* Those that say which warnings of its plan's end were told: see struct account, and as they
 * were once, bits by the place in the plan's list. */
#define RECORD_WARNED "warned_days"
#define RECORD_WARNED_BITS "warned"

struct quota;

/* From memory or the database; NULL if there is none. Valid until the turn's end. */
struct account *account_find(struct quota *q, struct slice name);
/* Fills *out; 1, 0 if there is none. */
int user_find(struct quota *q, struct slice login, struct user *out);
void account_touched(struct quota *q, struct account *a); /* grants changed */
/* Forgets what is in memory of an account, after the database was changed. What was
 * counted must have been written (accounts_gather). */
void account_forget(struct quota *q, struct slice name);
/* Adds all that is dirty to a batch. */
void accounts_gather(struct quota *q, struct buf *batch);
void accounts_trim(struct quota *q);
void accounts_reload(struct quota *q); /* plans have changed */
/* Whether the account (or one above it) may send as this address. */
bool account_owns(struct quota *q, struct account *a, struct slice address);
/* The class of the account's (or one above it) domain or address; -1: it has none. */
int account_sender_class(struct quota *q, struct account *a, struct slice sender);
/* The chain of accounts that a message is counted in, the account first. */
unsigned account_chain(struct quota *q, struct account *a,
                       struct account *chain[static CHARGE_LEVELS_MAX]);
/* What one message of such a chain may have: the smallest that a plan of it says; 0: no limit. */
struct message_limits {
    uint64_t size, recipients;
};
struct message_limits account_message_limits(struct account *const *chain, unsigned levels);
/* The source pool of its mail: its own, its plan's, or those of an account above it;
 * "": the default one. */
const char *account_pool(struct quota *q, struct account *a);
/* Its limits at any one destination: its own, else its plan's, and never more than those of
 * the accounts above it; 0: none. */
void account_at_destination(struct quota *q, struct account *a, uint32_t *connections,
                            uint64_t *recipients_a_day);
/* Active, and its plan has not ended; so are those above it. Otherwise *why. */
bool account_usable(struct quota *q, struct account *a, const char **why);
/* The one of them for which that does not hold, or NULL. */
const struct account *account_stopped(struct quota *q, struct account *a, const char **why);
/* The one of them whose plan is not in plans_file, or NULL: what it may send is not known. */
const struct account *account_without_plan(struct quota *q, struct account *a);

/* ---- parties.c ------------------------------------------------------------------------ */

/* The counts of an account (user empty) or user, in the running period: that of the account's
 * plan, as a rule. A plan that changes in the middle (another one, another zone, anchor or
 * length) lets the running period go on, with all that was used in it, and end when the new
 * plan's does; the next begins there. Only from or to a plan without a period does it begin
 * anew. Users have their account's periods. */
struct party *party_find(struct quota *q, struct account *a, struct slice user);
/* What was counted for an owner in the last period that began not later than `most`, in
 * seconds, as the database has it; false if there is none. */
bool party_last_usage(struct quota *q, const char *owner, int64_t most, struct plan_usage *out);
/* Usage or rates of an owner were replaced in the database; nothing of them was dirty. */
void party_again(struct quota *q, struct slice owner);
void parties_again(struct quota *q, const char *account); /* an account and its users */
void party_touched(struct quota *q, struct party *p);     /* usage and tally changed */
/* Each period is looked up again: its account may have another plan. */
void periods_again(struct quota *q);
void parties_init(struct quota *q);
void parties_gather(struct quota *q, struct buf *batch); /* all that is dirty */
void parties_trim(struct quota *q);

/* ---- lookups.c ------------------------------------------------------------------------ */

/* What was read of the database a moment ago, so that a busy sender costs no look-up:
 * users that exist, and which addresses an account may use. */
struct lookups {
    struct map users;     /* struct known_user, by login */
    struct map addresses; /* struct known_address, by account and address */
    struct map classes;   /* the same, of senders */
};

void lookups_init(struct lookups *r);
void lookups_free(struct lookups *r);
/* NULL: not known. Valid until the next call of this file. */
const struct user *lookups_user(const struct lookups *r, const char *login);
void lookups_add_user(struct lookups *r, const struct user *u);
/* Whether it is known that the account may send as this address (lower case). */
bool lookups_own(const struct lookups *r, const char *account, struct slice address);
void lookups_add_owned(struct lookups *r, const char *account, struct slice address);
/* The class of mail of this account's sender, in lower case, as lookups_add_class was told;
 * false: not known. */
bool lookups_class(const struct lookups *r, const char *account, struct slice sender, int *out);
void lookups_add_class(struct lookups *r, const char *account, struct slice sender, int mail_class);
void lookups_forget_user(struct lookups *r, const char *login);
/* A batch that was applied: forgets all if it changes what this is about. True if so. */
bool lookups_changed(struct lookups *r, struct slice batch);

/* ---- sync.c -------------------------------------------------------------------------- */

struct sync;
/* Starts the helper threads. */
struct sync *sync_new(struct quota *q, struct err *e);
void sync_free(struct sync *s);
/* Applies a batch now; `done` (may be NULL) is called when it is durable. The
 * process ends if the database fails: it recovers when it starts again. */
void sync_apply(struct quota *q, struct slice batch, void (*done)(void *arg), void *arg);
/* The same for what nobody outside sees: answers that were given hold, and what was looked up
 * lately stays; the caller forgets what is another now. */
void sync_apply_unseen(struct quota *q, struct slice batch);
/* A snapshot; `done` with NULL or the error. 0, or -1: one is being made. */
int sync_snapshot(struct quota *q, void (*done)(const char *error, void *arg), void *arg);
/* Now and then: checkpoint, snapshot when the log has grown. */
void sync_tick(struct quota *q);

/* ---- login*.c, tickets.c ----------------------------------------------------------------- */

struct smtpd {
    struct quota *q;
    struct channel *channel;
    unsigned number;      /* from 1: the same for the process that takes its place */
    struct map questions; /* struct question: exchanges and passwords under way */
    uint32_t count;
    uint32_t reserved; /* reservations that it asked for and that are not over */
    uint32_t told;     /* limits and answers to MAIL since the last MAIL_FORGET */
};
struct slice smtpd_question_key(const void *value); /* for the map */
struct logins;
struct logins *logins_new(struct quota *q, struct err *e);
void logins_free(struct logins *l);
int login_password(struct smtpd *s, struct slice body, struct err *e);
int login_scram(struct smtpd *s, struct slice body, struct err *e);
int login_response(struct smtpd *s, struct slice body, struct err *e);
int login_abort(struct smtpd *s, struct slice body, struct err *e);
int login_client(struct smtpd *s, struct slice body, struct err *e);
int login_outside(struct smtpd *s, struct slice body, struct err *e);
int login_certificate(struct smtpd *s, struct slice body, struct err *e);
void login_forget(struct smtpd *s); /* its channel is gone */
/* The user was changed or deleted: its password is not remembered any more; those of
 * all others are. */
void login_changed(struct quota *q, const char *login);
/* Hashes a new password on a thread: `done` gets the user's "password" and "scram"
 * texts, or NULL if it cannot be. The password is copied. */
void login_hash(struct quota *q, struct slice password,
                void (*done)(const char *hash, const char *scram, void *arg), void *arg);
/* Whom a ticket names, and the epoch of that login. */
struct ticket {
    char account[ACCOUNT_NAME_MAX + 1];
    char user[LOGIN_MAX + 1]; /* empty: clients of mynetworks, or all unknown users */
    uint64_t epoch;
};
/* 0 or -1: it is not ours, or too old. */
int ticket_read(struct quota *q, struct slice ticket, struct ticket *t);
/* Of those who log in now; the user may be NULL. */
uint64_t ticket_epoch(struct quota *q, struct account *a, const struct user *u);

/* ---- gate.c, reservations.c ----------------------------------------------------------------- */

/* What a reservation has taken of one party, which stays in memory as long. */
struct taken {
    struct party *party;
    struct volume volume;
};
struct reservation {
    struct list link; /* by age */
    char id[20];
    char owner[OWNER_MAX + 1];
    uint64_t size;
    uint32_t recipients;
    uint64_t serial;    /* of its token */
    int64_t at;         /* monotonic */
    int64_t held_until; /* for its rate, seconds; 0: it is not */
    bool held;          /* by the spike guard */
    struct smtpd *s;    /* that asked for it, or NULL if its channel is gone */
    unsigned parties;
    struct taken taken[];
};
int gate_mail(struct smtpd *s, struct slice body, struct err *e);
int gate_limits(struct smtpd *s, struct slice body, struct err *e);
int gate_reserve(struct smtpd *s, struct slice body, struct err *e);
int gate_release(struct smtpd *s, struct slice body, struct err *e);
/* Accounts, users or plans have changed: answers to MAIL, and limits that were told, do not
 * hold any longer. */
void gate_changed(struct quota *q);
/* What was reserved for a message, or NULL. */
const struct reservation *gate_reservation(struct quota *q, struct slice id);
/* The message is charged now: its reservation, if there is one, is over. */
void gate_charged(struct quota *q, struct slice id);
void gate_forget(struct smtpd *s); /* its channel is gone */
void gate_tick(struct quota *q);

/* ---- book.c ------------------------------------------------------------------------------- */

void book_peer(struct quota *q, int fd);
/* Lets qmgr tell of charges, unless this is an empty database that waits for an import: what
 * is in the queue belongs to accounts that are not there yet. Called after changes, and now
 * and then. */
void book_ready(struct quota *q);
/* Writes all that was counted: charges with the usage that follows from them, in
 * one transaction. Called before anything that reads or replaces what is in memory,
 * never between a charge and its usage. */
void book_apply(struct quota *q);
/* Changes that go with what is counted: written with the next book_apply. */
struct buf *book_extra(struct quota *q);
void book_turn(struct quota *q);
void book_tick(struct quota *q);
bool book_is_idle(const struct quota *q);
/* The account, or this user of it (""), may be able to send again: what is held and waits for it
 * is looked at next. */
void book_look_at(struct quota *q, const char *account, const char *user);
/* The rates that an account's held mail waits for may be other ones (account NULL: those of all):
 * it gets other turns. That this is to be done is added to the batch that changes them. */
void book_rates_changed(struct quota *q, struct buf *batch, const char *account);
/* plans_file was read. */
void book_plans_read(struct quota *q);
/* At the start: *e tells what failed. 0 or -1. */
int book_restored(struct quota *q, struct err *e);
/* In a batch that is applied next: it has charges as they were at an earlier time. They hold from
 * then on. */
void book_restored_put(struct quota *q, struct buf *batch);
/* Source pools of accounts may have changed: qmgr is told to ask again. */
void book_pools_changed(struct quota *q);

/* ---- letters.c ------------------------------------------------------------------------------ */

/* After a charge: whatever the account's owner has to be told of. */
void letters_after_charge(struct quota *q, struct account *a, struct party *p);
/* The account sends far more than it used to. */
void letters_spike(struct quota *q, struct account *a, const struct party *p, bool held);
/* qmgr is there: what it has not taken is sent. */
void letters_connected(struct quota *q);
void letters_taken(struct quota *q, uint64_t tag, bool stored);
/* qmgr has this letter, and keeps its file until the removal here, which is written with the
 * batch of charges, is durable: so it comes once, whoever dies. */
void letters_stored(struct quota *q, struct slice id);
/* Ends of plans, in slices. */
void letters_tick(struct quota *q);

/* ---- reports.c ----------------------------------------------------------------------- */

/* Sends the reports of periods that are over, if the plan wants them. */
void reports_account(struct quota *q, struct account *a);
/* What was counted in the account's period that this time lies in; where nothing was, or only
 * without periods, the period as the plan has it, with zeros. */
void reports_period(struct quota *q, const struct account *a, int64_t time, struct plan_usage *out);
void reports_tick(struct quota *q); /* forgets old failures */

/* ---- control.c --------------------------------------------------------------------------------
 */

struct control;
struct control *control_new(struct quota *q);
void control_free(struct control *c);

/* ---- everything ---------------------------------------------------------------------------------
 */

struct book {
    struct channel *channel; /* qmgr's, or NULL */
    bool ready;              /* it may send charges */
    bool broke_rules;
    bool pools_told;    /* since the last time that it was told to forget them */
    struct map open;    /* struct entry: charges in memory */
    struct list recent; /* the same, least recently used first */
    struct list dirty;
    size_t dirty_bytes;  /* that those need in a batch, at most */
    uint64_t recipients; /* of the charges in memory */
    uint32_t batch;      /* the last that was taken in */
    bool unsynced;       /* it is not on its way to the disk yet */
    bool asked;          /* the batch is among what is not: CHARGED follows */
    uint32_t syncing;
    int64_t last_sync;      /* monotonic: when the last one began */
    struct event *interval; /* until the next may */
    int64_t began;          /* monotonic: when this process did */
    uint64_t generation;    /* of the channel: answers for an older one are dropped */
    uint64_t query;         /* tag of the question under way, 0: none */
    struct key sweep;       /* where the search for old charges goes on */
    int64_t next_sweep;
    struct map releasing;       /* struct release: qmgr was told, and has not answered */
    struct key parked;          /* where the look at who held mail waits for goes on */
    struct event *release_soon; /* there is more to be released */
    bool looked;                /* through all of them since qmgr's channel came */
    int64_t restored; /* charges up to then may be of an older database than the queue; or 0 */
    bool scanned; /* qmgr has answered on its channel: it has told of all that is in the spool */
    uint64_t charged, delivered, refunded, repeated, strangers;
};

/* Held mail that gets other turns: see book_turns.c. */
struct turns {
    bool all;         /* that of all accounts */
    json_t *accounts; /* an object with their names; or NULL */
    bool next_all;    /* the same of changes that came while others are worked on */
    json_t *next;
    bool taking;   /* T_HELD is gone through; */
    bool filing;   /* what was taken back gets its turns: T_PARKED is gone through; */
    struct key at; /* from here */
    bool plans_read;
    int64_t changed; /* monotonic: rates were, the last time */
};

struct letters {
    uint64_t next_tag;
    struct map sent;  /* struct letter, by tag */
    struct key sweep; /* where the look at all accounts goes on; empty: it is over */
    int64_t hour;     /* since 1970: of the last look */
    struct key failures;
    int64_t next_failures; /* monotonic: when old ones are looked for */
};

/* Plans that accounts name and plans_file does not have: missing.h. */
struct missing {
    struct plans known; /* as they were before they went */
    json_t *census;     /* of accounts by their plan's name, under way; or NULL */
    struct key at;      /* where it goes on */
    bool begun, tell;
    uint64_t accounts; /* whose plan is missing, by the last census */
};

struct quota {
    struct service *s;
    struct kv *kv;
    struct plans plans;
    struct missing missing;
    struct sources_conf *sources; /* sources.conf; NULL: it has not come, or there is none */
    struct zones *zones;
    struct sync *sync;
    struct logins *logins;
    struct map accounts, parties; /* by name, by owner */
    struct lookups lookups;
    struct list account_lru, party_lru, dirty_parties, dirty_accounts;
    struct smtpd *smtpds[SMTPDS_MAX];
    unsigned smtpd_count;
    struct map reservations; /* by ID */
    struct list reserved;    /* the same by age */
    struct book book;
    struct turns turns;
    struct letters letters;
    struct control *control;
    struct list frozen; /* struct frozen: exports under way */
    struct event *tick;
    struct buf value; /* for reading */
    unsigned char ticket_key[32];
    unsigned char token_key[TOKEN_KEY]; /* qmgr's */
    bool token_known;                   /* it has come on qmgr's channel */
    uint64_t token_serial;              /* of the next token */
    uint64_t audit_number;
    bool empty;           /* nothing was ever changed in the database */
    int64_t import_until; /* monotonic: an import into it is under way until then, or 0 */
    bool disk_full;
};

/* ---- reports.c: records of T_FAILURE ---- */

#define FAILURE_OF "of"
/* A record with its "account" in it, also where it stands under an account above that one. The
 * caller decrefs; NULL: it is gone, or not readable. */
json_t *failure_read(struct quota *q, struct slice key, struct slice value);

/* Seconds since 1970. */
static inline int64_t quota_now(void)
{
    return clock_wall() / CLOCK_SECOND;
}
/* Reads into q->value; false if it is not there. An error ends the process. */
bool quota_get(struct quota *q, enum table t, struct slice key);
/* The same parsed as JSON, which the caller decrefs, or NULL. */
json_t *quota_get_json(struct quota *q, enum table t, struct slice key);
void quota_put_json(struct buf *batch, enum table t, struct slice key, const json_t *value);
const char *json_text(const json_t *object, const char *name); /* "" if it is none */

#endif
