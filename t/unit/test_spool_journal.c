/* libraries: postern_core postern_spool */
#include "spool/journal.h"
#include "unit.h"

enum { KEY = 12345 };

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
    journal_end(b, JOURNAL_RECORDS, position, 3 * JOURNAL_PAGE, KEY);
    assert_int_equal(b->len % JOURNAL_PAGE, 0);
}

static void test_a_block_gives_back_its_records(void **state)
{
    struct buf b = BUF_INIT(JOURNAL_BLOCK_MAX);
    struct journal_block block;
    struct journal_record r;
    (void)state;
    make_block(&b, 8 * JOURNAL_PAGE);
    assert_int_equal(journal_block_length(buf_slice(&b), 8 * JOURNAL_PAGE), b.len);
    assert_int_equal(journal_block_decode(buf_slice(&b), 8 * JOURNAL_PAGE, KEY, &block), 0);
    assert_int_equal(block.kind, JOURNAL_RECORDS);
    assert_int_equal(block.durable, 3 * JOURNAL_PAGE);
    assert_int_equal(journal_next(&block.records, &r), 1);
    assert_int_equal(r.type, JOURNAL_MESSAGE);
    assert_string_equal(r.id.text, an_id()->text);
    assert_true(slice_eq(r.bytes, SLICE("hello")));
    assert_int_equal(journal_next(&block.records, &r), 1);
    assert_int_equal(r.type, JOURNAL_OVER);
    assert_int_equal(journal_next(&block.records, &r), 0);
    buf_free(&b);
}

static void test_F40_no_changed_bit_passes(void **state)
{
    struct buf b = BUF_INIT(JOURNAL_BLOCK_MAX);
    struct journal_block block;
    (void)state;
    make_block(&b, 0);
    size_t used = JOURNAL_HEADER + 2 * JOURNAL_RECORD + 8;
    for (size_t bit = 0; bit < used * 8; bit++) {
        b.data[bit / 8] ^= (char)(1 << bit % 8);
        assert_int_equal(journal_block_decode(buf_slice(&b), 0, KEY, &block), -1);
        b.data[bit / 8] ^= (char)(1 << bit % 8);
    }
    for (size_t len = 0; len < used; len++)
        assert_int_equal(journal_block_decode(slice_first(buf_slice(&b), len), 0, KEY, &block), -1);
    assert_int_equal(journal_block_decode(buf_slice(&b), 0, KEY, &block), 0);
    /* nor what a peer that does not know the key made */
    assert_int_equal(journal_block_decode(buf_slice(&b), 0, KEY + 1, &block), -1);
    /* what an earlier round left is not taken for this one's */
    assert_int_equal(journal_block_decode(buf_slice(&b), JOURNAL_PAGE, KEY, &block), -1);
    buf_free(&b);
}

static void test_a_change_says_where(void **state)
{
    char bytes[JOURNAL_OFFSET + 3] = "........abc";
    struct slice changed, all = slice_make(bytes, sizeof bytes);
    uint64_t at;
    (void)state;
    journal_change_encode(bytes, 1000);
    assert_int_equal(journal_change_decode(all, 1003, &at, &changed), 0);
    assert_int_equal(at, 1000);
    assert_true(slice_eq(changed, SLICE("abc")));
    assert_int_equal(journal_change_decode(all, 1002, &at, &changed), -1);
    assert_int_equal(journal_change_decode(slice_first(all, 7), 1003, &at, &changed), -1);
    journal_change_encode(bytes, UINT64_MAX);
    assert_int_equal(journal_change_decode(all, UINT64_MAX, &at, &changed), -1);
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
    journal_end(&b, JOURNAL_RECORDS, 0, 0, KEY);
    assert_true(b.len <= JOURNAL_BLOCK_MAX && b.len % JOURNAL_PAGE == 0);
    buf_free(&b);
}

static void test_of_two_superblocks_the_later_sound_one_counts(void **state)
{
    static char page[JOURNAL_PAGE];
    struct journal_super s = {.turn = 4,
                              .size = JOURNAL_SIZE_MIN,
                              .tail = JOURNAL_PAGE,
                              .key = KEY},
                         out;
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
    assert_int_equal(out.key, KEY);
    s.size = 100;
    journal_super_encode(page, &s);
    assert_int_equal(journal_super_decode(slice_make(page, sizeof page), &out), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_block_gives_back_its_records),
        cmocka_unit_test(test_F40_no_changed_bit_passes),
        cmocka_unit_test(test_a_change_says_where),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_of_two_superblocks_the_later_sound_one_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
