#include "qmgr/verdict_rule.h"

#include "qmgr/alerts.h"
#include "qmgr/brakes.h"
#include "qmgr/shaping_show.h"
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

/* Names of accounts and domains may be in the buffers, of sources in the text. */
struct names {
    char account[ACCOUNT_MAX + 1], source[LANE_SOURCE_MAX];
};

static struct tally_subject subject_of(const struct job *j, unsigned attempts, struct names *n)
{
    const struct lane *l = j->queue->lane;
    return (struct tally_subject){.provider = l->group->provider,
                                  .destination = slice_str(l->group->stable),
                                  .source = lane_source(l, n->source),
                                  .account = dispatch_sharer(j->m, n->account),
                                  .domain = message_signer(j->m),
                                  .attempts = attempts};
}

void verdict_count(struct qmgr *q, const struct job *j)
{
    struct names names;
    if (q->shaping.counted_scopes == 0)
        return;
    const struct tally_subject s = subject_of(j, 0, &names);
    tallies_tried(q->shaping.tallies, q->shaping.counted_scopes, &s, q->now);
}

static bool often_enough(struct qmgr *q, const struct job *j, const struct rule *rule,
                         const struct ipc_outcome *o)
{
    struct names names;
    if (!tallies_counts(rule))
        return true;
    const struct tally_subject s =
        subject_of(j, j->m->env->recipients[o->index].attempts + 1u, &names);
    return tallies_acts(q->shaping.tallies, rule, rules_index(q->shaping.rules, rule), &s,
                        (unsigned)q->s->config->shaping_time_divisor, q->now);
}

/* ---- what it means -------------------------------------------------------------------------- */

bool verdict_by_rule(struct qmgr *q, const struct job *j, const struct rule *rule,
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
    if (!often_enough(q, j, rule, o))
        return false;
    if (rule->alert)
        alerts_raise(q, j->queue->lane, rule, o);
    if (rule->scope == RULES_OF_RECIPIENT || rule->action == RULES_NOTE)
        return true;
    bool of_sender = rule->scope == RULES_OF_ACCOUNT || rule->scope == RULES_OF_DKIM;
    if (of_sender && brakes_refused(q, j, rule, o)) {
        r->signal = SHAPER_OK; /* the destination works, for the others */
        return true;
    }
    r->of_all = rule->scope == RULES_OF_PROVIDER;
    r->factor = rule->factor;
    r->value = rule->action == RULES_SET ? rule->value : 0;
    r->time = rule->time / q->s->config->shaping_time_divisor;
    r->signal = rule->action >= RULES_SUSPEND ? SHAPER_GO_AWAY : signals[rule->dimension];
    return true;
}
