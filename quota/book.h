/* What the files of the book share; the others see quota.h. */
#ifndef POSTERN_QUOTA_BOOK_H
#define POSTERN_QUOTA_BOOK_H

#include "quota/quota.h"

/* A charge in memory: a message and what became of its recipients. */
struct entry {
    struct list link, dirty_link; /* of book.recent, book.dirty */
    char id[ID_MAX + 1];
    bool dirty;
    uint32_t weighed; /* recipients of it in book.recipients */
    struct charge c;
};

/* ---- book.c ---- */
struct slice book_entry_key(const void *value);
/* From memory or the database; NULL if there is none, or none that is readable. */
struct entry *book_entry_find(struct quota *q, struct slice id);
/* One without a charge, which is the caller's to fill. */
struct entry *book_entry_new(struct quota *q, struct slice id);
void book_entry_free(struct quota *q, struct entry *x);
/* It is written with the next book_apply. */
void book_entry_touched(struct quota *q, struct entry *x);
/* Before a charge is taken in or changed, while no entry is in use: what has gathered is written
 * and forgotten where one more might not fit. How much that is qmgr says, not we. */
void book_make_room(struct quota *q);
/* Where a level of a charge is counted: the running period's usage, or that of one
 * before. Valid until the next book_apply. */
struct plan_usage *book_usage(struct quota *q, struct party *p, int64_t start);

/* ---- book_count.c: messages of qmgr; 0, or -1: it broke the rules ---- */
int book_charges(struct quota *q, struct slice body, struct err *e);
int book_gone(struct quota *q, struct slice body, struct err *e);

/* The account of a charge, those above it, and the user. */
struct counted {
    struct account *accounts[CHARGE_LEVELS_MAX]; /* NULL: it is not there any more */
    struct party *parties[CHARGE_LEVELS_MAX], *user;
    unsigned levels;
};
/* May write, so it comes before the first change of a charge or its usage. */
void book_find_counted(struct quota *q, const struct charge *c, struct counted *out);

/* ---- book_sweep.c ---- */
void book_sweep(struct quota *q);

/* ---- book_held.c ---- */
void book_held_init(struct quota *q);
/* The message is held for its rate until then: qmgr is told. Written with the charge. */
void book_hold(struct quota *q, struct entry *x, int64_t until);
/* Lets those go whose turn has come. */
void book_release(struct quota *q);
/* CHARGES_RELEASED; 0, or -1: qmgr broke the rules. */
int book_released(struct quota *q, struct slice body, struct err *e);
/* Keys of a slice of a table; they are gathered first, because what is done with them changes
 * the table. */
struct gathered {
    struct buf keys; /* each with two bytes for its length before it */
    unsigned count, max;
    struct slice prefix; /* of all that are wanted */
    int64_t until;       /* the latest, of keys that begin with a time; 0: any */
};
void book_gather(struct quota *q, enum table t, struct slice from, struct gathered *g);
/* The first of them, which is taken off `keys`; false: there is none left. */
bool book_next_key(struct slice *keys, struct slice *out);
/* Waits for its account or user; `until` was its turn, 0: it is counted for none. */
void book_park(struct buf *batch, const char *owner, int64_t until, struct slice id);
/* Whether it waits for its account, one above that, or its user. */
bool book_is_parked(struct quota *q, const struct entry *x);
/* The channel is another one, or gone: what it was told and has not answered is told again. */
void book_release_again(struct quota *q);

/* ---- book_turns.c ---- */
/* At the start: what a crash left to be done. */
void book_turns_restored(struct quota *q);
/* A message that was reserved, with a turn, is charged: rates may have changed between. */
void book_check_turn(struct quota *q, const struct entry *x, const struct reservation *r);
/* Whether mail waits to get other turns (book_rates_changed): what is parked has to wait. */
bool book_is_timing(const struct quota *q);
/* Takes some of it back, if there is any. True if there is more to do at once. */
bool book_take_back(struct quota *q);
/* All that was taken back has got its turn, or waits for who sent it. */
void book_filed(struct quota *q);

#endif
