/*
 * Brakes: one sender's mail at one destination goes slower, or not at all, while that of
 * the others goes on. Put on by rules whose scope is "account" or "dkim", or by hand.
 *
 * A sender is an account (as dispatch_sharer names it), or the domain that answers for a
 * message (message_signer); one that is suspended by hand with all domains below it. A destination
 * of a rule's is a group. It is known by group.stable, and where that changes (an address more in
 * DNS, a new entry in providers.conf) by its name. By hand it is what a name means
 * (group_is_called), as in halts.h: a provider with all its sections, a destination, a site or a
 * domain, whatever comes later and also before any mail; or all.
 *
 * Suspended: the mail is deferred, for a while at a time, so that it expires and warns of
 * delays as ever. Slowed: what finds no token waits in the brake's own line, oldest first,
 * and comes to the front of its queue again when its token is due. The rate at which it was
 * refused is remembered: the brake grows fast to just below it and slowly beyond. After a
 * suspension by a rule one message goes alone; when it is taken the others follow, slowed.
 *
 * Times are monotonic in memory, so that a clock that is set neither ends a suspension nor
 * prolongs it, and wall time in the file: suspensions outlive a restart, "shaping.brakes"
 * in the spool.
 */
#ifndef POSTERN_QMGR_BRAKES_H
#define POSTERN_QMGR_BRAKES_H

#include "qmgr/kept_file.h"
#include "qmgr/qmgr.h"

enum {
    BRAKES_MAX = 4000,
    BRAKES_OF_RULES_MAX = 3000, /* the others are the operator's alone */
    BRAKES_PLACE_MAX = 1000,    /* of rules, at one destination */
    BRAKE_REASON_MAX = 300,
    BRAKE_DAYS_MAX = 366 /* a longer suspension is one for good */
};

enum brake_kind { BRAKE_ACCOUNT, BRAKE_SIGNER };

struct brake {
    struct list link;
    char *key, *alias; /* kind, who and place; kind, who and name: unique */
    char *place, *who; /* group.stable, "called " and the name, or "" for all; of the sender */
    char *name;        /* of the place, for people */
    char *reason;      /* the rule and the reply, or the operator's words */
    uint8_t kind;      /* enum brake_kind */
    bool by_hand;
    bool called;               /* it holds wherever `name` is meant; in brakes.called */
    struct brake *same;        /* the next of those of this kind and sender */
    bool probing;              /* a suspension is over: one message at a time until one is taken */
    int64_t until;             /* suspended until then; INT64_MAX: for good; 0: not */
    int64_t time;              /* of the last suspension by a rule */
    double rate;               /* recipients a second; 0: no limit */
    double failed;             /* the rate at which it was refused last; 0: never */
    double tokens;             /* as of `filled` */
    int64_t filled, cut;       /* tokens; refused last, or put on */
    uint32_t taken;            /* recipients since the last cut */
    int64_t paced, pause;      /* time since then in which tokens were waited for; what the cut
                                * was followed by, without any */
    int64_t hold, grown;       /* after a refusal the rate does not grow for so long; grown last, or
                                * when that is over */
    struct shaper_times times; /* of the lane that was refused something */
    struct list line[3];       /* jobs that wait for tokens, by class, oldest first */
    struct class_turns turns;
    uint32_t held;         /* jobs in them */
    struct heap_node wake; /* when the first of them may go */
    const struct job *probe;
};

struct brakes {
    struct map by_key, by_alias;
    struct map called; /* by kind and sender: the first of those by hand at a name */
    struct list all;
    struct heap wakes;
    struct kept_file file;
    uint32_t everywhere, of_rules, probes; /* at all places; not by hand; jobs that are probes */
    uint64_t held;                         /* jobs in their lines */
    int64_t told_full;                     /* when it was said that there are too many */
};

void brakes_init(struct qmgr *q);
/* Reads the file; in the spool's directory. */
void brakes_load(struct qmgr *q);
/* Lets those go whose token is due; each turn. */
void brakes_turn(struct qmgr *q);
/* When brakes_turn has something to do again; INT64_MAX: nothing. */
int64_t brakes_next_due(struct qmgr *q);

/* ---- brakes.c: putting them on and taking them off ------------------------------------- */

/* Finds one, or makes one that does not hold anything yet; NULL: there are too many. */
struct brake *brakes_add(struct qmgr *q, enum brake_kind kind, const char *place, const char *name,
                         struct slice who, bool by_hand);
/* The same by hand, wherever the name is meant. */
struct brake *brakes_add_called(struct qmgr *q, enum brake_kind kind, struct slice name,
                                struct slice who);
/* The account or domain that a brake of this kind would be about, perhaps in the buffer. Where
 * no domain answers for m it is the account. */
struct slice brakes_who(const struct message *m, enum brake_kind kind,
                        char buffer[static ACCOUNT_MAX + 1]);
/* A sender's name that a person wrote, as brakes have it: a domain in lower case and A-labels, of
 * mail without an account '@' and the organisational domain; perhaps in the buffer. */
struct slice brakes_spelled(enum brake_kind kind, struct slice who,
                            char buffer[static ACCOUNT_MAX + 1]);
/* Recipients of the job were taken. */
void brakes_taken(struct qmgr *q, const struct job *j, uint32_t recipients);
/* A rule speaks of the job's sender alone. False: it has no such name, or there are too many
 * brakes; then the rule is about the source. */
bool brakes_refused(struct qmgr *q, const struct job *j, const struct rule *rule,
                    const struct ipc_outcome *o);
