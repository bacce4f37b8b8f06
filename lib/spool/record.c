#include <xxhash.h>

#include "core/mem.h"
#include "spool/format.h"
#include "spool/wire.h"

/*
 * A record: u32 length of all, u8 type, u8 notice, u16 code, u32 attempts,
 * u32 flags, i64 when, i64 next, ID (24), u32 count, count * u32, three texts
 * with u32 lengths, u64 checksum of all before it.
 */
enum {
    RECORD_ID_FIELD = 24,
    RECORD_FIXED = 4 + 1 + 1 + 2 + 4 + 4 + 8 + 8 + RECORD_ID_FIELD + 4,
    RECORD_SUM = 8,
    RECORD_MIN = RECORD_FIXED + 3 * 4 + RECORD_SUM,
    RECORD_ENHANCED_MAX = 32,
    RECORD_HOST_MAX = 255
};
_Static_assert(RECORD_MIN + 4 * SPOOL_RECORD_RECIPIENTS_MAX + RECORD_ENHANCED_MAX +
                       RECORD_HOST_MAX + SPOOL_RECORD_TEXT_MAX <=
                   SPOOL_RECORD_MAX,
               "the largest record fits");

static char *put(char *at, uint64_t n, unsigned bytes)
{
    wire_put(at, n, bytes);
    return at + bytes;
}

static char *put_text(char *at, struct slice s)
{
    at = put(at, s.len, 4);
    if (s.len)
        memcpy(at, s.ptr, s.len);
    return at + s.len;
}

int spool_record_encode(struct buf *out, const struct id *id, const struct spool_record *r)
{
    struct slice enhanced = slice_first(r->enhanced, RECORD_ENHANCED_MAX);
    struct slice text = slice_first(r->text, SPOOL_RECORD_TEXT_MAX);
    struct slice host = slice_first(r->host, RECORD_HOST_MAX);
    if (r->recipient_count > SPOOL_RECORD_RECIPIENTS_MAX ||
        r->recipients.len != (size_t)r->recipient_count * 4)
        return -1;
    size_t len = RECORD_MIN + r->recipients.len + enhanced.len + text.len + host.len;
    if (buf_reserve(out, len) < 0)
        return -1;
    char *start = out->data + out->len, *at = start;
    at = put(at, len, 4);
    at = put(at, r->type, 1);
    at = put(at, r->notice, 1);
    at = put(at, r->code, 2);
    at = put(at, r->attempts, 4);
    at = put(at, r->flags, 4);
    at = put(at, (uint64_t)r->when, 8);
    at = put(at, (uint64_t)r->next, 8);
    memset(at, 0, RECORD_ID_FIELD);
    memcpy(at, id->text, sizeof id->text);
    at = put(at + RECORD_ID_FIELD, r->recipient_count, 4);
    if (r->recipients.len)
        memcpy(at, r->recipients.ptr, r->recipients.len);
    at = put_text(at + r->recipients.len, enhanced);
    at = put_text(at, text);
    at = put_text(at, host);
    put(at, XXH3_64bits(start, len - RECORD_SUM), 8);
    out->len += len;
    return 0;
}

/* The record at the start of `bytes`, whole and of this message, or an empty
 * slice. *more: it may be cut off. */
static struct slice whole_record(struct slice bytes, const struct id *id, bool *more)
{
    const struct slice none = {NULL, 0};
    if (bytes.len < 4) {
        *more = true;
        return none;
    }
    uint64_t len = wire_get(bytes.ptr, 4);
    if (len < RECORD_MIN || len > SPOOL_RECORD_MAX)
        return none;
    if (len > bytes.len) {
        *more = true;
        return none;
    }
    const char *name = bytes.ptr + RECORD_FIXED - 4 - RECORD_ID_FIELD;
    if (memcmp(name, id->text, sizeof id->text) != 0 ||
        wire_get(bytes.ptr + len - RECORD_SUM, 8) != XXH3_64bits(bytes.ptr, len - RECORD_SUM))
        return none;
    return slice_first(bytes, len);
}

static int decode(struct slice record, struct spool_record *r)
{
    struct wire w = {slice_from(slice_first(record, record.len - RECORD_SUM), 4), false};
    r->type = (uint8_t)wire_number(&w, 1);
    r->notice = (uint8_t)wire_number(&w, 1);
    r->code = (uint16_t)wire_number(&w, 2);
    r->attempts = (uint32_t)wire_number(&w, 4);
    r->flags = (uint32_t)wire_number(&w, 4);
    r->when = (int64_t)wire_number(&w, 8);
    r->next = (int64_t)wire_number(&w, 8);
    wire_bytes(&w, RECORD_ID_FIELD);
    r->recipient_count = (uint32_t)wire_number(&w, 4);
    r->recipients = wire_bytes(&w, (uint64_t)r->recipient_count * 4);
    r->enhanced = wire_counted(&w);
    r->text = wire_counted(&w);
    r->host = wire_counted(&w);
    return w.failed || w.rest.len ? -1 : 0;
}

int spool_record_next(struct slice *records, const struct id *id, struct spool_record *r)
{
    bool more;
    for (;;) {
        struct slice record = whole_record(*records, id, &more);
        if (record.len == 0 || decode(record, r) < 0)
            return 0;
        *records = slice_from(*records, record.len);
        if (r->type >= SPOOL_RECORD_DEFERRED && r->type <= SPOOL_RECORD_DELAY_SENT)
            return 1;
    }
}

uint32_t spool_record_recipient(const struct spool_record *r, uint32_t i)
{
    if (i >= r->recipient_count)
        panic("recipient %u of a record with %u", i, r->recipient_count);
    return (uint32_t)wire_get(r->recipients.ptr + (size_t)i * 4, 4);
}

size_t spool_records_length(struct slice bytes, const struct id *id, bool *more)
{
    size_t total = 0;
    *more = false;
    for (;;) {
        struct slice record = whole_record(slice_from(bytes, total), id, more);
        if (record.len == 0)
            return total;
        total += record.len;
    }
}
