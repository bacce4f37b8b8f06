/* The stolen password: an account that sends far above its own usual (spike.h). */
#include "core/log.h"
#include "quota/gate.h"
#include "quota/spike.h"

bool guard_acts(const struct asking *x, unsigned level, uint64_t messages)
{
    struct account *a = x->chain[level];
    struct party *p = x->parties[level];
    bool tell, hold = a->plan->spike_action == SPIKE_HOLD;
    if (!spike_acts(&p->tally, a->plan, p->pending.messages, messages, x->now, &tell))
        return false;
    if (tell) {
        log_warning("account %s: %llu messages in this hour are far above its usual %llu: its "
                    "mail is %s until 'postern account unguard %s', or a day without more than "
                    "%llu an hour; see 'postern usage show %s'",
                    a->name,
                    (unsigned long long)(p->tally.hour_count + p->pending.messages + messages),
                    (unsigned long long)(p->tally.usual / 1000),
                    hold ? "held" : "slowed down to that limit", a->name,
                    (unsigned long long)spike_limit(&p->tally, a->plan), a->name);
        letters_spike(x->q, a, p, hold);
    }
    party_touched(x->q, p);
    return true;
}

bool guard_holds(const struct asking *x, uint64_t messages)
{
    bool held = false;
    for (unsigned i = 0; i < x->levels; i++)
        if (x->chain[i]->plan->spike_action == SPIKE_HOLD && guard_acts(x, i, messages))
            held = true;
    return held;
}
