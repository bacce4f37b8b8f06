/* libraries: quota_parts */
/* Failed logins: what counts for whom. */
#include "core/clock.h"
#include "quota/failures.h"
#include "unit.h"

static const struct config config = {
    .auth_failure_limit = 20, .auth_failure_network_limit = 100, .auth_failure_time = 600};
static const struct slice client = SLICE("\x0a\x01\x02\x03"), user = SLICE("web");

static bool allowed(struct failures *f, unsigned smtpd, int64_t now)
{
    const char *why;
    return failures_allow(f, &config, smtpd, client, user, BY_PASSWORD, now, &why);
}

static void add(struct failures *f, unsigned smtpd, int count, int64_t now)
{
    for (int i = 0; i < count; i++)
        failures_add(f, &config, smtpd, client, user, BY_PASSWORD, now);
}

static void test_spread_over_processes_they_count_together(void **state)
{
    struct failures f;
    (void)state;
    failures_init(&f);
    for (unsigned smtpd = 1; smtpd <= 7; smtpd++) {
        assert_true(allowed(&f, smtpd, 0));
        add(&f, smtpd, smtpd < 7 ? 3 : 2, 0);
    }
    for (unsigned smtpd = 1; smtpd <= 9; smtpd++)
        assert_false(allowed(&f, smtpd, 0));
    assert_true(allowed(&f, 1, 60 * CLOCK_SECOND)); /* two are forgotten */
    failures_free(&f);
}

static void test_one_alone_fills_half_for_the_others(void **state)
{
    struct failures f;
    (void)state;
    failures_init(&f);
    add(&f, 1, 500, 0);
    assert_false(allowed(&f, 1, 0));
    assert_true(allowed(&f, 2, 0));
    add(&f, 2, 9, 0);
    assert_true(allowed(&f, 2, 0));
    add(&f, 2, 1, 0);
    assert_false(allowed(&f, 2, 0));
    add(&f, 3, 1, 0); /* two halves, and its own */
    assert_false(allowed(&f, 3, 0));
    failures_free(&f);
}

/* A place for each of them is not needed: the smallest shares are taken together. */
static void test_a_liar_does_not_hide_among_many(void **state)
{
    struct failures f;
    (void)state;
    failures_init(&f);
    add(&f, 1, 500, 0);
    for (unsigned smtpd = 2; smtpd <= 9; smtpd++)
        add(&f, smtpd, 1, 0);
    assert_true(allowed(&f, 2, 0)); /* 10 and 8 */
    assert_false(allowed(&f, 1, 0));
    failures_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spread_over_processes_they_count_together),
        cmocka_unit_test(test_one_alone_fills_half_for_the_others),
        cmocka_unit_test(test_a_liar_does_not_hide_among_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
