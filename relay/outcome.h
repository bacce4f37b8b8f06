/* Verdicts from replies and from what went wrong on our side. */
#ifndef POSTERN_RELAY_OUTCOME_H
#define POSTERN_RELAY_OUTCOME_H

#include "relay/session.h"

/* A reply as a verdict; its text borrows from a static buffer. */
struct verdict verdict_of_reply(enum smtp_stage stage, const struct smtp_reply *r);
/* Our own words; text borrows from a static buffer. `enhanced` is static. */
struct verdict verdict_local(enum smtp_stage stage, const char *enhanced, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A connection that did not come about. Port 0: address is a path. */
struct verdict connect_verdict(const char *host, const char *address, uint16_t port,
                               const char *why);
/* For the operator: the content's file cannot be read (F25). */
void outcome_log_unreadable(const struct job *j);
/* 2xx, 4xx, 5xx. */
enum rcpt_outcome outcome_of_code(uint16_t code);
/* 452 or 552 to RCPT that speaks of the number of recipients, not of this one
 * (RFC 5321 4.5.3.1.10): other recipients may go in a further transaction. */
bool reply_too_many(const struct smtp_reply *r);

#endif
