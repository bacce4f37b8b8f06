/*
 * Counting: a rule may act from the n-th time in a period on (`after`, `within`), or where
 * a part of the recent attempts was answered so (`fraction`, `samples`).
 *
 * What is counted together has a place, a number that the caller makes (map_hash): of what
 * the rule's scope names, so a lane for "source", all lanes of a provider for "provider",
 * one sender's mail at one destination for "account" and "dkim".
 *
 * Times are microseconds of any clock that only goes forward. What was counted longest ago
 * is forgotten first, at TALLIES_MAX.
 */
#ifndef POSTERN_RULES_TALLY_H
#define POSTERN_RULES_TALLY_H

#include "rules/rules.h"

enum { TALLIES_MAX = 20000 };

struct tallies;

struct tallies *tallies_new(void);
void tallies_free(struct tallies *t);
/* Forgets everything: another set of rules is in use. */
void tallies_clear(struct tallies *t);
/* An attempt at the place, whatever came of it. Needed for rules with a fraction alone
 * (rules_counting), before tallies_reached for the same attempt. */
void tallies_attempt(struct tallies *t, uint64_t place);
/* A rule (by its rules_index) matched the answer to an attempt at the place. Whether it
 * acts; always, for a rule without after and fraction. `divisor`: of its period. */
bool tallies_reached(struct tallies *t, const struct rule *rule, unsigned index, uint64_t place,
                     unsigned divisor, int64_t now);

#endif
