#include "smtpd/policy_service.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "smtpd/limits.h"

static enum remote_reply parse(struct slice in, struct slice *reply, size_t *used)
{
    switch (policy_reply_parse(in, reply, used)) {
    case POLICY_REPLY_MORE:
        return REMOTE_REPLY_MORE;
    case POLICY_REPLY_DONE:
        return REMOTE_REPLY_DONE;
    case POLICY_REPLY_BAD:
        break;
    }
    return REMOTE_REPLY_BAD;
}

static void on_answer(struct remote_query *query, struct slice reply, const char *why)
{
    struct policy_query *q = container_of(query, struct policy_query, remote);
    const struct policy_service *v = q->service;
    struct policy_action a;
    if (why)
        log_warning("policy server %s: %s; its default action holds: %s", v->endpoint, why,
                    v->default_action);
    policy_action_parse(why ? slice_str(v->default_action) : reply, &a);
    q->answered(q, &a);
}

void policy_ask(struct policy_service *v, struct policy_query *q)
{
    q->service = v;
    q->remote.answered = on_answer;
    remote_ask(&v->remote, &q->remote);
}

void policy_forget(struct policy_query *q)
{
    remote_forget(&q->remote);
}

void policy_service_init(struct policy_service *v, struct remote_network *network, char *endpoint,
                         int64_t timeout)
{
    *v = (struct policy_service){.endpoint = endpoint,
                                 .remote = {.network = network,
                                            .endpoint = endpoint,
                                            .parse = parse,
                                            .reply_max = POLICY_REPLY_MAX,
                                            .connections_max = POLICY_CONNECTIONS_MAX,
                                            .timeout = timeout,
                                            .idle = POLICY_IDLE_SECONDS * CLOCK_SECOND}};
    remote_init(&v->remote);
}

void policy_service_free(struct policy_service *v)
{
    remote_free(&v->remote);
    free(v->endpoint);
    free(v->default_action);
    free(v->context);
}
