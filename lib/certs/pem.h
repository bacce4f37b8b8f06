/* PEM files: what is in them. Pure; inside lib/certs only. */
#ifndef POSTERN_CERTS_PEM_H
#define POSTERN_CERTS_PEM_H

#include "certs/certs.h"

/* What a file says, taken apart. Both are NULL if they are not there. */
struct pem_parts {
    char *key;   /* the private key, normalised */
    char *chain; /* all certificates, in their order */
    unsigned char certificate_id[CERTS_KEY_ID], key_id[CERTS_KEY_ID];
    time_t not_before, not_after; /* of the first certificate */
};

/* Whether it has certificates, and none that is damaged: of authorities, as many as there are. The
 * error has no file name. */
int pem_check_authorities(struct slice text, struct err *e);
/* The error has no file name. Wipe with pem_free. */
int pem_split(struct slice text, struct pem_parts *out, struct err *e);
void pem_free(struct pem_parts *p);

#endif
