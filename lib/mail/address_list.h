/* Lists of addresses in header fields (RFC 5322 section 3.4). */
#ifndef POSTERN_MAIL_ADDRESS_LIST_H
#define POSTERN_MAIL_ADDRESS_LIST_H

#include "core/buf.h"

/* The next address of a header field's value, such as
 *   Joe <a@x>, "B, Ob" <b@x> (at home), friends: c@x, d@x;
 * 1 with the bare address in `out` (cleared first); 0 at the end; -1 if what comes is
 * no address. */
int address_list_next(struct slice *rest, struct buf *out);

#endif
