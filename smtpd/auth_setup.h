/* What AUTH is to this process, made from the configuration. */
#ifndef POSTERN_SMTPD_AUTH_SETUP_H
#define POSTERN_SMTPD_AUTH_SETUP_H

#include "conf/config.h"

struct auth_setup {
    bool enabled;                  /* smtpd_sasl_auth_enable */
    bool announced;                /* EHLO says AUTH */
    bool tls_only;                 /* smtpd_tls_auth_only */
    unsigned options, tls_options; /* what mechanisms must not be or have (conf/sasl.h) */
};
void auth_configure(struct auth_setup *a, const struct config *config);

#endif
