/* Message-ID values (RFC 5322 3.6.4). */
#ifndef POSTERN_MAIL_MESSAGE_ID_H
#define POSTERN_MAIL_MESSAGE_ID_H

#include "core/buf.h"

/* Appends "<20231121202946.ID@host>", unique because the queue ID is; UTC.
 * -1 if `out` is full. */
int message_id_make(struct buf *out, int64_t wall, struct slice id, struct slice host);

#endif
