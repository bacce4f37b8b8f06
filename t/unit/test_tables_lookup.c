/* libraries: postern_tables */
#include <cdb.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/mem.h"
#include "tables/table.h"

static int file_of(const char *content, size_t len)
{
    int fd = memfd_create("table", MFD_CLOEXEC);
    assert_int_equal(write(fd, content, len), (ssize_t)len);
    return fd;
}

static struct table *open_text(const char *spec, const char *content, struct err *e)
{
    return table_open_fd(slice_str(spec), content ? file_of(content, strlen(content)) : -1, e);
}

/* The value of key, or NULL; static memory. */
static const char *value_of(struct table *t, const char *key)
{
    static char text[256];
    struct buf value = BUF_INIT(TABLE_VALUE_MAX);
    struct err e;
    enum table_result found = table_lookup(t, slice_str(key), &value, &e);
    snprintf(text, sizeof text, "%.*s", SLICE_ARG(buf_slice(&value)));
    buf_free(&value);
    if (found == TABLE_ERROR)
        fail_msg("%s", e.text);
    return found == TABLE_FOUND ? text : NULL;
}

struct row {
    const char *key, *value; /* NULL: not there */
};

static void check_rows(struct table *t, const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *got = value_of(t, rows[i].key);
        if (!rows[i].value && got)
            fail_msg("\"%s\" gave \"%s\"", rows[i].key, got);
        if (rows[i].value && (!got || strcmp(got, rows[i].value) != 0))
            fail_msg("\"%s\" gave \"%s\", not \"%s\"", rows[i].key, got ? got : "nothing",
                     rows[i].value);
    }
}

#define CHECK_ROWS(t, rows) check_rows(t, rows, sizeof(rows) / sizeof *(rows))

static void test_texthash(void **state)
{
    static const char content[] = "# a comment\n"
                                  "\n"
                                  "Example.ORG   smtp:[mail.example.org]\n"
                                  "   # a comment inside\n"
                                  "a@example.org\terror:no\n"
                                  "\tsuch user\n"
                                  "\"b c\"@example.org lmtp:x\n"
                                  ".example.net :\r\n"
                                  "last relay:z";
    static const struct row rows[] = {{"example.org", "smtp:[mail.example.org]"},
                                      {"EXAMPLE.org", "smtp:[mail.example.org]"},
                                      {"a@example.org", "error:no such user"},
                                      {"\"b c\"@example.org", "lmtp:x"},
                                      {".example.net", ":"},
                                      {"last", "relay:z"},
                                      {"example", NULL},
                                      {"", NULL},
                                      {"#", NULL}};
    struct err e;
    struct table *t = open_text("texthash:/etc/x", content, &e);
    (void)state;
    assert_non_null(t);
    CHECK_ROWS(t, rows);
    assert_false(table_is_pattern(t));
    assert_true(table_has_address_in(t, SLICE("example.org")));
    assert_false(table_has_address_in(t, SLICE("example.net")));
    table_close(t);
}

static void test_first_of_equal_keys_counts(void **state)
{
    struct err e;
    struct table *t = open_text("texthash:/x", "a 1\nA 2\n", &e);
    (void)state;
    assert_string_equal(value_of(t, "a"), "1");
    table_close(t);
}

static void test_inline(void **state)
{
    static const struct row rows[] = {
        {"a", "1"}, {"b.example", "smtp:[x]:25"}, {"c", "two words"}, {"d", NULL}};
    struct err e;
    struct table *t =
        open_text("inline:{ a=1, b.example=smtp:[x]:25, { c = two words } }", NULL, &e);
    (void)state;
    assert_non_null(t);
    CHECK_ROWS(t, rows);
    table_close(t);
}

