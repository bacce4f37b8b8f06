/* The file of what was learned: read at the start, written now and then. */
#include "core/log.h"
#include "qmgr/memory_inside.h"
#include "qmgr/whole.h"

enum {
    SWEEP_SECONDS = 3600,
    SLICE_ENTRIES = 1000, /* that a turn writes: some milliseconds */
    /* What must not wait is written so soon; where there is much, not so often. */
    SOON_SECONDS = 10,
    SOON_SECONDS_MANY = 60,
    MANY = 20000
};

/* ---- reading --------------------------------------------------------------------------- */

static void load_one(struct slice object, void *arg)
{
    struct learned v;
    struct err e;
    if (learned_parse(object, &v, &e) < 0)
        log_warning("%s: an entry is skipped: %s", MEMORY_FILE, e.text); /* of another version */
    else
        memory_load_entry(arg, &v);
}

void memory_load(struct qmgr *q)
{
    struct memory *m = q->shaping.memory;
    struct err e;
    switch (memory_file_read(load_one, q, &e)) {
    case 0:
        log_info("shaping: what was learned about %zu destinations is known again", m->by_id.count);
        break;
    case -1:
        log_error("shaping: everything is learned anew: %s", e.text);
        break;
    default: /* there is none */
        break;
    }
    m->older = 0;
    m->next_save = q->now + MEMORY_SAVE_SECONDS * CLOCK_SECOND;
    m->next_sweep = q->now + SWEEP_SECONDS * CLOCK_SECOND;
}

/* ---- writing --------------------------------------------------------------------------- */

static void put_line(struct memory *m, struct slice object)
{
    struct buf *out = &m->writing.text;
    if (buf_adds(out, object) < 0 || buf_addc(out, '\n') < 0)
        m->saving.too_long = true;
    m->saving.entries++;
}

/* A slice of the entries, then of the lanes; false: there is no more of either. */
static bool put_slice(struct qmgr *q, struct memory *m)
{
    struct memory_saving *s = &m->saving;
    struct buf line = BUF_INIT(2 * LEARNED_LINE_MAX);
    size_t left = SLICE_ENTRIES;
    for (; left && s->entry->next != &m->all; left--) {
        s->entry = s->entry->next;
        buf_clear(&line);
        learned_encode(&container_of(s->entry, struct remembered, all)->v, &line);
        put_line(m, buf_slice(&line));
    }
    for (; left && s->lane->next != &q->dispatch.lanes; left--) {
        s->lane = s->lane->next;
        buf_clear(&line);
        if (memory_describe(q, container_of(s->lane, struct lane, all), &line))
            put_line(m, buf_slice(&line));
    }
    buf_free(&line);
    return left == 0;
}

static void put_wholes(const struct qmgr *q, struct memory *m)
{
    struct buf line = BUF_INIT(2 * LEARNED_LINE_MAX);
    const struct whole *w;
    for (size_t at = 0; (w = map_next(&q->shaping.wholes, &at));) {
        buf_clear(&line);
        if (memory_describe_whole(w, &line))
            put_line(m, buf_slice(&line));
    }
    buf_free(&line);
}

static void begin(struct qmgr *q, struct memory *m)
{
    m->next_save = q->now + MEMORY_SAVE_SECONDS * CLOCK_SECOND;
    m->saving =
        (struct memory_saving){.under_way = true, .entry = &m->all, .lane = &q->dispatch.lanes};
    memory_file_begin(writing_begin(&m->writing, MEMORY_FILE_MAX));
}

/* All is in the text: the thread writes it. */
static void finish(struct qmgr *q, struct memory *m)
{
    enum { LAST_LINE = 80 };
    put_wholes(q, m);
    m->saving.under_way = false;
    bool fits = !m->saving.too_long && m->writing.text.len + LAST_LINE <= MEMORY_FILE_MAX;
    if (fits) {
        memory_file_end(&m->writing.text, m->saving.entries);
        writing_start(&m->writing);
    } else {
        if (!m->complained)
            log_error("%s stays as it is: what was learned about %zu destinations is more than "
                      "%d MB; 'postern shaping reset' forgets what is not needed",
                      MEMORY_FILE, m->saving.entries, MEMORY_FILE_MAX >> 20);
        buf_free(&m->writing.text);
    }
    m->complained = !fits;
}

void memory_soon(struct qmgr *q)
{
    struct memory *m = q->shaping.memory;
    int wait =
        m->by_id.count + q->dispatch.lanes_known.count > MANY ? SOON_SECONDS_MANY : SOON_SECONDS;
    int64_t soon = q->now + wait * CLOCK_SECOND;
    if (m->next_save && soon < m->next_save)
        m->next_save = soon;
}

int64_t memory_due(const struct qmgr *q)
{
    enum { POLL_MS = 100 }; /* the thread wakes nobody */
    const struct memory *m = q->shaping.memory;
    if (m->saving.under_way)
        return q->now;
    if (m->writing.running)
        return q->now + POLL_MS * (CLOCK_SECOND / 1000);
    return m->next_save ? m->next_save : INT64_MAX;
}

void memory_turn(struct qmgr *q)
{
    struct memory *m = q->shaping.memory;
    bool writes = writing_runs(&m->writing, false);
    if (q->now >= m->next_sweep) {
        memory_sweep(m);
        m->next_sweep = q->now + SWEEP_SECONDS * CLOCK_SECOND;
    }
    if (m->saving.under_way && !put_slice(q, m))
        finish(q, m);
    else if (!m->saving.under_way && m->next_save && q->now >= m->next_save && !writes)
        begin(q, m);
}

void memory_stop(struct qmgr *q)
{
    struct memory *m = q->shaping.memory;
    if (!m || m->next_save == 0)
        return;
    (void)writing_runs(&m->writing, true);
    queue_tick(q);
    begin(q, m);
    while (put_slice(q, m)) {
    }
    finish(q, m);
    (void)writing_runs(&m->writing, true);
}
