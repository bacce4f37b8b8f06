/* What sources have sent, to which provider, for whom; and what they may still send. */
#include <math.h>

#include "core/log.h"
#include "core/mem.h"
#include "qmgr/memory.h"
#include "qmgr/sources.h"
#include "rules/rules.h"

enum { DAY_SECONDS = 86400, UNUSABLE_SECONDS = 300 };

/* ---- days ------------------------------------------------------------------------------ */

int64_t sources_day_length(const struct qmgr *q)
{
    return DAY_SECONDS * CLOCK_SECOND / q->s->config->shaping_time_divisor;
}

int64_t sources_today(const struct qmgr *q)
{
    return clock_wall() / sources_day_length(q);
}

struct source_counts *record_today(const struct qmgr *q, struct source_record *r)
{
    int64_t today = sources_today(q);
    if (today < r->day) { /* the clock was set back: what was counted counts for today */
        struct source_counts kept = r->days[r->day % SOURCE_DAYS];
        memset(r->days, 0, sizeof r->days);
        r->days[today % SOURCE_DAYS] = kept;
        r->day = today;
    }
    for (int i = 0; r->day < today && i < SOURCE_DAYS; i++)
        r->days[++r->day % SOURCE_DAYS] = (struct source_counts){0};
    r->day = today;
    return &r->days[today % SOURCE_DAYS];
}

struct source_counts record_sum(const struct qmgr *q, struct source_record *r)
{
    struct source_counts sum = {0};
    record_today(q, r);
    for (int i = 0; i < SOURCE_DAYS; i++) {
        sum.accepted += r->days[i].accepted;
        sum.deferred += r->days[i].deferred;
        sum.rejected += r->days[i].rejected;
        sum.blocked += r->days[i].blocked;
    }
    return sum;
}

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

uint64_t record_room(const struct qmgr *q, struct source_record *r)
{
    uint64_t most = r->ramp ? source_allowance(r->ramp, source_age(q, r->source)) : UINT64_MAX;
    if (most == UINT64_MAX)
        return most;
    uint64_t used = (uint64_t)record_today(q, r)->accepted + r->waiting;
    return used < most ? most - used : 0;
}

bool record_is_cold(const struct qmgr *q, const struct source_record *r)
{
    return r && r->ramp && source_allowance(r->ramp, source_age(q, r->source)) != UINT64_MAX;
}

void source_free(struct sources *all, struct source *s)
{
    for (size_t i = 0; i < s->record_count; i++) {
        free(s->records[i]->provider);
        free(s->records[i]);
    }
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

static void count(struct qmgr *q, struct job *j, const struct ipc_result *in, bool blocked)
{
    const struct lane *l = j->queue->lane;
    struct source_counts *today = record_today(q, l->record), add = {0};
    struct ipc_cursor cursor = ipc_list_cursor(in->outcomes);
    struct ipc_outcome o;
    while (ipc_outcome_next(&cursor, &o)) {
        if (o.status == OUTCOME_SENT)
            add.accepted++;
        else if (o.local || o.code < 200)
            continue; /* nobody said anything */
        else if (blocked)
            add.blocked++;
        else if (o.status == OUTCOME_FAILED)
            add.rejected++;
        else
            add.deferred++;
    }
    today->accepted += add.accepted;
    today->deferred += add.deferred;
    today->rejected += add.rejected;
    today->blocked += add.blocked;
    if (add.accepted + add.deferred + add.rejected + add.blocked == 0)
        return;
    if (message_sender(j->m).len) /* notices are nobody's */
        share(q, l->from, j->m, add.accepted + add.deferred + add.rejected + add.blocked,
              add.rejected + add.blocked);
    if (!l->from->began)
        l->from->began = clock_wall() / CLOCK_SECOND;
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
    if (!l->from)
        return;
    bool blocked = v->rule && v->rule->action == RULES_SWITCH;
    if (shaper_believes(&l->shaper, &v->report, q->now)) {
        if (v->report.signal == SHAPER_OK)
            l->blocked = false;
        else if (v->report.signal == SHAPER_GO_AWAY || v->report.signal == SHAPER_UNREACHABLE)
            l->blocked = blocked;
    }
    if (blocked)
        memory_soon(q);
    count(q, j, in, blocked);
    if (in->scope == SCOPE_SOURCE)
        cannot_be_used(q, l->from);
}
