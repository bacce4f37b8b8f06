/*
 * Content on its way out with DATA: a dot before each line that begins with
 * one, and CRLF.CRLF behind it. Content is canonical (lines end in CRLF) and
 * may come in any pieces. Nothing is copied with stuff_iov: it points into the
 * content and to constant text.
 */
#ifndef POSTERN_SMTP_STUFF_H
#define POSTERN_SMTP_STUFF_H

#include <sys/uio.h>

#include "core/buf.h"

struct stuffer {
    bool line_start; /* the next byte begins a line */
    bool after_cr;
};

void stuff_init(struct stuffer *s);
/* Describes the front of *in by up to `max` (at least 2) iovecs and cuts that
 * off *in; returns how many were filled, 0 only if *in is empty. */
unsigned stuff_iov(struct stuffer *s, struct slice *in, struct iovec *iov, unsigned max);
/* The same by copying: appends the stuffed form of the front of *in to `out`
 * and cuts it off *in, as far as there is room below out->max. */
void stuff_copy(struct stuffer *s, struct slice *in, struct buf *out);
/* What ends the data: ".CRLF", with a CRLF before it if the last line has none. */
struct slice stuff_end(const struct stuffer *s);

#endif
