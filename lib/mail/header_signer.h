/* Inside of the scanner: the domain that answers for a message, read as it passes. */
#ifndef POSTERN_MAIL_HEADER_SIGNER_H
#define POSTERN_MAIL_HEADER_SIGNER_H

#include "mail/header.h"

/* A part of the value of DKIM-Signature, or of From, in order. `state` is 0 at the
 * beginning of the field. */
void header_signer_dkim(struct header_signer *s, struct slice part);
void header_signer_from(struct header_signer *s, struct slice part);

#endif
