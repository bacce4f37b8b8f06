/* Parameters about AUTH: smtpd_sasl_security_options, smtpd_sasl_mechanism_filter,
 * smtpd_sasl_path. */
#ifndef POSTERN_CONF_SASL_H
#define POSTERN_CONF_SASL_H

#include "smtp/sasl.h"

enum { SASL_WANTED = SASL_FORWARD_SECRECY | SASL_MUTUAL_AUTH, SASL_ENDPOINT_MAX = 255 };

/* The mechanisms of our own accounts. The strongest first: clients that know nothing better
 * take the first they know. EXTERNAL (RFC 4422 appendix A) is last: who shows a certificate and
 * has a password, too, means the password's user. */
enum sasl_own {
    SASL_OWN_SCRAM_PLUS,
    SASL_OWN_SCRAM,
    SASL_OWN_PLAIN,
    SASL_OWN_LOGIN,
    SASL_OWN_EXTERNAL,
    SASL_OWN_COUNT
};
extern const struct slice sasl_own_names[SASL_OWN_COUNT];

/* Whether an element of smtpd_sasl_mechanism_filter can be used: a mechanism's name in any case,
 * or static:TEXT (any mechanism), with '!' before it or not. */
bool sasl_filter_element(struct slice element);
/* Whether the filter lets a mechanism be offered: the first element that it fits decides; without
 * one it is not, but if the filter is empty all are. */
bool sasl_filter_permits(const char *filter, struct slice mechanism);
bool sasl_filter_leaves_any(const char *filter); /* of our own ones */
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
