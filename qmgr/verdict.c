/*
 * What a delivery's result says of the destination: a rule's meaning where one matches
 * the reply, otherwise what the stage and the circumstances suggest. Replies that relay
 * made up itself (lost connections, time-outs) match no rule.
 */
#include "core/log.h"
#include "qmgr/qmgr.h"
#include "rules/rules.h"

_Static_assert((int)RULES_CONNECT == STAGE_CONNECT && (int)RULES_DOT == STAGE_DOT,
               "stages have one numbering");

enum {
    ODD_GAIN = 16,       /* one in so many attempts moves `odd` */
    ODD_MANY = 128,      /* of 255: half of the recent attempts */
    PATIENCE = 6,        /* refusals that speak of the lane, before a message waits for itself */
    ALERT_SECONDS = 3600 /* between warnings of one rule */
};

static const struct rule *find_rule(struct qmgr *q, const struct lane *l,
                                    const struct ipc_outcome *o)
{
    if (!q->shaping.rules || o->local || o->code < 200 || o->status == OUTCOME_SENT)
        return NULL;
    struct rules_reply reply = {.stage = (enum rules_stage)o->stage,
                                .code = o->code,
                                .enhanced = o->enhanced,
                                .text = o->text,
                                .provider = l->group->provider_index};
    return rules_match(q->shaping.rules, &reply);
}

/* ---- rules that act from the n-th time on ------------------------------------------------ */

static bool often_enough(const struct qmgr *q, struct lane *l, const struct rule *rule,
                         uint16_t number)
{
    enum { COUNTS = sizeof l->counts / sizeof l->counts[0] };
    int64_t period = rule->period / q->s->config->shaping_time_divisor;
    struct rule_count *oldest = &l->counts[0];
    if (rule->fraction > 0 && l->odd < rule->fraction * UINT8_MAX)
        return false;
    if (rule->after <= 1)
        return true;
    for (int i = 0; i < COUNTS; i++) {
        struct rule_count *c = &l->counts[i];
        if (c->rule == number) {
            if (q->now - c->since > period) {
                c->since = q->now;
                c->times = 0;
            }
            return ++c->times >= rule->after;
        }
        if (c->since < oldest->since)
            oldest = c;
    }
    *oldest = (struct rule_count){number, 1, q->now};
    return false;
}

static void alert(const struct qmgr *q, const struct lane *l, const struct rule *rule,
                  const struct ipc_outcome *o)
{
    static int64_t said;
    static const struct rule *last;
    if (rule == last && q->now - said < ALERT_SECONDS * CLOCK_SECOND)
        return;
    last = rule;
    said = q->now;
    log_warning("%s: %s (rule %s, %s:%d): %u %s", log_esc(slice_str(l->group->name)),
                rule->action == RULES_SUSPEND ? "refuses our address for a while"
                                              : "says something that needs attention",
                rule->name, rule->file, rule->line, o->code, log_esc(o->text));
}

static void by_rule(const struct qmgr *q, struct lane *l, const struct rule *rule,
                    const struct ipc_outcome *o, struct shaper_report *r)
{
    static const enum shaper_signal signals[] = {
        [RULES_NO_DIMENSION] = SHAPER_NEUTRAL,
        [RULES_CONCURRENCY] = SHAPER_TOO_MANY,
        [RULES_RATE] = SHAPER_TOO_FAST,
        [RULES_MESSAGES] = SHAPER_TOO_LONG,
    };
    uint16_t number = (uint16_t)(rules_index(q->shaping.rules, rule) + 1);
    if (rule->alert)
        alert(q, l, rule, o);
    r->rule = number;
    if (rule->scope == RULES_OF_RECIPIENT) {
        r->signal = SHAPER_OK; /* the destination works */
        return;
    }
    if (rule->action == RULES_NOTE || !often_enough(q, l, rule, number))
        return;
    r->factor = rule->factor;
    r->value = rule->action == RULES_SET ? rule->value : 0;
    r->time = rule->time / q->s->config->shaping_time_divisor;
    r->signal = rule->action >= RULES_SUSPEND ? SHAPER_GO_AWAY : signals[rule->dimension];
}

/* ---- without a rule ------------------------------------------------------------------------ */

static void note_odd(struct lane *l, bool odd)
{
    int target = odd ? UINT8_MAX : 0;
    l->odd = (uint8_t)(l->odd + (target - l->odd) / ODD_GAIN);
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
        r->time = l->limits.times.knock;
        return SHAPER_GO_AWAY;
    }
    return SHAPER_UNREACHABLE;
}

