/* Log lines about a session as a whole, in Postfix's words. */
#ifndef POSTERN_SMTPD_REPORT_H
#define POSTERN_SMTPD_REPORT_H

#include "smtpd/session.h"

/* "connect from name[ip]" */
void report_connect(const struct session *s);
/* "disconnect from name[ip] ehlo=1 mail=1 ... commands=5"; refused/all where
 * they differ. */
void report_disconnect(const struct session *s);
/* "lost connection after CMD from name[ip]"; event: "lost connection" or
 * "timeout". */
void report_broken(const struct session *s, const char *event);

/* "ID: client=name[ip]", with who has authenticated and what XFORWARD said;
 * of a local user "ID: uid=1000 from=<sender>". */
void report_client(const struct session *s);

#endif
