/*
 * Servers that answer questions: policy servers, lookup tables. One question at a
 * time on a connection; connections are kept for later questions. The service
 * cannot connect by itself: master makes the sockets (ipc_connect_request). A
 * question that cannot be sent, or whose answer is malformed or cut off, is tried
 * once more on a new connection: the old one may have grown stale.
 */
#ifndef POSTERN_SERVICE_REMOTE_H
#define POSTERN_SERVICE_REMOTE_H

#include <event2/event.h>

#include "core/buf.h"
#include "core/list.h"

enum {
    REMOTE_TRIES = 2,         /* to have an answer */
    REMOTE_BACKOFF_FIRST = 1, /* s until a server that failed is asked again; then doubled */
    REMOTE_TROUBLE_MAX = 160
};

struct remote_connection;
struct remote_query;

enum remote_reply { REMOTE_REPLY_MORE, REMOTE_REPLY_DONE, REMOTE_REPLY_BAD };
/* Looks for one reply in `in`, which is all that has come. DONE: *reply is what
 * the asker gets (inside `in`), *used its length on the wire. */
typedef enum remote_reply remote_parse(struct slice in, struct slice *reply, size_t *used);

/* How connections are made: what all servers share. */
struct remote_network {
    struct event_base *base;
    uint64_t next_tag;
    /* Asks for a connection; remote_connecting follows. false: nobody to ask. */
    bool (*connect)(void *arg, uint64_t tag, struct slice endpoint);
    void *arg;
};

struct remote {
    /* set by the owner, who keeps endpoint alive: */
    struct remote_network *network;
    const char *endpoint;
    remote_parse *parse;
    size_t reply_max; /* bytes; parse decides within them */
    unsigned connections_max;
    int64_t timeout, idle; /* microseconds: for an answer; until an unused connection is closed */
    int64_t backoff_max;   /* s; 0: a server that fails is asked again at once */
    /* own: */
    struct list connections; /* struct remote_connection */
    unsigned connection_count;
    struct list queries; /* all that are open, by age */
    struct list waiting; /* those of them that have no connection */
    struct list doomed;  /* that get no answer, and are told so in a moment */
    struct event *doom;
    int64_t backoff;                  /* s, of the last failure; 0: it has answered since */
    int64_t not_before;               /* clock_mono: then it may be asked again */
    int64_t heard;                    /* clock_mono of its last answer */
    char trouble[REMOTE_TROUBLE_MAX]; /* why it failed last; printable */
};

/* One question; part of its owner. Zeroed: not asked. */
struct remote_query {
    struct list link, waiting;
    struct remote *remote; /* NULL: not asked */
    struct remote_connection *connection;
    struct buf request; /* filled in before remote_ask, which takes it over */
    int64_t since;
    unsigned tries;
    /* The reply, or why there is none (else NULL): printable, both valid until this
     * returns. The query is not asked any more and may be used again. */
    void (*answered)(struct remote_query *q, struct slice reply, const char *why);
};

/* The rest of *r is set. */
void remote_init(struct remote *r);
/* Closes its connections. Its queries must be over. */
void remote_free(struct remote *r);
/* Sends q->request; q->answered is called later, never from within. */
void remote_ask(struct remote *r, struct remote_query *q);
/* The answer is not wanted any more. Harmless if the query is not asked. */
void remote_forget(struct remote_query *q);
/* A connection is under way (takes over fd), or -1 and why not. false: it is none
 * of this server's; fd is still the caller's. */
bool remote_connecting(struct remote *r, uint64_t tag, int fd, struct slice why);
/* At least once a second: time-outs, and connections that nobody needs any more. */
void remote_tick(struct remote *r, int64_t now);

#endif
