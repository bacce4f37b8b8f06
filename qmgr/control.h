/*
 * The control socket, through which `postern` sees and steers the queue: JSON
 * lines over queue_directory/public/control, described in
 * doc/control-protocol.md. Who may connect is decided by the socket's mode and
 * group, which master sets.
 */
#ifndef POSTERN_QMGR_CONTROL_H
#define POSTERN_QMGR_CONTROL_H

#include "qmgr/queue.h"
#include "service/service.h"

enum {
    CONTROL_CLIENTS_MAX = 32,
    CONTROL_LINE_MAX = 64 * 1024,    /* bytes of a request */
    CONTROL_OUTPUT_LOW = 16 * 1024,  /* unsent results that wait for more, for a second at most */
    CONTROL_OUTPUT_HIGH = 64 * 1024, /* unsent results at which making more is paused */
    CONTROL_RESULT_MAX = 64 * 1024,  /* of a result line, recipients beyond are counted only */
    CONTROL_OUTPUT_MAX = 512 * 1024, /* of one client; never reached in practice */
    CONTROL_CONTENT_MAX = 4 * 1024 * 1024, /* of a message that is shown */
    CONTROL_CONTENT_PIECE = 24 * 1024,     /* bytes of content in one result line */
    CONTROL_IDLE_SECONDS = 60,             /* without a byte moved either way */
    CONTROL_STATUS_SECONDS = 3,            /* for master's answer */
    CONTROL_SERVICES_MAX = 128 * 1024,     /* of master's answer */
    CONTROL_PATTERN_MAX = 1024,
    CONTROL_SUMMARY_MAX = 2000 /* domains in a summary; the rest is one line */
};

struct control;

/* Serves listener 0 of the service; without one the queue runs all the same
 * and nobody can look at it. Returns NULL then. */
struct control *control_new(struct service *s, struct qmgr *q);
/* Closes everything; before the queue is freed. NULL is fine. */
void control_free(struct control *c);
/* master's answer to an ipc_status_request; call it from service_ops.message.
 * NULL is fine. */
void control_status_reply(struct control *c, const struct ipc_status_reply *reply);

#endif
