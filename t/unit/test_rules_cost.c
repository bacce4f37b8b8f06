/* libraries: postern_rules postern_core */
/* Where PCRE2 has no JIT its interpreter serves, and counts differently: the shipped patterns must
 * stay below the limit there, or their rules are skipped for long replies. */
#include "rules/set.h"
#include "rules_world.h"

enum { LINE_MAX_LEN = 2000, EACH = 4 };

static unsigned run_without_jit(struct rules *r, const char *subject, size_t len)
{
    unsigned costly = 0;
    for (size_t i = 0; i < r->count; i++) {
        if (!r->list[i].text)
            continue;
        int rc = pcre2_match(r->list[i].text, (PCRE2_SPTR)subject, len, 0, PCRE2_NO_JIT, r->match,
                             r->context);
        if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) {
            print_error("%s: %d for %.40s...\n", r->list[i].name, rc, subject);
            costly++;
        }
    }
    return costly;
}

/* The words over and over, as long as a long reply is. */
static unsigned run_long(struct rules *r, struct slice words)
{
    char subject[RULES_SUBJECT_MAX];
    for (size_t i = 0; i < sizeof subject; i++)
        subject[i] = i % (words.len + 1) == words.len ? ' ' : words.ptr[i % (words.len + 1)];
    return run_without_jit(r, subject, sizeof subject);
}

static struct rules *shipped(void)
{
    struct err e = {0, ""};
    struct rules *r = rules_load("etc/providers.conf", read_disk, NULL, &e);
    assert_non_null(r);
    return r;
}

static void test_long_replies_are_judged_without_jit(void **state)
{
    static const char *const words[] = {
        "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod",
        "The message could not be delivered because the server is in maintenance",
        "Please see https://support.example.com/mail/answer.py?id=1234567890&lang=en",
        "a",
        "e",
        "x y",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "12 34 56",
        "192.0.2",
        "2001:db8:",
        "0",
        "-",
        "."};
    struct rules *r = shipped();
    unsigned costly = 0;
    (void)state;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        costly += run_long(r, slice_str(words[i]));
    rules_free(r);
    assert_int_equal(costly, 0);
}

static void test_wordings_over_and_over_are_judged_without_jit(void **state)
{
    char line[LINE_MAX_LEN];
    struct rules *r = shipped();
    FILE *f = fopen("t/unit/wordings.txt", "r");
    unsigned costly = 0, lines = 0;
    (void)state;
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        struct slice rest = slice_trim(slice_str(line));
        if (rest.len == 0 || rest.ptr[0] == '#')
            continue;
        (void)slice_cut(&rest, ' ');
        (void)slice_cut(&rest, ' ');
        if (lines++ % EACH == 0) /* all of them take seconds */
            costly += run_long(r, rest);
    }
    fclose(f);
    rules_free(r);
    assert_true(lines > 250);
    assert_int_equal(costly, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_replies_are_judged_without_jit),
        cmocka_unit_test(test_wordings_over_and_over_are_judged_without_jit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
