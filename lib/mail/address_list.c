/* Lists of addresses in header fields (RFC 5322 section 3.4), as people and
 * programs write them. Pure: no I/O. */
#include "mail/address_list.h"

enum { COMMENT_DEPTH_MAX = 100 };

/* One mailbox while it is read. */
struct scan {
    struct slice rest;
    struct buf *out;
    bool angle, had_angle; /* inside <>; they have been there */
    bool gap;              /* white space since the last word */
    bool special;          /* the last thing was . or @, which white space may follow */
    bool words;            /* several words: a display name, or nonsense */
};

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static char take(struct scan *s)
{
    char c = *s->rest.ptr;
    s->rest = slice_from(s->rest, 1);
    return c;
}

/* Behind "(": up to its end. */
static int skip_comment(struct scan *s)
{
    for (int depth = 1; s->rest.len;) {
        char c = take(s);
        if (c == '\\' && s->rest.len)
            take(s);
        else if (c == '(' && ++depth > COMMENT_DEPTH_MAX)
            return -1;
        else if (c == ')' && --depth == 0)
            return 0;
    }
    return -1;
}

static int add(struct scan *s, char c)
{
    return buf_addc(s->out, c);
}

/* A quoted string or an address literal, its ends included. */
static int add_enclosed(struct scan *s, char first, char last)
{
    if (add(s, first) < 0)
        return -1;
    while (s->rest.len) {
        char c = take(s);
        if (c == '\r' || c == '\n')
            continue; /* folded */
        if (add(s, c) < 0)
            return -1;
        if (c == last)
            return 0;
        if (c == '\\' && (s->rest.len == 0 || add(s, take(s)) < 0))
            return -1;
    }
    return -1;
}

static int open_angle(struct scan *s)
{
    if (s->angle || s->had_angle)
        return -1;
    buf_clear(s->out); /* a display name */
    s->angle = s->had_angle = true;
    s->words = s->gap = false;
    return 0;
}

/* Before a word or a special one: whether white space was in a place where an
 * address has none. */
static void note_gap(struct scan *s, bool special)
{
    if (s->gap && s->out->len && !special && !s->special)
        s->words = true;
    s->gap = false;
    s->special = special;
}

/* One character of a mailbox. 0; 1 at its end; -1. */
static int step(struct scan *s)
{
    char c = take(s);
    if (blank(c)) {
        s->gap = true;
        return 0;
    }
    switch (c) {
    case '(':
        s->gap = true;
        return skip_comment(s);
    case '<':
        return open_angle(s);
    case '>':
        if (!s->angle)
            return -1;
        s->angle = false;
        return 0;
    case ',':
        if (s->angle && s->out->len && s->out->data[0] == '@')
            return add(s, c); /* a source route */
        return s->angle ? -1 : 1;
    case ';':
        return s->angle ? -1 : 1;
    case ':':
        /* the end of a source route, or of a group's name */
        if (s->angle ? s->out->len == 0 || s->out->data[0] != '@' : s->had_angle)
            return -1;
        buf_clear(s->out);
        s->words = s->gap = false;
        return 0;
    default:
        break;
    }
    if (s->had_angle && !s->angle)
        return -1; /* words behind the address */
    note_gap(s, c == '@' || c == '.');
    if (c == '"')
        return add_enclosed(s, '"', '"');
    if (c == '[')
        return add_enclosed(s, '[', ']');
    return add(s, c);
}

int address_list_next(struct slice *rest, struct buf *out)
{
    struct scan s = {.rest = *rest, .out = out};
    int rc = 0;
    buf_clear(out);
    while (s.rest.len && rc == 0) {
        rc = step(&s);
        bool empty = out->len == 0 && !s.had_angle;
        if (rc == 1 && empty)
            rc = 0; /* ",," is allowed (RFC 5322 section 4.4), and so is an empty group */
    }
    *rest = s.rest;
    if (rc < 0 || s.angle || s.words || (s.had_angle && out->len == 0))
        return -1;
    return out->len > 0;
}
