/*
 * The sendmail command: reads a message, finds its recipients, hands it to smtpd
 * over the socket queue_directory/public/submit, where the kernel tells who we
 * are. Nothing here has any privilege.
 */
#ifndef POSTERN_CTL_SENDMAIL_H
#define POSTERN_CTL_SENDMAIL_H

#include "ctl/compat.h"
#include "smtp/address.h"

enum {
    SENDMAIL_RECIPIENTS_MAX = 50000,
    SENDMAIL_MESSAGE_MAX = 1 << 30, /* bytes, without a message_size_limit */
    SENDMAIL_HEADER_MAX = 1 << 20,  /* bytes of header that are searched for recipients */
    SENDMAIL_REPLY_MAX = 64 * 1024, /* bytes of a reply */
    SENDMAIL_REPLY_SECONDS = 300
};

struct sendmail {
    struct ctl *ctl;
    struct smtp_path sender;
    const char *full_name; /* -F, or of the user */
    char **recipients;     /* canonical */
    size_t count;
    bool from_header;     /* -t */
    bool dots;            /* -i: a line with a dot is no end */
    bool verbose, verify; /* -v, -bv */
    bool utf8;            /* an address is not ASCII */
    const char *notify, *ret, *envid, *body;
    struct buf message; /* lines end in CRLF */
};

/* Adds an address as people write it; one without a domain gets myorigin. EX_OK, or
 * the status after telling what is wrong. */
int sendmail_add_recipient(struct sendmail *s, struct slice address);
/* Reads the message from `in`, with -t takes recipients from its header; fields that
 * are not for others' eyes (Bcc) are left out, a missing From is added. */
int sendmail_read(struct sendmail *s, FILE *in);
/* Hands it over: EX_OK when the queue has it safely. */
int sendmail_submit(struct sendmail *s);
/* -bs: SMTP between standard input and output and smtpd. */
int sendmail_session(struct ctl *ctl);

#endif
