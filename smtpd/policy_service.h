/*
 * Policy servers: what a server that cannot be asked, or that gives no usable
 * answer in its time, would say is its default action. See service/remote.h.
 */
#ifndef POSTERN_SMTPD_POLICY_SERVICE_H
#define POSTERN_SMTPD_POLICY_SERVICE_H

#include "service/remote.h"
#include "smtp/policy_reply.h"

struct policy_service {
    struct remote remote;
    char *endpoint, *default_action, *context;
};

/* One question; part of its owner. Zeroed: not asked. */
struct policy_query {
    struct remote_query remote; /* its request is filled in before policy_ask */
    struct policy_service *service;
    /* The answer, or the default action. The query is not asked any more and may
     * be used again. The action's text is valid until this returns. */
    void (*answered)(struct policy_query *q, const struct policy_action *a);
};

/* `endpoint` is taken over; timeout in microseconds. */
void policy_service_init(struct policy_service *v, struct remote_network *network, char *endpoint,
                         int64_t timeout);
/* Its queries must be over. */
void policy_service_free(struct policy_service *v);
/* Sends the request; q->answered is called later, never from within. */
void policy_ask(struct policy_service *v, struct policy_query *q);
/* The answer is not wanted any more. Harmless if the query is not asked. */
void policy_forget(struct policy_query *q);

#endif
