/* Dates in mail (RFC 5322 3.3). */
#ifndef POSTERN_MAIL_DATE_H
#define POSTERN_MAIL_DATE_H

#include <stdint.h>

#include "core/slice.h"

/* "Tue, 21 Nov 2023 20:29:46 +0100 (CET)" of wall microseconds in the local
 * zone; valid until the next call. A service calls tzset() before its jail. */
struct slice mail_date(int64_t wall);

#endif
