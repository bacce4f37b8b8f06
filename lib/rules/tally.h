/*
 * Counting: a rule may act from the n-th time in a period on (`after`, `within`), or where
 * a part of the recent attempts was answered so (`fraction`, `samples`).
 *
 * What is counted together has a place, a number that the caller makes (map_hash): of what
 * the rule's scope names, so a lane for "source", all lanes of a provider for "provider",
 * one sender's mail at one destination for "account" and "dkim".
 *
 * A fraction is of the last `samples` to twice as many attempts, those before the first refusal
 * included; what lies before a pause of an hour (for refusals: of `within`) is not recent.
 *
 * Times are microseconds of any clock that only goes forward. What was counted longest ago
 * is forgotten first, at TALLIES_MAX.
 */
#ifndef POSTERN_RULES_TALLY_H
#define POSTERN_RULES_TALLY_H

#include "rules/rules.h"

enum { TALLIES_MAX = 20000 };

struct tallies;

/* Whose attempt it was, and where: what rules count by. */
struct tally_subject {
    const char *provider;     /* of the rules; or NULL: then the destination's name */
    struct slice destination; /* what the queue manager sees as one */
    struct slice source;      /* address, or empty: the default one */
    struct slice account;     /* who has a share of its own */
    struct slice domain;      /* that answers for the message; else the account again */
    unsigned attempts;        /* of the recipient, this one included */
};

struct tallies *tallies_new(void);
void tallies_free(struct tallies *t);
/* Forgets everything: another set of rules is in use. */
void tallies_clear(struct tallies *t);
/* The scopes of rules with a fraction: bits 1 << enum rules_scope. */
unsigned tallies_scopes(const struct rules *r);
/* An attempt, whatever came of it; `scopes` as tallies_scopes says. */
void tallies_tried(struct tallies *t, unsigned scopes, const struct tally_subject *s, int64_t now);
/* Whether a rule acts from the n-th time on, or on a fraction, alone. */
static inline bool tallies_counts(const struct rule *rule)
{
    return rule->after > 1 || rule->fraction > 0;
}
/* Whether a reply that a rule makes final has come often enough to be believed. */
bool tallies_believed(const struct rule *rule, unsigned attempts);
/* The rule (by its rules_index) matched the answer to that attempt. Whether it acts; the
 * queue manager and `postern shaping replay` ask it the same way. `divisor`: of its period. */
bool tallies_acts(struct tallies *t, const struct rule *rule, unsigned index,
                  const struct tally_subject *s, unsigned divisor, int64_t now);

/* What these are made of. An attempt at the place, whatever came of it. Needed for rules with a
 * fraction alone (tallies_scopes), before tallies_reached for the same attempt. */
void tallies_attempt(struct tallies *t, uint64_t place, int64_t now);
/* A rule (by its rules_index) matched the answer to an attempt at the place. Whether it
 * acts; always, for a rule without after and fraction. `divisor`: of its period. */
bool tallies_reached(struct tallies *t, const struct rule *rule, unsigned index, uint64_t place,
                     unsigned divisor, int64_t now);

#endif
