/* libraries: postern_conf postern_core */
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <setjmp.h>

#include <cmocka.h>

#include "conf/master_cf.h"

static const struct master_cf_service *of(const struct master_cf *m, const char *name)
{
    for (size_t i = 0; i < m->count; i++)
        if (strcmp(m->services[i].name, name) == 0)
            return &m->services[i];
    fail_msg("no service %s", name);
    return NULL;
}

static void test_lines(void **state)
{
    (void)state;
    struct err e = {0, ""};
    struct master_cf *m =
        master_cf_parse(SLICE("# comment\n"
                              "smtp inet n - y - - smtpd\n"
                              "submission inet n - n - 4 smtpd\n"
                              "  -o smtpd_service_kind=submission\n"
                              "  -o { mynetworks = 10.0.0.0/8 192.0.2.1 }\n"
                              "[::1]:2525 inet n - - 60? 2 smtpd -osmtpd_timeout=5s\n"
                              "127.0.0.1:2526 inet n - - 0 2 smtpd\n"
                              "relay unix y - y - 3 relay\n"),
                        "master.cf", &e);
    if (!m)
        fail_msg("%s", e.text);
    assert_int_equal(of(m, "smtp")->port, 25);
    assert_string_equal(of(m, "smtp")->host, "");
    assert_int_equal(of(m, "smtp")->count, 0);
    const struct master_cf_service *submission = of(m, "submission");
    assert_int_equal(submission->port, 587);
    assert_int_equal(submission->count, 4);
    assert_int_equal(submission->override_count, 2);
    assert_string_equal(submission->overrides[0], "smtpd_service_kind=submission");
    assert_string_equal(submission->overrides[1], "mynetworks=10.0.0.0/8 192.0.2.1");
    assert_string_equal(submission->where, "master.cf:3");
    assert_string_equal(of(m, "[::1]:2525")->host, "::1");
    assert_int_equal(of(m, "[::1]:2525")->port, 2525);
    assert_string_equal(of(m, "[::1]:2525")->overrides[0], "smtpd_timeout=5s");
    assert_string_equal(of(m, "127.0.0.1:2526")->host, "127.0.0.1");
    assert_int_equal(of(m, "relay")->count, 3);
    master_cf_free(m);
}

static void test_internal_services_need_no_line(void **state)
{
    (void)state;
    struct err e = {0, ""};
    struct master_cf *m = master_cf_parse(SLICE("25 inet n - y - - smtpd\n"), "master.cf", &e);
    assert_non_null(m);
    assert_int_equal(m->count, 7);
    assert_int_equal(of(m, "keyd")->count, 1);
    assert_int_equal(of(m, "qmgr")->count, 1);
    assert_int_equal(of(m, "relay")->count, 0);
    assert_int_equal(of(m, "resolve")->count, 1);
    assert_int_equal(of(m, "bounce")->count, 1);
    master_cf_free(m);
}

static void test_B84_bad_lines_name_file_and_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } rows[] = {
        {"#\nsmtp inet n - y - -\n", "master.cf:2: 1 columns are missing"},
        {"smtp inet n - y - - smtp\n", "smtp: is not a command of Postern"},
        {"smtp unix n - y - - smtpd\n", "its type is inet"},
        {"showq unix n - y - - smtpd\n", "a socket showq of its own"},
        {"accounts unix n - y - - smtpd\n", "a socket accounts of its own"},
        {"submit unix n - y - - smtpd\nsubmit unix n - y - - smtpd\n", "submit is there already"},
        {"a23456789b123456789c123456789d123456789e1 unix n - y - - smtpd\n", "at most 40"},
        {"relay inet n - y - - relay\n", "its type is unix"},
        {"smtp fifo n - y - - smtpd\n", "type fifo is not known"},
        {"0 inet n - y - - smtpd\n", "0: is not a port"},
        {"65536 inet n - y - - smtpd\n", "65536: is not a port"},
        {"no-such-port inet n - y - - smtpd\n", "is not a port"},
        {"mail.example:25 inet n - y - - smtpd\n", "is not an address"},
        {"smtp inet x - y - - smtpd\n", "private is x"},
        {"smtp inet n - y soon - smtpd\n", "wakeup is soon"},
        {"smtp inet n - y - 0 smtpd\n", "maxproc is 0"},
        {"smtp inet n - y - 65 smtpd\n", "maxproc is 65"},
        {"smtp inet n - y - 1O smtpd\n", "maxproc is 1O"},
        {"qmgr unix n - y - 2 qmgr\n", "qmgr has exactly one process"},
        {"smtp inet n - y - - smtpd -v\n", "-v: the only arguments are -o name=value"},
        {"smtp inet n - y - - smtpd -o relayhost\n", "-o relayhost: write -o name=value"},
        {"smtp inet n - y - - smtpd -o\n", "write -o name=value"},
        {"smtp inet n - y - - smtpd -o { a = b\n", "the closing brace is missing"},
        {"smtp inet n - y - - smtpd\n25 inet n - y - - smtpd\n",
         "master.cf:2: 25 is there already, at master.cf:1"},
        {"relay unix n - y - - relay\nr unix n - y - - relay\n", "r is there already"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct err e = {0, ""};
        struct master_cf *m = master_cf_parse(slice_str(rows[i].text), "master.cf", &e);
        if (m)
            fail_msg("accepted: %s", rows[i].text);
        if (!strstr(e.text, rows[i].words))
            fail_msg("the error does not say \"%s\": %s", rows[i].words, e.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_internal_services_need_no_line),
        cmocka_unit_test(test_B84_bad_lines_name_file_and_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
