/*
 * The showq socket, public/showq: lists the queue in the protocol of Postfix's
 * showq(8), for mailq, postqueue and the exporters that read it themselves.
 *
 * A client is told all at once and asked nothing: names and values, each ended
 * by a NUL. An empty name ends a record, and a second one after that the list.
 *
 *   protocol=mail_queue_list_protocol                     the first record
 *   queue_name queue_id time size forced_expire sender    one for each message,
 *   recipient reason recipient reason ...                 in the same record
 *
 * Any local user may connect, so clients are bounded in number, memory and time,
 * and the queue is walked no faster than they read.
 */
#ifndef POSTERN_QMGR_SHOWQ_H
#define POSTERN_QMGR_SHOWQ_H

#include "qmgr/queue.h"
#include "service/service.h"

enum {
    SHOWQ_CLIENTS_MAX = 16,
    SHOWQ_OUTPUT_HIGH = 64 * 1024, /* unsent bytes at which making more is paused */
    SHOWQ_OUTPUT_MAX = 256 * 1024, /* never reached: one recipient more than HIGH */
    SHOWQ_REASON_MAX = 4096,       /* bytes of a reason, escapes included */
    SHOWQ_IDLE_SECONDS = 30        /* in which a client reads nothing */
};

struct showq;

/* Serves listener `at` of the service; NULL if there is none. */
struct showq *showq_new(struct service *s, unsigned at, struct qmgr *q);
/* Closes everything; before the queue is freed. NULL is fine. */
void showq_free(struct showq *sq);

#endif
