/*
 * Policy servers: one request at a time on a connection, connections kept for
 * later requests. smtpd cannot connect by itself: master makes the sockets. A
 * request that cannot be sent, or whose answer is malformed or cut off, is tried
 * once more on a new connection; then the server's default action holds, as it
 * does when its time is over.
 */
#ifndef POSTERN_SMTPD_POLICY_SERVICE_H
#define POSTERN_SMTPD_POLICY_SERVICE_H

#include <event2/event.h>

#include "core/buf.h"
#include "core/list.h"
#include "smtp/policy_reply.h"

struct policy_connection;
struct policy_query;

/* How connections are made: what all servers share. */
struct policy_network {
    struct event_base *base;
    uint64_t next_tag;
    /* Asks for a connection; policy_connecting follows. false: nobody to ask. */
    bool (*connect)(void *arg, uint64_t tag, struct slice endpoint);
    void *arg;
};

struct policy_service {
    struct policy_network *network;
    char *endpoint, *default_action, *context;
    int64_t timeout;         /* microseconds */
    struct list connections; /* struct policy_connection */
    unsigned connection_count;
    struct list queries; /* all that are open, by age */
    struct list waiting; /* those of them that have no connection */
};

/* One question; part of its owner. Zeroed: not asked. */
struct policy_query {
    struct list link, waiting;
    struct policy_service *service; /* NULL: not asked */
    struct policy_connection *connection;
    struct buf request; /* filled in before policy_ask */
    int64_t since;
    unsigned tries;
    bool asking;
    /* The answer, or the default action. The query is not asked any more and may
     * be used again. The action's text is valid until this returns. */
    void (*answered)(struct policy_query *q, const struct policy_action *a);
};

void policy_service_init(struct policy_service *v, struct policy_network *network);
/* Its queries must be over. */
void policy_service_free(struct policy_service *v);
/* Sends q->request; q->answered is called later, never from within. */
void policy_ask(struct policy_service *v, struct policy_query *q);
/* The answer is not wanted any more. Harmless if the query is not asked. */
void policy_forget(struct policy_query *q);
/* A connection is under way (takes over fd), or -1 and why not. false: it is none
 * of this server's; fd is still the caller's. */
bool policy_connecting(struct policy_service *v, uint64_t tag, int fd, struct slice why);
/* Once a second: timeouts, and connections that nobody needs any more. */
void policy_tick(struct policy_service *v, int64_t now);

#endif
