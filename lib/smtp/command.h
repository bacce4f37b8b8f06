/* Command lines of a client: finding them in the stream, telling the verb. */
#ifndef POSTERN_SMTP_COMMAND_H
#define POSTERN_SMTP_COMMAND_H

#include "core/refusal.h"
#include "core/slice.h"

enum {
    COMMAND_LINE_MAX = 2048,       /* bytes with CRLF: RFC 5321's 512 and the extensions' share */
    HELO_MAX = 255,                /* of the argument of EHLO: a domain's length */
    COMMAND_AUTH_LINE_MAX = 12288, /* a base64 line of AUTH (RFC 4954 4) */
    COMMAND_DISCARD_MAX =
        1024 * 1024 /* of an overlong line, before the session is given up (B07) */
};

/* ---- lines ----------------------------------------------------------------- */

struct line_reader {
    uint32_t limit;     /* longest line, its end included */
    uint32_t discarded; /* bytes of an overlong line thrown away so far; 0: not discarding */
};

enum line_status {
    LINE_MORE,     /* no whole line yet: keep what was not consumed, read more */
    LINE_READY,    /* *line is set, without CRLF or LF; borrows from `in` */
    LINE_TOO_LONG, /* an overlong line has passed: 500 */
    LINE_FLOOD     /* COMMAND_DISCARD_MAX bytes without a line end: disconnect */
};

void line_init(struct line_reader *r, uint32_t limit);
/* `in` is all that was received and not consumed yet. A caller whose buffer
 * holds `limit` bytes never gets stuck. A bare LF ends a command line, too. */
enum line_status line_next(struct line_reader *r, struct slice in, size_t *consumed,
                           struct slice *line);

/* ---- commands -------------------------------------------------------------- */

/* SMTP_VERB(enumerator, name): every verb that is known by name. */
#define SMTP_VERBS                                                                                 \
    SMTP_VERB(VERB_EHLO, "EHLO")                                                                   \
    SMTP_VERB(VERB_HELO, "HELO")                                                                   \
    SMTP_VERB(VERB_MAIL, "MAIL")                                                                   \
    SMTP_VERB(VERB_RCPT, "RCPT")                                                                   \
    SMTP_VERB(VERB_DATA, "DATA")                                                                   \
    SMTP_VERB(VERB_BDAT, "BDAT")                                                                   \
    SMTP_VERB(VERB_RSET, "RSET")                                                                   \
    SMTP_VERB(VERB_NOOP, "NOOP")                                                                   \
    SMTP_VERB(VERB_QUIT, "QUIT")                                                                   \
    SMTP_VERB(VERB_VRFY, "VRFY")                                                                   \
    SMTP_VERB(VERB_EXPN, "EXPN")                                                                   \
    SMTP_VERB(VERB_HELP, "HELP")                                                                   \
    SMTP_VERB(VERB_ETRN, "ETRN")                                                                   \
    SMTP_VERB(VERB_AUTH, "AUTH")                                                                   \
    SMTP_VERB(VERB_STARTTLS, "STARTTLS")                                                           \
    SMTP_VERB(VERB_XCLIENT, "XCLIENT")                                                             \
    SMTP_VERB(VERB_XFORWARD, "XFORWARD")                                                           \
    SMTP_VERB(VERB_LHLO, "LHLO")

enum smtp_verb {
    VERB_UNKNOWN,
#define SMTP_VERB(enumerator, name) enumerator,
    SMTP_VERBS
#undef SMTP_VERB
        VERB_HTTP, /* GET, POST, CONNECT and so on: a browser made to talk to us (B36) */
    VERB_COUNT
};

struct smtp_command {
    enum smtp_verb verb;
    struct slice name;     /* as written */
    struct slice argument; /* without surrounding blanks; may be empty */
};

/* Splits a line into verb and argument. 0; or -1 if it holds NUL or control
 * bytes (B06: 500, no state change), with verb VERB_UNKNOWN. */
int command_parse(struct slice line, struct smtp_command *out);
/* "EHLO", or "UNKNOWN", or "HTTP". */
const char *command_name(enum smtp_verb verb);
/* For MAIL and RCPT: checks that the argument begins with `keyword` ("FROM:",
 * "TO:") in any case and cuts it and blanks after it off. 0 or -1. */
int command_keyword(struct slice *argument, struct slice keyword);
/* BDAT's argument: chunk size and LAST (RFC 3030). 0 or -1. */
int command_bdat(struct slice argument, uint64_t *size, bool *last);
/* EHLO's and HELO's argument: a domain or an address literal, with the usual
 * tolerance (underscores, any printable name without blanks), 1..HELO_MAX bytes. */
bool command_helo_valid(struct slice argument);

#endif
