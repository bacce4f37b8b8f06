/*
 * What a delivery's result says of the destination: a rule's meaning where one matches
 * the reply, otherwise what the stage and the circumstances suggest. Replies that relay
 * made up itself (lost connections, time-outs) match no rule.
 */
#include "qmgr/qmgr.h"
#include "qmgr/verdict_rule.h"
#include "rules/rules.h"
#include "rules/tally.h"

_Static_assert((int)RULES_CONNECT == STAGE_CONNECT && (int)RULES_DOT == STAGE_DOT,
               "stages have one numbering");

enum {
    PATIENCE = 6,        /* refusals that speak of the lane, before a message waits for itself */
    FORGETS_GROWTHS = 20 /* minutes after which the rate is suspected anew: see odd.h */
};

/* ---- without a rule ------------------------------------------------------------------------ */

static enum shaper_signal by_odd(struct lane *l, enum odd_says says, struct shaper_report *r)
{
    return odd_signal(&l->odd, &l->shaper, says, r);
}

/* No connection, or not let in. Where others are being served the refusal is of one more
 * of them; alone, of us; where nothing ever worked the server is not there. */
static enum shaper_signal at_the_door(const struct qmgr *q, const struct lane *l,
                                      const struct ipc_outcome *o, struct shaper_report *r)
{
    bool works = shaper_works(&l->shaper, q->now);
    if (works && l->in_flight > 1)
        return SHAPER_TOO_MANY;
    if (!o->local && l->shaper.proven && o->code / 100 == 4) {
        r->time = l->shaper.limits->times.knock;
        return SHAPER_GO_AWAY;
    }
    return SHAPER_UNREACHABLE;
}

/* "421" in the middle of a connection may mean its messages or the rate: the first time it is
 * taken for the former; when the same words come again after another number, for the latter. */
static enum shaper_signal closed_on_us(struct lane *l, const struct ipc_outcome *o,
                                       uint32_t use_count)
{
    uint32_t other;
    if (odd_closed(&l->odd, odd_hash(o->text), use_count, true, &other))
        return SHAPER_TOO_LONG;
    if (other && l->shaper.messages + 1 == other)
        l->shaper.messages = 0;
    return SHAPER_TOO_FAST;
}

/* MAIL is refused for now, and the connection stays open: the rate, or, where that comes
 * again after as many messages, the connection. What was under way at a cut says nothing. */
static enum shaper_signal refused_at_mail(struct lane *l, const struct job *j,
                                          const struct ipc_outcome *o, uint32_t use_count)
{
    uint32_t other;
    if (j->sent_at < l->shaper.rate_cut)
        return SHAPER_TOO_FAST;
    bool again = odd_closed(&l->odd, odd_hash(o->text), use_count, false, &other);
    return again && use_count > 2 ? SHAPER_TOO_LONG : SHAPER_TOO_FAST;
}

/* RFC 3463: the subjects 1 and 2 of an enhanced code are the address and the mailbox. An
 * "x.2.0" in unknown words is greylisting or a full mailbox: slowing the site down would
 * only keep the others waiting. */
static bool of_recipient(const struct ipc_outcome *o)
{
    return o->code != 421 && o->stage >= STAGE_RCPT &&
           (slice_starts(o->enhanced, SLICE("4.1.")) || slice_starts(o->enhanced, SLICE("4.2.")));
}

static bool is_first(const struct job *j)
{
    return j->m->env->recipients[j->rcpts[0]].attempts == 0;
}

/* Whose refusal for now it is. */
static enum odd_who who_is_refused(const struct job *j, const struct ipc_outcome *o)
{
    const struct recipient *r = &j->m->env->recipients[o->index];
    if (o->stage < STAGE_RCPT || o->stage > STAGE_DOT || o->code == 421)
        return ODD_KNOWN;
    if (r->attempts == 0)
        return ODD_FIRST;
    return r->answer && r->answer->odd ? ODD_AGAIN : ODD_KNOWN;
}

static enum shaper_signal by_stage(const struct qmgr *q, const struct job *j,
                                   const struct ipc_outcome *o, const struct ipc_result *in,
                                   struct shaper_report *r)
{
    struct lane *l = j->queue->lane;
    bool temporary = !o->local && o->code / 100 == 4;
    if (in->scope == SCOPE_SITE && (o->stage <= STAGE_EHLO || o->stage > STAGE_DOT))
        return at_the_door(q, l, o, r);
    if (o->stage == STAGE_STARTTLS || o->stage == STAGE_AUTH)
        return in->scope == SCOPE_SITE ? SHAPER_UNREACHABLE : SHAPER_NEUTRAL;
    if (o->local)
        return in->scope == SCOPE_SITE && !shaper_works(&l->shaper, q->now) ? SHAPER_UNREACHABLE
                                                                            : SHAPER_NEUTRAL;
    if (temporary && o->code == 421)
        return closed_on_us(l, o, in->use_count);
    if (temporary && o->stage == STAGE_MAIL)
        return refused_at_mail(l, j, o, in->use_count);
    if ((in->scope == SCOPE_RECIPIENT && !temporary) || (temporary && of_recipient(o)))
        return SHAPER_OK;
    if (!temporary)
        return by_odd(l, odd_other(&l->odd, false, q->now), r);
    bool all_taken = in->use_count > 0 && in->taken_count == in->use_count - 1;
    return by_odd(l,
                  odd_refused(&l->odd, who_is_refused(j, o), all_taken ? in->taken_count : 0,
                              FORGETS_GROWTHS * l->shaper.limits->times.growth, q->now),
                  r);
}

