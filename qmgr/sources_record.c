/* What sources have sent, to which provider, and for whom. */
#include <math.h>

#include "core/log.h"
#include "core/mem.h"
#include "qmgr/memory.h"
#include "qmgr/sources.h"
#include "rules/rules.h"

enum {
    UNUSABLE_SECONDS = 300,
    SECONDS_AHEAD = 3600 /* by which a clock may be set back, and a date stays as it is */
};

/* ---- records ----------------------------------------------------------------------------- */

struct source_record *source_record(struct source *s, struct slice provider)
{
    if (s->record_count >= SOURCE_RECORDS_MAX)
        provider = SLICE("");
    for (size_t i = 0; i < s->record_count; i++)
        if (slice_eq(slice_str(s->records[i]->provider), provider))
            return s->records[i];
    struct source_record *r = xcalloc(1, sizeof *r);
    r->source = s;
    r->provider = slice_dup(provider);
    r->ramp = s->conf ? source_ramp_for(s->conf, provider) : NULL;
    s->records = xreallocarray(s->records, s->record_count + 1, sizeof *s->records);
    s->records[s->record_count++] = r;
    return r;
}

int64_t source_age(const struct qmgr *q, const struct source *s)
{
    if (!s->began)
        return 0;
    int64_t age = sources_today(q) - s->began * CLOCK_SECOND / sources_day_length(q);
    return age > 0 ? age : 0;
}

void source_record_free(struct source_record *r)
{
    free(r->provider);
    free(r);
}

static void drop_record(void *r)
{
    source_record_free(r);
}

void source_free(struct sources *all, struct source *s)
{
    sources_saving_without(all, s);
    for (size_t i = 0; i < s->record_count; i++)
        source_record_free(s->records[i]);
    map_clear(&s->places, drop_record);
    map_free(&s->places);
    for (int i = 0; i < SOURCE_SHARES; i++)
        free(s->shares[i].name);
    all->numbers[s->number - 1] = NULL;
    list_remove(&s->all);
    free(s->records);
    free(s->name);
    free(s->helo);
    free(s->reason);
    free(s->listed_text);
    free(s->listed_zones);
    free(s->forgiven_zones);
    free(s);
}

/* ---- who sends from it --------------------------------------------------------------------- */

/* Recent volume: halved each day. */
static void age_shares(const struct qmgr *q, struct source *s)
{
    int64_t today = sources_today(q), days = today - s->shares_day;
    s->shares_day = today;
    if (days <= 0)
        return;
    for (int i = 0; i < SOURCE_SHARES; i++) {
        s->shares[i].recipients = ldexp(s->shares[i].recipients, days < 60 ? (int)-days : -60);
        s->shares[i].refused = ldexp(s->shares[i].refused, days < 60 ? (int)-days : -60);
    }
}

/* The least of them gives its place, and its count, to a new one: whoever sends much is
 * there, with too much said by no more than that count (the "space saving" sketch). */
struct source_share *source_share(struct source *s, struct slice name)
{
    struct source_share *least = &s->shares[0];
    for (int i = 0; i < SOURCE_SHARES; i++) {
        struct source_share *share = &s->shares[i];
        if (share->name && slice_eq(slice_str(share->name), name))
            return share;
        if (!share->name ? least->name != NULL
                         : least->name && share->recipients < least->recipients)
            least = share;
    }
    free(least->name);
    least->name = slice_dup(name);
    least->refused = 0;
    return least;
}

static void share(struct qmgr *q, struct source *s, const struct message *m, uint32_t recipients,
                  uint32_t refused)
{
    char name[ACCOUNT_MAX + 1];
    age_shares(q, s);
    struct source_share *place = source_share(s, dispatch_sharer(m, name));
    place->recipients += recipients;
    place->refused += refused;
}

/* ---- results -------------------------------------------------------------------------------- */

static struct source_counts counts_of(const struct ipc_result *in, bool blocked)
{
    struct source_counts sum = {0};
    struct ipc_cursor cursor = ipc_list_cursor(in->outcomes);
    struct ipc_outcome o;
    while (ipc_outcome_next(&cursor, &o)) {
        if (o.status == OUTCOME_SENT)
            sum.accepted++;
        else if (o.local || o.code < 200)
            continue; /* nobody said anything */
        else if (blocked)
            sum.blocked++;
        else if (o.status == OUTCOME_FAILED)
            sum.rejected++;
        else
            sum.deferred++;
    }
    return sum;
}

static void add_today(const struct qmgr *q, struct source_record *r,
                      const struct source_counts *more)
{
    struct source_counts *today = record_today(q, r);
    today->accepted += more->accepted;
    today->deferred += more->deferred;
    today->rejected += more->rejected;
    today->blocked += more->blocked;
}

/* Its warm-up's first day, if the file does not say it. One that is still to come was noted by a
 * clock that was wrong, and would never be over. */
static void begin(struct source *s)
{
    int64_t wall = clock_wall() / CLOCK_SECOND;
    bool said = s->conf && s->conf->began;
    if (!s->began || (!said && s->began > wall + SECONDS_AHEAD))
        s->began = wall;
}

static void count(struct qmgr *q, struct job *j, const struct ipc_result *in, bool blocked)
{
    const struct lane *l = j->queue->lane;
    const struct source_counts more = counts_of(in, blocked);
    uint32_t all = more.accepted + more.deferred + more.rejected + more.blocked;
    if (all == 0 || (!l->from && !l->capped))
        return;
    if (l->record)
        add_today(q, l->record, &more);
    if (l->capped && l->capped != l->record)
        add_today(q, l->capped, &more);
    if (l->from && message_sender(j->m).len) /* notices are nobody's */
        share(q, l->from, j->m, all, more.rejected + more.blocked);
    if (l->from)
        begin(l->from);
    q->from->file.dirty = true;
}

static void cannot_be_used(struct qmgr *q, struct source *s)
{
    char text[80];
    bool known = s->unusable_until > q->now;
    s->unusable_until = q->now + UNUSABLE_SECONDS * CLOCK_SECOND;
    if (known)
        return;
    log_error("source %s (%s:%d): %s is not an address of this machine: add it to an interface, or "
              "take it out of the file; the source is not used for %d seconds, others go on",
              s->name, q->from->conf ? q->from->conf->file : "sources.conf",
              s->conf ? s->conf->line : 0, source_addresses(s, text), UNUSABLE_SECONDS);
    sources_leave(q, s);
}

void sources_result(struct qmgr *q, struct job *j, const struct ipc_result *in,
                    const struct verdict *v)
{
    struct lane *l = j->queue->lane;
    bool blocked = v->rule && v->rule->action == RULES_SWITCH;
    if (l->from && shaper_believes(&l->shaper, &v->report, q->now)) {
        if (v->report.signal == SHAPER_OK)
            l->blocked = false;
        else if (v->report.signal == SHAPER_GO_AWAY || v->report.signal == SHAPER_UNREACHABLE)
            l->blocked = blocked;
    }
    if (blocked)
        memory_soon(q);
    count(q, j, in, blocked);
    if (l->from && in->scope == SCOPE_SOURCE)
        cannot_be_used(q, l->from);
}