/* "421" in the middle of a connection may mean its messages or the rate: the first time
 * it is taken for the former; when it comes again after another number, for the latter. */
static enum shaper_signal closed_on_us(struct lane *l, uint32_t use_count)
{
    uint32_t before = l->odd_close;
    l->odd_close = use_count;
    if (use_count > 2 && (before == 0 || before == use_count))
        return SHAPER_TOO_LONG;
    if (l->shaper.messages + 1 == before)
        l->shaper.messages = 0;
    return SHAPER_TOO_FAST;
}

/* RFC 3463: the subjects 1 and 2 of an enhanced code are the address and the mailbox. An
 * "x.2.0" in unknown words is greylisting or a full mailbox: slowing the site down would
 * only keep the others waiting. */
static bool of_recipient(const struct ipc_outcome *o)
{
    return o->code != 421 && o->stage >= STAGE_RCPT &&
           (slice_starts(o->enhanced, SLICE("4.1.")) || slice_starts(o->enhanced, SLICE("4.2.")));
}

static enum shaper_signal by_stage(const struct qmgr *q, struct lane *l,
                                   const struct ipc_outcome *o, const struct ipc_result *in,
                                   struct shaper_report *r)
{
    bool temporary = !o->local && o->code / 100 == 4;
    if (in->scope == SCOPE_SITE && (o->stage <= STAGE_EHLO || o->stage > STAGE_DOT))
        return at_the_door(q, l, o, r);
    if (o->stage == STAGE_STARTTLS || o->stage == STAGE_AUTH)
        return in->scope == SCOPE_SITE ? SHAPER_UNREACHABLE : SHAPER_NEUTRAL;
    if (o->local)
        return in->scope == SCOPE_SITE && !shaper_works(&l->shaper, q->now) ? SHAPER_UNREACHABLE
                                                                            : SHAPER_NEUTRAL;
    if (temporary && o->code == 421)
        return closed_on_us(l, in->use_count);
    if (temporary && o->stage == STAGE_MAIL)
        return SHAPER_TOO_FAST;
    if ((in->scope == SCOPE_RECIPIENT && !temporary) || (temporary && of_recipient(o)))
        return SHAPER_OK;
    note_odd(l, temporary);
    return temporary && l->odd > ODD_MANY ? SHAPER_TOO_FAST : SHAPER_NEUTRAL;
}

/* ---- the result ------------------------------------------------------------------------------ */

void verdict_of(struct qmgr *q, struct job *j, const struct ipc_result *in, struct verdict *out)
{
    struct lane *l = j->queue->lane;
    struct ipc_cursor cursor = ipc_list_cursor(in->outcomes);
    struct ipc_outcome o;
    *out = (struct verdict){.report = {.signal = SHAPER_NEUTRAL,
                                       .started = j->sent_at,
                                       .use_count = in->use_count,
                                       .closed_after = in->closed_after}};
    struct shaper_report *r = &out->report;
    while (ipc_outcome_next(&cursor, &o)) {
        if (o.status == OUTCOME_SENT) {
            r->recipients++;
            continue;
        }
        if (out->failed)
            continue;
        out->failed = true;
        out->worst = o;
    }
    if (!out->failed) {
        r->signal = SHAPER_OK;
        r->latency = in->transfer_us;
        note_odd(l, false);
        return;
    }
    out->rule = find_rule(q, l, &out->worst);
    if (out->rule)
        by_rule(q, l, out->rule, &out->worst, r);
    else
        r->signal = by_stage(q, l, &out->worst, in, r);
    if (r->signal == SHAPER_NEUTRAL && r->recipients)
        r->signal = SHAPER_OK;
}

void verdict_recipient(struct qmgr *q, const struct job *j, struct ipc_outcome *o, int64_t *after)
{
    const struct lane *l = j->queue->lane;
    const struct rule *rule = find_rule(q, l, o);
    *after = 0;
    if (rule && rule->outcome == RULES_RETRY && o->status == OUTCOME_FAILED)
        o->status = OUTCOME_DEFERRED;
    else if (rule && rule->outcome == RULES_FAIL)
        o->status = OUTCOME_FAILED;
    if (o->status != OUTCOME_DEFERRED)
        return;
    bool of_lane = rule ? rule->action > RULES_NOTE && rule->scope != RULES_OF_RECIPIENT
                        : !o->local && o->code == 421 && o->stage <= STAGE_MAIL;
    if (rule && rule->retry_after)
        *after = rule->retry_after / q->s->config->shaping_time_divisor;
    else if (of_lane && j->m->env->recipients[o->index].attempts < PATIENCE)
        *after = -1;
}
