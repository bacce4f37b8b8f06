/* The file of brakes: a JSON object a line. */
#include "core/json.h"
#include "qmgr/brakes.h"

/* Microseconds that are left of it; a clock that was set meanwhile makes it no longer than
 * anybody could have asked for. */
static int64_t left_of(int64_t until, int64_t written, bool by_hand)
{
    int64_t most = (by_hand ? BRAKE_DAYS_MAX : 1) * INT64_C(86400) * CLOCK_SECOND;
    int64_t left = kept_left(until, written);
    return left < most ? left : most;
}

/* Whether one is written so. By hand it holds wherever its name is meant; by a rule it is at one
 * place. What is written otherwise would be found under another one's key, or be read as something
 * else the next time. */
static bool is_one(const char *place, const char *name, const char *who, bool by_hand)
{
    return place && name && who && brake_has_name(slice_str(who)) &&
           (by_hand || (*place && !brake_is_called(place)));
}

static int take(struct qmgr *q, const json_t *o)
{
    const char *place = kept_text(o, "place", SITE_NAME_MAX + 64),
               *name = kept_text(o, "name", SITE_NAME_MAX),
               *who = kept_text(o, "who", ACCOUNT_MAX + 1), *kind = kept_text(o, "kind", 16),
               *reason = kept_text(o, "reason", KEPT_FILE_MAX);
    bool by_hand = json_is_true(json_object_get(o, "by_hand"));
    int64_t until, written;
    if (!is_one(place, name, who, by_hand) || !kind || kept_time(o, "until", &until) < 0 ||
        kept_time(o, "written", &written) < 0)
        return -1;
    int64_t left = until ? left_of(until, written, by_hand) : INT64_MAX;
    if (left <= 0)
        return 0;
    enum brake_kind of = strcmp(kind, "domain") == 0 ? BRAKE_SIGNER : BRAKE_ACCOUNT;
    struct slice sender = slice_str(who);
    char buffer[ACCOUNT_MAX + 1];
    if (of == BRAKE_ACCOUNT && sender.len <= ACCOUNT_MAX) /* an older version kept other names */
        sender = brakes_spelled(of, sender, buffer);
    struct brake *b = by_hand && *place ? brakes_add_called(q, of, slice_str(name), sender)
                                        : brakes_add(q, of, place, name, sender, by_hand);
    if (!b)
        return -1;
    b->until = left == INT64_MAX ? INT64_MAX : q->now + left;
    b->cut = q->now;
    brake_set_reason(b, slice_str(reason ? reason : ""));
    return 0;
}

static void put_one(const struct qmgr *q, const struct brake *b, struct buf *out)
{
    json_begin(out);
    json_str(out, "kind", slice_str(brake_kind_name(b->kind)));
    json_str(out, "place", slice_str(b->place));
    json_str(out, "name", slice_str(b->name));
    json_str(out, "who", slice_str(b->who));
    json_str(out, "reason", slice_str(b->reason));
    json_bool(out, "by_hand", b->by_hand);
    json_seconds(out, "written", clock_wall());
    json_seconds(out, "until", b->until == INT64_MAX ? 0 : clock_wall() + (b->until - q->now));
    json_end(out);
    buf_addc(out, '\n');
}

static bool put(struct qmgr *q, struct buf *out, bool first)
{
    (void)first;
    list_each(&q->brakes->all, n)
    {
        const struct brake *b = container_of(n, struct brake, link);
        if (brake_suspends(q, b))
            put_one(q, b, out);
    }
    return false;
}

void brakes_load(struct qmgr *q)
{
    q->brakes->file = (struct kept_file){.writing.name = "shaping.brakes", .put = put};
    kept_file_load(&q->brakes->file, q, take,
                   "shaping: suspensions of accounts and domains are forgotten");
}
