/* The file of brakes: a JSON object a line. */
#include <jansson.h>
#include <stdlib.h>

#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/brakes.h"

static const char *text_of(const json_t *o, const char *name, size_t max)
{
    const json_t *v = json_object_get(o, name);
    bool fits = json_is_string(v) && json_string_length(v) <= max;
    return fits ? json_string_value(v) : NULL;
}

/* 0, or -1: it is not one of ours. */
static int take(struct qmgr *q, const json_t *o)
{
    const char *place = text_of(o, "place", 1024), *name = text_of(o, "name", SITE_NAME_MAX),
               *who = text_of(o, "who", ACCOUNT_MAX + 1), *kind = text_of(o, "kind", 16),
               *reason = text_of(o, "reason", BRAKE_REASON_MAX);
    double until = json_number_value(json_object_get(o, "until"));
    bool by_hand = json_is_true(json_object_get(o, "by_hand"));
    if (!place || !name || !who || !*who || !kind || !reason || !(until >= 0 && until < 1e12))
        return -1;
    struct brake *b = brakes_add(q, strcmp(kind, "domain") == 0 ? BRAKE_SIGNER : BRAKE_ACCOUNT,
                                 place, name, slice_str(who));
    if (!b)
        return -1;
    b->until = until > 0 ? (int64_t)(until * 1e6) : INT64_MAX;
    b->by_hand = by_hand;
    free(b->reason);
    b->reason = xstrdup(reason);
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

static void save(struct qmgr *q)
{
    struct buf *out = kept_file_begin(&q->brakes->file);
    list_each(&q->brakes->all, n)
    {
        const struct brake *b = container_of(n, struct brake, link);
        if (b->until <= clock_wall())
            continue;
        json_begin(out);
        json_str(out, "kind", slice_str(b->kind == BRAKE_SIGNER ? "domain" : "account"));
        json_str(out, "place", slice_str(b->place));
        json_str(out, "name", slice_str(b->name));
        json_str(out, "who", slice_str(b->who));
        json_str(out, "reason", slice_str(b->reason));
        json_bool(out, "by_hand", b->by_hand);
        json_seconds(out, "until", b->until == INT64_MAX ? 0 : b->until);
        json_end(out);
        buf_addc(out, '\n');
    }
    kept_file_save(&q->brakes->file);
    q->brakes->dirty = false;
}

void brakes_turn(struct qmgr *q)
{
    if (q->brakes->dirty && !kept_file_busy(&q->brakes->file, false))
        save(q);
}

void brakes_stop(struct qmgr *q)
{
    if (!q->brakes)
        return;
    (void)kept_file_busy(&q->brakes->file, true);
    if (q->brakes->dirty) {
        save(q);
        (void)kept_file_busy(&q->brakes->file, true);
    }
}
