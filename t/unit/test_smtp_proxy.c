/* libraries: postern_smtp */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "smtp/proxy.h"

#define V2 "\r\n\r\n\0\r\nQUIT\n"
#define IP4 "\300\0\2\1\300\0\2\2\x30\x39\0\x19" /* 192.0.2.1 12345 to 192.0.2.2 25 */

static const struct {
    struct slice in;
    enum proxy_status status;
    size_t used;
    const char *client; /* NULL: not known */
    unsigned port;
} cases[] = {
    {SLICE("PROXY TCP4 192.0.2.1 192.0.2.2 12345 25\r\nEHLO"), PROXY_DONE, 41, "192.0.2.1", 12345},
    {SLICE("PROXY TCP6 2001:db8::1 ::1 1 65535\r\n"), PROXY_DONE, 36, "2001:db8::1", 1},
    {SLICE("PROXY UNKNOWN\r\n"), PROXY_DONE, 15, NULL, 0},
    {SLICE("PROXY UNKNOWN ffff:f...f:ffff x 1 2\r\n"), PROXY_DONE, 37, NULL, 0},
    {SLICE("P"), PROXY_MORE, 0, NULL, 0},
    {SLICE("PROXY TCP4 192.0.2.1"), PROXY_MORE, 0, NULL, 0},
    {SLICE(""), PROXY_MORE, 0, NULL, 0},
    {SLICE("PROXY TCP4 192.0.2.1 192.0.2.2 12345\r\n"), PROXY_BAD, 0, NULL, 0},
    {SLICE("PROXY TCP4 192.0.2.1 192.0.2.2 12345 25 \r\n"), PROXY_BAD, 0, NULL, 0},
    {SLICE("PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n"), PROXY_BAD, 0, NULL, 0},
    {SLICE("PROXY TCP4 192.0.2.1 192.0.2.2 012 25\r\n"), PROXY_BAD, 0, NULL, 0},
    {SLICE("PROXY TCP4 192.0.2.1 192.0.2.2 1 25\n"), PROXY_BAD, 0, NULL, 0},
    {SLICE("PROXY TCP4 ::1 ::1 1 2\r\n"), PROXY_BAD, 0, NULL, 0},
    {SLICE("PROXY TCP6 192.0.2.1 ::1 1 2\r\n"), PROXY_BAD, 0, NULL, 0},
    {SLICE("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n"), PROXY_BAD, 0, NULL, 0},
    {SLICE("PROXY TCP4 192.0.2.1\0 192.0.2.2 1 2\r\n"), PROXY_BAD, 0, NULL, 0},
    {SLICE("PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), PROXY_BAD, 0, NULL, 0},
    {SLICE("PROXY\r\n"), PROXY_BAD, 0, NULL, 0},
    {SLICE("EHLO client.test\r\n"), PROXY_BAD, 0, NULL, 0},
    {SLICE("proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), PROXY_BAD, 0, NULL, 0},
    {SLICE(V2 "\x21\x11\0\x0c" IP4 "EHLO"), PROXY_DONE, 28, "192.0.2.1", 12345},
    {SLICE(V2 "\x21\x11\0\x11" IP4 "\4\0\2ab"), PROXY_DONE, 33, "192.0.2.1", 12345},
    {SLICE(V2 "\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
              "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\2\0\1\0\x19"),
     PROXY_DONE, 52, "2001:db8::1", 1},
    {SLICE(V2 "\x20\0\0\0"), PROXY_DONE, 16, NULL, 0},
    {SLICE(V2 "\x20\x11\0\x0c" IP4), PROXY_DONE, 28, NULL, 0}, /* LOCAL: addresses are ignored */
    {SLICE(V2 "\x21\0\0\0"), PROXY_DONE, 16, NULL, 0},
    {SLICE(V2), PROXY_MORE, 0, NULL, 0},
    {SLICE("\r\n\r\n"), PROXY_MORE, 0, NULL, 0},
    {SLICE(V2 "\x21\x11\0\x0c\300\0"), PROXY_MORE, 0, NULL, 0},
    {SLICE("\r\n\r\nX"), PROXY_BAD, 0, NULL, 0},
    {SLICE(V2 "\x21\x11\0\x0b" IP4), PROXY_BAD, 0, NULL, 0},           /* too short for IPv4 */
    {SLICE(V2 "\x21\x21\0\x0c" IP4), PROXY_BAD, 0, NULL, 0},           /* too short for IPv6 */
    {SLICE(V2 "\x21\x11\xff\xff" IP4), PROXY_BAD, 0, NULL, 0},         /* nobody sends that much */
    {SLICE(V2 "\x21\x11\0\x0e" IP4 "\4\0"), PROXY_BAD, 0, NULL, 0},    /* half an extension */
    {SLICE(V2 "\x21\x11\0\x10" IP4 "\4\0\2a"), PROXY_BAD, 0, NULL, 0}, /* its length lies */
    {SLICE(V2 "\x11\x11\0\x0c" IP4), PROXY_BAD, 0, NULL, 0},           /* version 1 */
    {SLICE(V2 "\x22\x11\0\x0c" IP4), PROXY_BAD, 0, NULL, 0},           /* no such command */
    {SLICE(V2 "\x21\x12\0\x0c" IP4), PROXY_BAD, 0, NULL, 0},           /* UDP */
    {SLICE(V2 "\x21\x31\0\x0c" IP4), PROXY_BAD, 0, NULL, 0},           /* too short for a path */
};

static void test_B35_headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct proxy_header h;
        size_t used;
        char text[INET6_ADDRSTRLEN] = "";
        enum proxy_status status = proxy_parse(cases[i].in, &h, &used);
        if (status != cases[i].status || used != cases[i].used)
            fail_msg("case %zu: status %d, %zu bytes", i, (int)status, used);
        if (status != PROXY_DONE)
            continue;
        if (!cases[i].client) {
            assert_int_equal(h.client.len, 0);
            continue;
        }
        inet_ntop(h.client.len == 4 ? AF_INET : AF_INET6, h.client.address, text, sizeof text);
        assert_string_equal(text, cases[i].client);
        assert_int_equal(h.client.port, cases[i].port);
    }
}

/* A header that comes byte by byte is never refused, nor taken too early. */
static void test_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t n = 0; cases[i].status == PROXY_DONE && n < cases[i].used; n++) {
            struct proxy_header h;
            size_t used;
            assert_int_equal(proxy_parse(slice_first(cases[i].in, n), &h, &used), PROXY_MORE);
        }
}

static void test_B35_line_without_end(void **state)
{
    char text[4096];
    struct proxy_header h;
    size_t used;
    (void)state;
    memset(text, 'A', sizeof text);
    memcpy(text, "PROXY UNKNOWN ", 14);
    assert_int_equal(proxy_parse(slice_make(text, PROXY_V1_MAX - 1), &h, &used), PROXY_MORE);
    assert_int_equal(proxy_parse(slice_make(text, PROXY_V1_MAX), &h, &used), PROXY_BAD);
    assert_int_equal(proxy_parse(slice_make(text, sizeof text), &h, &used), PROXY_BAD);
    memcpy(text + PROXY_V1_MAX - 2, "\r\n", 2);
    assert_int_equal(proxy_parse(slice_make(text, sizeof text), &h, &used), PROXY_DONE);
    assert_int_equal(used, PROXY_V1_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_B35_headers),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_B35_line_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
