/* Log lines about messages, and the JSON event log. Part of qmgr.h. */
#ifndef POSTERN_QMGR_EVENTS_H
#define POSTERN_QMGR_EVENTS_H

#include "qmgr/qmgr.h"

struct attempt; /* outcome.h */

/* ---- events.c ------------------------------------------------------------------------------ */

void events_reload(struct qmgr *q);
void events_flush(struct qmgr *q);
void events_accepted(struct qmgr *q, const struct message *m, struct slice client,
                     struct slice message_id);
void events_active(struct qmgr *q, const struct message *m);
void events_removed(struct qmgr *q, const struct message *m, const char *why);
void events_expired(struct qmgr *q, const struct message *m);
/* The event log's line for one of its recipients; `last` is the last answer about it. */
void events_expired_recipient(struct qmgr *q, const struct message *m, uint32_t rcpt,
                              const struct answer *last);
void events_notice(struct qmgr *q, const struct message *m, const struct id *notice,
                   enum notice_kind kind, uint32_t recipients);
/* An event of no message: begins an object, or NULL if there is no event log. */
struct buf *events_begin(struct qmgr *q, const char *name);
void events_end(struct buf *b);
/* What the shaper has changed at a lane since its event number `from`
 * (shaping_show.c). */
void events_shaping(struct qmgr *q, const struct lane *l, uint8_t from);
/* The same of limits over all sources, by name. */
void events_shaping_all(struct qmgr *q, const struct shaper *s, const char *name,
                        const struct answer *last, uint8_t from);
/* A change by the operator: "held", "released" ... */
void events_purged(struct qmgr *q,
                   const struct message *m); /* a deleted message is gone for good */
void events_action(struct qmgr *q, const struct message *m, const char *action, const char *by);
enum attempt_status { ATTEMPT_SENT, ATTEMPT_DEFERRED, ATTEMPT_BOUNCED };
void events_attempt(struct qmgr *q, const struct message *m, uint32_t rcpt,
                    enum attempt_status status, const struct answer *a, const struct attempt *t);

#endif
