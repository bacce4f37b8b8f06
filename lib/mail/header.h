/*
 * The header of a message (RFC 5322 2.2): a scanner that content passes through
 * as it is received, and a walk over the fields of a header in memory.
 */
#ifndef POSTERN_MAIL_HEADER_H
#define POSTERN_MAIL_HEADER_H

#include "core/buf.h"
#include "core/refusal.h"

enum {
    HEADER_NAME_MAX = 128,       /* of a field's name; longer ones are not taken for a field */
    HEADER_MESSAGE_ID_MAX = 255, /* of the value that the scanner keeps */
    HEADER_DOMAIN_MAX = 255,
    HEADER_WORD_MAX = 15 /* of a value that is one word */
};

/* ---- the scanner ----------------------------------------------------------- */

/* Fields that the scanner counts: HEADER_FIELD(enumerator, name). */
#define HEADER_FIELDS                                                                              \
    HEADER_FIELD(HEADER_RECEIVED, "Received")                                                      \
    HEADER_FIELD(HEADER_DATE, "Date")                                                              \
    HEADER_FIELD(HEADER_FROM, "From")                                                              \
    HEADER_FIELD(HEADER_SENDER, "Sender")                                                          \
    HEADER_FIELD(HEADER_MESSAGE_ID, "Message-ID")                                                  \
    HEADER_FIELD(HEADER_AUTO_SUBMITTED, "Auto-Submitted")                                          \
    HEADER_FIELD(HEADER_TLS_REQUIRED, "TLS-Required")                                              \
    HEADER_FIELD(HEADER_DKIM_SIGNATURE, "DKIM-Signature")                                          \
    HEADER_FIELD(HEADER_PRECEDENCE, "Precedence")                                                  \
    HEADER_FIELD(HEADER_LIST_ID, "List-Id")                                                        \
    HEADER_FIELD(HEADER_LIST_UNSUBSCRIBE, "List-Unsubscribe")

enum header_known {
#define HEADER_FIELD(enumerator, name) enumerator,
    HEADER_FIELDS
#undef HEADER_FIELD
        HEADER_KNOWN_COUNT
};

enum header_problem {
    HEADER_OK,
    HEADER_TOO_LARGE,      /* over limits.size (B32) */
    HEADER_TOO_MANY_LINES, /* over limits.lines (B32) */
    HEADER_LOOP            /* over limits.hops Received fields (B31) */
};

struct header_limits {
    uint64_t size;  /* bytes of the header */
    uint32_t lines; /* of the header, folded ones included */
    uint32_t hops;  /* Received fields */
};

/* A value that is one word: in lower case, cut at the maximum. */
struct header_word {
    uint8_t len;
    char text[HEADER_WORD_MAX];
};

/* Who answers for a message: d= of its first DKIM-Signature (RFC 6376 3.5), and the domain
 * of the first address in From. Read as they pass; only letters, digits, '-', '.', '_' and bytes
 * from 0x80 on are taken, ASCII in lower case. */
struct header_signer {
    uint8_t dkim_len, from_len;
    uint8_t state, depth; /* private: where in the value; comments in comments */
    bool escaped;         /* the same: by a backslash */
    char dkim[HEADER_DOMAIN_MAX], from[HEADER_DOMAIN_MAX];
};
/* The DKIM domain if From's is the same or below it (a signature is not verified here: any
 * other d= could be anybody's), else that of From, else empty. */
struct slice header_signer_domain(const struct header_signer *s);

struct header_scan {
    struct header_limits limits;
    uint64_t size; /* bytes of the header so far; at the end with its blank line. If
                    * no_blank_line: where the body begins */
    uint32_t lines;
    uint32_t count[HEADER_KNOWN_COUNT];
    enum header_problem problem;
    bool done;
    bool no_blank_line;    /* the header ended at a line that is no field (the message has no
                            * header at all if size is 0): put a blank line at `size`, else
                            * that line joins the header that we write before it */
    bool tls_not_required; /* "TLS-Required: No" (RFC 8689 section 5) */
    uint8_t message_id_len;
    char message_id[HEADER_MESSAGE_ID_MAX]; /* value of the first Message-ID, blanks trimmed,
                                             * cut at the maximum; any byte: escape it */
    struct header_signer signer;
    struct header_word precedence;         /* of the first Precedence */
    struct header_word mail_class;         /* of the first field of that name */
    char class_field[HEADER_NAME_MAX + 1]; /* set by header_scan_class: name of that field */
    /* Set by the owner after header_scan_init; NULL: not wanted. The values of From and
     * Sender are appended to it as they stand there, each with a NUL before it. */
    struct buf *authors;
    bool authors_cut; /* they did not fit */
    /* private */
    uint64_t line; /* bytes of the current line */
    uint8_t state;
    uint8_t field; /* enum header_known of the current field, or HEADER_KNOWN_COUNT */
    bool in_class; /* the current field is class_field, for the first time */
    bool had_class;
    uint8_t tls_len;
    char tls[4]; /* the beginning of TLS-Required's value */
    uint8_t name_len;
    char name[HEADER_NAME_MAX];
};

void header_scan_init(struct header_scan *h, const struct header_limits *limits);
/* Whose value is wanted as mail_class, by name, which is copied; a name longer than
 * HEADER_NAME_MAX is no field's. */
void header_scan_class(struct header_scan *h, struct slice name);
/* Feeds canonical content in order, any pieces. Cheap once done. After a
 * problem the rest is ignored. Returns done. */
bool header_scan_feed(struct header_scan *h, struct slice content);
/* When the content ends inside the header: everything was header. */
void header_scan_end(struct header_scan *h);
/* Why the message cannot be taken (554), or NULL. */
const struct refusal *header_refusal(const struct header_scan *h);

/* ---- the walk -------------------------------------------------------------- */

struct header_field {
    struct slice name;
    struct slice body; /* raw, folds included, without the last CRLF; not trimmed */
    struct slice raw;  /* the whole field with its CRLF */
};

/* Takes the next field off *rest. False at the blank line (which is then taken
 * off as well), at a line that is no field, or at the end. */
bool header_next(struct slice *rest, struct header_field *f);
/* The first field of this name. */
bool header_find(struct slice content, struct slice name, struct header_field *f);
/* Bytes of content before the body: the fields and the blank line, if there is
 * one; as the scanner's size. */
size_t header_length(struct slice content);
/* Appends a body in one line: line ends of folds removed, trimmed. -1 if full. */
int header_unfold(struct slice body, struct buf *out);

#endif
