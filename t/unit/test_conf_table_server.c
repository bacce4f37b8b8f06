/* libraries: postern_conf */
/* Names of tables that are servers, and of UNIX sockets in tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "conf/lmtp_sockets.h"
#include "conf/table_server.h"

static void test_names(void **state)
{
    static const struct {
        const char *spec, *endpoint, *name;
    } rows[] = {
        {"tcp:127.0.0.1:2527", "inet:127.0.0.1:2527", ""},
        {"tcp:localhost:2527", "inet:localhost:2527", ""},
        {"tcp:[::1]:2527", "inet:[::1]:2527", ""},
        {"socketmap:inet:192.0.2.1:99:routes", "inet:192.0.2.1:99", "routes"},
        {"socketmap:unix:/run/maps:r", "unix:/run/maps", "r"},
        {"socketmap:unix:private/maps:r", "unix:private/maps", "r"},
    };
    struct table_server t;
    struct err e;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_true(table_is_server(slice_str(rows[i].spec)));
        assert_int_equal(table_server_parse(slice_str(rows[i].spec), &t, &e), 0);
        assert_string_equal(t.endpoint, rows[i].endpoint);
        assert_string_equal(t.name, rows[i].name);
        assert_int_equal(t.protocol == TABLE_TCP, !*rows[i].name);
    }
    assert_false(table_is_server(SLICE("texthash:/etc/tcp:")));
}

static void test_names_that_are_none(void **state)
{
    static const char *const specs[] = {"tcp:",
                                        "tcp:2527",
                                        "tcp:maps.example.com:2527",
                                        "tcp:127.0.0.1:0",
                                        "tcp:127.0.0.1",
                                        "socketmap:",
                                        "socketmap:inet:127.0.0.1:99",
                                        "socketmap:inet:127.0.0.1:99:",
                                        "socketmap:inet:127.0.0.1:99:a b",
                                        "socketmap:unix:/run/maps",
                                        "socketmap:unix::x",
                                        "socketmap:tcp:127.0.0.1:99:x"};
    static char longest[400] = "socketmap:inet:127.0.0.1:99:";
    struct table_server t;
    struct err e;
    (void)state;
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
        if (table_server_parse(slice_str(specs[i]), &t, &e) == 0)
            fail_msg("%s: is taken", specs[i]);
    memset(longest + strlen(longest), 'n', TABLE_NAME_MAX + 1);
    assert_int_equal(table_server_parse(slice_str(longest), &t, &e), -1);
}

static void test_sockets(void **state)
{
    static const char text[] =
        "# dst.test lmtp:unix:/run/commented\n"
        "  # lmtp:unix:/run/too\n"
        "a.test lmtp:unix:/run/one\n"
        "b.test lmtp:[127.0.0.1]:24, unix:/run/two,unix:/run/three\n"
        "c.test\n\tlmtp:unix:/run/four\r\n"
        "/@(.*)\\.d\\.test/ lmtp:unix:/run/$1\n"
        "e.test lmtp:unix:relative\n"
        "f.test smtp:unix.example\n"
        "g.test lmtp:unix:/run/one\n"
        "inline:{h.test=lmtp:unix:/run/five, { i.test = lmtp:unix:/run/six }}";
    struct buf list = BUF_INIT(1024), small = BUF_INIT(12);
    (void)state;
    assert_int_equal(lmtp_sockets_collect(slice_str(text), &list), 0);
    assert_true(
        slice_eq(buf_slice(&list),
                 SLICE("/run/one\n/run/two\n/run/three\n/run/four\n/run/five\n/run/six\n")));
    assert_true(lmtp_sockets_have(buf_slice(&list), SLICE("/run/four")));
    assert_false(lmtp_sockets_have(buf_slice(&list), SLICE("/run")));
    assert_false(lmtp_sockets_have(buf_slice(&list), SLICE("")));
    assert_int_equal(lmtp_sockets_collect(slice_str(text), &small), -1);
    buf_free(&list);
    buf_free(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_names_that_are_none),
        cmocka_unit_test(test_sockets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
