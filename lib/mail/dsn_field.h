/*
 * Writing header fields and text whose values come from peers: whatever the
 * value holds, the output is CRLF lines of at most DSN_LINE_MAX bytes, without
 * control bytes, and stays inside its field (B44).
 *
 * All functions return 0, or -1 when the buffer's maximum would be passed; what
 * they appended until then stays, so the caller discards or cuts back.
 */
#ifndef POSTERN_MAIL_DSN_FIELD_H
#define POSTERN_MAIL_DSN_FIELD_H

#include "core/buf.h"

enum {
    DSN_LINE_MAX = 998, /* RFC 5322 section 2.1.1, without CRLF */
    DSN_LINE_FOLD = 76
};

/* "Name: prefix value" CRLF, folded at spaces (within a word only if it is
 * longer than a line may be). Control bytes become '?'; so do bytes above
 * ASCII unless utf8 is set and they are well-formed UTF-8. */
int dsn_field(struct buf *b, const char *name, const char *prefix, struct slice value, bool utf8);
/* The same for free text from a peer: escaped as in logs (\xHH), and cut after
 * `max` bytes of it. */
int dsn_field_quoted(struct buf *b, const char *name, const char *prefix, struct slice text,
                     size_t max);
/* "Name: Thu, 21 Nov 2024 20:29:46 +0000" CRLF; nothing if `when` is 0.
 * Microseconds since 1970. In UTC: a jailed process knows no other zone. */
int dsn_field_date(struct buf *b, const char *name, int64_t when);
/* Text wrapped at spaces, each line after `indent`; ends with CRLF. Bytes are
 * treated as in dsn_field. */
int dsn_paragraph(struct buf *b, const char *indent, struct slice text, bool utf8);
/* An address value for a field or line: control bytes become '?', others above
 * ASCII too unless utf8. */
int dsn_add_safe(struct buf *b, struct slice value, bool utf8);
/* xtext (RFC 3461 section 4): bytes outside printable ASCII, '+' and '=' as +HH. */
int dsn_add_xtext(struct buf *b, struct slice value);
/* utf-8-addr-xtext (RFC 6533 section 3): characters above ASCII as \x{HEX}, for
 * an address of type utf-8 in a report that must stay ASCII. */
int dsn_add_utf8_xtext(struct buf *b, struct slice value);

/* Whether any byte is above ASCII. */
bool dsn_is_8bit(struct slice s);
/* Whether all of it is well-formed UTF-8 (RFC 3629). */
bool dsn_is_utf8(struct slice s);

#endif
