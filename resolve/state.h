/*
 * A small state that survives restarts: two files that are opened before the jail
 * and written by turns, so that one of them is whole whenever the power fails.
 */
#ifndef POSTERN_RESOLVE_STATE_H
#define POSTERN_RESOLVE_STATE_H

#include "core/buf.h"
#include "core/err.h"

enum { STATE_MAX = 32 * 1024 * 1024 };

struct state {
    char *name;
    int fds[2];
    uint64_t generation; /* of what was saved last */
};

/* Opens (and makes) DIRECTORY/NAME.0 and .1, before the jail; as root they are root's
 * and nobody else's. */
int state_open(struct state *s, const char *directory, const char *name, struct err *e);
/* Appends what was saved last to out; nothing if there is none or neither is whole. */
void state_load(struct state *s, struct buf *out);
/* Makes it durable; what was saved before stays until it is. */
int state_save(struct state *s, struct slice content, struct err *e);

#endif
