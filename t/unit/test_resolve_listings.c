/* libraries: resolve_parts */
#include "ipc/ipc.h"
#include "resolve/listings.h"
#include "unit.h"

static void test_names_of_addresses(void **state)
{
    static const char v6[] = "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x1f";
    struct domain name;
    (void)state;
    assert_int_equal(listings_name(SLICE("\xc0\x00\x02\x63"), SLICE("zen.example."), &name), 0);
    assert_string_equal(name.text, "99.2.0.192.zen.example");
    assert_int_equal(listings_name(slice_make(v6, 16), SLICE("bl.example"), &name), 0);
    assert_string_equal(
        name.text, "f.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.example");
    assert_int_equal(listings_name(SLICE("\x7f"), SLICE("bl.example"), &name), -1);
    assert_int_equal(listings_name(SLICE("\x7f\0\0\1"), SLICE("a b"), &name), -1);
    char zone[250];
    memset(zone, 'a', sizeof zone);
    for (size_t i = 50; i < sizeof zone; i += 50)
        zone[i] = '.';
    assert_int_equal(listings_name(slice_make(v6, 16), slice_make(zone, 249), &name), -1);
}

static enum listing_status meaning(enum dns_result result, size_t count, const uint8_t a[][4])
{
    static struct dns_record records[4];
    for (size_t i = 0; i < count; i++) {
        records[i] = (struct dns_record){.address_len = 4};
        memcpy(records[i].address, a[i], 4);
    }
    struct dns_answer answer = {.result = result, .count = count, .records = records};
    return listings_meaning(&answer);
}

static void test_what_answers_mean(void **state)
{
    static const uint8_t listed[][4] = {{127, 0, 0, 2}}, refused[][4] = {{127, 255, 255, 254}},
                         parked[][4] = {{192, 0, 2, 1}},
                         mixed[][4] = {{127, 0, 0, 11}, {127, 255, 255, 1}, {127, 0, 0, 11}},
                         strange[][4] = {{127, 0, 0, 2}, {192, 0, 2, 1}};
    (void)state;
    assert_int_equal(meaning(DNS_NXDOMAIN, 0, NULL), LISTING_NONE);
    assert_int_equal(meaning(DNS_NODATA, 0, NULL), LISTING_NONE);
    assert_int_equal(meaning(DNS_FAILED, 0, NULL), LISTING_UNKNOWN);
    assert_int_equal(meaning(DNS_FOUND, 1, listed), LISTING_LISTED);
    assert_int_equal(meaning(DNS_FOUND, 1, refused), LISTING_REFUSED);
    assert_int_equal(meaning(DNS_FOUND, 1, parked), LISTING_WRONG);
    assert_int_equal(meaning(DNS_FOUND, 3, mixed), LISTING_REFUSED);
    assert_int_equal(meaning(DNS_FOUND, 2, strange), LISTING_WRONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_of_addresses),
        cmocka_unit_test(test_what_answers_mean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
