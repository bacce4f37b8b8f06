/*
 * pcre: tables with the grammar of Postfix's pcre_table(5).
 *
 * The text that is matched comes from peers, the patterns from the operator:
 * a pattern that backtracks without end is stopped by PCRE2's limits, reported
 * with its line, and counts as no match.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "tables/table_private.h"

enum rule_kind { RULE_MATCH, RULE_IF, RULE_ENDIF };

struct rule {
    enum rule_kind kind;
    bool negated;
    unsigned line;
    size_t endif; /* RULE_IF: index of its endif */
    pcre2_code *code;
    char *result; /* RULE_MATCH */
    int64_t reported;
};

struct pcre_table {
    struct rule *rules;
    size_t count, capacity;
    pcre2_match_context *context;
    pcre2_match_data *data;
    size_t open[TABLE_NESTING_MAX]; /* while reading: the ifs without endif */
    unsigned depth;
};

static const int64_t REPORT_INTERVAL = 60 * CLOCK_SECOND;

/* ---- reading --------------------------------------------------------------- */

static struct rule *add_rule(struct pcre_table *p, enum rule_kind kind, unsigned line)
{
    if (p->count == p->capacity) {
        p->capacity = p->capacity ? p->capacity * 2 : 16;
        p->rules = xreallocarray(p->rules, p->capacity, sizeof *p->rules);
    }
    struct rule *r = &p->rules[p->count++];
    *r = (struct rule){.kind = kind, .line = line};
    return r;
}

/* pcre_table(5): each flag toggles, and matching ignores case to begin with. */
static int flag_option(char c, uint32_t *option)
{
    switch (c) {
    case 'i':
        *option = PCRE2_CASELESS;
        return 0;
    case 'm':
        *option = PCRE2_MULTILINE;
        return 0;
    case 's':
        *option = PCRE2_DOTALL;
        return 0;
    case 'x':
        *option = PCRE2_EXTENDED;
        return 0;
    case 'A':
        *option = PCRE2_ANCHORED;
        return 0;
    case 'E':
        *option = PCRE2_DOLLAR_ENDONLY;
        return 0;
    case 'U':
        *option = PCRE2_UNGREEDY;
        return 0;
    case 'X': /* strictness about unknown escapes, which PCRE2 always has */
        *option = 0;
        return 0;
    default:
        return -1;
    }
}

/* Takes "/pattern/flags" off the front of *rest. */
static int parse_pattern(struct table *t, struct rule *r, struct slice *rest, struct err *e)
{
    const char *file = t->path.ptr;
    while (rest->len && rest->ptr[0] == '!') {
        r->negated = !r->negated;
        *rest = slice_trim(slice_from(*rest, 1));
    }
    if (rest->len == 0)
        return err_set(e, "%s:%u: no pattern", file, r->line);
    char delimiter = rest->ptr[0];
    if (delimiter == '\\' || (delimiter >= '0' && delimiter <= '9') ||
        ((delimiter | 0x20) >= 'a' && (delimiter | 0x20) <= 'z'))
        return err_set(e, "%s:%u: a pattern starts with a delimiter such as /", file, r->line);
    size_t end = 1;
    while (end < rest->len && rest->ptr[end] != delimiter)
        end += rest->ptr[end] == '\\' && end + 1 < rest->len ? 2 : 1;
    if (end >= rest->len)
        return err_set(e, "%s:%u: no closing %c", file, r->line, delimiter);
    struct slice pattern = slice_make(rest->ptr + 1, end - 1);
    *rest = slice_from(*rest, end + 1);
    uint32_t options = PCRE2_CASELESS, option;
    while (rest->len && rest->ptr[0] != ' ' && rest->ptr[0] != '\t') {
        if (flag_option(rest->ptr[0], &option) < 0)
            return err_set(e, "%s:%u: unknown flag after the pattern", file, r->line);
        options ^= option;
        *rest = slice_from(*rest, 1);
    }
    *rest = slice_trim(*rest);
    int number;
    PCRE2_SIZE offset;
    r->code = pcre2_compile((PCRE2_SPTR)pattern.ptr, pattern.len, options | PCRE2_NEVER_BACKSLASH_C,
                            &number, &offset, NULL);
    if (!r->code) {
        PCRE2_UCHAR text[128];
        pcre2_get_error_message(number, text, sizeof text);
        return err_set(e, "%s:%u: pattern, at character %zu: %s", file, r->line, offset + 1, text);
    }
    /* Without JIT (memory that must not be executable) the interpreter serves. */
    (void)pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE);
    return 0;
}

