/* Lists of addresses in header fields (RFC 5322 section 3.4), as people and
 * programs write them. Pure: no I/O. */
#include "mail/address_list.h"

#include <string.h>

enum { COMMENT_DEPTH_MAX = 100 };

/* One mailbox while it is read. */
struct scan {
    struct slice rest;
    struct buf *out;
    bool angle, had_angle; /* inside <>; they have been there */
    bool gap;              /* white space since the last word */
    bool special;          /* the last thing was . or @, which white space may follow */
    bool words;            /* several words: a display name, or nonsense */
    bool named;            /* words of a name that look like addresses are wanted */
    bool at;               /* the word that is read has an @ that is not quoted */
    size_t word;           /* where in out it begins */
    size_t from, to;       /* in out: the first such word of the name; to is 0: none yet */
    struct slice behind;   /* what follows it */
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

/* A word ends before the character that was taken last. An encoded word (RFC 2047) is text,
 * whatever is in it; what ends so is no domain. */
static void end_word(struct scan *s)
{
    struct slice word = slice_from(buf_slice(s->out), s->word);
    bool encoded = slice_starts(word, SLICE("=?")) && slice_ends(word, SLICE("?="));
    if (s->named && s->at && s->to == 0 && !s->angle && !encoded) {
        s->from = s->word;
        s->to = s->out->len;
        s->behind = slice_make(s->rest.ptr - 1, s->rest.len + 1);
    }
    s->word = s->out->len;
    s->at = false;
}

/* What was read turns out to be a name. If a word of it is wanted, that is the result, and
 * the next call goes on behind it. */
static bool is_named(struct scan *s)
{
    end_word(s);
    if (s->to == 0)
        return false;
    memmove(s->out->data, s->out->data + s->from, s->to - s->from);
    s->out->len = s->to - s->from;
    s->rest = s->behind;
    s->words = false;
    return true;
}

static int open_angle(struct scan *s)
{
    if (s->angle || s->had_angle)
        return -1;
    if (is_named(s))
        return 1;
    buf_clear(s->out); /* a display name */
    s->word = 0;
    s->angle = s->had_angle = true;
    s->words = s->gap = false;
    return 0;
}

/* Before a word or a special one: whether white space was in a place where an
 * address has none. */
static void note_gap(struct scan *s, bool special)
{
    if (s->gap && s->out->len && !special && !s->special) {
        s->words = true;
        end_word(s);
    }
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
        if (!s->angle && is_named(s))
            return 1;
        buf_clear(s->out);
        s->word = 0;
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
    size_t before = s->out->len;
    int rc = c == '[' ? add_enclosed(s, '[', ']') : add(s, c);
    s->at |= slice_chr(slice_from(buf_slice(s->out), before), '@') < s->out->len - before;
    return rc;
}

static int next(struct slice *rest, bool named, struct buf *out)
{
    struct scan s = {.rest = *rest, .out = out, .named = named};
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

int address_list_next(struct slice *rest, struct buf *out)
{
    return next(rest, false, out);
}

int address_list_named(struct slice *rest, struct buf *out)
{
    return next(rest, true, out);
}
