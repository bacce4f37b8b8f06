/* The certificate authorities of smtp_tls_CAfile and smtp_tls_CApath, for services
 * that see no files. */
#ifndef POSTERN_MASTER_AUTHORITIES_H
#define POSTERN_MASTER_AUTHORITIES_H

#include "conf/config.h"

enum {
    AUTHORITY_FILES_MAX = 2000,             /* of smtp_tls_CApath */
    AUTHORITIES_BYTES_MAX = 8 * 1024 * 1024 /* of all */
};

/* Where Debian keeps them: this file may be missing, as long as nobody says that it
 * is there. */
#define AUTHORITIES_DEFAULT "/etc/ssl/certs/ca-certificates.crt"

/* Whether what is configured can be read. */
int authorities_check(const struct config *c, struct err *e);
/* A descriptor to read all of them from, as PEM; or -1. */
int authorities_open(const struct config *c, struct err *e);

#endif
