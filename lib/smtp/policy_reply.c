#include "smtp/policy_reply.h"

/* ---- the reply ------------------------------------------------------------- */

static bool has_control(struct slice line)
{
    for (size_t i = 0; i < line.len; i++) {
        unsigned char c = (unsigned char)line.ptr[i];
        if ((c < ' ' && c != '\t') || c == 0x7f)
            return true;
    }
    return false;
}

enum policy_reply_status policy_reply_parse(struct slice in, struct slice *action, size_t *used)
{
    struct slice all = slice_first(in, POLICY_REPLY_MAX), rest = all;
    bool found = false;
    *action = SLICE("");
    *used = 0;
    for (;;) {
        size_t lf = slice_chr(rest, '\n');
        struct slice line = slice_first(rest, lf);
        if (has_control(line))
            return POLICY_REPLY_BAD;
        if (lf == rest.len)
            return in.len >= POLICY_REPLY_MAX ? POLICY_REPLY_BAD : POLICY_REPLY_MORE;
        *used += lf + 1;
        rest = slice_from(all, *used);
        if (line.len == 0)
            return found ? POLICY_REPLY_DONE : POLICY_REPLY_BAD;
        size_t equals = slice_chr(line, '=');
        if (equals == line.len)
            return POLICY_REPLY_BAD;
        if (!slice_eq(slice_first(line, equals), SLICE("action")))
            continue; /* attributes of a later protocol */
        if (found)
            return POLICY_REPLY_BAD;
        found = true;
        *action = slice_trim(slice_from(line, equals + 1));
    }
}

/* ---- the action ------------------------------------------------------------- */

static const struct {
    struct slice word;
    enum policy_verb verb;
    uint16_t code;
} words[] = {
    {{"DUNNO", 5}, POLICY_DUNNO, 0},
    {{"OK", 2}, POLICY_PERMIT, 0},
    {{"PERMIT", 6}, POLICY_PERMIT, 0},
    {{"REJECT", 6}, POLICY_REFUSE, 554},
    {{"DEFER", 5}, POLICY_REFUSE, 450},
    {{"DEFER_IF_PERMIT", 15}, POLICY_DEFER_IF_PERMIT, 450},
    {{"DEFER_IF_REJECT", 15}, POLICY_DEFER_IF_REJECT, 450},
    {{"HOLD", 4}, POLICY_HOLD, 0},
    {{"PREPEND", 7}, POLICY_PREPEND, 0},
    {{"INFO", 4}, POLICY_LOG, 0},
    {{"WARN", 4}, POLICY_LOG, 0},
};

static size_t digits(struct slice s)
{
    size_t n = 0;
    while (n < s.len && s.ptr[n] >= '0' && s.ptr[n] <= '9')
        n++;
    return n;
}

/* The length of an enhanced status code at the start (RFC 3463), or 0. */
static size_t enhanced_length(struct slice s)
{
    size_t at = 0;
    for (int part = 0; part < 3; part++) {
        size_t n = digits(slice_from(s, at));
        if (n < 1 || n > (part ? 3u : 1u))
            return 0;
        at += n;
        if (part < 2 && (at >= s.len || s.ptr[at++] != '.'))
            return 0;
    }
    bool ends = at == s.len || s.ptr[at] == ' ';
    return ends && (s.ptr[0] == '2' || s.ptr[0] == '4' || s.ptr[0] == '5') ? at : 0;
}

/* Takes the enhanced code off the text; its class follows the reply code. */
static void take_enhanced(struct policy_action *a)
{
    size_t n = enhanced_length(a->text);
    memcpy(a->enhanced, "4.7.1", sizeof "4.7.1");
    if (n) {
        memcpy(a->enhanced, a->text.ptr, n);
        a->enhanced[n] = '\0';
        a->text = slice_trim(slice_from(a->text, n));
    }
    a->enhanced[0] = a->code >= 500 ? '5' : '4';
}

/* RFC 5322 2.2: a name of printable ASCII, a colon, and what may follow it. */
static bool is_header_line(struct slice s)
{
    size_t colon = slice_chr(s, ':');
    if (colon == 0 || colon == s.len || s.len > POLICY_HEADER_MAX || has_control(s))
        return false;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c > '~' || (i < colon && c <= ' '))
            return false;
    }
    return true;
}

static int take_code(struct slice word, struct policy_action *out)
{
    uint64_t code;
    if (word.len != 3 || slice_u64(word, &code) < 0 || code < 400 || code > 599)
        return -1;
    out->code = (uint16_t)code;
    out->verb = POLICY_REFUSE;
    return 0;
}

void policy_action_parse(struct slice action, struct policy_action *out)
{
    struct slice text = slice_trim(action);
    size_t blank = 0;
    while (blank < text.len && text.ptr[blank] != ' ' && text.ptr[blank] != '\t')
        blank++;
    struct slice word = slice_first(text, blank);
    *out = (struct policy_action){.verb = POLICY_UNSUPPORTED,
                                  .text = slice_trim(slice_from(text, blank))};
    if (take_code(word, out) < 0)
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
            if (slice_caseeq(word, words[i].word)) {
                out->verb = words[i].verb;
                out->code = words[i].code;
            }
    if (out->code)
        take_enhanced(out);
    if (out->verb == POLICY_PREPEND && !is_header_line(out->text))
        out->verb = POLICY_UNSUPPORTED;
}
