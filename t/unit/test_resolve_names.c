/* libraries: resolve_parts */
#include "unit.h"

#include "resolve/dns_answer.h"
#include "resolve/names.h"

static void test_reverse_names(void **state)
{
    static const struct {
        struct slice address;
        const char *name;
    } rows[] = {
        {{"\xc0\0\2\1", 4}, "1.2.0.192.in-addr.arpa"},
        {{"\0\0\0\0", 4}, "0.0.0.0.in-addr.arpa"},
        {{"\xff\xff\xff\xff", 4}, "255.255.255.255.in-addr.arpa"},
        {{"\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\xa5", 16},
         "5.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct domain d;
        names_reverse(rows[i].address, &d);
        assert_string_equal(d.text, rows[i].name);
    }
}

/* A message with the question ". PTR" and one record with this rdata. */
static struct dns_answer parse_ptr(struct slice rdata)
{
    static struct dns_record records[4];
    static char message[512];
    static const char head[] = "\0\1\x80\0\0\1\0\1\0\0\0\0"
                               "\0\0\x0c\0\1"
                               "\0\0\x0c\0\1\0\0\1\x2c\0";
    struct dns_answer a;
    size_t n = sizeof head - 1;
    memcpy(message, head, n);
    message[n++] = (char)rdata.len;
    memcpy(message + n, rdata.ptr, rdata.len);
    dns_answer_parse(slice_make(message, n + rdata.len), DNS_TYPE_PTR, records, 4, &a);
    return a;
}

static void test_B68_only_host_names_are_taken(void **state)
{
    static const struct {
        struct slice rdata;
        const char *name; /* NULL: refused */
    } rows[] = {
        {SLICE("\4Mail\7example\0"), "mail.example"},
        {SLICE("\x9localhost\0"), "localhost"},
        {SLICE("\4m\x01il\4test\0"), NULL},
        {SLICE("\4m\nil\4test\0"), NULL},
        {SLICE("\4m[il\4test\0"), NULL},
        {SLICE("\4m il\4test\0"), NULL},
        {SLICE("\4m\0il\4test\0"), NULL},
        {SLICE("\4m.il\4test\0"), NULL},
        {SLICE("\x41"
               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\4test\0"),
         NULL},
        {SLICE("\0"), NULL},
        {SLICE("\4mail"), NULL},
        {SLICE("\x03"
               "192\1\x30\1\x32\1\x31\0"),
         NULL},
        {SLICE(""), NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct dns_answer a = parse_ptr(rows[i].rdata);
        assert_int_equal(a.count, rows[i].name ? 1 : 0);
        assert_int_equal(a.dropped, rows[i].name ? 0 : 1);
        assert_int_equal(a.result, rows[i].name ? DNS_FOUND : DNS_FAILED);
        if (rows[i].name)
            assert_string_equal(a.records[0].host.text, rows[i].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reverse_names),
        cmocka_unit_test(test_B68_only_host_names_are_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
