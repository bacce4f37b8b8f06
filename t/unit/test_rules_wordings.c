/* libraries: postern_rules postern_core */
/* etc/providers.conf and the replies of t/unit/wordings.txt: each is taken for what it means. */
#include <stdlib.h>

#include "rules_world.h"

enum { LINE_MAX_LEN = 2000 };

/* What the rule makes of it, as a letter of wordings.txt; '-': nothing. */
static char class_of(const struct rule *rule)
{
    static const char dimensions[] = {
        [RULES_NO_DIMENSION] = '?', [RULES_CONCURRENCY] = 'C', [RULES_RATE] = 'R',
        [RULES_MESSAGES] = 'M',     [RULES_VOLUME] = 'V',      [RULES_CONNECTION_RATE] = 'W'};
    if (!rule || (rule->greylist && rule->fallback))
        return '-';
    if (rule->greylist)
        return 'G';
    if (rule->action == RULES_SUSPEND || rule->action == RULES_SWITCH)
        return rule->scope == RULES_OF_SOURCE && rule->outcome == RULES_RETRY ? 'B' : '?';
    return rule->action == RULES_NOTE ? '-' : dimensions[rule->dimension];
}

static bool is_as_wanted(char wanted, const struct rule *rule)
{
    switch (wanted) {
    case 'G': /* certain, or to be found out */
        return rule && rule->greylist;
    case 'K':
    case 'N':
        return class_of(rule) == '-' && !(rule && rule->outcome == RULES_FAIL);
    case 'U':
        return class_of(rule) == '-';
    default:
        return class_of(rule) == wanted;
    }
}

static unsigned provider_named(const struct rules *r, struct slice name)
{
    char *text = slice_dup(name);
    unsigned provider = rules_provider_index(r, text);
    free(text);
    if (name.len && !provider)
        fail_msg("there is no provider %.*s", SLICE_ARG(name));
    return provider;
}

static enum rules_stage stage_named(struct slice name)
{
    for (unsigned k = RULES_CONNECT; k <= RULES_DOT; k++)
        if (slice_eq(name, slice_str(rules_stage_name(k))))
            return k;
    fail_msg("%.*s is no stage", SLICE_ARG(name));
    return RULES_CONNECT;
}

/* Whether a line is judged as it says; else it is told. */
static bool judge(struct rules *r, struct slice line)
{
    struct slice rest = line, who = slice_cut(&rest, ' '), stage = slice_cut(&rest, ' ');
    struct slice class = slice_cut(&who, '/');
    struct rules_reply reply = {.stage = stage_named(stage), .provider = provider_named(r, who)};
    if (class.len != 1 || rules_parse_reply(rest, &reply) < 0)
        fail_msg("not as it should be written: %.*s", SLICE_ARG(line));
    const struct rule *rule = rules_match(r, &reply);
    if (is_as_wanted(class.ptr[0], rule))
        return true;
    print_error("%.*s: rule %s\n", SLICE_ARG(line), rule ? rule->name : "none");
    return false;
}

static void test_each_wording_is_taken_for_what_it_means(void **state)
{
    char line[LINE_MAX_LEN];
    unsigned lines = 0, wrong = 0;
    struct err e = {0, ""};
    struct rules *r = rules_load("etc/providers.conf", read_disk, NULL, &e);
    FILE *f = fopen("t/unit/wordings.txt", "r");
    (void)state;
    assert_non_null(r);
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        struct slice s = slice_trim(slice_str(line));
        if (s.len == 0 || s.ptr[0] == '#')
            continue;
        lines++;
        wrong += !judge(r, s);
    }
    fclose(f);
    rules_free(r);
    assert_true(lines > 250);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_wording_is_taken_for_what_it_means),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
