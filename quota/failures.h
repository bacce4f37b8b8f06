/*
 * Failed logins: counted for each client address, each network and each user, and
 * answered slower and slower; beyond the limits not at all. Bounded: the longest
 * unused counters are forgotten first.
 *
 * A name has two counters, one for passwords and one for SCRAM. Where SCRAM cannot work yet
 * (the user has a hash and no keys) the tries of a program that knows nothing better must not
 * keep the user's other programs out; and since all names have two, whoever tries SCRAM and
 * then a password cannot tell such users from others, or from names that nobody has.
 */
#ifndef POSTERN_QUOTA_FAILURES_H
#define POSTERN_QUOTA_FAILURES_H

#include "conf/config.h"
#include "core/list.h"
#include "core/map.h"

enum {
    FAILURES_MAX = 200000,
    FAILURES_DELAY_MAX = 10000, /* milliseconds */
    FAILURES_KNOWN_SECONDS = 86400
};

enum failures_by { BY_PASSWORD, BY_SCRAM };

struct failures {
    struct map counters;
    struct list lru;
};

void failures_init(struct failures *f);
void failures_free(struct failures *f);
/* Whether the client, of this smtpd (a number, not 0), may still try as this user (empty: a name
 * that nobody has here, which has no counter of its own). Otherwise *why says what is full. What
 * another smtpd alone has reported fills no more than half of a limit. Whose passwords were
 * guessed too often cannot use SCRAM either; the other way round it is not so. */
bool failures_allow(struct failures *f, const struct config *c, unsigned smtpd, struct slice client,
                    struct slice user, enum failures_by by, int64_t now, const char **why);
/* One more; the milliseconds that the answer is held back. */
uint32_t failures_add(struct failures *f, const struct config *c, unsigned smtpd,
                      struct slice client, struct slice user, enum failures_by by, int64_t now);
/* The client has logged in as the user: failures of that user elsewhere do not lock
 * it out for a while. They are not forgotten: a guess between the logins of the
 * owner counts. */
void failures_known(struct failures *f, struct slice client, struct slice user, int64_t now);

#endif
