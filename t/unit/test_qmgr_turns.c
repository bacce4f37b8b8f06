/* libraries: qmgr_parts */
/*
 * Whose turn it is where several accounts wait for one destination (turns.c).
 */
#include "qmgr/dispatch_inside.h"
#include "qmgr_rig.h"

static const char rules_text[] =
    "default { start_rate = \"1000000/s\" start_connections = 1 connections = 1 }\n";

static int start(void **state)
{
    (void)state;
    return rig_start(rules_text);
}

static struct slice who(const struct job *j)
{
    return message_account(j->m);
}

/* Relay has one job at a time: it is taken, and whose it was, with how many recipients, counted
 * where the account's letter says. */
static uint32_t next_one(uint32_t recipients[static 256])
{
    now += CLOCK_SECOND; /* nothing waits for a pace */
    turns();
    assert_int_equal(rig->job_count, 1);
    const struct job *j = job_at(0);
    unsigned char letter = (unsigned char)who(j).ptr[0];
    recipients[letter] += j->count;
    taken(0);
    return letter;
}

/* What each account has had is at no time further from another's than the largest job and one
 * turn each. */
static void test_shares_differ_by_no_more_than_a_job(void **state)
{
    enum { LARGE = 50, MIDDLE = 7, ROUNDS = 300 };
    uint32_t had[256] = {0};
    (void)state;
    for (int i = 0; i < 8; i++)
        commit_to("a@d1.test", LARGE, "a", CLASS_NORMAL);
    for (int i = 0; i < 50; i++)
        commit_to("a@d1.test", MIDDLE, "b", CLASS_NORMAL);
    for (int i = 0; i < ROUNDS; i++)
        commit_to("a@d1.test", 1, "c", CLASS_NORMAL);
    (void)next_one(had); /* was alone when it began */
    memset(had, 0, sizeof had);
    while (had['c'] < ROUNDS - 10) {
        (void)next_one(had);
        uint32_t a = had['a'], b = had['b'], c = had['c'];
        assert_true(a <= c + 2 * LARGE && a + 2 * LARGE >= c);
        assert_true(b <= c + 2 * MIDDLE && b + 2 * MIDDLE >= c);
    }
}

/* What is owed is the account's, whatever classes its mail is of. */
static void test_another_class_is_no_way_round_a_debt(void **state)
{
    uint32_t had[256] = {0};
    (void)state;
    for (int i = 0; i < 6; i++) {
        commit_to("a@d1.test", 40, "a", CLASS_BULK);
        commit_to("a@d1.test", 40, "a", CLASS_TRANSACTIONAL);
    }
    for (int i = 0; i < 150; i++)
        commit_to("a@d1.test", 1, "c", CLASS_NORMAL);
    while (had['c'] < 140)
        (void)next_one(had);
    assert_true(had['a'] >= 80 && had['a'] <= 240);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_shares_differ_by_no_more_than_a_job, start),
        cmocka_unit_test_setup(test_another_class_is_no_way_round_a_debt, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
