/* Which messages a request is about. */
#ifndef POSTERN_QMGR_CONTROL_SELECT_H
#define POSTERN_QMGR_CONTROL_SELECT_H

#include <jansson.h>

#include "qmgr/queue.h"

struct selection {
    json_t *ids; /* list of strings, or NULL; borrowed from the request */
    /* patterns; empty: any */
    struct slice account, sender, recipient, site, source, reply;
    bool has_sender;                    /* an empty one is the null sender */
    int64_t older_than, newer_than;     /* seconds of age; 0: any */
    int64_t larger_than, smaller_than;  /* bytes of content; -1: any */
    int64_t min_attempts, max_attempts; /* of a recipient; -1: any */
    int status;                         /* enum queue_status, or -1 */
    bool all;
    bool deleted; /* of the messages that were deleted and are kept, not of the queue */
};

/* Reads the "select" object; slices borrow from it. An unknown member, a wrong
 * type, or a selection of nothing at all is an error: a mistyped selector must
 * not select everything. */
int selection_parse(struct selection *s, json_t *select, struct err *e);
/* Whether m matches; everything but ids. Needs m->env. `now`: wall microseconds. */
bool selection_matches(struct qmgr *q, const struct selection *s, const struct message *m,
                       int64_t now);
/* Whether the selection has nothing to check but `all`. */
bool selection_is_all(const struct selection *s);

/* Glob matching, ignoring ASCII case: '*' any bytes, '?' one byte. */
bool pattern_matches(struct slice pattern, struct slice text);
/* The same anywhere in the text. */
bool pattern_within(struct slice pattern, struct slice text);
/* An address against a pattern; "@domain" stands for "*@domain". */
bool pattern_address(struct slice pattern, struct slice address);

#endif