/* The next piece of a result: 0: *literal; 1: group number *group; -1: bad; 2: end. */
static int next_piece(struct slice *rest, struct slice *literal, uint32_t *group)
{
    if (rest->len == 0)
        return 2;
    size_t n = slice_chr(*rest, '$');
    if (n > 0) {
        *literal = slice_first(*rest, n);
        *rest = slice_from(*rest, n);
        return 0;
    }
    struct slice name = slice_from(*rest, 1);
    if (name.len && name.ptr[0] == '$') {
        *literal = slice_first(name, 1);
        *rest = slice_from(name, 1);
        return 0;
    }
    char close = name.len && name.ptr[0] == '{' ? '}' : name.len && name.ptr[0] == '(' ? ')' : 0;
    if (close) {
        name = slice_from(name, 1);
        n = slice_chr(name, close);
        if (n == name.len)
            return -1;
        *rest = slice_from(name, n + 1);
    } else {
        n = 0;
        while (n < name.len && name.ptr[n] >= '0' && name.ptr[n] <= '9')
            n++;
        *rest = slice_from(name, n);
    }
    uint64_t number;
    if (slice_u64(slice_first(name, n), &number) < 0 || number > 99)
        return -1;
    *group = (uint32_t)number;
    return 1;
}

static int check_result(struct table *t, const struct rule *r, struct err *e)
{
    struct slice rest = slice_str(r->result), literal;
    uint32_t group, groups = 0;
    int kind;
    pcre2_pattern_info(r->code, PCRE2_INFO_CAPTURECOUNT, &groups);
    while ((kind = next_piece(&rest, &literal, &group)) != 2) {
        if (kind < 0)
            return err_set(e, "%s:%u: expected $1, ${1}, $(1) or $$", t->path.ptr, r->line);
        if (kind == 1 && r->negated)
            return err_set(e, "%s:%u: $%u with a negated pattern", t->path.ptr, r->line, group);
        if (kind == 1 && group > groups)
            return err_set(e, "%s:%u: $%u, but the pattern has %u groups", t->path.ptr, r->line,
                           group, groups);
    }
    return 0;
}

static int parse_endif(struct table *t, struct slice rest, unsigned line, struct err *e)
{
    struct pcre_table *p = t->private_;
    if (rest.len)
        return err_set(e, "%s:%u: text after endif", t->path.ptr, line);
    if (p->depth == 0)
        return err_set(e, "%s:%u: endif without if", t->path.ptr, line);
    p->rules[p->open[--p->depth]].endif = p->count;
    add_rule(p, RULE_ENDIF, line);
    return 0;
}

static int parse_rule(struct table *t, struct slice text, unsigned line, struct err *e)
{
    struct pcre_table *p = t->private_;
    if (p->count >= TABLE_RULES_MAX)
        return err_set(e, "%s:%u: more than %d rules", t->path.ptr, line, TABLE_RULES_MAX);
    if (table_keyword(text, SLICE("endif")))
        return parse_endif(t, slice_trim(slice_from(text, 5)), line, e);
    bool is_if = table_keyword(text, SLICE("if"));
    if (is_if) {
        text = slice_trim(slice_from(text, 2));
        if (p->depth == TABLE_NESTING_MAX)
            return err_set(e, "%s:%u: more than %d ifs inside each other", t->path.ptr, line,
                           TABLE_NESTING_MAX);
        p->open[p->depth++] = p->count;
    }
    struct rule *r = add_rule(p, is_if ? RULE_IF : RULE_MATCH, line);
    if (parse_pattern(t, r, &text, e) < 0)
        return -1;
    if (is_if)
        return text.len ? err_set(e, "%s:%u: text after the pattern of if", t->path.ptr, line) : 0;
    if (text.len == 0)
        return err_set(e, "%s:%u: the pattern has no result", t->path.ptr, line);
    r->result = slice_dup(text);
    return check_result(t, r, e);
}

