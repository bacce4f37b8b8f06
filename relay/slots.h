/*
 * How many connections are open is qmgr's to know, which bounds them over all processes. A
 * connection counts for the job that it was opened for, until that job's RESULT; from then on by
 * itself, if it is still open, and what becomes of it is told: CONNECTION.
 */
#ifndef POSTERN_RELAY_SLOTS_H
#define POSTERN_RELAY_SLOTS_H

#include "core/err.h"
#include "relay/relay.h"

struct session;

/* The job's result is about to be sent, and its connection stays; `keep`: for other jobs. */
void slots_result(struct session *s, struct job *j, bool keep);
/* The session ends, and the job goes on over a new connection, which counts in its place. */
void slots_hand_on(struct session *s, struct job *j);
/* A new session for the job. */
void slots_take(struct session *s, struct job *j);
/* The job is over: a place that it took over and did not use is free. */
void slots_give_up(struct relay *relay, struct job *j);
/* The session takes no more jobs. */
void slots_leave(struct session *s);
/* It is closed. */
void slots_close(struct session *s);
/* SPARE. -1: malformed. */
int slots_spare(struct relay *relay, struct slice body, struct err *e);
/* Nobody counts any more: the qmgr that did is gone. Idle sessions end, so that the next one
 * begins with none. */
void slots_forget(struct relay *relay);

#endif
