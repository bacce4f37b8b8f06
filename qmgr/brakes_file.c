/* The file of brakes: a JSON object a line. */
#include <jansson.h>
#include <stdlib.h>

#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/brakes.h"

enum { RETRY_SECONDS = 10 };

static const char *text_of(const json_t *o, const char *name, size_t max)
{
    const json_t *v = json_object_get(o, name);
    bool fits = json_is_string(v) && json_string_length(v) <= max;
    return fits ? json_string_value(v) : NULL;
}

/* Microseconds that are left of it; a clock that was set meanwhile makes it no longer than
 * anybody could have asked for. */
static int64_t left_of(double until, bool by_hand)
{
    int64_t most = (by_hand ? BRAKE_DAYS_MAX : 1) * INT64_C(86400) * CLOCK_SECOND;
    int64_t left = (int64_t)(until * 1e6) - clock_wall();
    return left < most ? left : most;
}

/* 0, or -1: it is not one of ours, or too many. No suspension is dropped for its words. */
static int take(struct qmgr *q, const json_t *o)
{
    const char *place = text_of(o, "place", SITE_NAME_MAX + 64),
               *name = text_of(o, "name", SITE_NAME_MAX), *who = text_of(o, "who", ACCOUNT_MAX + 1),
               *kind = text_of(o, "kind", 16), *reason = text_of(o, "reason", KEPT_FILE_MAX);
    double until = json_number_value(json_object_get(o, "until"));
    bool by_hand = json_is_true(json_object_get(o, "by_hand"));
    if (!place || !who || !*who || !kind || !(until >= 0 && until < 1e12))
        return -1;
    int64_t left = until > 0 ? left_of(until, by_hand) : INT64_MAX;
    if (left <= 0)
        return 0;
    struct brake *b = brakes_add(q, strcmp(kind, "domain") == 0 ? BRAKE_SIGNER : BRAKE_ACCOUNT,
                                 place, name ? name : place, slice_str(who), by_hand);
    if (!b)
        return -1;
    b->until = left == INT64_MAX ? INT64_MAX : q->now + left;
    b->cut = q->now;
    brake_set_reason(b, slice_str(reason ? reason : ""));
    return 0;
}

void brakes_load(struct qmgr *q)
{
    struct buf text = BUF_INIT(KEPT_FILE_MAX);
    struct err e;
    int rc = kept_file_read(q->brakes->file.name, &text, &e);
    if (rc < 0)
        log_error("shaping: suspensions of accounts and domains are forgotten: %s", e.text);
    struct slice rest = rc == 0 ? buf_slice(&text) : SLICE("");
    queue_tick(q);
    while (rest.len) {
        struct slice line = slice_cut(&rest, '\n');
        json_t *o = json_loadb(line.ptr, line.len, JSON_REJECT_DUPLICATES, NULL);
        if (!json_is_object(o) || take(q, o) < 0)
            log_warning("%s: an entry is skipped: it is not understood", q->brakes->file.name);
        json_decref(o);
    }
    buf_free(&text);
    q->brakes->dirty = false;
}

static void put(const struct qmgr *q, const struct brake *b, struct buf *out)
{
    json_begin(out);
    json_str(out, "kind", slice_str(brake_kind_name(b->kind)));
    json_str(out, "place", slice_str(b->place));
    json_str(out, "name", slice_str(b->name));
    json_str(out, "who", slice_str(b->who));
    json_str(out, "reason", slice_str(b->reason));
    json_bool(out, "by_hand", b->by_hand);
    json_seconds(out, "until", b->until == INT64_MAX ? 0 : clock_wall() + (b->until - q->now));
    json_end(out);
    buf_addc(out, '\n');
}

static void save(struct qmgr *q)
{
    struct buf *out = kept_file_begin(&q->brakes->file);
    list_each(&q->brakes->all, n)
    {
        const struct brake *b = container_of(n, struct brake, link);
        if (brake_suspends(q, b))
            put(q, b, out);
    }
    kept_file_save(&q->brakes->file);
    q->brakes->dirty = false;
}

/* A writing that failed is done again after a while. */
static void look_after(struct qmgr *q, bool wait)
{
    struct kept_file *file = &q->brakes->file;
    if (kept_file_busy(file, wait) || !file->failed)
        return;
    file->failed = false;
    q->brakes->dirty = true;
    q->brakes->save_at = q->now + RETRY_SECONDS * CLOCK_SECOND;
}

void brakes_save(struct qmgr *q)
{
    look_after(q, false);
    if (q->brakes->dirty && !q->brakes->file.running && q->now >= q->brakes->save_at)
        save(q);
}

int64_t brakes_save_due(const struct qmgr *q)
{
    enum { POLL_MS = 100 }; /* the thread wakes nobody */
    if (q->brakes->file.running)
        return q->now + POLL_MS * (CLOCK_SECOND / 1000);
    return q->brakes->dirty ? q->brakes->save_at : INT64_MAX;
}

void brakes_stop(struct qmgr *q)
{
    if (!q->brakes)
        return;
    queue_tick(q);
    look_after(q, true);
    if (q->brakes->dirty) {
        save(q);
        (void)kept_file_busy(&q->brakes->file, true);
    }
}
