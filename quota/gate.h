/* What the files of the gate share: gate.c (MAIL), reservations.c (the end of data),
 * guard.c (the spike guard). The others see quota.h. */
#ifndef POSTERN_QUOTA_GATE_H
#define POSTERN_QUOTA_GATE_H

#include "quota/quota.h"

/* Who asks, and what was found of it. */
struct asking {
    struct quota *q;
    struct account *chain[CHARGE_LEVELS_MAX];
    struct party *parties[CHARGE_LEVELS_MAX]; /* of the chain */
    unsigned levels;
    struct party *user; /* or NULL */
    const char *user_name;
    int64_t now;
};

/* The reply that refuses; code 0: none. */
struct answer {
    uint16_t code;
    const char *enhanced;
    struct buf text;
};

/* Messages that may still be taken, as far as that is of interest, and the reply
 * beyond them. */
struct room {
    uint64_t messages; /* of what is wanted */
    uint64_t volume;   /* that rates and plans have, at most what is asked for */
    struct answer *no;
    bool spike;           /* it is the spike guard that leaves no more: */
    unsigned spike_level; /* that of this account of the chain */
};

/* ---- gate.c ---- */

void gate_refuse(struct answer *a, uint16_t code, const char *enhanced, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Whom the ticket stands for, and whether it still may; the rates are brought up to now. False:
 * *no is filled. */
bool gate_identify(struct asking *x, struct quota *q, struct slice ticket, struct answer *no);
/* What MAIL and the end of data check alike. */
bool gate_may_send(const struct asking *x, struct slice sender, uint64_t size, struct answer *no);
/* For a message of this size with as many recipients as are `wanted`, which is what
 * spares the words of limits that are far away. */
struct room gate_room(const struct asking *x, uint64_t size, uint64_t wanted, struct answer *no);

/* ---- classes.c ---- */

/* The class of a message of x from this sender, unless its header says otherwise, and the
 * highest that its header may ask for (enum mail_class both). */
void classes_of(const struct asking *x, struct slice sender, uint8_t *mail_class, uint8_t *most);

/* ---- guard.c ---- */

/* Whether the spike guard of one account of the chain acts on so many messages more; operator
 * and owner are told when it begins to, and once a day while it goes on. */
bool guard_acts(const struct asking *x, unsigned level, uint64_t messages);
/* The same for all of the chain whose plan has spike_action = hold: the message is held. */
bool guard_holds(const struct asking *x, uint64_t messages);

#endif
