/* libraries: postern_tables */
/* The protocols of tables that are servers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tables/wire.h"

struct row {
    struct slice in;
    enum table_reply_status status;
    enum table_result result;
    struct slice text;
    size_t used;
};

typedef enum table_reply_status reader(struct slice in, struct table_reply *out);

static void check(reader *read, const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct table_reply r;
        enum table_reply_status status = read(rows[i].in, &r);
        if (status != rows[i].status)
            fail_msg("row %zu: status %d", i, (int)status);
        if (status != TABLE_REPLY_DONE)
            continue;
        if (r.result != rows[i].result || !slice_eq(r.text, rows[i].text) || r.used != rows[i].used)
            fail_msg("row %zu: result %d, \"%.*s\", %zu bytes", i, (int)r.result, SLICE_ARG(r.text),
                     r.used);
    }
}

#define CHECK(read, rows) check(read, rows, sizeof(rows) / sizeof *(rows))
#define IN(text)                                                                                   \
    {                                                                                              \
        "" text, sizeof(text) - 1                                                                  \
    }
#define DONE(result, text, used) TABLE_REPLY_DONE, result, IN(text), used
#define PENDING TABLE_REPLY_MORE, TABLE_ERROR, IN(""), 0
#define BAD TABLE_REPLY_BAD, TABLE_ERROR, IN(""), 0

static void test_tcp_replies(void **state)
{
    static const struct row rows[] = {
        {IN(""), PENDING},
        {IN("200 smtp:[192.0.2.1]"), PENDING},
        {IN("200 smtp:[192.0.2.1]\n"), DONE(TABLE_FOUND, "smtp:[192.0.2.1]", 21)},
        {IN("200 a%20b\n200 next\n"), DONE(TABLE_FOUND, "a%20b", 10)},
        {IN("200 \n"), DONE(TABLE_FOUND, "", 5)},
        {IN("200\n"), DONE(TABLE_FOUND, "", 4)},
        {IN("500 no such key\n"), DONE(TABLE_NOT_FOUND, "no such key", 16)},
        {IN("400 later 100%\n"), DONE(TABLE_ERROR, "later 100%", 15)},
        {IN("\n"), BAD},
        {IN("20 x\n"), BAD},
        {IN("2000 x\n"), BAD},
        {IN("250 x\n"), BAD},
        {IN("200-x\n"), BAD},
        {IN("200 %\n"), BAD},
        {IN("200 %4\n"), BAD},
        {IN("200 %4g\n"), BAD},
    };
    static char endless[TCP_TABLE_LINE_MAX + 1];
    struct table_reply r;
    (void)state;
    CHECK(tcp_table_reply, rows);
    memset(endless, '2', sizeof endless);
    assert_int_equal(tcp_table_reply(slice_make(endless, TCP_TABLE_LINE_MAX - 1), &r),
                     TABLE_REPLY_MORE);
    assert_int_equal(tcp_table_reply(slice_make(endless, TCP_TABLE_LINE_MAX), &r), TABLE_REPLY_BAD);
    endless[TCP_TABLE_LINE_MAX] = '\n';
    assert_int_equal(tcp_table_reply(slice_make(endless, sizeof endless), &r), TABLE_REPLY_BAD);
}

static void test_socketmap_replies(void **state)
{
    static const struct row rows[] = {
        {IN(""), PENDING},
        {IN("1"), PENDING},
        {IN("11:"), PENDING},
        {IN("12:OK smtp:[xy"), PENDING},
        {IN("12:OK smtp:[xy]"), PENDING},
        {IN("12:OK smtp:[xy]Q"), BAD},
        {IN("12:OK smtp:[xy],more"), DONE(TABLE_FOUND, "smtp:[xy]", 16)},
        {IN("3:OK ,"), DONE(TABLE_FOUND, "", 6)},
        {IN("2:OK,"), DONE(TABLE_FOUND, "", 5)},
        {IN("9:NOTFOUND ,"), DONE(TABLE_NOT_FOUND, "", 12)},
        {IN("8:NOTFOUND,"), DONE(TABLE_NOT_FOUND, "", 11)},
        {IN("10:TEMP later,"), DONE(TABLE_ERROR, "later", 14)},
        {IN("12:TIMEOUT slow,"), DONE(TABLE_ERROR, "slow", 16)},
        {IN("9:PERM nope,"), DONE(TABLE_ERROR, "nope", 12)},
        {IN("5:OKAY x,"), BAD},
        {IN("4:ok x,"), BAD},
        {IN("0:,"), BAD},
        {IN(":,"), BAD},
        {IN("03:OK ,"), BAD},
        {IN("-3:OK ,"), BAD},
        {IN("3;OK ,"), BAD},
        {IN("100001"), BAD},
        {IN("9999999:"), BAD},
    };
    (void)state;
    CHECK(socketmap_reply, rows);
}

static void test_requests(void **state)
{
    struct buf out = BUF_INIT(5000);
    static char key[1500];
    (void)state;
    assert_int_equal(tcp_table_request(SLICE("user+x@b.test"), &out), 0);
    assert_true(slice_eq(buf_slice(&out), SLICE("get user+x@b.test\n")));
    buf_clear(&out);
    assert_int_equal(tcp_table_request(SLICE("a b%\n\xc3\xbc@b"), &out), 0);
    assert_true(slice_eq(buf_slice(&out), SLICE("get a%20b%25%0A%C3%BC@b\n")));
    buf_clear(&out);
    assert_int_equal(socketmap_request(SLICE("map"), SLICE("a b,@c"), &out), 0);
    assert_true(slice_eq(buf_slice(&out), SLICE("10:map a b,@c,")));
    buf_clear(&out);
    memset(key, '\n', sizeof key);
    assert_int_equal(tcp_table_request(slice_make(key, sizeof key), &out), -1);
    assert_int_equal(out.len, 0);
    buf_free(&out);
}

static void test_values(void **state)
{
    struct buf value = BUF_INIT(8);
    (void)state;
    assert_int_equal(tcp_table_decode(SLICE("a%20b%25%0a"), &value), 0);
    assert_true(slice_eq(buf_slice(&value), SLICE("a b%\n")));
    assert_int_equal(tcp_table_decode(SLICE("12345"), &value), -1);
    buf_free(&value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp_replies),
        cmocka_unit_test(test_socketmap_replies),
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
