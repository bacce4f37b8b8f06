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
        again.size != s.size || again.turn != s.turn)
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
    journal_end(&block, JOURNAL_RECORDS, 0);
    enum journal_kind kind;
    struct slice records;
    if (journal_block_decode(buf_slice(&block), 0, &kind, &records) < 0)
        abort();
    while (journal_next(&records, &r) > 0)
        found++;
    if (found != taken)
        abort();
    buf_free(&block);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct slice data = slice_make((const char *)bytes, size), records;
    enum journal_kind kind;
    struct journal_record r;
    check_superblock(data);
    check_records(data);
    if (journal_block_decode(data, 0, &kind, &records) == 0)
        while (journal_next(&records, &r) > 0)
            ;
    return 0;
}