static void test_cidr(void **state)
{
    static const char content[] = "# hosts first\n"
                                  "192.0.2.9        smtp:[one]\n"
                                  "192.0.2.0/24     smtp:[net]\n"
                                  "[2001:db8::1]    smtp:[six]\n"
                                  "2001:db8::/32    smtp:[six\n"
                                  "   net]\n"
                                  "IF 10.0.0.0/8\n"
                                  "if !10.1.0.0/16\n"
                                  "10.2.0.0/15      smtp:[inner]\n"
                                  "endif\n"
                                  "10.1.2.3         smtp:[own]\n"
                                  "endif\n"
                                  "!0.0.0.0/0       smtp:[rest of six]\n"
                                  "172.16.0.0/12    error:no $1\n";
    static const struct row rows[] = {{"192.0.2.9", "smtp:[one]"},
                                      {"192.0.2.10", "smtp:[net]"},
                                      {"[192.0.2.10]", "smtp:[net]"},
                                      {"192.0.3.1", NULL},
                                      {"2001:DB8::1", "smtp:[six]"},
                                      {"[IPv6:2001:db8::1]", "smtp:[six]"},
                                      {"[2001:db8:1::]", "smtp:[six net]"},
                                      {"[IPv6:192.0.2.9]", NULL},
                                      {"[IPv6:", NULL},
                                      {"10.2.0.1", "smtp:[inner]"},
                                      {"10.1.2.3", "smtp:[own]"},
                                      {"10.1.2.4", NULL},
                                      {"::1", "smtp:[rest of six]"},
                                      {"::ffff:192.0.2.9", "smtp:[one]"},
                                      {"172.31.0.1", "error:no $1"},
                                      {"192.0.2", NULL},
                                      {"192.0.2.9/32", NULL},
                                      {"a@[192.0.2.9]", NULL},
                                      {"example.org", NULL},
                                      {"*", NULL}};
    struct err e;
    struct table *t = open_text("cidr:/x", content, &e);
    (void)state;
    if (!t)
        fail_msg("%s", e.text);
    CHECK_ROWS(t, rows);
    assert_false(table_is_pattern(t));
    assert_false(table_has_address_in(t, SLICE("[192.0.2.9]")));
    table_close(t);
}

static void test_pcre(void **state)
{
    static const char content[] = "/^postmaster@/   lmtp:unix:/p\n"
                                  "/^(.*)-(.+)@(example)\\.org$/ smtp:[$3.${1}.$(2)$$]\n"
                                  "if /@secret\\.example$/\n"
                                  "/^boss@/ smtp:boss\n"
                                  "if !/^public/\n"
                                  "/./ error:no entry\n"
                                  "endif\n"
                                  "endif\n"
                                  "!/@/ error:no domain\n"
                                  "%x\\.example%i smtp:case\n"
                                  "/^(a)$|^(b)@only\\.example$/ smtp:<$1>\n";
    static const struct row rows[] = {{"postmaster@x", "lmtp:unix:/p"},
                                      {"POSTMASTER@x", "lmtp:unix:/p"},
                                      {"one-two@example.org", "smtp:[example.one.two$]"},
                                      {"public@secret.example", NULL},
                                      {"boss@elsewhere.test", NULL},
                                      {"boss@secret.example", "smtp:boss"},
                                      {"staff@secret.example", "error:no entry"},
                                      {"nobody", "error:no domain"},
                                      {"q@x.example", "smtp:case"},
                                      {"q@X.EXAMPLE", NULL},
                                      {"b@only.example", "smtp:<>"},
                                      {"z@z.test", NULL}};
    struct err e;
    struct table *t = open_text("pcre:/x", content, &e);
    (void)state;
    if (!t)
        fail_msg("%s", e.text);
    CHECK_ROWS(t, rows);
    assert_true(table_is_pattern(t));
    assert_true(table_has_address_in(t, SLICE("any.example")));
    table_close(t);
}

