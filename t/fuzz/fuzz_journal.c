/* libraries: postern_core postern_spool */
/* A block of the journal, and its superblocks, as a damaged disk may give them. */
#include <stdlib.h>

#include "spool/journal.h"

static void check_superblock(struct slice page)
{
    struct journal_super s, again;
    char copy[JOURNAL_SUPER];
    if (journal_super_decode(page, &s) < 0)
        return;
    journal_super_encode(copy, &s);
    if (journal_super_decode(slice_make(copy, sizeof copy), &again) < 0 || again.tail != s.tail ||
        again.size != s.size || again.turn != s.turn || again.key != s.key)
        abort();
}

/* Any list of records is read to its end, and a sound block made of it reads the
 * same. */
static void check_records(struct slice data)
{
    struct buf block = BUF_INIT(JOURNAL_BLOCK_MAX);
    struct journal_record r;
    unsigned taken = 0, found = 0;
    journal_begin(&block);
    for (struct slice rest = data; journal_next(&rest, &r) > 0;)
        taken += journal_add(&block, r.type, &r.id, r.bytes, NULL) == 0;
    journal_end(&block, JOURNAL_RECORDS, 0, data.len, data.len);
    struct journal_block out;
    if (journal_block_decode(buf_slice(&block), 0, data.len, &out) < 0 || out.durable != data.len)
        abort();
    while (journal_next(&out.records, &r) > 0)
        found++;
    if (found != taken)
        abort();
    buf_free(&block);
}

static void check_changes(struct slice records)
{
    enum { LIMIT = 1 << 20 };
    struct journal_record r;
    struct slice changed;
    uint64_t at;
    while (journal_next(&records, &r) > 0)
        if (r.type == JOURNAL_CHANGE && journal_change_decode(r.bytes, LIMIT, &at, &changed) == 0 &&
            at + changed.len > LIMIT)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct slice data = slice_make((const char *)bytes, size);
    struct journal_block block;
    check_superblock(data);
    check_records(data);
    check_changes(data);
    if (journal_block_decode(data, 0, 0, &block) == 0)
        check_changes(block.records);
    return 0;
}
