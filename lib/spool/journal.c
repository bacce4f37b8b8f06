#include "spool/journal.h"

#include <xxhash.h>

#include "spool/wire.h"

enum {
    BLOCK_MAGIC = 0x4a545350, /* "PSTJ" */
    ID_FIELD = 24,
    SUMMED = 32 /* bytes of a header before its checksum */
};

static const char super_magic[8] = {'P', 'O', 'S', 'T', 'J', 'R', 'N', '\n'};

void journal_super_encode(char out[JOURNAL_SUPER], const struct journal_super *super)
{
    memcpy(out, super_magic, sizeof super_magic);
    wire_put(out + 8, super->turn, 8);
    wire_put(out + 16, super->size, 8);
    wire_put(out + 24, super->tail, 8);
    wire_put(out + 32, super->key, 8);
    wire_put(out + 40, XXH3_64bits(out, 40), 8);
}

static int decode_copy(const char *at, struct journal_super *super)
{
    if (memcmp(at, super_magic, sizeof super_magic) != 0 ||
        wire_get(at + 40, 8) != XXH3_64bits(at, 40))
        return -1;
    *super = (struct journal_super){.turn = wire_get(at + 8, 8),
                                    .size = wire_get(at + 16, 8),
                                    .tail = wire_get(at + 24, 8),
                                    .key = wire_get(at + 32, 8)};
    bool sound = super->size >= JOURNAL_SIZE_MIN && super->size <= INT64_MAX / 2 &&
                 super->size % JOURNAL_PAGE == 0 && super->tail % JOURNAL_PAGE == 0 &&
                 super->tail <= INT64_MAX / 2;
    return sound ? 0 : -1;
}

int journal_super_decode(struct slice page, struct journal_super *super)
{
    struct journal_super copy;
    int result = -1;
    for (size_t at = 0; at + JOURNAL_SUPER <= page.len && at <= JOURNAL_SUPER_SLOT;
         at += JOURNAL_SUPER_SLOT) {
        if (decode_copy(page.ptr + at, &copy) < 0 || (result == 0 && copy.turn < super->turn))
            continue;
        *super = copy;
        result = 0;
    }
    return result;
}

/* ---- blocks ------------------------------------------------------------------- */

int journal_begin(struct buf *block)
{
    static const char header[JOURNAL_HEADER];
    return buf_add(block, header, sizeof header);
}

static size_t padded(size_t len)
{
    return (len + 7) & ~(size_t)7;
}

int journal_add(struct buf *block, enum journal_type type, const struct id *id, struct slice bytes,
                uint64_t *at)
{
    size_t len = JOURNAL_RECORD + padded(bytes.len);
    if (bytes.len > JOURNAL_BYTES_MAX || block->len + len > JOURNAL_BLOCK_MAX - JOURNAL_PAGE ||
        buf_reserve(block, len) < 0)
        return -1;
    char *p = block->data + block->len;
    wire_put(p, type, 4);
    wire_put(p + 4, bytes.len, 4);
    memset(p + 8, 0, ID_FIELD);
    memcpy(p + 8, id->text, sizeof id->text);
    if (bytes.len)
        memcpy(p + JOURNAL_RECORD, bytes.ptr, bytes.len);
    memset(p + JOURNAL_RECORD + bytes.len, 0, padded(bytes.len) - bytes.len);
    if (at)
        *at = block->len + JOURNAL_RECORD;
    block->len += len;
    return 0;
}

static uint64_t sum_of(const char *header, struct slice records, uint64_t key)
{
    /* two sums chained: the records' own is the seed of the header's */
    return XXH3_64bits_withSeed(header, SUMMED,
                                XXH3_64bits_withSeed(records.ptr, records.len, key));
}

void journal_end(struct buf *block, enum journal_kind kind, uint64_t position, uint64_t durable,
                 uint64_t key)
{
    struct slice records = slice_from(buf_slice(block), JOURNAL_HEADER);
    wire_put(block->data, BLOCK_MAGIC, 4);
    wire_put(block->data + 4, kind, 4);
    wire_put(block->data + 8, position, 8);
    wire_put(block->data + 16, records.len, 8);
    wire_put(block->data + 24, durable, 8);
    wire_put(block->data + SUMMED, sum_of(block->data, records, key), 8);
    size_t fill = (size_t)journal_pages(block->len) - block->len;
    if (buf_reserve(block, fill) < 0)
        return; /* the maximum leaves room for it */
    memset(block->data + block->len, 0, fill);
    block->len += fill;
}

uint64_t journal_block_length(struct slice header, uint64_t position)
{
    if (header.len < JOURNAL_HEADER || wire_get(header.ptr, 4) != BLOCK_MAGIC ||
        wire_get(header.ptr + 8, 8) != position)
        return 0;
    uint64_t len = wire_get(header.ptr + 16, 8);
    return len > JOURNAL_BLOCK_MAX - JOURNAL_PAGE ? 0 : journal_pages(JOURNAL_HEADER + len);
}

int journal_block_decode(struct slice block, uint64_t position, uint64_t key,
                         struct journal_block *out)
{
    uint64_t len = journal_block_length(block, position);
    if (len == 0 || len > block.len)
        return -1;
    uint64_t kind = wire_get(block.ptr + 4, 4);
    struct slice records =
        slice_first(slice_from(block, JOURNAL_HEADER), (size_t)wire_get(block.ptr + 16, 8));
    if (wire_get(block.ptr + SUMMED, 8) != sum_of(block.ptr, records, key) ||
        (kind != JOURNAL_RECORDS && kind != JOURNAL_WRAP))
        return -1;
    *out = (struct journal_block){.kind = (enum journal_kind)kind,
                                  .durable = wire_get(block.ptr + 24, 8),
                                  .records = records};
    return 0;
}

int journal_next(struct slice *records, struct journal_record *r)
{
    if (records->len == 0)
        return 0;
    struct wire w = {*records, false};
    uint64_t type = wire_number(&w, 4), len = wire_number(&w, 4);
    struct slice id = wire_bytes(&w, ID_FIELD);
    r->bytes = wire_bytes(&w, len);
    wire_bytes(&w, padded((size_t)len) - len);
    if (w.failed || len > JOURNAL_BYTES_MAX || type < JOURNAL_MESSAGE || type > JOURNAL_CHANGE ||
        id_parse(slice_first(id, strnlen(id.ptr, ID_FIELD)), &r->id) < 0)
        return -1;
    r->type = (enum journal_type)type;
    *records = w.rest;
    return 1;
}

void journal_change_encode(char offset[JOURNAL_OFFSET], uint64_t at)
{
    wire_put(offset, at, JOURNAL_OFFSET);
}

int journal_change_decode(struct slice bytes, uint64_t limit, uint64_t *at, struct slice *changed)
{
    uint64_t end;
    if (bytes.len < JOURNAL_OFFSET)
        return -1;
    *at = wire_get(bytes.ptr, JOURNAL_OFFSET);
    *changed = slice_from(bytes, JOURNAL_OFFSET);
    return __builtin_add_overflow(*at, changed->len, &end) || end > limit ? -1 : 0;
}
