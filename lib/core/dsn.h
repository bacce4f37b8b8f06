/* What a sender asked to be told about a message (RFC 3461). */
#ifndef POSTERN_CORE_DSN_H
#define POSTERN_CORE_DSN_H

/* Bits of NOTIFY=; 0: not given. NEVER stands alone. */
enum dsn_notify { NOTIFY_NEVER = 1, NOTIFY_SUCCESS = 2, NOTIFY_FAILURE = 4, NOTIFY_DELAY = 8 };
/* RET=: what of the message a failure notice returns. */
enum dsn_ret { RET_UNSET, RET_HDRS, RET_FULL };

#endif
