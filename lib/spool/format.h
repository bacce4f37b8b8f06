/*
 * The format of a spool file. Pure: bytes in, bytes out, no paths and no I/O.
 *
 *   header     SPOOL_HEADER bytes: magic, version, ID, lengths, offsets, checksums
 *   envelope   sender, recipients, DSN options and so on
 *   status     one byte a recipient, changed in place
 *   content    prefix (header lines that were put before it), then the body
 *   records    appended later: attempts, failures; each with ID and checksum
 *
 * In a small message the parts follow each other. In a large one the body
 * begins at SPOOL_LARGE_BODY and envelope, status and prefix follow it. The
 * header holds lengths only, from which the offsets follow, so they cannot
 * contradict each other.
 *
 * The header has a checksum of its own: it fits into one disk sector, so that
 * it tells even in a file that was half overwritten whose file that was. The
 * envelope has a second checksum and the content a third. Records end with
 * SPOOL_RECORDS_END zero bytes: what lies behind in a recycled file is older
 * content, which a peer chose, and is never looked at. A record counts only
 * with this message's ID and a good checksum.
 *
 * Versions: 1; 2 where the envelope has a signer; 3 where the client did not send all
 * of the body. A file gets the lowest that says all of it, so that an earlier program, after a
 * downgrade, delivers what it understands and leaves the rest alone (B79).
 *
 *   0 magic   8 u32 version   12 u32 flags   16 ID (24)   40 u64 envelope length
 *   48 u32 recipients   56 u64 prefix length   64 u64 body length
 *   72 u64 content sum   168 zero ...   176 u64 envelope sum   184 u64 header sum
 * Numbers are little-endian; checksums are XXH3-64.
 */
#ifndef POSTERN_SPOOL_FORMAT_H
#define POSTERN_SPOOL_FORMAT_H

#include "core/buf.h"
#include "core/err.h"
#include "core/id.h"

enum {
    SPOOL_VERSION = 3, /* the latest that is known */
    SPOOL_HEADER = 192,
    SPOOL_LARGE_BODY = 4096,
    SPOOL_ENVELOPE_MAX = 64 * 1024 * 1024,
    SPOOL_RECORD_MAX = 8192,
    SPOOL_RECORD_RECIPIENTS_MAX = 1024,
    SPOOL_RECORD_TEXT_MAX = 2048, /* longer reply texts are cut */
    SPOOL_RECORDS_END = 8,        /* zero bytes behind the last record */
    SPOOL_RECIPIENTS_MAX = 200000
};

/* A recipient's status byte. */
enum spool_status {
    SPOOL_PENDING = 'P',
    SPOOL_SENT = 'S',
    SPOOL_CONFIRM = 'C', /* sent; the success notice that was asked for is not made yet */
    SPOOL_BOUNCED = 'B', /* failed, and its notice is made or not owed */
    SPOOL_DROPPED = 'D'  /* deleted by the operator */
};

struct spool_envelope {
    int64_t arrival; /* wall microseconds */
    uint32_t flags;  /* enum message_flag */
    uint8_t ret, mail_class;
    struct slice account, client, message_id, sender, envid;
    struct slice signer; /* the domain that answers for it, or empty */
    uint64_t added; /* bytes of the body that the client did not send: line ends made CRLF, a last
                     * one, the blank line behind the header. The others are what is charged */
    uint32_t recipient_count;
    struct slice recipients; /* encoded; walk with spool_rcpt_next */
};

struct spool_rcpt {
    struct slice address, orcpt;
    uint8_t notify;
};
/* Adds one to a list that is being made. If that passes the buffer's maximum
 * nothing is added, and spool_encode_* will refuse the list by its count. */
void spool_rcpt_add(struct buf *list, const struct spool_rcpt *r);
/* Takes the next recipient off *list; 1, 0 at the end, -1 malformed. */
int spool_rcpt_next(struct slice *list, struct spool_rcpt *r);

/* What lies where in a file. */
struct spool_layout {
    struct id id;
    uint32_t version;
    uint64_t envelope_at, envelope_len, status_at, prefix_at, prefix_len, body_at, body_len;
    uint64_t records_at;
    uint32_t recipient_count; /* status bytes */
    uint64_t content_sum;     /* XXH3-64: of prefix and body for a small message, of the body alone
                               * for a large one (its prefix is under the header's checksum) */
    bool large;
};

/* Appends all of a small message: header, envelope, status, content and the end
 * of its empty list of records. 0, or -1 (nothing useful appended) if a limit is
 * passed or the recipients do not match their count. */
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
    SPOOL_OTHER_ID, /* a sound header, but of another message: was being recycled */
    SPOOL_NEWER,    /* a later format version: leave it alone (B79) */
    SPOOL_CORRUPT   /* quarantine */
};
/* Reads the header alone, checking magic, version, its checksum, the ID against
 * the one that the file's name says, and the lengths against the file's size.
 * The layout tells what to read next. */
enum spool_verdict spool_decode_header(struct slice header, uint64_t file_size,
                                       const struct id *expected, struct spool_layout *layout,
                                       struct err *e);
/* Checks the checksum over the envelope (and a large message's prefix; not
 * looked at for a small one) and the status bytes, and decodes the envelope;
 * its slices borrow from `envelope_bytes`. An envelope that is whole and has a
 * field that this program does not know is SPOOL_NEWER. */
enum spool_verdict spool_decode_envelope(struct slice header, const struct spool_layout *layout,
                                         struct slice envelope_bytes, struct slice status,
                                         struct slice prefix, struct spool_envelope *envelope,
                                         struct err *e);
bool spool_status_valid(char status);

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
/* Appends one record. 0, or -1 for more than SPOOL_RECORD_RECIPIENTS_MAX
 * recipients: split longer lists. Longer texts are cut. */
int spool_record_encode(struct buf *out, const struct id *id, const struct spool_record *r);
/* The next valid record of this message; 1, or 0 at the first that is not.
 * Records of a type that this version does not know are passed over. */
int spool_record_next(struct slice *records, const struct id *id, struct spool_record *r);
uint32_t spool_record_recipient(const struct spool_record *r, uint32_t i);
/* How many bytes of `bytes` are whole valid records of this message. *more is
 * set if what follows may be one that `bytes` cuts off. */
size_t spool_records_length(struct slice bytes, const struct id *id, bool *more);

#endif
