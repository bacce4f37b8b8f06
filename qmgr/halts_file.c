/* The file of suspensions by hand: a JSON object a line. */
#include "core/json.h"
#include "qmgr/halts.h"

/* Without what would break a line of the log or the file. */
static bool is_plain(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text <= ' ' || *text == 0x7f)
            return false;
    return true;
}

static int take(struct qmgr *q, const json_t *o)
{
    const char *name = kept_text(o, "name", SITE_NAME_MAX),
               *source = kept_text(o, "source", HALT_SOURCE_MAX),
               *reason = kept_text(o, "reason", KEPT_FILE_MAX);
    int64_t until, written;
    if (!name || !*name || !is_plain(name) || !source || !is_plain(source) ||
        kept_time(o, "until", &until) < 0 || kept_time(o, "written", &written) < 0)
        return -1;
    int64_t left = until ? kept_left(until, written) : INT64_MAX;
    if (left <= 0)
        return 0;
    struct slice why = slice_str(reason ? reason : "");
    return halts_set(q, slice_str(name), slice_str(source), left, why) ? 0 : -1;
}

static bool put(struct qmgr *q, struct buf *out, bool first)
{
    (void)first;
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
    return false;
}

void halts_load(struct qmgr *q)
{
    q->halts->file = (struct kept_file){.writing.name = "shaping.suspensions", .put = put};
    kept_file_load(&q->halts->file, q, take,
                   "shaping: suspensions of destinations by hand are forgotten");
}
