#include "mail/header.h"
#include "mail/header_name.h"
#include "mail/header_signer.h"

enum scan_state {
    LINE_START,
    START_CR,  /* behind a CR at the start of a line */
    NAME,      /* in a field's name */
    NAME_OVER, /* in blanks between name and colon (RFC 5322 4.5.8) */
    BODY
};

static const struct slice known[HEADER_KNOWN_COUNT] = {
#define HEADER_FIELD(enumerator, text) [enumerator] = {text, sizeof(text) - 1},
    HEADER_FIELDS
#undef HEADER_FIELD
};

void header_scan_init(struct header_scan *h, const struct header_limits *limits)
{
    memset(h, 0, offsetof(struct header_scan, name));
    h->limits = *limits;
    h->state = LINE_START;
    h->field = HEADER_KNOWN_COUNT;
}

void header_scan_class(struct header_scan *h, struct slice name)
{
    h->class_field[0] = '\0';
    if (name.len == 0 || name.len > HEADER_NAME_MAX)
        return;
    memcpy(h->class_field, name.ptr, name.len);
    h->class_field[name.len] = '\0';
}

static void finish(struct header_scan *h)
{
    while (h->message_id_len && header_blank(h->message_id[h->message_id_len - 1]))
        h->message_id_len--;
    h->done = true;
}

static void fail(struct header_scan *h, enum header_problem problem)
{
    h->problem = problem;
    finish(h);
}

/* The current line turned out not to belong to the header. */
static void body_begins(struct header_scan *h)
{
    h->no_blank_line = true;
    finish(h);
}

static bool keeps_authors(const struct header_scan *h)
{
    return h->authors && (h->field == HEADER_FROM || h->field == HEADER_SENDER);
}

static void keep_authors(struct header_scan *h, struct slice part)
{
    if (buf_adds(h->authors, part) < 0)
        h->authors_cut = true;
}

static void begin_field(struct header_scan *h)
{
    struct slice name = {h->name, h->name_len};
    h->state = BODY;
    h->field = HEADER_KNOWN_COUNT;
    h->signer.state = h->signer.depth = 0;
    h->signer.escaped = false;
    h->in_class = !h->had_class && *h->class_field && slice_caseeq(name, slice_str(h->class_field));
    h->had_class = h->had_class || h->in_class;
    for (uint8_t i = 0; i < HEADER_KNOWN_COUNT; i++)
        if (slice_caseeq(name, known[i]))
            h->field = i;
    if (h->field == HEADER_KNOWN_COUNT)
        return;
    h->count[h->field]++;
    if (keeps_authors(h))
        keep_authors(h, slice_make("", 1));
    if (h->field == HEADER_RECEIVED && h->count[HEADER_RECEIVED] > h->limits.hops)
        fail(h, HEADER_LOOP);
}

static void keep_message_id(struct header_scan *h, struct slice part)
{
    for (size_t i = 0; i < part.len && h->message_id_len < HEADER_MESSAGE_ID_MAX; i++) {
        char c = part.ptr[i];
        if (c != '\r' && c != '\n' && (h->message_id_len || !header_blank(c)))
            h->message_id[h->message_id_len++] = c;
    }
}

/* Only "No" has a meaning. */
static void keep_tls_required(struct header_scan *h, struct slice part)
{
    for (size_t i = 0; i < part.len && h->tls_len < sizeof h->tls; i++)
        if (!header_blank(part.ptr[i]) && part.ptr[i] != '\r' && part.ptr[i] != '\n')
            h->tls[h->tls_len++] = part.ptr[i];
    h->tls_not_required = slice_caseeq(slice_make(h->tls, h->tls_len), SLICE("No"));
}

