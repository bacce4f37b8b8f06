/* postconf -M, -F, -P: master.cf, its fields, and what its lines set with -o. It is shown
 * as it is written; whether it makes sense is told by postern check. */
#include <stdlib.h>
#include <string.h>

#include "conf/cf_lines.h"
#include "core/mem.h"
#include "ctl/compat_postconf.h"

enum { FIELDS = 8, WORDS_MAX = 1000, OPTIONS_MAX = WORDS_MAX / 2 };

static const char *const field_names[FIELDS] = {
    "service", "type", "private", "unprivileged", "chroot", "wakeup", "process_limit", "command"};

/* A line of master.cf: its words, the command's arguments behind the fields. */
struct line {
    char *words[WORDS_MAX + 1];
    size_t count;
    char *text; /* where they are */
};

/* service/type/field, of which any may be missing or "*". */
struct request {
    struct slice part[3];
    bool met;
};

static void parse_request(struct request *r, const char *word)
{
    struct slice rest = slice_str(word);
    *r = (struct request){.met = false};
    for (size_t i = 0; i < 3 && rest.len; i++) {
        r->part[i] = slice_first(rest, i < 2 ? slice_chr(rest, '/') : rest.len);
        rest = slice_from(rest, r->part[i].len + 1);
    }
}

static bool part_matches(struct slice part, const char *name)
{
    return part.len == 0 || slice_eq(part, SLICE("*")) || slice_eq(part, slice_str(name));
}

/* ---- lines ------------------------------------------------------------------------------ */

static int split(struct line *l, struct slice text, unsigned number, struct err *e)
{
    *l = (struct line){.text = slice_dup(text)};
    for (char *p = l->text; *p;) {
        size_t len = strcspn(p, " \t"), gap = strspn(p + len, " \t");
        if (l->count == WORDS_MAX)
            return err_set(e, "master.cf:%u: more than %d words", number, WORDS_MAX);
        l->words[l->count++] = p;
        p += len + gap;
        if (gap)
            p[-(long)gap] = '\0';
    }
    if (l->count < FIELDS)
        return err_set(e, "master.cf:%u: bad field count", number);
    return 0;
}

/* ---- -M ------------------------------------------------------------------------------------ */

static void print_line(const struct postconf *pc, const struct line *l)
{
    static const size_t columns[FIELDS] = {0, 11, 17, 25, 33, 41, 49, 57};
    char *const *w = l->words;
    size_t at = 0;
    for (size_t i = 0; i < FIELDS; i++) {
        /* a long field moves the ones behind it no further than it has to */
        size_t gap = i == 0 ? 0 : at < columns[i] ? columns[i] - at : 1;
        printf("%*s%s", (int)gap, "", w[i]);
        at += gap + strlen(w[i]);
    }
    bool own_line = false; /* the word before was an option with this value */
    for (size_t i = FIELDS; i < l->count; i++) {
        bool option = strcmp(w[i], "-o") == 0;
        bool breaks = pc->fold && !own_line && (option || i > FIELDS);
        printf("%s%s", breaks ? "\n    " : " ", w[i]);
        own_line = option;
    }
    putchar('\n');
}

/* ---- -F -------------------------------------------------------------------------------------- */

static void print_attribute(const struct postconf *pc, const struct line *l, const char *attribute,
                            const char *value)
{
    char *name = xasprintf("%s/%s/%s", l->words[0], l->words[1], attribute);
    postconf_print(pc, name, value);
    free(name);
}

static char *command_text(const struct line *l)
{
    char *text = xstrdup(l->words[FIELDS - 1]);
    for (size_t i = FIELDS; i < l->count; i++) {
        char *longer = xasprintf("%s %s", text, l->words[i]);
        free(text);
        text = longer;
    }
    return text;
}

static bool print_fields(const struct postconf *pc, const struct line *l, struct slice wanted)
{
    bool met = false;
    for (size_t i = 0; i < FIELDS; i++) {
        if (!part_matches(wanted, field_names[i]))
            continue;
        char *command = i == FIELDS - 1 ? command_text(l) : NULL;
        print_attribute(pc, l, field_names[i], command ? command : l->words[i]);
        free(command);
        met = true;
    }
    return met;
}

/* ---- -P -------------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* By name, as Postfix has them. */
static bool print_options(const struct postconf *pc, const struct line *l, struct slice wanted)
{
    char *options[OPTIONS_MAX];
    size_t count = 0;
    bool met = false;
    for (size_t i = FIELDS; i + 1 < l->count; i++)
        if (strcmp(l->words[i], "-o") == 0)
            options[count++] = l->words[++i];
    qsort(options, count, sizeof options[0], by_text);
    for (size_t i = 0; i < count; i++) {
        char *name = xstrdup(options[i]), *value = strchr(name, '=');
        if (value)
            *value++ = '\0';
        if (part_matches(wanted, name)) {
            print_attribute(pc, l, name, value ? value : "");
            met = true;
        }
        free(name);
    }
    return met;
}

/* ---- all ------------------------------------------------------------------------------------- */

static void answer(const struct postconf *pc, const struct line *l, struct request *r)
{
    if (!part_matches(r->part[0], l->words[0]) || !part_matches(r->part[1], l->words[1]))
        return;
    if (pc->master == 'M') {
        print_line(pc, l);
        r->met = true;
    } else if (pc->master == 'F') {
        r->met |= print_fields(pc, l, r->part[2]);
    } else {
        r->met |= print_options(pc, l, r->part[2]);
    }
}

/* Goes through the file for one request; 0, or -1 and why it cannot be read. */
static int go_through(const struct postconf *pc, struct slice text, struct request *r,
                      struct err *e)
{
    struct cf_reader reader;
    struct slice logical;
    int more;
    cf_open(&reader, "master.cf", text);
    while ((more = cf_next(&reader, &logical, e)) > 0) {
        struct line l;
        int rc = split(&l, logical, reader.start, e);
        if (rc == 0)
            answer(pc, &l, r);
        free(l.text);
        if (rc < 0) {
            more = -1;
            break;
        }
    }
    cf_close(&reader);
    return more;
}

static int bad_attribute(const struct postconf *pc, const struct request *r, struct err *e)
{
    bool known = pc->master != 'F' || r->part[2].len == 0;
    for (size_t i = 0; i < FIELDS && !known; i++)
        known = part_matches(r->part[2], field_names[i]);
    return known ? 0
                 : err_set(e, "invalid service attribute name: \"%.*s\"", SLICE_ARG(r->part[2]));
}

int postconf_master(const struct postconf *pc)
{
    char *path = postconf_path(pc, "master.cf");
    struct buf text = BUF_INIT(0);
    struct request r = {.met = false};
    struct err e;
    int rc = cf_read_file(path, &text, &e);
    if (rc == 0 && !pc->words[0])
        rc = go_through(pc, buf_slice(&text), &r, &e);
    for (size_t i = 0; rc == 0 && pc->words[i]; i++) {
        parse_request(&r, pc->words[i]);
        rc = bad_attribute(pc, &r, &e);
        if (rc == 0)
            rc = go_through(pc, buf_slice(&text), &r, &e);
        if (rc == 0 && !r.met)
            compat_say("warning: unmatched request: \"%.200s\"", pc->words[i]);
    }
    buf_free(&text);
    free(path);
    return rc < 0 ? compat_fatal(EXIT_FAILURE, "%s", e.text) : EXIT_SUCCESS;
}
