/* What shaping replay has counted. */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "ctl/replay.h"

/* When it does that, where it counts. */
static void describe_counting(const struct rule *rule, char *out, size_t size)
{
    char time[32];
    int n = 0;
    *out = '\0';
    print_age(time, sizeof time, (double)rule->period / 1e6);
    if (rule->after > 1 && rule->period > 0)
        n = snprintf(out, size, ", %u times in %s", rule->after, time);
    else if (rule->after > 1)
        n = snprintf(out, size, ", from attempt %u on", rule->after);
    if (rule->fraction > 0 && n >= 0 && (size_t)n < size)
        snprintf(out + n, size - (size_t)n, ", %.0f%% of %u attempts", 100 * rule->fraction,
                 rule->samples);
}

/* What a rule does, in a few words. */
static void describe(const struct rule *rule, char *out, size_t size)
{
    char time[32];
    if (!rule) {
        snprintf(out, size, "no rule");
        return;
    }
    int n = snprintf(out, size, "%s: %s", rule->name, rules_action_name(rule->action));
    if (n < 0 || (size_t)n >= size)
        return;
    if (rule->action >= RULES_SUSPEND) {
        print_age(time, sizeof time, (double)rule->time / 1e6);
        snprintf(out + n, size - (size_t)n, " for %s", time);
    } else if (rule->dimension != RULES_NO_DIMENSION) {
        snprintf(out + n, size - (size_t)n, " %s", rules_dimension_name(rule->dimension));
    } else if (rule->greylist) {
        snprintf(out + n, size - (size_t)n, ", greylisting");
    }
}

static unsigned long count_of(const struct replay *r, unsigned long *const counts[REPLAY_SETS],
                              int set, const char *name)
{
    for (unsigned i = 0; i < rules_count(r->sets[set]); i++)
        if (strcmp(rules_at(r->sets[set], i)->name, name) == 0)
            return counts[set][i];
    return 0;
}

static bool known(struct rules *set, const char *name)
{
    for (unsigned i = 0; i < rules_count(set); i++)
        if (strcmp(rules_at(set, i)->name, name) == 0)
            return true;
    return false;
}

static void print_count(const struct replay *r, const struct rule *rule)
{
    char words[RULES_NAME_MAX + 100], when[100];
    unsigned long before = count_of(r, r->counts, 0, rule->name),
                  after = count_of(r, r->counts, 1, rule->name),
                  matches[REPLAY_SETS] = {count_of(r, r->matches, 0, rule->name),
                                          count_of(r, r->matches, 1, rule->name)};
    if (matches[0] == 0 && matches[1] == 0)
        return;
    describe(rule, words, sizeof words);
    describe_counting(rule, when, sizeof when);
    if (r->ctl->json) {
        json_t *o = json_pack("{s:s, s:s, s:i, s:s, s:I, s:I, s:I, s:I}", "rule", rule->name,
                              "file", rule->file, "line", rule->line, "does", words, "before",
                              (json_int_t)before, "after", (json_int_t)after, "matched_before",
                              (json_int_t)matches[0], "matched_after", (json_int_t)matches[1]);
        print_json_line(o);
        json_decref(o);
        return;
    }
    printf("%9lu %9lu  %s%s (%s:%d)", before, after, words, when, rule->file, rule->line);
    if (*when)
        printf("; matched %lu and %lu", matches[0], matches[1]);
    putchar('\n');
}

static void print_counts(const struct replay *r)
{
    if (!r->ctl->json)
        printf("%9s %9s\n", "in use", "tried");
    for (unsigned i = 0; i < rules_count(r->sets[1]); i++)
        print_count(r, rules_at(r->sets[1], i));
    for (unsigned i = 0; i < rules_count(r->sets[0]); i++)
        if (!known(r->sets[1], rules_at(r->sets[0], i)->name))
            print_count(r, rules_at(r->sets[0], i));
    if (!r->ctl->json)
        printf("%9lu %9lu  no rule\n", r->nobody[0], r->nobody[1]);
}

static void print_pair(const struct replay *r, const struct pair *p)
{
    char words[REPLAY_SETS][RULES_NAME_MAX + 100];
    for (int k = 0; k < REPLAY_SETS; k++)
        describe(p->rules[k], words[k], sizeof words[k]);
    if (r->ctl->json) {
        json_t *samples = json_array();
        for (unsigned i = 0; i < p->sample_count; i++)
            json_array_append_new(samples, json_string(p->samples[i]));
        json_t *o = json_pack("{s:I, s:s, s:s, s:o}", "differs", (json_int_t)p->count, "before",
                              words[0], "after", words[1], "samples", samples);
        print_json_line(o);
        json_decref(o);
        return;
    }
    printf("%9lu  %s -> %s\n", p->count, words[0], words[1]);
    for (unsigned i = 0; i < p->sample_count; i++) {
        printf("             ");
        print_safe(stdout, p->samples[i]);
        putchar('\n');
    }
}

static int by_count(const void *a, const void *b)
{
    const struct pair *x = *(const struct pair *const *)a, *y = *(const struct pair *const *)b;
    return x->count < y->count ? 1 : -(x->count > y->count);
}

static void print_pairs(const struct replay *r)
{
    size_t cursor = 0, n = 0;
    struct pair **all = xcalloc(r->pairs.count + 1, sizeof *all), *p;
    while ((p = map_next(&r->pairs, &cursor)))
        all[n++] = p;
    qsort(all, n, sizeof *all, by_count);
    if (!r->ctl->json)
        printf("\n%s\n", n             ? "Differences, with the first replies:"
                         : r->attempts ? "No differences."
                                       : "There is nothing to compare.");
    for (size_t i = 0; i < n; i++)
        print_pair(r, all[i]);
    if (r->other_differences && !r->ctl->json)
        printf("%9lu  others\n", r->other_differences);
    free(all);
}

void replay_print(const struct replay *r)
{
    if (r->ctl->json) {
        json_t *o = json_pack("{s:I, s:I, s:I, s:I, s:I}", "attempts", (json_int_t)r->attempts,
                              "refusals", (json_int_t)r->refusals, "unmatched_before",
                              (json_int_t)r->nobody[0], "unmatched_after", (json_int_t)r->nobody[1],
                              "unreadable_lines", (json_int_t)r->bad_lines);
        print_json_line(o);
        json_decref(o);
    } else {
        printf("%lu attempts, %lu of them refused in words of the other side", r->attempts,
               r->refusals);
        if (r->bad_lines)
            printf("; %lu lines were not understood", r->bad_lines);
        printf("\n\n");
    }
    print_counts(r);
    print_pairs(r);
}