static void keep_word(struct header_word *w, struct slice part)
{
    for (size_t i = 0; i < part.len && w->len < HEADER_WORD_MAX; i++) {
        char c = part.ptr[i];
        if (!header_blank(c) && c != '\r' && c != '\n')
            w->text[w->len++] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
}

static void end_line(struct header_scan *h)
{
    h->size += h->line;
    h->line = 0;
    h->state = LINE_START;
    if (++h->lines > h->limits.lines)
        fail(h, HEADER_TOO_MANY_LINES);
}

/* Goes on to behind the line's end, or takes all there is. */
static size_t body_bytes(struct header_scan *h, struct slice in)
{
    size_t lf = slice_chr(in, '\n');
    size_t taken = lf < in.len ? lf + 1 : lf;
    if (h->field == HEADER_MESSAGE_ID && h->count[HEADER_MESSAGE_ID] == 1)
        keep_message_id(h, slice_first(in, taken));
    else if (h->field == HEADER_TLS_REQUIRED && h->count[HEADER_TLS_REQUIRED] == 1)
        keep_tls_required(h, slice_first(in, taken));
    else if (h->field == HEADER_DKIM_SIGNATURE && h->count[HEADER_DKIM_SIGNATURE] == 1)
        header_signer_dkim(&h->signer, slice_first(in, taken));
    else if (h->field == HEADER_PRECEDENCE && h->count[HEADER_PRECEDENCE] == 1)
        keep_word(&h->precedence, slice_first(in, taken));
    else if (keeps_authors(h))
        keep_authors(h, slice_first(in, taken));
    if (h->field == HEADER_FROM && h->count[HEADER_FROM] == 1)
        header_signer_from(&h->signer, slice_first(in, taken));
    if (h->in_class)
        keep_word(&h->mail_class, slice_first(in, taken));
    h->line += taken;
    if (lf < in.len)
        end_line(h);
    return taken;
}

static void name_byte(struct header_scan *h, char c)
{
    h->line++;
    if (h->state == NAME && header_name_char(c) && h->name_len < HEADER_NAME_MAX)
        h->name[h->name_len++] = c;
    else if (c == ':' && h->name_len)
        begin_field(h);
    else if (header_blank(c) && h->name_len)
        h->state = NAME_OVER;
    else
        body_begins(h);
}

/* Takes bytes from the front of `in`, which is not empty; returns how many. */
static size_t step(struct header_scan *h, struct slice in)
{
    char c = in.ptr[0];
    switch ((enum scan_state)h->state) {
    case LINE_START:
        if (c == '\r') {
            h->state = START_CR;
        } else if (header_blank(c) && h->size) {
            h->state = BODY; /* a folded line of the field before it */
            return 0;
        } else {
            h->name_len = 0;
            h->state = NAME;
            return 0;
        }
        return 1;
    case START_CR:
        if (c == '\n') {
            h->size += 2;
            finish(h);
        } else {
            body_begins(h);
        }
        return 1;
    case NAME:
    case NAME_OVER:
        name_byte(h, c);
        return 1;
    case BODY:
        return body_bytes(h, in);
    }
    return in.len;
}

bool header_scan_feed(struct header_scan *h, struct slice content)
{
    while (content.len && !h->done) {
        content = slice_from(content, step(h, content));
        if (!h->done && h->size + h->line > h->limits.size)
            fail(h, HEADER_TOO_LARGE);
    }
    return h->done;
}

void header_scan_end(struct header_scan *h)
{
    if (h->done)
        return;
    if (h->state == NAME || h->state == NAME_OVER || h->state == START_CR) {
        body_begins(h);
        return;
    }
    h->size += h->line;
    finish(h);
}

const struct refusal *header_refusal(const struct header_scan *h)
{
    static const struct refusal refusals[] = {
        [HEADER_TOO_LARGE] = {554, "5.6.0", "Message header is too large"},
        [HEADER_TOO_MANY_LINES] = {554, "5.6.0", "Message header has too many lines"},
        [HEADER_LOOP] = {554, "5.4.6", "Too many hops: the message is in a mail loop"},
    };
    return h->problem == HEADER_OK ? NULL : &refusals[h->problem];
}
