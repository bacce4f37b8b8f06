/* libraries: smtpd_parts */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core/clock.h"
#include "t/unit/smtpd_world.h"

static const struct slice v4 = {"\x7f\0\0\1", 4};
static const struct slice other = {"\x7f\0\0\2", 4};

static struct clients *clients_with(const char *settings)
{
    static struct clients c;
    struct config *config = world_config(settings);
    clients_init(&c, config);
    config_free(config);
    return &c;
}

static void test_connections_at_a_time(void **state)
{
    struct clients *c = clients_with("smtpd_client_connection_count_limit = 2\n");
    struct client *a, *b, *third, *elsewhere;
    (void)state;
    assert_int_equal(clients_connect(c, v4, 0, &a), CLIENT_OK);
    assert_int_equal(clients_connect(c, v4, 0, &b), CLIENT_OK);
    assert_int_equal(clients_connect(c, v4, 0, &third), CLIENT_TOO_MANY);
    assert_int_equal(clients_connect(c, other, 0, &elsewhere), CLIENT_OK);
    clients_disconnect(c, third);
    clients_disconnect(c, a);
    assert_int_equal(clients_connect(c, v4, 0, &a), CLIENT_OK);
    clients_disconnect(c, a);
    clients_disconnect(c, b);
    clients_disconnect(c, elsewhere);
    assert_int_equal(c->map.count, 0);
    clients_free(c);
}

static void test_an_ipv6_client_is_its_64(void **state)
{
    struct clients *c = clients_with("smtpd_client_connection_count_limit = 1\n");
    char first[16] = {0x20, 1, 0xd, (char)0xb8, 0, 0, 0, 1, 1}, same[16], next[16];
    struct client *a, *b, *d;
    (void)state;
    memcpy(same, first, sizeof same);
    memcpy(next, first, sizeof next);
    same[15] = 9;
    next[7] = 2;
    assert_int_equal(clients_connect(c, slice_make(first, 16), 0, &a), CLIENT_OK);
    assert_int_equal(clients_connect(c, slice_make(same, 16), 0, &b), CLIENT_TOO_MANY);
    assert_int_equal(clients_connect(c, slice_make(next, 16), 0, &d), CLIENT_OK);
    assert_ptr_equal(a, b);
    clients_free(c);
}

static void test_rates_hold_for_a_period(void **state)
{
    struct clients *c = clients_with("smtpd_client_connection_rate_limit = 2\n"
                                     "smtpd_client_message_rate_limit = 2\n"
                                     "smtpd_client_recipient_rate_limit = 3\n"
                                     "anvil_rate_time_unit = 60s\n");
    const int64_t later = 60 * CLOCK_SECOND;
    struct client *cl;
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(clients_connect(c, v4, 0, &cl), i < 2 ? CLIENT_OK : CLIENT_TOO_FAST);
        clients_disconnect(c, cl);
    }
    assert_int_equal(clients_connect(c, v4, later, &cl), CLIENT_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(clients_message(c, cl, later), i < 2);
        assert_int_equal(clients_recipient(c, cl, later), i < 3);
    }
    assert_true(clients_message(c, cl, 2 * later));
    clients_free(c);
}

static void test_who_is_gone_is_forgotten_after_the_period(void **state)
{
    struct clients *c = clients_with("smtpd_client_message_rate_limit = 1\n"
                                     "anvil_rate_time_unit = 10s\n");
    struct client *gone, *stays;
    (void)state;
    clients_connect(c, v4, 0, &gone);
    clients_connect(c, other, 0, &stays);
    clients_disconnect(c, gone);
    clients_sweep(c, 5 * CLOCK_SECOND);
    assert_int_equal(c->map.count, 2);
    clients_sweep(c, 16 * CLOCK_SECOND);
    assert_int_equal(c->map.count, 1);
    assert_true(clients_message(c, stays, 16 * CLOCK_SECOND));
    clients_free(c);
}

/* An attacker with endless addresses cannot make the table grow for ever, and
 * who is not counted is not refused. */
static void test_the_table_is_bounded(void **state)
{
    struct clients *c = clients_with("smtpd_client_message_rate_limit = 1\n");
    struct client *cl;
    (void)state;
    for (uint32_t i = 0; i <= CLIENTS_MAX; i++)
        assert_int_equal(clients_connect(c, slice_make(&i, 4), 0, &cl), CLIENT_OK);
    assert_null(cl);
    assert_int_equal(c->map.count, CLIENTS_MAX);
    assert_true(clients_message(c, cl, 0));
    clients_disconnect(c, cl);
    clients_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connections_at_a_time),
        cmocka_unit_test(test_an_ipv6_client_is_its_64),
        cmocka_unit_test(test_rates_hold_for_a_period),
        cmocka_unit_test(test_who_is_gone_is_forgotten_after_the_period),
        cmocka_unit_test(test_the_table_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
