/* libraries: resolve_parts */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/buf.h"
#include "resolve/dns_answer.h"

/* Builds messages: a header, the question x.example MX, then records. */
struct message {
    struct buf b;
};

static void add16(struct message *m, unsigned v)
{
    (void)buf_addc(&m->b, (char)(v >> 8));
    (void)buf_addc(&m->b, (char)v);
}

static void start(struct message *m, unsigned rcode, unsigned answers, unsigned authorities)
{
    buf_init(&m->b, 65535);
    add16(m, 0x1234);
    add16(m, 0x8180 | rcode);
    add16(m, 1);
    add16(m, answers);
    add16(m, authorities);
    add16(m, 0);
    (void)buf_add(&m->b, "\1x\7example", 11); /* with its final NUL: at offset 12 */
    add16(m, DNS_TYPE_MX);
    add16(m, 1);
}

static void record(struct message *m, unsigned type, unsigned ttl, const char *data, size_t len)
{
    add16(m, 0xc00c);
    add16(m, type);
    add16(m, 1);
    add16(m, 0);
    add16(m, ttl);
    add16(m, (unsigned)len);
    (void)buf_add(&m->b, data, len);
}

static struct dns_record records[DNS_RECORDS_MAX];

static struct dns_answer parse(struct message *m, enum dns_type type)
{
    struct dns_answer a;
    dns_answer_parse(buf_slice(&m->b), type, records, DNS_RECORDS_MAX, &a);
    buf_free(&m->b);
    return a;
}

static void test_mx(void **state)
{
    struct message m;
    (void)state;
    start(&m, 0, 2, 0);
    record(&m, DNS_TYPE_MX, 300, "\0\12\2MX\xc0\x0c", 7);
    record(&m, DNS_TYPE_MX, 60, "\0\24\4mail\3net\0", 12);
    struct dns_answer a = parse(&m, DNS_TYPE_MX);
    assert_int_equal(a.result, DNS_FOUND);
    assert_int_equal(a.count, 2);
    assert_int_equal(a.ttl, 60);
    assert_int_equal(a.records[0].preference, 10);
    assert_string_equal(a.records[0].host.text, "mx.x.example");
    assert_string_equal(a.records[1].host.text, "mail.net");
}

static void test_addresses(void **state)
{
    struct message m;
    (void)state;
    start(&m, 0, 3, 0);
    record(&m, 5, 10, "\1y\xc0\x0c", 4); /* CNAME */
    record(&m, DNS_TYPE_A, 300, "\300\0\2\1", 4);
    record(&m, DNS_TYPE_A, 300, "\300\0\2", 3);
    struct dns_answer a = parse(&m, DNS_TYPE_A);
    assert_int_equal(a.result, DNS_FOUND);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.dropped, 1);
    assert_int_equal(a.ttl, 10); /* the CNAME's counts too */
    assert_memory_equal(a.records[0].address, "\300\0\2\1", 4);
}

/* B58: rdata of 0 to 3 bytes; the record is dropped, good ones are used. */
static void test_B58_short_rdata(void **state)
{
    struct message m;
    (void)state;
    start(&m, 0, 5, 0);
    record(&m, DNS_TYPE_MX, 300, "", 0);
    record(&m, DNS_TYPE_MX, 300, "\0", 1);
    record(&m, DNS_TYPE_MX, 300, "\0\12", 2);
    record(&m, DNS_TYPE_MX, 300, "\0\12\5", 3);
    record(&m, DNS_TYPE_MX, 300, "\0\12\1a\0", 5);
    struct dns_answer a = parse(&m, DNS_TYPE_MX);
    assert_int_equal(a.result, DNS_FOUND);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.dropped, 4);
    assert_string_equal(a.records[0].host.text, "a");
}

/* Nothing but unreadable records is not "no MX": that would be delivered to
 * the domain's own address. */