/* Words of greylisting, perhaps, from a place that takes recipients the first time: it is
 * puzzled over as if no rule knew them. */
static bool is_doubtful(const struct lane *l, const struct rule *rule)
{
    return rule && rule->greylist && rule->fallback && odd_takes_strangers(&l->odd);
}

/* A rule knows what it means: not one of the replies that are puzzled over. */
static void by_known(struct qmgr *q, const struct job *j, struct verdict *v,
                     struct shaper_report *r)
{
    struct lane *l = j->queue->lane;
    if (v->rule->scope == RULES_OF_RECIPIENT)
        (void)by_odd(l, odd_other(&l->odd, false, q->now), r);
    v->acts = verdict_by_rule(q, j, v->rule, &v->worst, r);
    l->odd.says_rate = l->odd.says_rate || r->signal == SHAPER_TOO_FAST;
}

/* ---- the result ------------------------------------------------------------------------------ */

static void judge(struct qmgr *q, struct job *j, const struct ipc_result *in, struct verdict *out)
{
    struct lane *l = j->queue->lane;
    struct ipc_cursor cursor = ipc_list_cursor(in->outcomes);
    struct ipc_outcome o;
    *out = (struct verdict){.report = {.signal = SHAPER_NEUTRAL,
                                       .started = j->sent_at,
                                       .use_count = in->use_count,
                                       .taken_count = in->taken_count,
                                       .closed_after = in->closed_after,
                                       .connections = in->connections,
                                       .may_connect = j->may_connect,
                                       .greeting = in->greeting_us}};
    struct shaper_report *r = &out->report;
    uint32_t later = 0;
    while (ipc_outcome_next(&cursor, &o)) {
        if (o.status == OUTCOME_SENT) {
            r->recipients++;
            continue;
        }
        later += o.status == OUTCOME_DEFERRED && o.stage >= STAGE_RCPT;
        if (out->failed)
            continue;
        out->failed = true;
        out->worst = o;
    }
    if (!out->failed) {
        r->signal = SHAPER_OK;
        r->latency = in->reply_us;
        (void)by_odd(l, odd_other(&l->odd, is_first(j), q->now), r);
        return;
    }
    out->rule = verdict_find_rule(q, l, &out->worst);
    if (out->rule && !is_doubtful(l, out->rule))
        by_known(q, j, out, r);
    else
        r->signal = by_stage(q, j, &out->worst, in, r);
    if (r->signal == SHAPER_NEUTRAL && r->recipients)
        r->signal = SHAPER_OK;
    if (r->signal == SHAPER_OK)
        r->put_off = later;
}

/* Before the answers of this attempt take the place of those. */
static uint32_t first_again(const struct job *j)
{
    for (uint32_t i = 0; i < j->count; i++) {
        const struct answer *a = j->m->env->recipients[j->rcpts[i]].answer;
        if (a && a->odd && a->since)
            return j->rcpts[i];
    }
    return UINT32_MAX;
}

void verdict_of(struct qmgr *q, struct job *j, const struct ipc_result *in, struct verdict *out)
{
    struct lane *l = j->queue->lane;
    if (!shaper_on_trial(&l->shaper))
        odd_stop(&l->odd);
    verdict_count(q, j);
    judge(q, j, in, out);
    out->again = first_again(j);
    if (!odd_is_trying(&l->odd) && out->report.trial != SHAPER_TRIAL_FAILED)
        shaper_end_trial(&l->shaper);
}

/* ---- greylisting ----------------------------------------------------------------------------- */

/* Since when the recipient has been refused so; 0: it was not. */
static int64_t since_of(const struct job *j, uint32_t recipient)
{
    const struct answer *a = j->m->env->recipients[recipient].answer;
    return a && (a->greylisted || a->odd) ? a->since : 0;
}

