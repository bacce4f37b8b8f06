/*
 * The format of a spool file. Pure: bytes in, bytes out, no paths and no I/O.
 *
 *   header     SPOOL_HEADER bytes: magic, version, ID, lengths, offsets, checksums
 *   envelope   sender, recipients, DSN options and so on
 *   status     one byte a recipient, changed in place
 *   content    prefix (header lines that were put before it), then the body
 *   records    appended later: attempts, failures; each with ID and checksum
 *
 * In a small message the parts follow each other. In a large one the content
 * begins at SPOOL_LARGE_BODY and envelope, status and prefix follow it; the
 * header's offsets tell. Header and envelope have one checksum, the content
 * another. What lies in a recycled file behind its last record is older
 * content: a record counts only with this message's ID and a good checksum.
 */
#ifndef POSTERN_SPOOL_FORMAT_H
#define POSTERN_SPOOL_FORMAT_H

#include "core/buf.h"
#include "core/err.h"
#include "core/id.h"

enum {
    SPOOL_VERSION = 1,
    SPOOL_HEADER = 192,
    SPOOL_LARGE_BODY = 4096,
    SPOOL_ENVELOPE_MAX = 64 * 1024 * 1024,
    SPOOL_RECORD_MAX = 8192,
    SPOOL_RECIPIENTS_MAX = 200000
};

/* A recipient's status byte. */
enum spool_status {
    SPOOL_PENDING = 'P',
    SPOOL_SENT = 'S',
    SPOOL_BOUNCED = 'B', /* failed, and its notice is made or not owed */
    SPOOL_DROPPED = 'D'  /* deleted by the operator */
};

struct spool_envelope {
    int64_t arrival; /* wall microseconds */
    uint32_t flags;  /* enum message_flag */
    uint8_t ret, mail_class;
    struct slice account, client, message_id, sender, envid;
    uint32_t recipient_count;
    struct slice recipients; /* encoded; walk with spool_rcpt_next */
};

struct spool_rcpt {
    struct slice address, orcpt;
    uint8_t notify;
};
void spool_rcpt_add(struct buf *list, const struct spool_rcpt *r);
/* Takes the next recipient off *list; 1, 0 at the end, -1 malformed. */
int spool_rcpt_next(struct slice *list, struct spool_rcpt *r);

/* What lies where in a file. */
struct spool_layout {
    struct id id;
    uint64_t envelope_at, envelope_len, status_at, prefix_at, prefix_len, body_at, body_len;
    uint64_t records_at;
    uint64_t content_sum; /* XXH3-64: of prefix and body for a small message, of the body alone
                           * for a large one (its prefix is under the header's checksum) */
    bool large;
};

/* Appends all of a small message up to the records. 0, or -1 if a limit is passed. */
int spool_encode_small(struct buf *out, struct spool_layout *layout, const struct id *id,
                       const struct spool_envelope *envelope, struct slice prefix,
                       struct slice body);
/* The two parts of a large one: the header (for offset 0) and the trailer
 * (for the offset where the body ends). */
int spool_encode_large(struct buf *header, struct buf *trailer, struct spool_layout *layout,
                       const struct id *id, const struct spool_envelope *envelope,
                       struct slice prefix, uint64_t body_len, uint64_t body_sum);

enum spool_verdict {
    SPOOL_GOOD,
    SPOOL_OTHER_ID, /* sound, but of another message: was being recycled */
    SPOOL_NEWER,    /* a later format version: leave it alone (B79) */
    SPOOL_CORRUPT   /* quarantine */
};
/* Reads the header alone, checking magic, version and bounds against the file's
 * size; tells what to read next. */
enum spool_verdict spool_decode_header(struct slice header, uint64_t file_size,
                                       struct spool_layout *layout, uint64_t *header_sum,
                                       struct err *e);
/* Checks the checksum over header and envelope (and a large message's prefix)
 * and decodes the envelope; slices borrow from `envelope_bytes`. expected: the
 * ID that the file's name says. */
enum spool_verdict spool_decode_envelope(struct slice header, const struct spool_layout *layout,
                                         struct slice envelope_bytes, struct slice status,
                                         struct slice prefix, const struct id *expected,
                                         struct spool_envelope *envelope, struct err *e);

/* ---- records --------------------------------------------------------------- */

enum spool_record_type {
    SPOOL_RECORD_DEFERRED = 1,  /* an attempt failed for now */
    SPOOL_RECORD_FAILED = 2,    /* failed for good; its notice has number `notice` */
    SPOOL_RECORD_FLAGS = 3,     /* hold, release, forced expiry: `flags` holds the new ones */
    SPOOL_RECORD_DELAY_SENT = 4 /* the delay warning was made */
};

struct spool_record {
    uint8_t type;
    uint8_t notice;    /* FAILED: number of the notice, see id_notice */
    uint16_t code;     /* SMTP code or 0 */
    uint32_t attempts; /* made so far */
    uint32_t flags;
    int64_t when; /* wall microseconds */
    int64_t next; /* DEFERRED: the next attempt, wall microseconds */
    uint32_t recipient_count;
    struct slice recipients; /* u32 little-endian indices; see spool_record_recipient */
    struct slice enhanced, text, host;
};
/* Appends one record. At most 1024 recipients each: split longer lists. */
int spool_record_encode(struct buf *out, const struct id *id, const struct spool_record *r);
/* The next valid record of this message; 1, or 0 at the first that is not. */
int spool_record_next(struct slice *records, const struct id *id, struct spool_record *r);
uint32_t spool_record_recipient(const struct spool_record *r, uint32_t i);

#endif
