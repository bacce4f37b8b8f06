#include "smtp/data.h"

#include "core/mem.h"
#include "smtp/address.h"

enum data_state {
    LINE_START,  /* behind a true CRLF, or at the beginning: only here may the end begin */
    LOOSE_START, /* behind a bare LF or CR that was made a line end */
    IN_LINE,
    CR,     /* behind a CR that is not counted or written yet */
    DOT,    /* behind a dot at LINE_START, which is not content */
    DOT_CR, /* and a CR */
    ENDED
};

/* One call's view of its input: [run, p) is content that waits to be copied. */
struct feed {
    struct data_machine *m;
    struct buf *out;
    const char *p, *run, *end;
    const char *next_lf; /* the first LF at or behind p, `end` if there is none, NULL: not
                          * looked for yet. Kept, or many CRs would make the search quadratic */
};

void data_init(struct data_machine *m, enum data_framing framing, enum data_mode mode,
               uint64_t size_limit, uint64_t line_limit)
{
    *m = (struct data_machine){.size_limit = size_limit,
                               .line_limit = line_limit,
                               .state = LINE_START,
                               .mode = (uint8_t)mode,
                               .framing = (uint8_t)framing};
}

/* `sent`: how many of these bytes the client sent; the others are ours. */
static void add(struct data_machine *m, struct buf *out, const char *bytes, size_t len, size_t sent)
{
    m->size += len;
    m->sent += sent;
    if (m->size_limit && m->sent > m->size_limit) {
        m->flags |= DATA_TOO_BIG;
        m->discard = true;
    }
    /* data_feed made sure that there is room */
    if (!m->discard && buf_add(out, bytes, len) < 0)
        panic("no room for %zu bytes of content", len);
}

/* Writes what waits and goes on behind p. */
static void write_run(struct feed *f)
{
    if (f->p > f->run)
        add(f->m, f->out, f->run, (size_t)(f->p - f->run), (size_t)(f->p - f->run));
    f->run = f->p;
}

static void grow_line(struct data_machine *m, size_t len)
{
    m->line += len;
    if (m->line > m->longest)
        m->longest = m->line;
    if (m->line > m->line_limit) {
        m->flags |= DATA_LONG_LINE;
        m->discard = true;
    }
}

/* A line end that is not CRLF; what precedes it is written. */
static void bare(struct feed *f, enum data_flag what)
{
    struct data_machine *m = f->m;
    m->flags |= (uint8_t)what;
    m->discard |= m->mode == DATA_REJECT;
    add(m, f->out, "\r\n", 2, 1);
    m->line = 0;
    m->state = LOOSE_START;
}

/* The common case: lines in one piece. p is in a line; goes on to behind its end. */
static void in_line(struct feed *f)
{
    struct data_machine *m = f->m;
    if (!f->next_lf || f->next_lf < f->p) {
        f->next_lf = memchr(f->p, '\n', (size_t)(f->end - f->p));
        if (!f->next_lf)
            f->next_lf = f->end;
    }
    const char *cr = memchr(f->p, '\r', (size_t)(f->next_lf - f->p));
    const char *stop = cr ? cr : f->next_lf;
    grow_line(m, (size_t)(stop - f->p));
    f->p = stop;
    if (cr && cr + 1 == f->next_lf && f->next_lf < f->end) {
        f->p = f->next_lf + 1; /* CRLF stays in the run */
        m->line = 0;
        m->state = LINE_START;
    } else if (cr) {
        write_run(f);
        f->run = ++f->p;
        m->state = CR;
    } else if (stop < f->end) {
        write_run(f);
        bare(f, DATA_BARE_LF);
        f->run = ++f->p;
    } else {
        m->state = IN_LINE;
    }
}

/* Takes the byte at p, or leaves it for the state that is set. */
static void step(struct feed *f)
{
    struct data_machine *m = f->m;
    char c = *f->p;
    bool dots = m->framing == DATA_DOTS;
    switch ((enum data_state)m->state) {
    case LINE_START:
    case LOOSE_START:
        if (c == '.' && dots) {
            write_run(f);
            f->run = ++f->p;
            m->state = m->state == LINE_START ? DOT : IN_LINE;
            return;
        }
        in_line(f);
        return;
    case IN_LINE:
        in_line(f);
        return;
    case CR:
        if (c != '\n') {
            bare(f, DATA_BARE_CR);
            return;
        }
        add(m, f->out, "\r\n", 2, 2);
        f->run = ++f->p;
        m->line = 0;
        m->state = LINE_START;
        return;
    case DOT:
        m->state = c == '\r' ? DOT_CR : IN_LINE;
        if (c == '\r')
            f->run = ++f->p;
        return;
    case DOT_CR:
        if (c != '\n') {
            bare(f, DATA_BARE_CR);
            return;
        }
        f->run = ++f->p;
        m->state = ENDED;
        return;
    case ENDED:
        return;
    }
}

/* Feeds a piece whose content is known to fit. Returns the bytes taken. */
static size_t feed_piece(struct data_machine *m, struct slice in, struct buf *out)
{
    struct feed f = {.m = m, .out = out, .p = in.ptr, .run = in.ptr, .end = in.ptr + in.len};
    while (f.p < f.end && m->state != ENDED)
        step(&f);
    write_run(&f);
    struct slice taken = {in.ptr, (size_t)(f.p - in.ptr)};
    if (slice_chr(taken, '\0') < taken.len) {
        m->flags |= DATA_NUL;
        m->discard = true;
    }
    if (!(m->flags & DATA_8BIT) && has_8bit(taken))
        m->flags |= DATA_8BIT;
    return taken.len;
}

/* How much input surely fits into `out`: content grows by a CR held back, and
 * when normalizing each LF and each CR may become two bytes. */
static size_t input_room(const struct data_machine *m, const struct buf *out)
{
    if (m->discard)
        return SIZE_MAX;
    size_t room = out->max - out->len;
    if (room < DATA_ROOM_MIN)
        return 0;
    room -= 4;
    return m->mode == DATA_NORMALIZE ? room / 2 : room;
}

enum data_status data_feed(struct data_machine *m, struct slice in, size_t *consumed,
                           struct buf *out)
{
    struct slice rest = in;
    while (rest.len && m->state != ENDED) {
        size_t room = input_room(m, out);
        if (room == 0)
            break;
        rest = slice_from(rest, feed_piece(m, slice_first(rest, room), out));
    }
    *consumed = in.len - rest.len;
    if (m->state == ENDED)
        return DATA_END;
    return rest.len ? DATA_FULL : DATA_MORE;
}

void data_finish(struct data_machine *m, struct buf *out)
{
    struct feed f = {.m = m, .out = out};
    if (m->state == CR)
        bare(&f, DATA_BARE_CR);
    else if (m->state == IN_LINE)
        add(m, out, "\r\n", 2, 0);
    m->state = ENDED;
}

const struct refusal *data_refusal(const struct data_machine *m)
{
    static const struct {
        uint8_t flag;
        struct refusal refusal;
    } table[] = {
        {DATA_TOO_BIG, {552, "5.3.4", "Message size exceeds the limit"}},
        {DATA_NUL, {550, "5.6.0", "Message contains a NUL byte"}},
        {DATA_LONG_LINE, {550, "5.6.0", "Message contains a line over the length limit"}},
        {DATA_BARE_LF, {550, "5.5.2", "Message contains a line feed without carriage return"}},
        {DATA_BARE_CR, {550, "5.5.2", "Message contains a carriage return without line feed"}},
    };
    if (!m->discard)
        return NULL;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (m->flags & table[i].flag)
            return &table[i].refusal;
    return NULL;
}