/* By hand, wherever the name is meant or ("all") everywhere: suspended for `time` microseconds
 * (INT64_MAX: for good). What waits in a brake's line there is deferred. NULL: there are too many,
 * or the sender has no name. */
const struct brake *brakes_set(struct qmgr *q, struct slice name, enum brake_kind kind,
                               struct slice who, int64_t time, struct slice reason);
/* Takes off what a rule has put on at the group. False: nothing. */
bool brakes_lift(struct qmgr *q, const struct group *g, enum brake_kind kind, struct slice who);
/* A suspension by hand of the sender, or of a domain above: everywhere, or at some name; or NULL. */
const struct brake *brakes_by_hand(const struct qmgr *q, enum brake_kind kind, struct slice who);
/* Takes off those of that name, by hand or of rules at places that are called so, also places
 * that have had no mail for long or are known by other addresses now; "all": those that hold
 * everywhere. Returns how many. */
unsigned brakes_release(struct qmgr *q, struct slice name, enum brake_kind kind, struct slice who);
/* The two that may hold m at the group, each the strictest of its sort: what suspends it and
 * what slows it; or NULL. */
struct brake_pair {
    struct brake *suspends, *slows;
};
struct brake_pair brakes_of(struct qmgr *q, const struct group *g, const struct message *m);
/* A group is new: is there anything for it? `site` is the name of its first site. */
void brakes_meet(struct qmgr *q, struct group *g, struct slice site);
/* Forgets what is over, and looks after those that wait: warnings of delay, expiry. Now and
 * then. */
void brakes_sweep(struct qmgr *q);
/* At most BRAKE_REASON_MAX bytes of it, cut where a character ends. */
void brake_set_reason(struct brake *b, struct slice reason);
/* A sender whose name cannot be shown, or written to the file, has none. */
bool brake_has_name(struct slice who);
/* Whether a place is that of what holds wherever a name is meant; no group.stable is. */
bool brake_is_called(const char *place);
bool brake_suspends(const struct qmgr *q, const struct brake *b);
bool brake_is_on(const struct qmgr *q, const struct brake *b);
const char *brake_kind_name(uint8_t kind);

/* ---- brake_rate.c: how fast a slowed sender goes ---------------------------------------- */

/* Refused at `from` recipients a second: to `set`, or (0) to `factor` of that, or (0) by what was
 * taken since the last cut. Where nothing was, it only waits longer, unless `set`. The caller has
 * seen that it was not under way at the last cut. b->times are set. */
void brake_rate_cut(struct brake *b, double from, double set, double factor, int64_t now);
/* Faster again where nothing is refused, a step a `growth`. True: it is off now. */
bool brake_rate_grow(struct brake *b, int64_t now);
/* Whether the next recipient may go; the caller takes what it uses off b->tokens. */
bool brake_rate_has_token(struct brake *b, int64_t now);
/* So many recipients of the sender were taken. */
void brake_rate_taken(struct brake *b, uint32_t recipients);

/* ---- brakes_line.c: what they do to jobs ------------------------------------------------ */

/* Whether the job must not go: it then is deferred and gone, and the caller settles its
 * message; or (only if it `starts`, first in its queue) it waits in a brake's line. */
enum brake_holds { BRAKE_LETS_GO, BRAKE_DEFERRED, BRAKE_LINED };
enum brake_holds brakes_hold(struct qmgr *q, struct lane *l, struct job *j, bool starts);
/* The job leaves the line that it is in. */
void brakes_leave(struct qmgr *q, struct job *j);
/* It has just been put on by hand: what waits in lines and is suspended by it is deferred. */
void brakes_take_effect(struct qmgr *q, const struct brake *b);
/* A probe is over, or gone. */
void brakes_probed(struct qmgr *q, const struct job *j, bool taken);
/* Appends all jobs of a lane that wait in lines: each leaves its line and is in no list. */
void brakes_give_up(struct qmgr *q, const struct lane *l, struct list *jobs);
/* Puts the brake's line back in motion after its rate or suspension has changed. */
void brake_changed(struct qmgr *q, struct brake *b);
void brake_expire(struct qmgr *q, struct brake *b);

/* ---- brakes_show.c ----------------------------------------------------------------------- */

/* Appends b's members to a JSON object: kind, who, at, reason, by_hand, suspended,
 * since (seconds), suspended_for (not given: for good), rate, failed_rate, in_line, probing,
 * next_in (seconds; for the first in line). */
void brake_put(const struct qmgr *q, const struct brake *b, struct buf *out);
/* What a brake does to m's mail at the group now. */
enum brake_effect { BRAKE_NONE, BRAKE_SLOWS, BRAKE_SUSPENDS };
enum brake_effect brakes_effect(struct qmgr *q, const struct group *g, const struct message *m);
/* Appends what holds m's mail at the group as a JSON member "brake"; false: nothing does. */
bool brakes_describe(struct qmgr *q, const struct group *g, const struct message *m, struct buf *b);
/* Jobs that go before one that is in a brake's line; and, if nothing changes, when it goes
 * (monotonic; those of other classes that come meanwhile are not foreseen). */
unsigned brake_ahead(const struct job *j);
int64_t brake_when(const struct qmgr *q, const struct job *j, unsigned ahead);
/* The same for all brakes at a group, as a list "brakes". */
void brakes_show(struct qmgr *q, const struct group *g, struct buf *b);
/* Calls `each` for every brake that is on, oldest first, also at places that have no mail,
 * until it returns false. Returns how many are on in all. */
unsigned brakes_each(struct qmgr *q, bool (*each)(const struct brake *b, void *arg), void *arg);

#endif
