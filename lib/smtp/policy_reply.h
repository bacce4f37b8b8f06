/*
 * What a policy server answers: lines name=value up to an empty one, of which
 * `action` counts, and what the action means (Postfix's access(5) actions).
 */
#ifndef POSTERN_SMTP_POLICY_REPLY_H
#define POSTERN_SMTP_POLICY_REPLY_H

#include "core/slice.h"

enum {
    POLICY_REPLY_MAX = 4096, /* bytes of a reply */
    POLICY_HEADER_MAX = 998  /* bytes of a header line to prepend (RFC 5322 2.1.1) */
};

enum policy_reply_status { POLICY_REPLY_MORE, POLICY_REPLY_DONE, POLICY_REPLY_BAD };

/* `in` is all that has come. For POLICY_REPLY_DONE sets the action's value, which
 * borrows from `in`, and the reply's length. */
enum policy_reply_status policy_reply_parse(struct slice in, struct slice *action, size_t *used);

enum policy_verb {
    POLICY_DUNNO,           /* what comes next decides */
    POLICY_PERMIT,          /* OK: this list of restrictions is over */
    POLICY_REFUSE,          /* REJECT, DEFER, or a code: refuse with `code` */
    POLICY_DEFER_IF_PERMIT, /* refuse with 450 if nothing refuses for good */
    POLICY_DEFER_IF_REJECT, /* 450 in place of a later 5xx */
    POLICY_HOLD,
    POLICY_PREPEND, /* text is a header line */
    POLICY_LOG,     /* INFO, WARN: text is for the log */
    POLICY_UNSUPPORTED
};

struct policy_action {
    enum policy_verb verb;
    uint16_t code;     /* of a refusal: 4xx or 5xx */
    char enhanced[12]; /* of a refusal: "5.7.1" */
    struct slice text; /* may be empty; printable, or with bytes outside ASCII */
};

/* Every text has a meaning; one that is not understood is POLICY_UNSUPPORTED. */
void policy_action_parse(struct slice action, struct policy_action *out);

#endif
