/* The file of suspensions by hand: a JSON object a line. */
#include <jansson.h>
#include <stdlib.h>

#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/halts.h"

enum { RETRY_SECONDS = 10 };
static const double TIME_MAX = 1e12; /* seconds; no clock gets there */

static struct slice text_of(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);
    return json_is_string(v) ? slice_make(json_string_value(v), json_string_length(v)) : SLICE("");
}

/* Without what would break a line of the log or the file. */
static bool is_plain(struct slice text, size_t max)
{
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.ptr[i] <= ' ' || text.ptr[i] == 0x7f)
            return false;
    return text.len <= max;
}

/* Microseconds that are left. The clock may have been set since it was written: set back, the
 * suspension does not become longer than it was then. */
static int64_t left_of(double until, double written)
{
    int64_t wall = clock_wall(), then = (int64_t)(written * 1e6);
    return (int64_t)(until * 1e6) - (wall > then ? wall : then);
}

/* 0, or -1: it is not one of ours, or too many. */
static int take(struct qmgr *q, const json_t *o)
{
    struct slice name = text_of(o, "name"), source = text_of(o, "source");
    double until = json_number_value(json_object_get(o, "until")),
           written = json_number_value(json_object_get(o, "written"));
    if (name.len == 0 || !is_plain(name, SITE_NAME_MAX) || !is_plain(source, HALT_SOURCE_MAX) ||
        !(until >= 0 && until < TIME_MAX) || !(written >= 0 && written < TIME_MAX))
        return -1;
    int64_t left = until > 0 ? left_of(until, written) : INT64_MAX;
    if (left <= 0)
        return 0;
    return halts_set(q, name, source, left, text_of(o, "reason")) ? 0 : -1;
}

void halts_load(struct qmgr *q)
{
    struct buf text = BUF_INIT(KEPT_FILE_MAX);
    struct err e;
    int rc = kept_file_read(q->halts->file.name, &text, &e);
    if (rc < 0)
        log_error("shaping: suspensions of destinations by hand are forgotten: %s", e.text);
    struct slice rest = rc == 0 ? buf_slice(&text) : SLICE("");
    queue_tick(q);
    while (rest.len) {
        struct slice line = slice_cut(&rest, '\n');
        json_t *o = json_loadb(line.ptr, line.len, JSON_REJECT_DUPLICATES, NULL);
        if (!json_is_object(o) || take(q, o) < 0)
            log_warning("%s: an entry is skipped: it is not understood", q->halts->file.name);
        json_decref(o);
    }
    buf_free(&text);
    q->halts->dirty = false;
}

static void save(struct qmgr *q)
{
    struct buf *out = kept_file_begin(&q->halts->file);
    int64_t wall = clock_wall();
    list_each(&q->halts->all, n)
    {
        const struct halt *h = container_of(n, struct halt, link);
        if (!halt_is_on(q, h))
            continue;
        json_begin(out);
        json_str(out, "name", slice_str(h->name));
        json_str(out, "source", slice_str(h->source));
        json_str(out, "reason", slice_str(h->reason));
        json_seconds(out, "written", wall);
        json_seconds(out, "until", h->until == INT64_MAX ? 0 : wall + (h->until - q->now));
        json_end(out);
        buf_addc(out, '\n');
    }
    kept_file_save(&q->halts->file);
    q->halts->dirty = false;
}

static void look_after(struct qmgr *q, bool wait)
{
    struct kept_file *file = &q->halts->file;
    if (kept_file_busy(file, wait) || !file->failed)
        return;
    file->failed = false;
    q->halts->dirty = true;
    q->halts->save_at = q->now + RETRY_SECONDS * CLOCK_SECOND;
}

void halts_save(struct qmgr *q)
{
    look_after(q, false);
    if (q->halts->dirty && !q->halts->file.running && q->now >= q->halts->save_at)
        save(q);
}

int64_t halts_next_due(const struct qmgr *q)
{
    enum { POLL_MS = 100 }; /* the thread wakes nobody */
    if (q->halts->file.running)
        return q->now + POLL_MS * (CLOCK_SECOND / 1000);
    return q->halts->dirty ? q->halts->save_at : INT64_MAX;
}

void halts_stop(struct qmgr *q)
{
    if (!q->halts)
        return;
    queue_tick(q);
    look_after(q, true);
    if (q->halts->dirty) {
        save(q);
        (void)kept_file_busy(&q->halts->file, true);
    }
}
