/*
 * The format of the spool's journal: a ring of blocks, in which messages are made
 * durable before they have a file. Pure: bytes in, bytes out, no I/O.
 *
 *   page 0     two copies of the superblock, in sectors of their own, written in
 *              turn: where the ring's oldest block that counts is
 *   the ring   `size` bytes; position p, which only grows, is at p modulo size
 *
 * A block is written at once and begins at a multiple of JOURNAL_PAGE. Its header
 * holds its position, so that what an earlier round left is not taken for it, and
 * a checksum over all of it. Blocks follow each other without a hole; a block
 * that would pass the ring's end is preceded by one of kind WRAP.
 *
 * A block also says up to which position the ring was durable when it was written:
 * a hole before that is damage, one behind it is what the power failure caught.
 *
 * The checksum of a block begins with a random key, which only the superblock
 * holds and which each start of an empty ring changes: bytes of a message, which a
 * peer chose, never look like a block.
 *
 *   superblock  0 magic (8)   8 u64 turn   16 u64 size   24 u64 tail   32 u64 key
 *               40 u64 sum
 *   block       0 u32 magic   4 u32 kind   8 u64 position   16 u64 length of the
 *               records   24 u64 durable   32 u64 sum of bytes 0 to 31 and of the
 *               records
 *   record      0 u32 type   4 u32 length of the bytes   8 ID (24)   32 the bytes,
 *               filled up to a multiple of 8
 *   CHANGE      its bytes: 0 u64 offset   8 what was written there
 * Numbers are little-endian; checksums are XXH3-64.
 */
#ifndef POSTERN_SPOOL_JOURNAL_H
#define POSTERN_SPOOL_JOURNAL_H

#include "core/buf.h"
#include "core/id.h"

enum {
    JOURNAL_PAGE = 4096,
    JOURNAL_SUPER = 48,
    JOURNAL_SUPER_SLOT = 2048, /* from one copy of the superblock to the other */
    JOURNAL_HEADER = 40,
    JOURNAL_RECORD = 32,
    JOURNAL_BYTES_MAX = 128 * 1024, /* of one record */
    JOURNAL_BLOCK_MAX = 256 * 1024, /* with its header and padding */
    JOURNAL_SIZE_MIN = 2 * JOURNAL_BLOCK_MAX
};

struct journal_super {
    uint64_t turn; /* of two valid copies the later one counts */
    uint64_t size, tail, key;
};
void journal_super_encode(char out[JOURNAL_SUPER], const struct journal_super *super);
/* The copy that counts in page 0; -1 if neither is sound. */
int journal_super_decode(struct slice page, struct journal_super *super);

enum journal_kind { JOURNAL_RECORDS = 1, JOURNAL_WRAP = 2 };
enum journal_type {
    JOURNAL_MESSAGE = 1, /* a message: the bytes of its file (spool_encode_small) */
    JOURNAL_FILED = 2,   /* this message is durable in a file of its own, with all changes */
    JOURNAL_OVER = 3,    /* it is finished: a file of it that is there counts no more */
    JOURNAL_CHANGE = 4   /* bytes of its file were changed, or added behind it */
};

/* Begins a block in an empty buffer. */
int journal_begin(struct buf *block);
/* Appends a record; sets *at to where its bytes are in the block, unless NULL. 0, or
 * -1 and nothing is appended if a limit is passed. */
int journal_add(struct buf *block, enum journal_type type, const struct id *id, struct slice bytes,
                uint64_t *at);
/* Completes the block for this position: header, and zeros up to a whole page. */
void journal_end(struct buf *block, enum journal_kind kind, uint64_t position, uint64_t durable,
                 uint64_t key);

/* The length of a block at this position, header and padding included, from its
 * first JOURNAL_HEADER bytes; 0 if no block begins here. */
uint64_t journal_block_length(struct slice header, uint64_t position);
struct journal_block {
    enum journal_kind kind;
    uint64_t durable;
    struct slice records;
};
/* Checks a whole block; 0 and what is in it, or -1. */
int journal_block_decode(struct slice block, uint64_t position, uint64_t key,
                         struct journal_block *out);
struct journal_record {
    enum journal_type type;
    struct id id;
    struct slice bytes;
};
/* Takes the next record off *records; 1, 0 at the end, -1 malformed. */
int journal_next(struct slice *records, struct journal_record *r);

enum { JOURNAL_OFFSET = 8 /* bytes before those of a CHANGE */ };
void journal_change_encode(char offset[JOURNAL_OFFSET], uint64_t at);
/* The offset and the bytes of a CHANGE; 0, or -1 if it would reach beyond `limit`. */
int journal_change_decode(struct slice bytes, uint64_t limit, uint64_t *at, struct slice *changed);

static inline uint64_t journal_pages(uint64_t len)
{
    return (len + JOURNAL_PAGE - 1) & ~(uint64_t)(JOURNAL_PAGE - 1);
}

#endif
