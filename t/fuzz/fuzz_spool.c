/* libraries: postern_spool */
/* Any bytes as a spool file: no read beyond them, and what is accepted is
 * consistent. The checksums are mended, so that the parsers behind them are
 * reached; the first byte tells which part to give to the decoders. */
#include <stdlib.h>
#include <xxhash.h>

#include "core/mem.h"
#include "spool/format.h"
#include "spool/wire.h"

enum { AT_ENVELOPE_LEN = 40, AT_ENVELOPE_SUM = 176, AT_HEADER_SUM = 184 };

static void check_recipients(const struct spool_envelope *v)
{
    struct slice list = v->recipients;
    struct spool_rcpt r;
    uint32_t n = 0;
    while (spool_rcpt_next(&list, &r) > 0)
        n++;
    if (n != v->recipient_count || list.len)
        abort();
}

static void mend(char *file, size_t len)
{
    uint64_t envelope = wire_get(file + AT_ENVELOPE_LEN, 8);
    if (envelope <= len - SPOOL_HEADER)
        wire_put(file + AT_ENVELOPE_SUM, XXH3_64bits(file + SPOOL_HEADER, envelope), 8);
    wire_put(file + AT_HEADER_SUM, XXH3_64bits(file, AT_HEADER_SUM), 8);
}

static void decode_file(struct slice file, const struct id *id)
{
    struct spool_layout l;
    struct spool_envelope v;
    struct err e;
    if (spool_decode_header(file, file.len, id, &l, &e) != SPOOL_GOOD)
        return;
    if (l.records_at + SPOOL_RECORDS_END > file.len)
        abort();
    if (spool_decode_envelope(
            file, &l, slice_first(slice_from(file, l.envelope_at), l.envelope_len),
            slice_first(slice_from(file, l.status_at), l.recipient_count),
            slice_first(slice_from(file, l.prefix_at), l.prefix_len), &v, &e) == SPOOL_GOOD)
        check_recipients(&v);
}

static void decode_records(struct slice records, const struct id *id)
{
    struct spool_record r;
    bool more;
    if (spool_records_length(records, id, &more) > records.len)
        abort();
    while (spool_record_next(&records, id, &r))
        for (uint32_t i = 0; i < r.recipient_count; i++)
            spool_record_recipient(&r, i);
}

/* A record with the input as its fields behind the ID, its checksum right. */
static void decode_mended_record(const uint8_t *data, size_t len, const struct id *id)
{
    enum { ID_AT = 32, MIN = 80 };
    if (len < MIN || len > SPOOL_RECORD_MAX)
        return;
    char *record = xmalloc(len);
    memcpy(record, data, len);
    wire_put(record, len, 4);
    memcpy(record + ID_AT, id->text, sizeof id->text);
    wire_put(record + len - 8, XXH3_64bits(record, len - 8), 8);
    decode_records(slice_make(record, len), id);
    free(record);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct id id;
    if (size < 1 || id_parse(SLICE("4bWxyZ1BCDz0001"), &id) < 0)
        return 0;
    size_t len = size - 1;
    char *copy = xmalloc(len + 1);
    memcpy(copy, data + 1, len);
    if (data[0] % 4 == 1 && len >= SPOOL_HEADER)
        mend(copy, len);
    if (data[0] % 4 < 2)
        decode_file(slice_make(copy, len), &id);
    else if (data[0] % 4 == 2)
        decode_records(slice_make(copy, len), &id);
    else
        decode_mended_record(data + 1, len, &id);
    free(copy);
    return 0;
}
