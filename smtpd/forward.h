/* What XFORWARD says about where the next message came from: for the log only, and
 * for one transaction. */
#ifndef POSTERN_SMTPD_FORWARD_H
#define POSTERN_SMTPD_FORWARD_H

#include "core/buf.h"
#include "smtp/xattr.h"

struct forward {
    char *values[XATTR_COUNT]; /* NULL: not given, or not known */
};

void forward_free(struct forward **f);
/* Appends ", orig_queue_id=ID, orig_client=name[address]", as far as it is known;
 * f may be NULL. */
void forward_describe(const struct forward *f, struct buf *out);

#endif
