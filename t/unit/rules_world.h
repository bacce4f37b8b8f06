/* Sets of rules from texts in memory, for the tests of lib/rules. */
#ifndef POSTERN_RULES_WORLD_H
#define POSTERN_RULES_WORLD_H

#include <stdio.h>

#include "core/clock.h"
#include "core/mem.h"
#include "rules/rules.h"
#include "unit.h"

struct file {
    const char *name, *text;
};

static inline int read_from(const char *name, struct buf *text, void *arg, struct err *e)
{
    for (const struct file *f = arg; f->name; f++)
        if (strcmp(f->name, name) == 0)
            return buf_addstr(text, f->text);
    return err_set(e, "%s: no such file", name);
}

/* A file on the disk. */
static inline int read_disk(const char *name, struct buf *text, void *arg, struct err *e)
{
    char piece[4096];
    size_t n;
    FILE *f = fopen(name, "r");
    (void)arg;
    if (!f)
        return err_sys(e, "%s", name);
    while ((n = fread(piece, 1, sizeof piece, f)) > 0)
        buf_add(text, piece, n);
    fclose(f);
    return 0;
}

static inline struct rules *load(const char *text)
{
    struct file files[] = {{"a.conf", text}, {NULL, NULL}};
    struct err e = {0, ""};
    struct rules *r = rules_load("a.conf", read_from, files, &e);
    if (!r)
        print_error("%s\n", e.text);
    assert_non_null(r);
    return r;
}

static inline void refused(const char *text, const char *words)
{
    struct file files[] = {{"a.conf", text}, {NULL, NULL}};
    struct err e = {0, ""};
    struct rules *r = rules_load("a.conf", read_from, files, &e);
    if (r)
        fail_msg("taken: %s", text);
    if (!strstr(e.text, words))
        print_error("\"%s\" is not in: %s\n", words, e.text);
    assert_non_null(strstr(e.text, words));
}

static inline const struct rule *match(struct rules *r, enum rules_stage stage, unsigned provider,
                                       const char *line)
{
    struct rules_reply reply = {.stage = stage, .provider = provider};
    assert_int_equal(rules_parse_reply(slice_str(line), &reply), 0);
    return rules_match(r, &reply);
}

#endif
