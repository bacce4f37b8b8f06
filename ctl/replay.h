/* shaping replay: what is counted of an event log, under the rules in use and those to try. */
#ifndef POSTERN_CTL_REPLAY_H
#define POSTERN_CTL_REPLAY_H

#include "core/map.h"
#include "ctl/ctl.h"
#include "rules/rules.h"
#include "rules/tally.h"

enum { REPLAY_SETS = 2 }; /* of rules: in use, tried */

/* Two rules that matched the same replies, one of each set. NULL: none. */
struct pair {
    const struct rule *rules[REPLAY_SETS];
    unsigned long count;
    char **samples;
    unsigned sample_count;
};

struct replay {
    struct ctl *ctl;
    struct rules *sets[REPLAY_SETS];
    unsigned long *counts[REPLAY_SETS];  /* by rules_index: times that it would have acted */
    unsigned long *matches[REPLAY_SETS]; /* the same: times that it matched */
    struct tallies *tallies[REPLAY_SETS];
    unsigned scopes[REPLAY_SETS]; /* tallies_scopes */
    unsigned divisor;             /* shaping_time_divisor */
    bool numbered;                /* the log has numbers of deliveries */
    char *last;  /* the delivery that the last event was of: several recipients have one */
    int64_t now; /* time of the last event */
    struct map pairs;
    unsigned samples;
    unsigned long bad_lines, attempts, refusals, other_differences, nobody[REPLAY_SETS];
};

/* The counts and differences, as words or JSON, to the standard output. */
void replay_print(const struct replay *r);

#endif
