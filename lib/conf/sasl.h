/* Parameters about AUTH: smtpd_sasl_security_options, smtpd_sasl_path. */
#ifndef POSTERN_CONF_SASL_H
#define POSTERN_CONF_SASL_H

#include "smtp/sasl.h"

enum { SASL_WANTED = SASL_FORWARD_SECRECY | SASL_MUTUAL_AUTH, SASL_ENDPOINT_MAX = 255 };

/* The trait that an option speaks of ("noplaintext": SASL_PLAINTEXT); 0: none. */
unsigned sasl_option(struct slice option);
/* Of a list of options: those that a mechanism must not have, or, if they are in
 * SASL_WANTED, must have. */
unsigned sasl_options(const char *list);
/* Whether options allow a mechanism with these traits. */
static inline bool sasl_permits(unsigned options, unsigned traits)
{
    return ((options & traits) & ~(unsigned)SASL_WANTED) == 0 &&
           (options & SASL_WANTED & ~traits) == 0;
}
/* smtpd_sasl_path in the form of endpoint.h; 0, or -1: too long. */
int sasl_endpoint(const char *path, char out[static SASL_ENDPOINT_MAX + 1]);

#endif
