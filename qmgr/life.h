/* The life of a message in memory: it arrives, is read back, waits, is deleted, is
 * looked at by walks, ends. Part of qmgr.h. */
#ifndef POSTERN_QMGR_LIFE_H
#define POSTERN_QMGR_LIFE_H

#include "qmgr/qmgr.h"

/* ---- queue.c: the life of a message -------------------------------------------- */

void queue_init(struct qmgr *q);
/* A message whose ID is new; its envelope is the caller's to add. */
struct message *message_new(struct qmgr *q, const struct id *id);
/* Takes m out of the queue and frees it, now or when its pins are gone. */
void message_drop(struct qmgr *q, struct message *m);
void message_pin(struct message *m);
/* False if that freed the message. */
bool message_unpin(struct qmgr *q, struct message *m);
/* Half of the room for envelopes is taken: those that only wait make place. */
bool queue_crowded(const struct qmgr *q);
/* A stub that may be loaded now instead of later, or recipients that were parked. False:
 * there is nothing to hurry. */
bool message_hurry(struct qmgr *q, struct message *m);
/* When m is due next, in the heap that it belongs to; INT64_MAX: in none. */
void message_plan(struct qmgr *q, struct message *m, int64_t due);
/* When it needs attention next; needs m->env. */
int64_t message_next_due(struct qmgr *q, const struct message *m);
/* Drops its envelope until `due`. */
void message_stub(struct qmgr *q, struct message *m, int64_t due);
/* Whether that is better than keeping the envelope, for what only waits. */
bool message_better_as_stub(const struct qmgr *q, int64_t due);
bool queue_has_room(const struct qmgr *q); /* for an envelope more */
/* Its envelope was read for walks and comes into the schedule now. */
void message_stay(struct qmgr *q, struct message *m);
/* It is over: its file is free. */
void message_finish(struct qmgr *q, struct message *m);
/* m became durable, or was read back: enters the schedule. */
void message_enter(struct qmgr *q, struct message *m);
/* Puts every recipient that is due into a job. */
void message_activate(struct qmgr *q, struct message *m);
/* After any change of its recipients: starts notices, finishes the message,
 * plans the next due time, drops the envelope if memory is short. m may be gone
 * afterwards. */
void message_settle(struct qmgr *q, struct message *m);
void message_keep_body(struct qmgr *q, struct message *m, struct body *body);
void message_drop_body(struct qmgr *q, struct message *m);
/* Recipients' ways end: marks on disk unless the whole message ends with them. */
void recipients_done(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count,
                     enum spool_status status);
/* A recipient waits until `due` (seconds). */
void recipient_waits(struct message *m, uint32_t i, uint32_t due);
/* Takes the recipients of all jobs that no relay has back into waiting. */
void message_withdraw(struct qmgr *q, struct message *m);
/* Drops all recipients that no relay has, without a notice: there is no file. */
void message_discard(struct qmgr *q, struct message *m);
/* Changes m->flags, also on the disk. */
void message_set_flags(struct qmgr *q, struct message *m, uint32_t flags);
/* Everything that waits is due now; with `force` also what defer_transports
 * holds up. */
void queue_wake_all(struct qmgr *q, bool force);
/* What waits for the end of a suspension at one of the groups that `there` knows is due now. On
 * the disk only, it is not known where it goes: all of it is looked at. */
void queue_wake_suspended(struct qmgr *q,
                          bool (*there)(struct qmgr *q, const struct group *g, void *arg),
                          void *arg);
/* The same of a message that is not in memory, if some of it waits for a suspension's end: it is
 * not known for which, so all of it is looked at. */
void message_wake_suspended(struct qmgr *q, struct message *m);
/* Keeps q->held right after m->flags changed. */
void message_count_held(struct qmgr *q, struct message *m);
/* The due heap and load queue; called each turn. */
void queue_turn(struct qmgr *q);
/* Once a minute: figures, caches. */
void queue_sweep(struct qmgr *q);
/* When the next thing is due in the queue; INT64_MAX: nothing. */
int64_t queue_next_due(const struct qmgr *q);
/* Test builds: panics if the queue's counters and states do not fit (consistency.c). */
void queue_check(const struct qmgr *q);
/* ---- load.c ------------------------------------------------------------------------- */

/* The found callbacks of the store. */
void queue_found(const struct store_found *found, void *arg);
void queue_quarantined(const struct id *id, const char *why, void *arg);
void queue_scanned(uint64_t messages, uint64_t quarantined, void *arg);

/* Reads the envelope of a stub back, and schedules it. */
void message_load(struct qmgr *q, struct message *m);
/* Reads it back for walks; it stays a stub for the schedule. */
void message_peek(struct qmgr *q, struct message *m);
/* A walk has no more use for m: if its envelope is there for walks alone it goes. */
void message_viewed(struct qmgr *q, struct message *m);

/* ---- deleted.c ---------------------------------------------------------------------- */

/* Takes m out of the queue; it can be brought back for queue_undelete_time. Once
 * more: purges it now. The caller settles it. Both return whether anything changed. */
bool message_delete(struct qmgr *q, struct message *m);
bool message_undelete(struct qmgr *q, struct message *m);
/* message_settle for a deleted message: puts it aside as soon as nothing of it is
 * under way. */
void deleted_settle(struct qmgr *q, struct message *m);
void deleted_found(struct qmgr *q, struct message *m);  /* by the scan, its envelope is there */
void deleted_forget(struct qmgr *q, struct message *m); /* it leaves; harmless for others */
void deleted_turn(struct qmgr *q);                      /* purges what is due */
int64_t deleted_next_due(const struct qmgr *q);         /* INT64_MAX: nothing */
void deleted_reload(struct qmgr *q);                    /* queue_undelete_time may have changed */

/* ---- walk.c ------------------------------------------------------------------------- */

void walks_turn(struct qmgr *q);
bool walks_ready(const struct qmgr *q);
/* m leaves the queue; every walk that has it in view moves on. */
void walks_forget(struct qmgr *q, struct message *m);

#endif
