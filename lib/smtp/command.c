#include "smtp/command.h"

/* ---- lines ----------------------------------------------------------------- */

void line_init(struct line_reader *r, uint32_t limit)
{
    *r = (struct line_reader){.limit = limit};
}

static enum line_status discard(struct line_reader *r, struct slice in, size_t lf, size_t *consumed)
{
    bool ended = lf < in.len;
    *consumed = ended ? lf + 1 : in.len;
    if (*consumed > COMMAND_DISCARD_MAX - r->discarded) {
        r->discarded = COMMAND_DISCARD_MAX;
        return LINE_FLOOD;
    }
    r->discarded += (uint32_t)*consumed;
    if (!ended)
        return LINE_MORE;
    r->discarded = 0;
    return LINE_TOO_LONG;
}

enum line_status line_next(struct line_reader *r, struct slice in, size_t *consumed,
                           struct slice *line)
{
    *consumed = 0;
    if (in.len == 0)
        return LINE_MORE;
    size_t lf = slice_chr(in, '\n');
    if (r->discarded || lf >= r->limit || (lf == in.len && in.len >= r->limit))
        return discard(r, in, lf, consumed);
    if (lf == in.len)
        return LINE_MORE;
    *consumed = lf + 1;
    *line = slice_first(in, lf > 0 && in.ptr[lf - 1] == '\r' ? lf - 1 : lf);
    return LINE_READY;
}

/* ---- commands -------------------------------------------------------------- */

static const struct {
    enum smtp_verb verb;
    struct slice name;
} verbs[] = {
#define SMTP_VERB(enumerator, text) {enumerator, {text, sizeof(text) - 1}},
    SMTP_VERBS
#undef SMTP_VERB
};

/* "PRI" begins HTTP/2. */
static const char *const http_methods[] = {"GET",     "POST",   "PUT",   "HEAD",  "CONNECT",
                                           "OPTIONS", "DELETE", "TRACE", "PATCH", "PRI"};

static enum smtp_verb find_verb(struct slice name)
{
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (slice_caseeq(name, verbs[i].name))
            return verbs[i].verb;
    for (size_t i = 0; i < sizeof http_methods / sizeof http_methods[0]; i++)
        if (slice_caseeq(name, slice_str(http_methods[i])))
            return VERB_HTTP;
    return VERB_UNKNOWN;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct slice skip_blanks(struct slice s)
{
    while (s.len && is_blank(s.ptr[0]))
        s = slice_from(s, 1);
    return s;
}

static bool has_control(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c < 0x20 || c == 0x7f)
            return true;
    }
    return false;
}

int command_parse(struct slice line, struct smtp_command *out)
{
    *out = (struct smtp_command){.verb = VERB_UNKNOWN};
    while (line.len && is_blank(line.ptr[line.len - 1]))
        line.len--; /* RFC 5321 4.1.1: trailing white space is tolerated */
    if (has_control(line))
        return -1;
    line = skip_blanks(line);
    size_t end = slice_chr(line, ' ');
    out->name = slice_first(line, end);
    out->argument = skip_blanks(slice_from(line, end));
    out->verb = find_verb(out->name);
    return 0;
}

const char *command_name(enum smtp_verb verb)
{
    if (verb == VERB_HTTP)
        return "HTTP";
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (verbs[i].verb == verb)
            return verbs[i].name.ptr;
    return "UNKNOWN";
}

int command_keyword(struct slice *argument, struct slice keyword)
{
    if (!slice_casestarts(*argument, keyword))
        return -1;
    *argument = skip_blanks(slice_from(*argument, keyword.len));
    return 0;
}

int command_bdat(struct slice argument, uint64_t *size, bool *last)
{
    struct slice rest = argument, number = slice_cut(&rest, ' ');
    rest = slice_trim(rest);
    *last = slice_caseeq(rest, SLICE("LAST"));
    if (rest.len && !*last)
        return -1;
    return slice_u64(number, size);
}

bool command_helo_valid(struct slice argument)
{
    return argument.len > 0 && argument.len <= HELO_MAX &&
           slice_chr(argument, ' ') == argument.len && !has_control(argument);
}
