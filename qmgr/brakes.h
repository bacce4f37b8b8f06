/*
 * Brakes: one sender's mail at one destination goes slower, or not at all, while that of
 * the others goes on. Put on by rules whose scope is "account" or "dkim", or by hand.
 *
 * A sender is an account (as dispatch_sharer names it), or the domain that answers for a
 * message (message_signer). A destination is a group; by hand also all of them. Those by
 * hand, and suspensions, outlive a restart: the file "shaping.brakes" in the spool.
 */
#ifndef POSTERN_QMGR_BRAKES_H
#define POSTERN_QMGR_BRAKES_H

#include "qmgr/kept_file.h"
#include "qmgr/qmgr.h"

enum {
    BRAKES_MAX = 4000, /* further ones are not put on, with a line in the log */
    BRAKE_REASON_MAX = 300
};

enum brake_kind { BRAKE_ACCOUNT, BRAKE_SIGNER };

struct brake {
    struct list link;
    char *key;         /* kind, place and who: unique */
    char *place, *who; /* group.stable, or "" for all; name of the sender */
    char *name;        /* of the place, for people */
    char *reason;      /* the rule and the reply, or the operator's words */
    uint8_t kind;      /* enum brake_kind */
    bool by_hand;
    int64_t until;        /* wall: suspended until then; INT64_MAX: for good; 0: not */
    int64_t time;         /* of the last suspension by a rule */
    double rate, tokens;  /* recipients a second; 0: no limit */
    int64_t filled, slot; /* monotonic: tokens are as of then; next place in line */
    int64_t cut, grown;   /* monotonic: refused last; rate grown last */
};

struct brakes {
    struct map by_key;
    struct list all;
    struct kept_file file;
    bool dirty, full;
};

void brakes_init(struct qmgr *q);
/* Reads the file; in the spool's directory. */
void brakes_load(struct qmgr *q);
/* Writes it if it is behind; each turn. */
void brakes_turn(struct qmgr *q);
/* Writes it and waits. */
void brakes_stop(struct qmgr *q);
/* The account or domain that a brake of this kind would be about, perhaps in the buffer. */
struct slice brakes_who(const struct message *m, enum brake_kind kind,
                        char buffer[static ACCOUNT_MAX + 1]);
/* A rule speaks of the job's sender alone. False: it has no such name; then the rule is
 * about the source. */
bool brakes_refused(struct qmgr *q, const struct job *j, const struct rule *rule,
                    const struct ipc_outcome *o);
/* Whether the job must wait: it then is put off or deferred, and gone; the caller settles
 * its message. A job that is in line leaves it. `starts`: it is about to be delivered, else
 * about to get in line: then only a suspension holds it. */
bool brakes_hold(struct qmgr *q, struct lane *l, struct job *j, bool starts);
/* What a brake does to m's mail at the group now. */
enum brake_effect { BRAKE_NONE, BRAKE_SLOWS, BRAKE_SUSPENDS };
enum brake_effect brakes_effect(struct qmgr *q, const struct group *g, const struct message *m);
/* Appends what holds m's mail at the group as JSON members; false: nothing does. */
bool brakes_describe(struct qmgr *q, const struct group *g, const struct message *m, struct buf *b);
/* The same for all brakes at a group, as a list "brakes". */
void brakes_show(struct qmgr *q, const struct group *g, struct buf *b);
/* Forgets what is over; now and then. */
void brakes_sweep(struct qmgr *q);
/* Finds or makes one that does not hold anything yet; NULL: there are too many. */
struct brake *brakes_add(struct qmgr *q, enum brake_kind kind, const char *place, const char *name,
                         struct slice who);
/* By hand, at a group or (NULL) everywhere; `until` wall, 0: takes it off. Returns how
 * many brakes that changed. */
unsigned brakes_set(struct qmgr *q, const struct group *g, enum brake_kind kind, struct slice who,
                    int64_t until, struct slice reason);

#endif
