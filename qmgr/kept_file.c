#include "qmgr/kept_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/qmgr.h"

enum {
    SUM_LINE = 21, /* "sum " and 16 digits and the end of the line */
    RETRY_SECONDS = 10,
    KEPT_LINE_MOST = 8 * 1024 * 1024 /* more than a line has */
};
static const double TIME_MAX = 1e12; /* seconds; no clock gets there */

static void sum_line(struct slice text, char out[static SUM_LINE + 1])
{
    snprintf(out, SUM_LINE + 1, "sum %016llx\n",
             (unsigned long long)XXH3_64bits(text.ptr ? text.ptr : "", text.len));
}

void kept_file_add_sum(struct buf *text)
{
    char sum[SUM_LINE + 1];
    sum_line(buf_slice(text), sum);
    buf_addstr(text, sum);
}

/* ---- reading --------------------------------------------------------------------------- */

/* Appends the file's lines to *out. 0; 1: there is none; -1 with *e: it cannot be read, or
 * is damaged and was kept aside as NAME.damaged. */
static int read_lines(const char *name, struct buf *out, struct err *e)
{
    char expected[SUM_LINE + 1];
    int rc = file_read_whole(name, out, e);
    if (rc != 0)
        return rc < 0 ? file_keep_aside(name, e) : rc;
    size_t body = out->len < SUM_LINE ? 0 : out->len - SUM_LINE;
    sum_line(slice_make(out->data, body), expected);
    if (slice_eq(slice_from(buf_slice(out), body), slice_str(expected))) {
        out->len = body;
        return 0;
    }
    (void)err_set(e, "%s is damaged", name);
    return file_keep_aside(name, e);
}

void kept_file_load(struct kept_file *k, struct qmgr *q,
                    int (*take)(struct qmgr *q, const json_t *o), const char *lost)
{
    struct buf text = BUF_INIT(KEPT_FILE_MAX + FILE_READ_STEP);
    struct err e;
    queue_tick(q);
    int rc = read_lines(k->writing.name, &text, &e);
    if (rc < 0)
        log_error("%s: %s", lost, e.text);
    struct slice rest = rc == 0 ? buf_slice(&text) : SLICE("");
    while (rest.len) {
        struct slice line = slice_cut(&rest, '\n');
        json_t *o = json_loadb(line.ptr, line.len, JSON_REJECT_DUPLICATES, NULL);
        if (!json_is_object(o) || take(q, o) < 0)
            log_warning("%s: an entry is skipped: it is not understood", k->writing.name);
        json_decref(o);
    }
    buf_free(&text);
    k->dirty = false;
}

const char *kept_text(const json_t *o, const char *name, size_t max)
{
    const json_t *v = json_object_get(o, name);
    bool fits = json_is_string(v) && json_string_length(v) <= max;
    return fits ? json_string_value(v) : NULL;
}

int kept_time(const json_t *o, const char *name, int64_t *out)
{
    double seconds = json_number_value(json_object_get(o, name));
    if (!(seconds >= 0 && seconds < TIME_MAX))
        return -1;
    *out = (int64_t)llround(seconds * (double)CLOCK_SECOND);
    return 0;
}

/* ---- writing --------------------------------------------------------------------------- */

/* All is in the text: the thread writes it. */
static void finish(struct kept_file *k)
{
    struct buf *out = k->text;
    k->text = NULL;
    if (out->len > KEPT_FILE_MAX - KEPT_LINE_MOST) { /* a line may be missing */
        if (!k->too_long)
            log_error("%s stays as it is, for it would be longer than %d MB", k->writing.name,
                      KEPT_FILE_MAX >> 20);
        k->too_long = true;
        buf_free(out);
        return;
    }
    k->too_long = false;
    kept_file_add_sum(out);
    writing_start(&k->writing);
}

/* The next lines; true: there are more. What changes meanwhile makes the file dirty again. */
static bool go_on(struct kept_file *k, struct qmgr *q)
{
    bool first = !k->text;
    if (first) {
        k->text = writing_begin(&k->writing, KEPT_FILE_MAX);
        k->dirty = false;
    }
    bool more = k->put(q, k->text, first);
    if (first)
        k->save_at = q->now + k->pause;
    if (!more)
        finish(k);
    return more;
}

/* Whether none is under way; one that failed is done again after a while. */
static bool is_idle(struct kept_file *k, const struct qmgr *q, bool wait)
{
    if (writing_runs(&k->writing, wait))
        return false;
    if (k->writing.failed) {
        k->writing.failed = false;
        k->dirty = true;
        k->save_at = q->now + RETRY_SECONDS * CLOCK_SECOND;
    }
    return true;
}

void kept_file_turn(struct kept_file *k, struct qmgr *q)
{
    if (k->text || (is_idle(k, q, false) && k->dirty && q->now >= k->save_at))
        (void)go_on(k, q);
}

int64_t kept_file_due(const struct kept_file *k, const struct qmgr *q)
{
    enum { POLL_MS = 100 }; /* the thread wakes nobody */
    if (k->text)
        return q->now;
    if (k->writing.running)
        return q->now + POLL_MS * (CLOCK_SECOND / 1000);
    return k->dirty ? k->save_at : INT64_MAX;
}

void kept_file_stop(struct kept_file *k, struct qmgr *q)
{
    queue_tick(q);
    (void)is_idle(k, q, true);
    /* the text that is being made may be behind already: then once more */
    for (int i = 0; i < 2 && (k->text || k->dirty); i++) {
        while (go_on(k, q)) {
        }
        (void)writing_runs(&k->writing, true);
    }
}

int64_t kept_left(int64_t until, int64_t written)
{
    int64_t wall = clock_wall(), left;
    return __builtin_sub_overflow(until, wall > written ? wall : written, &left) ? 0 : left;
}
