/* libraries: postern_conf postern_core */
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "conf/config.h"
#include "core/mem.h"

static struct config *parse(const char *text, struct err *e)
{
    *e = (struct err){0, ""};
    return config_parse(slice_str(text), "main.cf", "/conf", e);
}

static struct config *parse_good(const char *text)
{
    struct err e;
    struct config *c = parse(text, &e);
    if (!c)
        fail_msg("%s", e.text);
    return c;
}

static void assert_refused(struct slice text, const char *words)
{
    struct err e = {0, ""};
    struct config *c = config_parse(text, "main.cf", "/conf", &e);
    if (c)
        fail_msg("accepted: %.*s", SLICE_ARG(slice_first(text, 100)));
    if (!strstr(e.text, words))
        fail_msg("the error does not say \"%s\": %s", words, e.text);
}

static const char *entry(const struct config *c, const char *name)
{
    struct config_entry x;
    for (size_t i = 0; config_entry(c, i, &x); i++)
        if (strcmp(x.name, name) == 0)
            return x.value;
    fail_msg("no parameter %s", name);
    return "";
}

static void test_defaults(void **state)
{
    (void)state;
    struct config *c = parse_good("");
    assert_int_equal(c->smtpd_timeout, 300);
    assert_int_equal(c->line_length_limit, 65536);
    assert_int_equal(c->maximal_queue_lifetime, 5 * 86400);
    assert_false(c->compatible_log_names);
    assert_string_equal(c->relayhost, "");
    assert_string_equal(c->empty_directory, "/var/lib/postern/empty");
    assert_string_equal(c->smtpd_forbid_bare_newline, "reject");
    assert_true(strlen(c->myhostname) > 0); /* from the system */
    assert_non_null(strchr(c->myhostname, '.'));
    config_free(c);
}

static void test_values_of_each_type(void **state)
{
    (void)state;
    struct config *c = parse_good("# a comment\n"
                                  "smtpd_recipient_limit = 7\n"
                                  "message_size_limit=2m\n"
                                  "smtpd_timeout =  3m \n"
                                  "compatible_log_names = Yes\n"
                                  "log_level = debug\n"
                                  "mynetworks = 10.0.0.0/8,\n"
                                  "  # a comment inside\n"
                                  "\n"
                                  "\t192.0.2.1\n"
                                  "relayhost =\n");
    assert_int_equal(c->smtpd_recipient_limit, 7);
    assert_int_equal(c->message_size_limit, 2 * 1024 * 1024);
    assert_int_equal(c->smtpd_timeout, 3 * 60);
    assert_true(c->compatible_log_names);
    assert_string_equal(c->log_level, "debug");
    assert_string_equal(c->mynetworks, "10.0.0.0/8, 192.0.2.1");
    assert_string_equal(c->relayhost, "");
    config_free(c);
}

