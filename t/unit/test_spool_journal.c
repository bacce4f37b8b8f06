/* libraries: postern_core postern_spool */
#include "spool/journal.h"
#include "unit.h"

static const struct id *an_id(void)
{
    static struct id id;
    if (id.text[0] == '\0')
        id = id_new();
    return &id;
}

static void make_block(struct buf *b, uint64_t position)
{
    uint64_t at;
    assert_int_equal(journal_begin(b), 0);
    assert_int_equal(journal_add(b, JOURNAL_MESSAGE, an_id(), SLICE("hello"), &at), 0);
    assert_memory_equal(b->data + at, "hello", 5);
    assert_int_equal(journal_add(b, JOURNAL_OVER, an_id(), SLICE(""), NULL), 0);
    journal_end(b, JOURNAL_RECORDS, position);
    assert_int_equal(b->len % JOURNAL_PAGE, 0);
}

static void test_a_block_gives_back_its_records(void **state)
{
    struct buf b = BUF_INIT(JOURNAL_BLOCK_MAX);
    struct slice records;
    struct journal_record r;
    enum journal_kind kind;
    (void)state;
    make_block(&b, 8 * JOURNAL_PAGE);
    assert_int_equal(journal_block_length(buf_slice(&b), 8 * JOURNAL_PAGE), b.len);
    assert_int_equal(journal_block_decode(buf_slice(&b), 8 * JOURNAL_PAGE, &kind, &records), 0);
    assert_int_equal(kind, JOURNAL_RECORDS);
    assert_int_equal(journal_next(&records, &r), 1);
    assert_int_equal(r.type, JOURNAL_MESSAGE);
    assert_string_equal(r.id.text, an_id()->text);
    assert_true(slice_eq(r.bytes, SLICE("hello")));
    assert_int_equal(journal_next(&records, &r), 1);
    assert_int_equal(r.type, JOURNAL_OVER);
    assert_int_equal(journal_next(&records, &r), 0);
    buf_free(&b);
}

static void test_F40_no_changed_bit_passes(void **state)
{
    struct buf b = BUF_INIT(JOURNAL_BLOCK_MAX);
    struct slice records;
    enum journal_kind kind;
    (void)state;
    make_block(&b, 0);
    size_t used = JOURNAL_HEADER + 2 * JOURNAL_RECORD + 8;
    for (size_t bit = 0; bit < used * 8; bit++) {
        b.data[bit / 8] ^= (char)(1 << bit % 8);
        assert_int_equal(journal_block_decode(buf_slice(&b), 0, &kind, &records), -1);
        b.data[bit / 8] ^= (char)(1 << bit % 8);
    }
    for (size_t len = 0; len < used; len++)
        assert_int_equal(journal_block_decode(slice_first(buf_slice(&b), len), 0, &kind, &records),
                         -1);
    assert_int_equal(journal_block_decode(buf_slice(&b), 0, &kind, &records), 0);
    /* what an earlier round left is not taken for this one's */
    assert_int_equal(journal_block_decode(buf_slice(&b), JOURNAL_PAGE, &kind, &records), -1);
    buf_free(&b);
}

static void test_limits(void **state)
{
    struct buf b = BUF_INIT(JOURNAL_BLOCK_MAX);
    static char big[JOURNAL_BYTES_MAX + 1];
    (void)state;
    journal_begin(&b);
    assert_int_equal(journal_add(&b, JOURNAL_MESSAGE, an_id(), slice_make(big, sizeof big), NULL),
                     -1);
    while (journal_add(&b, JOURNAL_MESSAGE, an_id(), slice_make(big, 10000), NULL) == 0)
        ;
    assert_true(b.len > JOURNAL_BLOCK_MAX - 20000);
    journal_end(&b, JOURNAL_RECORDS, 0);
    assert_true(b.len <= JOURNAL_BLOCK_MAX && b.len % JOURNAL_PAGE == 0);
    buf_free(&b);
}

static void test_of_two_superblocks_the_later_sound_one_counts(void **state)
{
    static char page[JOURNAL_PAGE];
    struct journal_super s = {.turn = 4, .size = JOURNAL_SIZE_MIN, .tail = JOURNAL_PAGE}, out;
    (void)state;
    assert_int_equal(journal_super_decode(slice_make(page, sizeof page), &out), -1);
    journal_super_encode(page, &s);
    s.turn = 5;
    s.tail = 2 * JOURNAL_PAGE;
    journal_super_encode(page + JOURNAL_SUPER_SLOT, &s);
    assert_int_equal(journal_super_decode(slice_make(page, sizeof page), &out), 0);
    assert_int_equal(out.tail, 2 * JOURNAL_PAGE);
    page[JOURNAL_SUPER_SLOT + 30] ^= 1; /* torn */
    assert_int_equal(journal_super_decode(slice_make(page, sizeof page), &out), 0);
    assert_int_equal(out.tail, JOURNAL_PAGE);
    assert_int_equal(out.turn, 4);
    s.size = 100;
    journal_super_encode(page, &s);
    assert_int_equal(journal_super_decode(slice_make(page, sizeof page), &out), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_block_gives_back_its_records),
        cmocka_unit_test(test_F40_no_changed_bit_passes),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_of_two_superblocks_the_later_sound_one_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