static void refused_for_now(const struct qmgr *q, const struct job *j, const struct ipc_outcome *o,
                            int64_t first, struct fate *fate)
{
    struct greylist *g = &j->queue->lane->greylist;
    int64_t since = since_of(j, o->index), now = j->sent_at;
    int64_t age = since ? now - since : 0;
    fate->since = since ? since : now;
    fate->greylisted = true;
    greylist_refused(g, age, first);
    fate->after = fate->since + greylist_next(g, age) - q->now;
    if (fate->after < 1)
        fate->after = 1;
}

static void taken_after_all(const struct job *j, const struct verdict *v,
                            const struct ipc_outcome *o)
{
    struct lane *l = j->queue->lane;
    const struct answer *a = j->m->env->recipients[o->index].answer;
    int64_t since = since_of(j, o->index);
    if (!since)
        return;
    greylist_passed(&l->greylist, j->sent_at - since);
    if (a->odd)
        odd_again(&l->odd, j->sent_at - since, true, o->index == v->again);
}

int64_t verdict_in_vain(const struct qmgr *q, const struct lane *l, const struct job *j)
{
    const struct greylist *g = &l->greylist;
    int64_t until = INT64_MAX;
    if (g->refused == 0 || j->m->env->forced)
        return 0;
    for (uint32_t i = 0; i < j->count; i++) {
        const struct answer *a = j->m->env->recipients[j->rcpts[i]].answer;
        if (!a || !a->greylisted || !greylist_in_vain(g, q->now - a->since))
            return 0;
        int64_t age = greylist_next(g, q->now - a->since);
        until = a->since + age < until ? a->since + age : until;
    }
    return until;
}

bool verdict_goes_first(const struct job *j)
{
    const struct answer *a = j->m->env->recipients[j->rcpts[0]].answer;
    return a && (a->greylisted || a->odd);
}

/* ---- recipients ------------------------------------------------------------------------------ */

/* Whether the lane has been told, so that it is the lane that waits: the recipient stays in
 * line. A rule that only counts yet has told it nothing. */
static bool speaks_of_lane(const struct verdict *v, const struct rule *rule,
                           const struct ipc_outcome *o)
{
    if (!rule)
        return !o->local && o->code == 421 && o->stage <= STAGE_MAIL;
    return rule->action > RULES_NOTE && rule->scope != RULES_OF_RECIPIENT &&
           (rule == v->rule ? v->acts : !tallies_counts(rule));
}

/* No connection, while others have one or may still get one: either there are too many, or the
 * destination is suspended when the last of them has failed. */
static bool not_let_in(const struct job *j, const struct verdict *v, const struct ipc_outcome *o)
{
    const struct lane *l = j->queue->lane;
    bool many = v->report.signal == SHAPER_TOO_MANY || v->report.signal == SHAPER_UNREACHABLE;
    return many && o->stage <= STAGE_EHLO && l->in_flight > 0 && !l->suspended;
}

void verdict_recipient(struct qmgr *q, const struct job *j, const struct verdict *v,
                       struct ipc_outcome *o, struct fate *fate)
{
    const struct rule *rule = verdict_find_rule(q, j->queue->lane, o);
    unsigned attempts = j->m->env->recipients[o->index].attempts;
    int divisor = (int)q->s->config->shaping_time_divisor;
    *fate = (struct fate){.rule = rule};
    if (rule && rule->outcome == RULES_RETRY && o->status == OUTCOME_FAILED)
        o->status = OUTCOME_DEFERRED;
    else if (rule && rule->outcome == RULES_FAIL && tallies_believed(rule, attempts + 1))
        o->status = OUTCOME_FAILED;
    if (o->status == OUTCOME_SENT)
        taken_after_all(j, v, o);
    if (o->status != OUTCOME_DEFERRED)
        return;
    bool doubtful = is_doubtful(j->queue->lane, rule);
    if (rule && rule->greylist && !doubtful) {
        refused_for_now(q, j, o, rule->retry_after / divisor, fate);
    } else if ((!rule || doubtful) && !o->local && o->code / 100 == 4 &&
               who_is_refused(j, o) != ODD_KNOWN) {
        struct odd *odd = &j->queue->lane->odd;
        if (since_of(j, o->index))
            odd_again(odd, j->sent_at - since_of(j, o->index), false, o->index == v->again);
        if (odd_is_greylisting(odd))
            refused_for_now(q, j, o, q->s->config->minimal_backoff_time * CLOCK_SECOND, fate);
        fate->odd = true;
        fate->since = since_of(j, o->index) ? since_of(j, o->index) : j->sent_at;
        if (odd->of_rate > 0 && attempts < PATIENCE)
            fate->after = -1; /* it is the rate: in line again */
    } else if (rule && rule->retry_after) {
        fate->after = rule->retry_after / divisor;
    } else if ((speaks_of_lane(v, rule, o) || not_let_in(j, v, o)) && attempts < PATIENCE) {
        fate->after = -1;
    }
}