static int open_pcre(struct table *t, int fd, struct err *e)
{
    struct pcre_table *p = xcalloc(1, sizeof *p);
    struct buf content;
    struct table_lines lines;
    t->private_ = p;
    int rc = table_read_file(t, fd, &content, e);
    table_lines_init(&lines, t, buf_slice(&content));
    while (rc == 0 && (rc = table_lines_next(&lines, e)) == 1)
        rc = parse_rule(t, buf_slice(&lines.text), lines.line, e);
    if (rc == 0 && p->depth)
        rc = err_set(e, "%s:%u: if without endif", t->path.ptr,
                     p->rules[p->open[p->depth - 1]].line);
    table_lines_free(&lines);
    buf_free(&content);
    if (rc < 0)
        return -1;
    p->context = pcre2_match_context_create(NULL);
    p->data = pcre2_match_data_create(100, NULL);
    if (!p->context || !p->data)
        panic("out of memory");
    pcre2_set_match_limit(p->context, TABLE_PCRE_MATCH_LIMIT);
    pcre2_set_depth_limit(p->context, TABLE_PCRE_DEPTH_LIMIT);
    pcre2_set_heap_limit(p->context, TABLE_PCRE_HEAP_LIMIT);
    return 0;
}

/* ---- matching -------------------------------------------------------------- */

/* Whether the rule applies. A limit counts as "no", also under '!': a rule that
 * could not be evaluated must not act. */
static bool applies(struct table *t, struct rule *r, struct slice key, int *groups)
{
    struct pcre_table *p = t->private_;
    int rc = pcre2_match(r->code, (PCRE2_SPTR)key.ptr, key.len, 0, 0, p->data, p->context);
    if (rc > 0 || rc == PCRE2_ERROR_NOMATCH) {
        *groups = rc;
        return (rc > 0) != r->negated;
    }
    int64_t now = clock_mono();
    if (r->reported == 0 || now - r->reported >= REPORT_INTERVAL) {
        PCRE2_UCHAR text[128];
        pcre2_get_error_message(rc, text, sizeof text);
        log_warning("%s:%u: pattern given up on \"%s\", counts as no match: %s", t->path.ptr,
                    r->line, log_esc(key), text);
        r->reported = now;
    }
    return false;
}

static int substitute(const struct rule *r, struct pcre_table *p, struct slice key, int groups,
                      struct buf *value)
{
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(p->data);
    struct slice rest = slice_str(r->result), literal;
    uint32_t group;
    int kind;
    while ((kind = next_piece(&rest, &literal, &group)) != 2) {
        if (kind == 1) {
            bool set = groups > 0 && group < (uint32_t)groups && at[2 * group] != PCRE2_UNSET &&
                       at[2 * group] <= at[2 * group + 1];
            literal = set ? slice_make(key.ptr + at[2 * group], at[2 * group + 1] - at[2 * group])
                          : SLICE("");
        }
        if (buf_adds(value, literal) < 0)
            return -1;
    }
    return 0;
}

static enum table_result lookup_pcre(struct table *t, struct slice key, struct buf *value,
                                     struct err *e)
{
    struct pcre_table *p = t->private_;
    for (size_t i = 0; i < p->count; i++) {
        struct rule *r = &p->rules[i];
        int groups = 0;
        if (r->kind == RULE_ENDIF)
            continue;
        bool yes = applies(t, r, key, &groups);
        if (r->kind == RULE_IF) {
            if (!yes)
                i = r->endif;
            continue;
        }
        if (!yes)
            continue;
        if (substitute(r, p, key, groups, value) < 0) {
            err_set(e, "%s:%u: result too long", t->path.ptr, r->line);
            return TABLE_ERROR;
        }
        return TABLE_FOUND;
    }
    return TABLE_NOT_FOUND;
}

static void close_pcre(struct table *t)
{
    struct pcre_table *p = t->private_;
    if (!p)
        return;
    for (size_t i = 0; i < p->count; i++) {
        pcre2_code_free(p->rules[i].code);
        free(p->rules[i].result);
    }
    free(p->rules);
    pcre2_match_context_free(p->context);
    pcre2_match_data_free(p->data);
    xfree(&t->private_);
}

const struct table_kind table_pcre = {.name = "pcre",
                                      .needs_file = true,
                                      .pattern = true,
                                      .open = open_pcre,
                                      .lookup = lookup_pcre,
                                      .close = close_pcre};
