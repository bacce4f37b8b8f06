/* libraries: postern_core */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/buf.h"
#include "core/heap.h"
#include "core/id.h"
#include "core/json.h"
#include "core/map.h"
#include "core/mem.h"

static void slice_numbers_are_strict(void **state)
{
    static const struct {
        const char *text;
        int rc;
        uint64_t value;
    } rows[] = {
        {"0", 0, 0},
        {"10", 0, 10},
        {"18446744073709551615", 0, UINT64_MAX},
        {"", -1, 0},
        {"-1", -1, 0},
        {"18446744073709551616", -1, 0},
        {"1 ", -1, 0},
        {"10O", -1, 0},
        {"+1", -1, 0},
        {"99999999999999999999999", -1, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t n = 0;
        assert_int_equal(slice_u64(slice_str(rows[i].text), &n), rows[i].rc);
        assert_int_equal(n, rows[i].value);
    }
}

static void slice_cut_takes_parts(void **state)
{
    struct slice s = SLICE("a:b::c");
    (void)state;
    assert_slice_is(slice_cut(&s, ':'), "a");
    assert_slice_is(slice_cut(&s, ':'), "b");
    assert_slice_is(slice_cut(&s, ':'), "");
    assert_slice_is(slice_cut(&s, ':'), "c");
    assert_int_equal(s.len, 0);
    assert_slice_is(slice_trim(SLICE(" \t x y\r\n")), "x y");
    assert_true(slice_caseeq(SLICE("MAIL"), SLICE("mAiL")));
    assert_false(slice_caseeq(SLICE("MAIL"), SLICE("MAI")));
}

static void buffer_refuses_to_pass_its_maximum(void **state)
{
    struct buf b = BUF_INIT(10);
    (void)state;
    assert_int_equal(buf_addstr(&b, "12345678"), 0);
    assert_int_equal(buf_addstr(&b, "901"), -1);
    assert_int_equal(b.len, 8);
    assert_int_equal(buf_add(&b, "xx", SIZE_MAX), -1);
    assert_int_equal(buf_addu64(&b, 42), 0);
    assert_slice_is(buf_slice(&b), "1234567842");
    buf_consume(&b, 8);
    assert_slice_is(buf_slice(&b), "42");
    buf_free(&b);
}

static void long_printf_is_whole(void **state)
{
    struct buf b = BUF_INIT(100000);
    char text[2000];
    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(buf_printf(&b, "<%s>", text), 0);
    assert_int_equal(b.len, sizeof text + 1);
    assert_int_equal(b.data[b.len - 1], '>');
    buf_free(&b);
}

static void peer_text_is_escaped(void **state)
{
    struct buf b = BUF_INIT(1000);
    (void)state;
    buf_add_escaped(&b, SLICE("ok \x1b[31m\r\n\\ \xff\0end"), 100);
    assert_slice_is(buf_slice(&b), "ok \\x1b[31m\\x0d\\x0a\\\\ \\xff\\x00end");
    buf_clear(&b);
    buf_add_escaped(&b, SLICE("abcdef"), 3);
    assert_slice_is(buf_slice(&b), "abc...");
    buf_free(&b);
}

struct word {
    char text[16];
    struct heap_node node;
};

static struct slice word_key(const void *value)
{
    return slice_str(((const struct word *)value)->text);
}

static void map_keeps_what_is_put(void **state)
{
    enum { N = 5000 };
    struct map m;
    struct word *words = xcalloc(N, sizeof *words);
    (void)state;
    map_init(&m, word_key);
    for (int i = 0; i < N; i++) {
        snprintf(words[i].text, sizeof words[i].text, "w%d", i);
        assert_null(map_put(&m, &words[i]));
    }
    for (int i = 0; i < N; i += 2)
        assert_ptr_equal(map_remove(&m, slice_str(words[i].text)), &words[i]);
    assert_int_equal(m.count, N / 2);
    for (int i = 0; i < N; i++)
        assert_ptr_equal(map_get(&m, slice_str(words[i].text)), i % 2 ? &words[i] : NULL);
    size_t cursor = 0, seen = 0;
    while (map_next(&m, &cursor))
        seen++;
    assert_int_equal(seen, N / 2);
    assert_ptr_equal(map_put(&m, &words[1]), &words[1]);
    assert_int_equal(m.count, N / 2);
    map_free(&m);
    free(words);
}

static void heap_gives_the_smallest_first(void **state)
{
    enum { N = 1000 };
    struct heap h = {0};
    struct word *words = xcalloc(N, sizeof *words);
    int64_t last = -1;
    (void)state;
    for (int i = 0; i < N; i++)
        heap_set(&h, &words[i].node, (i * 7919) % 1009);
    for (int i = 0; i < N; i += 3)
        heap_set(&h, &words[i].node, (i * 31) % 977);
    for (int i = 1; i < N; i += 5)
        heap_remove(&h, &words[i].node);
    heap_remove(&h, &words[1].node);
    assert_int_equal(h.count, N - N / 5);
    for (struct heap_node *n; (n = heap_min(&h)); heap_remove(&h, n)) {
        assert_true(n->key >= last);
        last = n->key;
    }
    assert_int_equal(h.count, 0);
    heap_free(&h);
    free(words);
}

static void queue_ids_are_valid_unique_and_sorted(void **state)
{
    struct id last = id_new(), id, copy;
    (void)state;
    for (int i = 0; i < 10000; i++) {
        id = id_new();
        assert_true(id_valid(id_slice(&id)));
        assert_true(strncmp(last.text, id.text, 10) < 0);
        last = id;
    }
    assert_int_equal(id_parse(id_slice(&last), &copy), 0);
    assert_string_equal(copy.text, last.text);
    assert_true(id_time(&last) > 1700000000);
}

static void test_B81_only_the_grammar_of_ids_is_a_name(void **state)
{
    static const char *const bad[] = {"",
                                      ".",
                                      "..",
                                      "3Bxxxx",
                                      "0123456789z12A4",
                                      "0123456789y1234",
                                      "../../etc/passw",
                                      "0123456789z1234F",
                                      "0123456789z1234Fa"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(id_valid(slice_str(bad[i])));
    assert_true(id_valid(SLICE("0123456789z1234")));
    assert_true(id_valid(SLICE("0123456789z1234F0")));
}

static void notice_id_is_derived_and_stable(void **state)
{
    struct id id = id_new(), a = id_notice(&id, 'F', 3), b = id_notice(&id, 'F', 3),
              c = id_notice(&id, 'F', 4);
    (void)state;
    assert_string_equal(a.text, b.text);
    assert_string_not_equal(a.text, c.text);
    assert_true(id_valid(id_slice(&a)));
    assert_int_equal(strlen(a.text), ID_NOTICE_LEN);
}

static void json_always_parses(void **state)
{
    struct buf b = BUF_INIT(1000);
    (void)state;
    json_begin(&b);
    json_str(&b, "a", SLICE("\"\\\n\x01\xff\xc3\xa9\xed\xa0\x80"));
    json_int(&b, "n", INT64_MIN);
    json_list(&b, "l");
    json_int(&b, NULL, 1);
    json_bool(&b, NULL, true);
    json_begin(&b);
    json_end(&b);
    json_list_end(&b);
    json_seconds(&b, "t", 1500000);
    json_seconds(&b, "m", -500000);
    json_end(&b);
    assert_slice_is(buf_slice(&b),
                    "{\"a\":\"\\\"\\\\\\n\\u0001\\ufffd\xc3\xa9\\ufffd\\ufffd\\ufffd\","
                    "\"n\":-9223372036854775808,\"l\":[1,true,{}],\"t\":1.500000,\"m\":-0.500000}");
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slice_numbers_are_strict),
        cmocka_unit_test(slice_cut_takes_parts),
        cmocka_unit_test(buffer_refuses_to_pass_its_maximum),
        cmocka_unit_test(long_printf_is_whole),
        cmocka_unit_test(peer_text_is_escaped),
        cmocka_unit_test(map_keeps_what_is_put),
        cmocka_unit_test(heap_gives_the_smallest_first),
        cmocka_unit_test(queue_ids_are_valid_unique_and_sorted),
        cmocka_unit_test(test_B81_only_the_grammar_of_ids_is_a_name),
        cmocka_unit_test(notice_id_is_derived_and_stable),
        cmocka_unit_test(json_always_parses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
