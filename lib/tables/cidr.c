/*
 * cidr: tables with the grammar of Postfix's cidr_table(5): "network result" lines, tried in
 * order, with if, endif and !. Only keys that are addresses are found: as such, or as the
 * address literals of mail, [192.0.2.1] and [IPv6:2001:db8::1].
 */
#include "core/mem.h"
#include "core/network.h"
#include "tables/table_private.h"

enum rule_kind { RULE_MATCH, RULE_IF, RULE_ENDIF };

struct rule {
    struct network network;
    uint8_t kind; /* enum rule_kind */
    bool negated;
    size_t endif; /* RULE_IF: index of its endif */
    char *result; /* RULE_MATCH */
};

struct cidr_table {
    struct rule *rules;
    size_t count, capacity;
    size_t open[TABLE_NESTING_MAX]; /* while reading: the ifs without endif */
    unsigned lines[TABLE_NESTING_MAX];
    unsigned depth;
};

/* ---- reading --------------------------------------------------------------- */

static struct rule *add_rule(struct cidr_table *c, enum rule_kind kind)
{
    if (c->count == c->capacity) {
        c->capacity = c->capacity ? c->capacity * 2 : 16;
        c->rules = xreallocarray(c->rules, c->capacity, sizeof *c->rules);
    }
    struct rule *r = &c->rules[c->count++];
    *r = (struct rule){.kind = (uint8_t)kind};
    return r;
}

/* Takes "!network" off the front of *rest. */
static int parse_network(struct table *t, struct rule *r, struct slice *rest, unsigned line,
                         struct err *e)
{
    while (rest->len && rest->ptr[0] == '!') {
        r->negated = !r->negated;
        *rest = slice_trim(slice_from(*rest, 1));
    }
    size_t n = 0;
    while (n < rest->len && rest->ptr[n] != ' ' && rest->ptr[n] != '\t')
        n++;
    if (network_parse(slice_first(*rest, n), &r->network, e) < 0)
        return err_prefix(e, "%s:%u", t->path.ptr, line);
    *rest = slice_trim(slice_from(*rest, n));
    return 0;
}

static int parse_endif(struct table *t, struct slice rest, unsigned line, struct err *e)
{
    struct cidr_table *c = t->private_;
    if (rest.len)
        return err_set(e, "%s:%u: text after endif", t->path.ptr, line);
    if (c->depth == 0)
        return err_set(e, "%s:%u: endif without if", t->path.ptr, line);
    c->rules[c->open[--c->depth]].endif = c->count;
    add_rule(c, RULE_ENDIF);
    return 0;
}

static int parse_if(struct table *t, struct slice rest, unsigned line, struct err *e)
{
    struct cidr_table *c = t->private_;
    if (c->depth == TABLE_NESTING_MAX)
        return err_set(e, "%s:%u: more than %d ifs inside each other", t->path.ptr, line,
                       TABLE_NESTING_MAX);
    c->lines[c->depth] = line;
    c->open[c->depth++] = c->count;
    if (parse_network(t, add_rule(c, RULE_IF), &rest, line, e) < 0)
        return -1;
    return rest.len ? err_set(e, "%s:%u: text after the network of if", t->path.ptr, line) : 0;
}

static int parse_rule(struct table *t, struct slice text, unsigned line, struct err *e)
{
    struct cidr_table *c = t->private_;
    if (c->count >= TABLE_RULES_MAX)
        return err_set(e, "%s:%u: more than %d rules", t->path.ptr, line, TABLE_RULES_MAX);
    if (table_keyword(text, SLICE("endif")))
        return parse_endif(t, slice_trim(slice_from(text, 5)), line, e);
    if (table_keyword(text, SLICE("if")))
        return parse_if(t, slice_trim(slice_from(text, 2)), line, e);
    struct rule *r = add_rule(c, RULE_MATCH);
    if (parse_network(t, r, &text, line, e) < 0)
        return -1;
    if (text.len == 0)
        return err_set(e, "%s:%u: the network has no result", t->path.ptr, line);
    r->result = slice_dup(text);
    return 0;
}

static int open_cidr(struct table *t, int fd, struct err *e)
{
    struct cidr_table *c = xcalloc(1, sizeof *c);
    struct buf content;
    struct table_lines lines;
    t->private_ = c;
    int rc = table_read_file(t, fd, &content, e);
    table_lines_init(&lines, t, buf_slice(&content));
    while (rc == 0 && (rc = table_lines_next(&lines, e)) == 1)
        rc = parse_rule(t, buf_slice(&lines.text), lines.line, e);
    if (rc == 0 && c->depth)
        rc = err_set(e, "%s:%u: if without endif", t->path.ptr, c->lines[c->depth - 1]);
    table_lines_free(&lines);
    buf_free(&content);
    return rc;
}

/* ---- matching -------------------------------------------------------------- */

/* 4 or 16 bytes in network order; their number, or -1: the key is no address. `key` is in lower
 * case. */
static int address_of(struct slice key, unsigned char out[16])
{
    static const struct slice tag = {"[ipv6:", 6};
    if (!slice_starts(key, tag) || key.ptr[key.len - 1] != ']')
        return network_address(key, out);
    key = slice_make(key.ptr + tag.len, key.len - tag.len - 1);
    return network_address(key, out) == 16 ? 16 : -1;
}

static enum table_result lookup_cidr(struct table *t, struct slice key, struct buf *value,
                                     struct err *e)
{
    struct cidr_table *c = t->private_;
    unsigned char bytes[16];
    int len = address_of(key, bytes);
    if (len < 0)
        return TABLE_NOT_FOUND;
    for (size_t i = 0; i < c->count; i++) {
        const struct rule *r = &c->rules[i];
        if (r->kind == RULE_ENDIF)
            continue;
        bool yes = network_has(&r->network, slice_make(bytes, (size_t)len)) != r->negated;
        if (!yes && r->kind == RULE_IF)
            i = r->endif;
        if (!yes || r->kind == RULE_IF)
            continue;
        if (buf_adds(value, slice_str(r->result)) == 0)
            return TABLE_FOUND;
        err_set(e, "%s: value too long", t->spec);
        return TABLE_ERROR;
    }
    return TABLE_NOT_FOUND;
}

static void close_cidr(struct table *t)
{
    struct cidr_table *c = t->private_;
    if (!c)
        return;
    for (size_t i = 0; i < c->count; i++)
        free(c->rules[i].result);
    free(c->rules);
    xfree(&t->private_);
}

const struct table_kind table_cidr = {.name = "cidr",
                                      .needs_file = true,
                                      .open = open_cidr,
                                      .lookup = lookup_cidr,
                                      .close = close_cidr};