static void test_names_are_replaced(void **state)
{
    (void)state;
    static const struct {
        const char *value, *expected;
    } rows[] = {
        {"$myhostname x", "mx.a.example x"},
        {"${myhostname}x", "mx.a.examplex"},
        {"$mydomain $$5", "a.example $5"},
        {"${relayhost?yes}${relayhost:no}", "no"},
        {"${myhostname?at ${mydomain}}", "at a.example"},
        {"$mail_name", "Postern"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *text = xasprintf("smtpd_banner = %s\nmyhostname = mx.a.example\n", rows[i].value);
        struct config *c = parse_good(text);
        assert_string_equal(c->smtpd_banner, rows[i].expected);
        config_free(c);
        free(text);
    }
}

static void test_relative_paths_start_from_the_configuration(void **state)
{
    (void)state;
    struct config *c = parse_good("queue_directory = spool\ndata_directory = lib\n"
                                  "maillog_file = stderr\nevent_log_file = events\n"
                                  "source_config_file = sources.conf\n"
                                  "provider_config_file = providers.conf\n");
    assert_string_equal(c->queue_directory, "/conf/spool");
    assert_string_equal(c->empty_directory, "/conf/lib/empty");
    assert_string_equal(c->maillog_file, "stderr");
    assert_string_equal(c->event_log_file, "/conf/events");
    assert_string_equal(c->source_config_file, "/conf/sources.conf");
    assert_string_equal(c->provider_config_file, "/conf/providers.conf");
    config_free(c);
}

static void test_B84_bad_settings_name_file_and_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } rows[] = {
        {"\n\nsmtpd_recipent_limit = 1\n",
         "main.cf:3: smtpd_recipent_limit: there is no such parameter; did you mean "
         "smtpd_recipient_limit?"},
        {"virtual_alias_maps = x\n", "main.cf:1: virtual_alias_maps: there is no such parameter"},
        {"smtp_tls_session_cache_database = btree:x\n",
         "main.cf:1: smtp_tls_session_cache_database: this parameter of Postfix is not here: TLS "
         "sessions are kept in memory, for smtp_tls_session_cache_timeout; take the line out"},
        {"\nmydestination = a.test\n",
         "main.cf:2: mydestination: this parameter of Postfix is not"},
        {"relayhost = a\n# x\nrelayhost = b\n",
         "main.cf:3: relayhost is set a second time (first at main.cf:1)"},
        {"smtpd_recipient_limit = 0\n", "is out of range; give a whole number from 1 to 100000"},
        {"smtpd_recipient_limit = 100001\n", "main.cf:1: smtpd_recipient_limit = 100001"},
        {"smtpd_timeout = 99999999999999999999\n", "smtpd_timeout"},
        {"message_size_limit = 9223372036854775807g\n", "message_size_limit"},
        {"smtpd_timeout = 5 m\n", "is not understood"},
        {"smtpd_timeout = -1\n", "is not understood"},
        {"compatible_log_names = maybe\n", "give yes or no"},
        {"log_level = loud\n", "give one of: error warning info debug"},
        {"relayhost\n", "write it as name = value"},
        {"= x\n", "write it as name = value"},
        {" relayhost = x\n", "main.cf:1: the line begins with white space"},
        {"relayhost = x\r\n", "carriage return"},
        {"mynetworks = 10.0.0.1/8\n", "bits behind the prefix length 8 are set"},
        {"mynetworks = example.com\n", "is not a network"},
        {"myhostname = not_a_name\n", "is not a host name"},
        {"inet_interfaces = eth0\n", "is not an address"},
        {"smtp_bind_address = ::1\n", "is not an IPv4 address"},
        {"resolver_nameservers = 127.0.0.1@0\n", "is not a name server"},
        {"relayhost = $nothing\n", "$nothing: there is no such parameter"},
        {"relayhost = ${mydomain\n", "the closing brace is missing"},
        {"relayhost = 5$\n", "write $$"},
        {"minimal_backoff_time = 2h\n", "is above maximal_backoff_time"},
        {"relayhost = [a.test\n", "main.cf:1: relayhost: [a.test: is no next hop"},
        {"relayhost = [a.test]25\n", "is no next hop"},
        {"relayhost = a.test:0\n", "is no next hop"},
        {"relayhost = a.test, :25\n", ":25: is no next hop"},
        {"relayhost = [IPv6:192.0.2.1]\n", "is no next hop"},
        {"relayhost = smtp:[a.test]:25\n", "is no next hop"},
        {"defer_transports = smtp relay\n", "relay: is not a transport that can be deferred"},
        {"smtp_discard_ehlo_keywords = PIPELINNG\n", "PIPELINNG: is not an EHLO keyword"},
        {"double_bounce_recipient = <a@b.test>x\n", "is not an address"},
        {"notice_from = a@b.test <\n", "is not an address"},
        {"smtpd_sasl_mechanism_filter = plain hash:/etc/x\n",
         "main.cf:1: smtpd_sasl_mechanism_filter: hash:/etc/x: give names of mechanisms"},
        {"accounts_enable = yes\nsmtpd_sasl_auth_enable = yes\n"
         "smtpd_sasl_mechanism_filter = gssapi\n",
         "main.cf:3: smtpd_sasl_mechanism_filter leaves no way to log in"},
        {"scram_iterations = 1\n",
         "main.cf:1: scram_iterations (1) is less than 4096, the least that RFC 7677 allows"},
        {"queue_journal_size = 100k\n", "queue_journal_size (102400 bytes) is less than 1m"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_refused(slice_str(rows[i].text), rows[i].words);
    assert_refused(SLICE("relayhost = a\0b\n"), "main.cf:1: byte 0x00 at column 14");
}

static void test_B84_line_of_a_megabyte(void **state)
{
    (void)state;
    size_t size = 1024 * 1024;
    char *text = xmalloc(size);
    memset(text, 'x', size);
    memcpy(text, "relayhost = ", 12);
    assert_refused(slice_make(text, size), "main.cf:1: the line is longer than 65536 bytes");
    for (size_t i = 20; i < size; i += 20) /* the same in continuation lines */
        memcpy(text + i, "\n ", 2);
    assert_refused(slice_make(text, size), "main.cf:1: the line is longer than 65536 bytes");
    free(text);
}

static void test_B87_references_in_a_circle(void **state)
{
    (void)state;
    assert_refused(SLICE("relayhost = $relayhost\n"), "refers to itself");
    assert_refused(SLICE("mydomain = $myhostname\nmyhostname = $mydomain\n"), "refers to itself");
    /* no circle, but more references than anybody means */
    struct buf text = BUF_INIT(1 << 20);
    const char *chain[] = {"relayhost", "smtp_helo_name", "lmtp_lhlo_name", "notice_from",
                           "notice_contact"};
    for (size_t i = 0; i + 1 < 5; i++) {
        buf_printf(&text, "%s =", chain[i]);
        for (int k = 0; k < 100; k++)
            buf_printf(&text, " $%s", chain[i + 1]);
        buf_addc(&text, '\n');
    }
    buf_printf(&text, "notice_contact =\n");
    assert_refused(buf_slice(&text), "main.cf:");
    buf_free(&text);
}

static void test_B88_letter_in_a_number(void **state)
{
    (void)state;
    assert_refused(SLICE("smtpd_recipient_limit = 10O\n"),
                   "main.cf:1: smtpd_recipient_limit = 10O: is not understood; give a whole "
                   "number from 1 to 100000 (default 1000)");
    assert_refused(SLICE("smtpd_timeout = 1O\n"), "smtpd_timeout");
    assert_refused(SLICE("smtpd_timeout = 0x10\n"), "smtpd_timeout");
    assert_refused(SLICE("smtpd_timeout =\n"), "smtpd_timeout");
}

static void test_B85_file_that_others_may_write(void **state)
{
    (void)state;
    char directory[] = "/tmp/postern-conf-XXXXXX";
    struct err e = {0, ""};
    assert_non_null(mkdtemp(directory));
    char *path = xasprintf("%s/main.cf", directory);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0 && write(fd, "queue_directory = spool\n", 24) == 24);
    assert_int_equal(fchmod(fd, 0664), 0);
    struct config *c = config_load(path, &e);
    if (geteuid() == 0) {
        assert_null(c);
        assert_non_null(strstr(e.text, "is writable by its group"));
    } else {
        assert_non_null(c); /* nobody can be taken over through it */
    }
    config_free(c);
    assert_int_equal(fchmod(fd, 0644), 0);
    c = config_load(path, &e);
    assert_non_null(c);
    char *spool = xasprintf("%s/spool", directory);
    assert_string_equal(c->queue_directory, spool);
    config_free(c);
    close(fd);
    unlink(path);
    rmdir(directory);
    free(path);
    free(spool);
}

