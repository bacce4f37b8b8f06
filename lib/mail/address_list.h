/* Lists of addresses in header fields (RFC 5322 section 3.4). */
#ifndef POSTERN_MAIL_ADDRESS_LIST_H
#define POSTERN_MAIL_ADDRESS_LIST_H

#include "core/buf.h"

/* The next address of a header field's value, such as
 *   Joe <a@x>, "B, Ob" <b@x> (at home), friends: c@x, d@x;
 * 1 with the bare address in `out` (cleared first); 0 at the end; -1 if what comes is
 * no address. */
int address_list_next(struct slice *rest, struct buf *out);
/* The same, and before a mailbox or group each word of its name that has an @ outside quotes:
 *   b@y <a@x>
 * is b@y and a@x. RFC 5322 has no such name, but programs write it, and others show it, or take
 * it, as an address. Not so a quoted name, which is legal whatever it says, and an encoded
 * word (RFC 2047). For who wants to know whom a field names, not where mail goes. */
int address_list_named(struct slice *rest, struct buf *out);

#endif
