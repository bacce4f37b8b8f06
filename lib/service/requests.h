/*
 * A socket for requests: JSON lines over a UNIX stream socket, as
 * doc/control-protocol.md describes them. A request is one object in one line; it is
 * answered by lines of results and one last line, {"done":true, ...} or {"error": ...}.
 * Requests of one client are served in order, also when several are sent at once.
 *
 * Clients are few, and bounded in everything: lines, time, memory. Results are made only
 * as fast as the client takes them. What is wrong with one client ends that client only
 * (B95).
 */
#ifndef POSTERN_SERVICE_REQUESTS_H
#define POSTERN_SERVICE_REQUESTS_H

#include <event2/event.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>

#include "core/buf.h"
#include "core/list.h"

struct request_socket;

/* The first member of a service's own struct for a client. */
struct request_client {
    struct list link;
    struct request_socket *socket; /* NULL: the client is gone, only pinned */
    json_t *request;               /* under way; NULL: none */
    /* Makes more of the result, once in a turn of the loop while there is room; NULL:
     * nothing to make. */
    void (*more)(struct request_client *c);
    struct buf in, out;
    struct event *readable, *writable;
    int fd;
    unsigned pins;      /* callbacks that will come */
    long uid;           /* of who is connected; -1: unknown */
    bool at_end;        /* no more will be read */
    int64_t last_moved; /* monotonic: when a byte went or came, or began to wait */
};

struct request_ops {
    const char *name;   /* of the socket, for the log: "the control socket" */
    size_t client_size; /* of the struct that begins with struct request_client */
    unsigned clients_max;
    unsigned idle_seconds; /* without a byte moved either way, while the client is waited for */
    size_t line_max;       /* bytes of a request */
    size_t output_low;     /* unsent results that wait for more, for a second at most */
    size_t output_high;    /* unsent results at which making more is paused */
    size_t output_max;     /* of one client; one that goes beyond is ended */
    /* The rest of the struct, which is zeroed; may be NULL. */
    void (*begin)(struct request_client *c);
    /* c->request is an object: answers with requests_done or requests_fail, now or in a
     * callback for which the client was pinned. */
    void (*serve)(struct request_client *c);
    /* The request is answered, or its client gone: frees what hangs on it. */
    void (*over)(struct request_client *c);
    /* Once a second, may be NULL. May end the request. */
    void (*tick)(struct request_client *c, int64_t now);
};

/* Serves the listener (not owned) with ops, which stay where they are. Never NULL. */
struct request_socket *request_socket_new(struct event_base *base, int listener,
                                          const struct request_ops *ops, void *arg);
/* Ends all clients; NULL is fine. */
void request_socket_free(struct request_socket *s);
/* The arg of request_socket_new. */
void *request_socket_arg(const struct request_socket *s);
/* The clients: struct request_client.link. */
struct list *request_socket_clients(struct request_socket *s);

/* A line of results is begun, gets its bytes without a newline, and is ended. Nothing is
 * sent before the loop's next turn: a request's code may add lines without the client
 * ending under its feet. */
struct buf *requests_line_begin(struct request_client *c);
void requests_line_end(struct request_client *c);
/* Whether the client has enough to read for now. */
bool requests_full(const struct request_client *c);
/* After the last line was added: the request is over. */
void requests_over(struct request_client *c);
/* The last line, {"error":text}: a whole sentence that says what to do. */
void requests_fail(struct request_client *c, const char *format, va_list args);
/* Goes on with `more` in the loop's next turn. */
void requests_continue(struct request_client *c, void (*more)(struct request_client *c));

/* Around a callback that cannot be cancelled: the client stays in memory. */
void requests_pin(struct request_client *c);
/* False if the client is gone: then it must not be touched. */
bool requests_unpin(struct request_client *c);

#endif