static void test_B58_only_bad_records_fail(void **state)
{
    struct message m;
    (void)state;
    start(&m, 0, 1, 0);
    record(&m, DNS_TYPE_MX, 300, "\0", 1);
    assert_int_equal(parse(&m, DNS_TYPE_MX).result, DNS_FAILED);
}

/* B59: pointers that loop, lead forward or past the end. */
static void test_B59_compression(void **state)
{
    static const struct {
        const char *data;
        size_t len;
    } bad[] = {
        {"\0\12\xc0\x29", 4},    /* to itself */
        {"\0\12\1a\xc0\x29", 6}, /* to its own start */
        {"\0\12\xff\xff", 4},    /* past the end */
        {"\0\12\xc0", 3},        /* half a pointer */
        {"\0\12\x40xx\0", 6},    /* reserved label type */
        {"\0\12\3a.b\0", 7},     /* a dot inside a label */
        {"\0\12\3a b\0", 7},     /* B68 */
        {"\0\12\3a\0b\0", 7},    /* B68 */
        {"\0\12\3a/b\0", 7},     /* B68 */
        {"\0\12\1a", 4},         /* no end */
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct message m;
        start(&m, 0, 1, 0);
        record(&m, DNS_TYPE_MX, 300, bad[i].data, bad[i].len);
        struct dns_answer a = parse(&m, DNS_TYPE_MX);
        if (a.count || a.result != DNS_FAILED)
            fail_msg("case %zu was taken", i);
    }
}

static void test_B62_null_mx(void **state)
{
    struct message m;
    (void)state;
    start(&m, 0, 1, 0);
    record(&m, DNS_TYPE_MX, 300, "\0\0\0", 3);
    struct dns_answer a = parse(&m, DNS_TYPE_MX);
    assert_int_equal(a.result, DNS_FOUND);
    assert_string_equal(a.records[0].host.text, "");
}

/* B66: three different kinds of "nothing". */
static void test_B66_negative_answers(void **state)
{
    static const char soa[] = "\2ns\0\1r\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\60";
    struct message m;
    (void)state;
    start(&m, 0, 0, 1);
    record(&m, DNS_TYPE_SOA, 100, soa, sizeof soa - 1);
    struct dns_answer a = parse(&m, DNS_TYPE_MX);
    assert_int_equal(a.result, DNS_NODATA);
    assert_int_equal(a.ttl, 48);
    start(&m, 3, 0, 0);
    a = parse(&m, DNS_TYPE_MX);
    assert_int_equal(a.result, DNS_NXDOMAIN);
    assert_int_equal(a.ttl, DNS_NEGATIVE_TTL);
    start(&m, 2, 0, 0);
    assert_int_equal(parse(&m, DNS_TYPE_MX).result, DNS_FAILED);
    start(&m, 5, 0, 0);
    assert_int_equal(parse(&m, DNS_TYPE_MX).result, DNS_FAILED);
}

static void test_every_truncation_fails(void **state)
{
    struct message m;
    (void)state;
    start(&m, 0, 2, 0);
    record(&m, DNS_TYPE_MX, 300, "\0\12\2mx\xc0\x0c", 7);
    record(&m, DNS_TYPE_MX, 60, "\0\24\4mail\3net\0", 12);
    for (size_t n = 0; n < m.b.len; n++) {
        struct dns_answer a;
        dns_answer_parse(slice_make(m.b.data, n), DNS_TYPE_MX, records, DNS_RECORDS_MAX, &a);
        assert_int_equal(a.result, DNS_FAILED);
        assert_int_equal(a.count, 0);
    }
    buf_free(&m.b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mx),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_B58_short_rdata),
        cmocka_unit_test(test_B58_only_bad_records_fail),
        cmocka_unit_test(test_B59_compression),
        cmocka_unit_test(test_B62_null_mx),
        cmocka_unit_test(test_B66_negative_answers),
        cmocka_unit_test(test_every_truncation_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