/* A pattern that would take for ever is given up, and the next rules count. */
static void test_pcre_limit_is_no_match(void **state)
{
    struct err e;
    struct table *t = open_text("pcre:/x", "/^(a+)+$/ bad\n!/^(a+)+$/ worse\n/^a/ good\n", &e);
    (void)state;
    assert_non_null(t);
    assert_string_equal(value_of(t, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"),
                        "good");
    table_close(t);
}

static void test_cdb(void **state)
{
    struct cdb_make make;
    struct err e;
    int fd = memfd_create("cdb", MFD_CLOEXEC);
    (void)state;
    cdb_make_start(&make, fd);
    cdb_make_add(&make, "example.org", 11, "smtp:[a]", 8);
    cdb_make_add(&make, "u@example.net\0", 14, "smtp:[b]\0", 9); /* as old postmaps did */
    cdb_make_finish(&make);
    static const struct row rows[] = {
        {"Example.org", "smtp:[a]"}, {"u@example.net", "smtp:[b]"}, {"example.net", NULL}};
    struct table *t = table_open_fd(SLICE("cdb:/etc/x.cdb"), fd, &e);
    assert_non_null(t);
    CHECK_ROWS(t, rows);
    assert_true(table_has_address_in(t, SLICE("example.net")));
    assert_false(table_has_address_in(t, SLICE("example.org")));
    table_close(t);
}

static void test_damaged_cdb_is_refused(void **state)
{
    char content[4096];
    struct err e;
    (void)state;
    memset(content, 0xff, sizeof content);
    assert_null(table_open_fd(SLICE("cdb:/x"), file_of(content, sizeof content), &e));
    assert_null(table_open_fd(SLICE("cdb:/x"), file_of("short", 5), &e));
    assert_string_equal(e.text, "/x: not a cdb file");
}

static void test_errors_name_file_and_line(void **state)
{
    static const struct {
        const char *spec, *content, *expected; /* start of the text */
    } cases[] = {
        {"texthash:/f", "a b\nlonely\n", "/f:2: expected \"key value\""},
        {"texthash:/f", "  indented x\n", "/f:1: starts with white space"},
        {"pcre:/f", "# x\n/a(/ b\n", "/f:2: pattern, at character"},
        {"pcre:/f", "/a/ $1\n", "/f:1: $1, but the pattern has 0 groups"},
        {"pcre:/f", "!/(a)/ $1\n", "/f:1: $1 with a negated pattern"},
        {"pcre:/f", "/a/Q x\n", "/f:1: unknown flag"},
        {"pcre:/f", "/a x\n", "/f:1: no closing /"},
        {"pcre:/f", "/a/\n", "/f:1: the pattern has no result"},
        {"pcre:/f", "if /a/\n/b/ c\n", "/f:1: if without endif"},
        {"pcre:/f", "/b/ c\nendif\n", "/f:2: endif without if"},
        {"pcre:/f", "abc x\n", "/f:1: a pattern starts with a delimiter"},
        {"pcre:/f", "/a/ ${1\n", "/f:1: expected $1"},
        {"cidr:/f", "10.0.0.0/8 a\nx b\n", "/f:2: x: is not a network"},
        {"cidr:/f", "10.0.0.1/8 a\n", "/f:1: 10.0.0.1/8: bits behind the prefix length 8"},
        {"cidr:/f", "10.0.0.0/33 a\n", "/f:1: 10.0.0.0/33: the prefix length must be"},
        {"cidr:/f", "! a\n", "/f:1: a: is not a network"},
        {"cidr:/f", "10.0.0.0/8\n", "/f:1: the network has no result"},
        {"cidr:/f", "if ::/0 x\n", "/f:1: text after the network of if"},
        {"cidr:/f", "if ::/0\n::1 x\n", "/f:1: if without endif"},
        {"cidr:/f", "::1 x\nendif\n", "/f:2: endif without if"},
        {"inline:{ a }", NULL, "table inline:{ a }: expected key=value"},
        {"inline:{ a=1 a=2 }", NULL, "table inline:{ a=1 a=2 }: key \"a\" occurs twice"},
        {"inline:a=1", NULL, "table inline:a=1: expected inline:{"},
        {"hash:/f", "", "table \"hash:/f\": expected texthash:FILE"},
        {"texthash:", "", "table \"texthash:\": expected"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e = {0};
        struct table *t = open_text(cases[i].spec, cases[i].content, &e);
        if (t || strncmp(e.text, cases[i].expected, strlen(cases[i].expected)) != 0)
            fail_msg("%s %s: %s", cases[i].spec, cases[i].content, e.text);
    }
}

static void test_nul_and_long_lines_are_refused(void **state)
{
    struct err e;
    (void)state;
    assert_null(table_open_fd(SLICE("texthash:/f"), file_of("a b\0c", 5), &e));
    assert_string_equal(e.text, "/f: holds a NUL byte, so it is not a text file");
    size_t len = TABLE_LINE_MAX + 10;
    char *line = xmalloc(len);
    memset(line, 'x', len);
    assert_null(table_open_fd(SLICE("texthash:/f"), file_of(line, len), &e));
    assert_string_equal(e.text, "/f:1: line too long");
    free(line);
}

static void test_list_of_specs(void **state)
{
    static const char *const expected[] = {"texthash:/a", "inline:{ a=b, c=d }", "pcre:/b"};
    struct slice list = SLICE(" texthash:/a, inline:{ a=b, c=d }\tpcre:/b "), spec;
    size_t n = 0;
    (void)state;
    while (table_list_next(&list, &spec)) {
        assert_true(n < 3);
        assert_true(slice_eq(spec, slice_str(expected[n])));
        n++;
    }
    assert_int_equal(n, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texthash),
        cmocka_unit_test(test_first_of_equal_keys_counts),
        cmocka_unit_test(test_inline),
        cmocka_unit_test(test_cidr),
        cmocka_unit_test(test_pcre),
        cmocka_unit_test(test_pcre_limit_is_no_match),
        cmocka_unit_test(test_cdb),
        cmocka_unit_test(test_damaged_cdb_is_refused),
        cmocka_unit_test(test_errors_name_file_and_line),
        cmocka_unit_test(test_nul_and_long_lines_are_refused),
        cmocka_unit_test(test_list_of_specs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
