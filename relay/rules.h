/* What a connection must be: the rules about TLS that came with a job, and what
 * the message itself asks for (RFC 8689). */
#ifndef POSTERN_RELAY_RULES_H
#define POSTERN_RELAY_RULES_H

#include "core/err.h"
#include "relay/job.h"
#include "tls/level.h"
#include "tls/result.h"

/* Slices borrow from the job. */
struct tls_need {
    enum tls_level level;
    enum tls_origin origin;
    bool testing;  /* a failed check is no reason not to deliver */
    bool required; /* REQUIRETLS */
    struct slice names, protocols, ciphers, servername;
    enum tls_result result; /* of the rule: what the session counts as; 0: what comes of it */
    struct slice why;       /* of TLS_LEVEL_FORBIDDEN, or of result */
    struct slice tlsa;      /* list of ipc_tlsa */
};

/* Checks a list of ipc_tls_rule before it is used. */
int rules_check(struct slice list, struct err *e);
/* What holds for a connection of this job to this host. */
void rules_find(const struct job *j, struct slice host, struct tls_need *out);

#endif
