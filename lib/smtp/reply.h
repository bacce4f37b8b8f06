/*
 * Replies of a server (RFC 5321 4.2), read strictly and as they come in. A
 * reply that is malformed, mixed or endless says nothing reliable: the caller
 * treats it as a temporary failure and closes (B40-B43).
 */
#ifndef POSTERN_SMTP_REPLY_H
#define POSTERN_SMTP_REPLY_H

#include "core/buf.h"

enum {
    REPLY_LINES_MAX = 100,
    REPLY_BYTES_MAX = 64 * 1024,
    REPLY_ENHANCED_MAX = 9 /* "5.123.123" */
};

enum reply_status {
    REPLY_MORE,
    REPLY_DONE,
    REPLY_MALFORMED, /* not a reply, NUL, a bare CR, bytes that are not ASCII (see utf8) */
    REPLY_MIXED,     /* lines with different codes */
    REPLY_TOO_LONG
};

struct smtp_reply {
    uint16_t code;                         /* 200..599 once done */
    uint16_t lines;                        /* whole lines so far */
    char enhanced[REPLY_ENHANCED_MAX + 1]; /* "4.2.1" if the first line has one that fits
                                            * the code, else ""; it stays in the text */
    bool utf8;                             /* set by the owner: valid UTF-8 is allowed */
    struct buf text; /* lines without code and separator, each followed by LF */
    /* private */
    uint8_t state, separator;
    uint16_t line_code;
    uint32_t bytes, line_at;
};

void reply_init(struct smtp_reply *r);
/* Frees the memory; the reply can be used again. */
void reply_free(struct smtp_reply *r);
/* Makes ready for the next reply; keeps memory and utf8. */
void reply_reset(struct smtp_reply *r);
/* Takes bytes from the front of `in`. Stops right after the reply's last line
 * or where it goes wrong. Any status but REPLY_MORE stands until reply_reset. */
enum reply_status reply_feed(struct smtp_reply *r, struct slice in, size_t *consumed);
/* Takes the next line's text off *rest, which begins as buf_slice(&r->text). */
bool reply_line(struct slice *rest, struct slice *line);
/* Appends the text with lines joined by a space; at most `max` bytes. */
void reply_text(const struct smtp_reply *r, struct buf *out, size_t max);
/* What a status other than MORE and DONE is called in a log line or notice. */
const char *reply_trouble(enum reply_status status);

#endif
