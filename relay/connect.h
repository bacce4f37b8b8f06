/* The walk over a job's targets: the next address after each that fails. */
#ifndef POSTERN_RELAY_CONNECT_H
#define POSTERN_RELAY_CONNECT_H

#include "relay/relay.h"

/* Connects to the next target, or gives the job up (it is reported and freed). */
void connect_next(struct relay *relay, struct job *j);
/* Once more to the target that was tried last, without TLS. */
void connect_again_clear(struct relay *relay, struct job *j);
/* The same from the first target on. */
void connect_restart(struct relay *relay, struct job *j);
/* The address did not answer, or did not let us in: for a while it is tried last. */
void connect_failed(const struct relay *relay, const char *address, uint16_t port);

/* What master said to a request for a socket; takes over fd. */
void connect_answered(struct relay *relay, uint64_t tag, int fd, struct slice why);

#endif
