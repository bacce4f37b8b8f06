#include "qmgr/verdict_rule.h"

#include "qmgr/alerts.h"
#include "qmgr/brakes.h"
#include "qmgr/sources.h"
#include "rules/tally.h"

const struct rule *verdict_find_rule(struct qmgr *q, const struct lane *l,
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

/* ---- rules that act from the n-th time on, or on a fraction ------------------------------- */

/* What is counted together: what the rule's scope names. */
static uint64_t place_of(const struct job *j, enum rules_scope scope)
{
    const struct lane *l = j->queue->lane;
    char buffer[ACCOUNT_MAX + 1];
    const char *where = l->group->stable;
    struct slice who = SLICE("");
    if (scope == RULES_OF_SOURCE)
        who = lane_address(l);
    else if (scope == RULES_OF_ACCOUNT)
        who = brakes_who(j->m, BRAKE_ACCOUNT, buffer);
    else if (scope == RULES_OF_DKIM)
        who = brakes_who(j->m, BRAKE_SIGNER, buffer);
    else if (l->group->provider)
        where = l->group->provider;
    struct buf key = BUF_INIT(8 * 1024);
    buf_printf(&key, "%d\n%s\n", (int)scope, where);
    (void)buf_adds(&key, who);
    uint64_t place = map_hash(buf_slice(&key));
    buf_free(&key);
    return place;
}

void verdict_count(struct qmgr *q, const struct job *j)
{
    for (int scope = RULES_OF_RECIPIENT; scope <= RULES_OF_PROVIDER; scope++)
        if (q->shaping.counted_scopes & 1u << scope)
            tallies_attempt(q->shaping.tallies, place_of(j, (enum rules_scope)scope));
}

static bool often_enough(struct qmgr *q, const struct job *j, const struct rule *rule,
                         unsigned index)
{
    if (rule->after <= 1 && rule->fraction <= 0)
        return true;
    return tallies_reached(q->shaping.tallies, rule, index, place_of(j, rule->scope),
                           (unsigned)q->s->config->shaping_time_divisor, q->now);
}

/* ---- what it means -------------------------------------------------------------------------- */

void verdict_by_rule(struct qmgr *q, const struct job *j, const struct rule *rule,
                     const struct ipc_outcome *o, struct shaper_report *r)
{
    static const enum shaper_signal signals[] = {
        [RULES_NO_DIMENSION] = SHAPER_NEUTRAL, [RULES_CONCURRENCY] = SHAPER_TOO_MANY,
        [RULES_RATE] = SHAPER_TOO_FAST,        [RULES_MESSAGES] = SHAPER_TOO_LONG,
        [RULES_VOLUME] = SHAPER_TOO_MUCH,      [RULES_CONNECTION_RATE] = SHAPER_TOO_OFTEN,
    };
    unsigned index = rules_index(q->shaping.rules, rule);
    r->rule = (uint16_t)(index + 1);
    r->signal = rule->scope == RULES_OF_RECIPIENT ? SHAPER_OK : SHAPER_NEUTRAL;
    if (!often_enough(q, j, rule, index))
        return;
    if (rule->alert)
        alerts_raise(q, j->queue->lane, rule, o);
    if (rule->scope == RULES_OF_RECIPIENT || rule->action == RULES_NOTE)
        return;
    bool of_sender = rule->scope == RULES_OF_ACCOUNT || rule->scope == RULES_OF_DKIM;
    if (of_sender && brakes_refused(q, j, rule, o)) {
        r->signal = SHAPER_OK; /* the destination works, for the others */
        return;
    }
    r->of_all = rule->scope == RULES_OF_PROVIDER;
    r->factor = rule->factor;
    r->value = rule->action == RULES_SET ? rule->value : 0;
    r->time = rule->time / q->s->config->shaping_time_divisor;
    r->signal = rule->action >= RULES_SUSPEND ? SHAPER_GO_AWAY : signals[rule->dimension];
}
