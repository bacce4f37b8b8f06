/*
 * Temporary refusals that no rule knows, at RCPT or later. They may speak of the rate, of
 * the connection, of recipients (greylisting), or be chance. What they mean is found out:
 *
 *   rate        many of them: the rate is cut, as an experiment. If they all but end, it
 *               was the rate, and the next one is believed at once. If they do not, the
 *               cut is undone, and no other is tried for a while. That they become as few
 *               as is usual shows nothing: it was tried when they were many by chance.
 *   connection  they come again and again after the same number of messages on one.
 *   recipients  first attempts are mostly refused, and second ones taken; or whether one is
 *               taken that was refused before is a matter of how long ago that was.
 *
 * No I/O, no allocation.
 */
#ifndef POSTERN_QMGR_ODD_H
#define POSTERN_QMGR_ODD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/slice.h"
#include "qmgr/shaper.h"

enum { ODD_WORDS = 2 /* one for the rate, one for the connection */ };
#define ODD_USE_MAX (UINT32_MAX >> 1)

/* Words in which connections are closed, or MAIL is refused, that no rule knows. */
struct odd_words {
    uint32_t hash;     /* of the words; 0: free */
    uint32_t use : 31; /* of the connection at the last one */
    bool again : 1;    /* at the one before, too: it is the connection */
};

struct odd {
    uint8_t share;            /* of recent attempts that got one: 0 to 255 */
    uint8_t run, run_refused; /* attempts since they began to be refused; of these */
    uint8_t before;           /* the share that was refused when the rate was cut for it */
    uint8_t last;             /* the same in the last round of the experiment */
    uint8_t same;             /* refusals in a row at the same place of a connection */
    uint16_t usual;           /* the same over many attempts: 0 to 65535 */
    uint8_t tried;            /* attempts since then + 1, until it is known what it did; 0: it is */
    uint8_t refused;          /* of these */
    uint8_t rounds;           /* experiments in a row that were not enough */
    int8_t of_rate;           /* above 0: the last cut helped; below: it did not */
    uint8_t first_taken;      /* of recent recipients that were tried for the first time, the share
                               * that was taken */
    uint8_t passed;           /* recipients that were taken after such a refusal; stays at 255 */
    bool taken;               /* anybody, ever */
    bool says_rate;           /* it says in words that a rule knows when it is the rate */
    float by_age;             /* so many tosses of a coin in a row are as improbable as what came of
                               * recipients that were tried again, if it was not for their age */
    uint32_t too_early;  /* the greatest age of these that was refused, in tenths of a second */
    uint32_t old_enough; /* the smallest that was taken; 0: none */
    uint32_t place;      /* messages taken on the connection before the last one there */
    struct odd_words closed[ODD_WORDS];
    int64_t given_up; /* monotonic: when it turned out that the rate does not matter */
};

enum odd_says {
    ODD_NOTHING,
    ODD_RATE,       /* it is the rate, or that is to be tried: the caller cuts it */
    ODD_NOT_RATE,   /* the cut did not help: the caller undoes it */
    ODD_CONNECTION, /* a connection is worth `place` messages */
    ODD_STRANGER    /* the recipient is taken later: nothing about the destination */
};

/* An attempt that got no such refusal; `first`: of a recipient that had not been tried, and
 * was taken. */
enum odd_says odd_other(struct odd *o, bool first, int64_t now);
/* Whose attempt it was. */
enum odd_who {
    ODD_KNOWN, /* a recipient, or several, of whom nothing is known in this respect */
    ODD_FIRST, /* one that had not been tried before */
    ODD_AGAIN  /* one that got such a refusal before */
};
/* One that did. `place`: messages of the connection before it, if all of them were taken;
 * 0: some were not. `forgets`: so long after it was given up the rate is suspected anew. */
enum odd_says odd_refused(struct odd *o, enum odd_who who, uint32_t place, int64_t forgets,
                          int64_t now);
/* A recipient that got such a refusal before, so long ago (microseconds), was tried again. `alone`:
 * the first such one of its transaction; what comes of the others there is no second evidence. */
void odd_again(struct odd *o, int64_t age, bool taken, bool alone);
/* Such a refusal came in words of that hash (odd_hash) at the connection's use-th message. It may
 * speak of the rate or of that number of messages, which a server says in two ways, or in one:
 * true: of the messages, for it has come there twice running, or (`guess`) is the first of all.
 * *other: the number at which these words came before, if that was another one; else 0. */
bool odd_closed(struct odd *o, uint32_t hash, uint32_t use, bool guess, uint32_t *other);
/* Of the words without digits in them: addresses, numbers and names of queues differ. */
uint32_t odd_hash(struct slice text);
/* What the controller is told then: the signal, and what goes with it in the report. */
enum shaper_signal odd_signal(const struct odd *o, struct shaper *s, enum odd_says says,
                              struct shaper_report *r);
/* Whether an experiment is under way. */
static inline bool odd_is_trying(const struct odd *o)
{
    return o->tried > 0;
}
/* The cut was not made, or something else has moved the rate since: it would show nothing. */
static inline void odd_stop(struct odd *o)
{
    o->tried = o->refused = o->rounds = 0;
}
/* Whether recipients that had not been tried before are taken: that is not greylisting, or not
 * of everybody. */
bool odd_takes_strangers(const struct odd *o);
/* Whether a first attempt that is refused looks like greylisting; some may be taken at once. */
bool odd_is_greylisting(const struct odd *o);

#endif