static void test_overrides_of_a_service(void **state)
{
    (void)state;
    struct err e = {0, ""};
    struct config *c = parse_good("myhostname = a.example\n");
    const char *good[] = {"smtpd_recipient_limit=5", "myhostname=b.example"};
    struct config *o = config_override(c, good, 2, "master.cf:3", &e);
    assert_non_null(o);
    assert_int_equal(o->smtpd_recipient_limit, 5);
    assert_string_equal(o->myorigin, "b.example");
    assert_string_equal(c->myorigin, "a.example");
    config_free(o);
    static const struct {
        const char *override, *words;
    } rows[] = {
        {"smtpd_recipient_limit=0", "master.cf:3: smtpd_recipient_limit = 0: is out of range"},
        {"nonsense=1", "master.cf:3: nonsense: there is no such parameter"},
        {"queue_directory=/x", "it is the same for all services"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_null(config_override(c, &rows[i].override, 1, "master.cf:3", &e));
        if (!strstr(e.text, rows[i].words))
            fail_msg("%s", e.text);
    }
    const char *twice[] = {"relayhost=a", "relayhost=b"};
    assert_null(config_override(c, twice, 2, "master.cf:3", &e));
    config_free(c);
}

static void test_a_service_gets_what_master_read(void **state)
{
    (void)state;
    struct err e = {0, ""};
    struct config *c = parse_good("myhostname = a.example\nsmtpd_banner = $$ = $myhostname\n"
                                  "smtpd_timeout = 2m\nrelayhost =\n");
    int fd = memfd_create("config", 0);
    assert_int_equal(config_write(c, fd, &e), 0);
    struct config *copy = config_read(fd, &e);
    assert_non_null(copy);
    assert_string_equal(copy->smtpd_banner, "$ = a.example");
    assert_int_equal(copy->smtpd_timeout, 120);
    assert_string_equal(copy->relayhost, "");
    assert_string_equal(entry(copy, "mydomain"), "example");
    config_free(copy);
    config_free(c);
    close(fd);
}

static void test_entries_are_sorted_and_tell_where(void **state)
{
    (void)state;
    struct config *c = parse_good("\nrelayhost = a\n");
    struct config_entry x;
    const char *last = "";
    size_t count = 0, set = 0;
    while (config_entry(c, count, &x)) {
        assert_true(strcmp(last, x.name) < 0);
        last = x.name;
        count++;
        if (!x.set)
            continue;
        set++;
        assert_string_equal(x.name, "relayhost");
        assert_string_equal(x.where, "main.cf:2");
    }
    assert_true(count > 100);
    assert_int_equal(set, 1);
    config_free(c);
}

static void test_lists(void **state)
{
    (void)state;
    struct slice list = SLICE(" a,b  inline:{x = y, z=1} ,, c"), element;
    static const char *const expected[] = {"a", "b", "inline:{x = y, z=1}", "c"};
    for (size_t i = 0; i < 4; i++) {
        assert_true(config_list_next(&list, &element));
        assert_true(slice_eq(element, slice_str(expected[i])));
    }
    assert_false(config_list_next(&list, &element));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_values_of_each_type),
        cmocka_unit_test(test_names_are_replaced),
        cmocka_unit_test(test_relative_paths_start_from_the_configuration),
        cmocka_unit_test(test_B84_bad_settings_name_file_and_line),
        cmocka_unit_test(test_B84_line_of_a_megabyte),
        cmocka_unit_test(test_B85_file_that_others_may_write),
        cmocka_unit_test(test_B87_references_in_a_circle),
        cmocka_unit_test(test_B88_letter_in_a_number),
        cmocka_unit_test(test_overrides_of_a_service),
        cmocka_unit_test(test_a_service_gets_what_master_read),
        cmocka_unit_test(test_entries_are_sorted_and_tell_where),
        cmocka_unit_test(test_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
