/*
 * Composing a notice: a multipart/report message (RFC 6522) with readable text,
 * the delivery status (RFC 3464, RFC 6533) and the original message or its
 * header. Pure: a request and an identity in, a message out.
 */
#ifndef POSTERN_BOUNCE_NOTICE_H
#define POSTERN_BOUNCE_NOTICE_H

#include "core/err.h"
#include "ipc/ipc.h"

enum {
    /* What fits into one ipc_notice: tag, flags and the content's length go too. */
    NOTICE_CONTENT_MAX = IPC_FRAME_MAX - IPC_HEADER - 16,
    NOTICE_TEXT_MAX = 24 * 1024,  /* the readable part */
    NOTICE_HEADER_MAX = 6 * 1024, /* the notice's own header, boundaries, part headers */
    NOTICE_TEXT_RECIPIENTS = 50,  /* that the text goes into; the others in the report */
    NOTICE_TEXT_DIAGNOSTIC = 512, /* bytes of one server's words in the text */
    NOTICE_RETURN_MIN = 4 * 1024  /* kept free for the original's header */
};

/* Who writes the notices: from the configuration. */
struct notice_identity {
    struct slice hostname; /* myhostname */
    struct slice from;     /* notice_from */
    struct slice contact;  /* notice_contact */
};

/* What is returned of the original. */
enum notice_returned { RETURNED_NOTHING, RETURNED_HEADER, RETURNED_HEADER_BEGINNING, RETURNED_ALL };

/* One notice in the making, passed between the parts' composers. */
struct notice {
    const struct ipc_notice_request *request;
    const struct notice_identity *identity;
    bool utf8;       /* international: RFC 6533 */
    size_t count;    /* recipients in the request */
    size_t unlisted; /* of these, did not fit into the report */
    enum notice_returned returned;
    bool too_large; /* all was asked for, but only the header fits */
};

/* Appends the whole message to *out (made with a maximum of at least
 * NOTICE_CONTENT_MAX) and sets *flags (enum message_flag) for its envelope.
 * `now`: microseconds since 1970. The same request and time give the same
 * message. Fails only if the request's lists cannot be decoded. */
int notice_compose(const struct ipc_notice_request *request, const struct notice_identity *identity,
                   int64_t now, struct buf *out, uint32_t *flags, struct err *e);

/* ---- the three parts, without boundaries and part headers ------------------- */

/* Readable text: notice_text.c. */
void notice_text(const struct notice *n, struct buf *out);
/* Delivery status; sets n->unlisted: notice_status.c. `room` bytes at most. */
void notice_status(struct notice *n, struct buf *out, size_t room);
/* The original's content or header in lines that may be sent; sets n->returned
 * and n->too_large: notice_return.c. `room` bytes at most. */
void notice_return(struct notice *n, struct buf *out, size_t room);

#endif
