/* Inside of the control socket: one client and what serves its request. */
#ifndef POSTERN_QMGR_CONTROL_CLIENT_H
#define POSTERN_QMGR_CONTROL_CLIENT_H

#include <jansson.h>

#include "core/map.h"
#include "qmgr/control.h"
#include "qmgr/control_select.h"
#include "service/requests.h"

struct control_client;

struct control {
    struct service *service;
    struct qmgr *queue;
    struct request_socket *socket;
    uint64_t next_tag;
};

/* The request under way. All of it is reset together when it is answered. */
struct control_request {
    struct selection select;
    struct queue_walk *walk; /* cancelled when the request ends before it */
    enum walk_answer (*visit)(struct control_client *c, struct message *m);
    void (*end)(struct control_client *c);
    size_t next_id; /* in select.ids */
    bool found;     /* the message that was visited last was there */
    enum queue_action action;
    bool dry_run, list;
    bool brief; /* only what a table of the queue has */
    uint64_t limit, matched, changed, missing, older;
    uint64_t status_tag;     /* master was asked */
    int64_t status_deadline; /* monotonic */
    struct map domains;      /* of a summary: struct summary_row */
    uint64_t by_status[QUEUE_STATUSES], bytes, recipients;
    size_t domain_cursor;
    size_t lanes_shown, memory_cursor; /* of an export */
    struct buf content;                /* of a message that is shown */
    size_t content_sent;
    uint64_t content_total;
    struct id id;
};

struct control_client {
    struct request_client base;
    struct control *control;
    char by[32]; /* "uid 1000", for the log */
    struct control_request request;
    void (*more)(struct control_client *); /* control_more */
};

/* The member `name` of what was asked; NULL: there is none. */
json_t *control_asked(const struct control_client *c, const char *name);
/* The same as text; empty if there is none, or no text. Borrowed from the request. */
struct slice control_text(const struct control_client *c, const char *name);
/* Puts the queue ID that is asked for into c->request.id; false: it is none, and the client was
 * told. */
bool control_id(struct control_client *c);
/* A result line: control_line_begin, members with core/json.h, control_line_end. */
struct buf *control_line_begin(struct control_client *c);
void control_line_end(struct control_client *c);
/* Whether the client has enough to read for now. */
bool control_full(struct control_client *c);
/* What makes more of the result when there is room for it; NULL: nothing to make. */
void control_more(struct control_client *c, void (*more)(struct control_client *));
/* The last line, {"done":true}; `members` (may be NULL) adds to it. */
void control_done(struct control_client *c,
                  void (*members)(struct control_client *c, struct buf *b));
/* The last line, {"error":text}: a whole sentence that says what to do. */
void control_fail(struct control_client *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Around a callback that cannot be cancelled: the client stays in memory. */
void control_pin(struct control_client *c);
/* Returns false if the client is gone: then it must not be touched. */
bool control_unpin(struct control_client *c);

/* ---- the requests: each answers with control_done or control_fail ------------- */

void control_queue_list(struct control_client *c);    /* control_queue.c */
void control_queue_action(struct control_client *c);  /* control_queue.c */
void control_queue_summary(struct control_client *c); /* control_summary.c */
void control_summary_free(struct control_request *r);
void control_message_show(struct control_client *c); /* control_message.c */
void control_site_show(struct control_client *c);    /* control_status.c */
void control_ping(struct control_client *c);         /* control_status.c */
void control_shaping_list(struct control_client *c); /* control_shaping.c */
void control_shaping_show(struct control_client *c);
void control_shaping_act(struct control_client *c); /* control_hand.c */
void control_shaping_why(struct control_client *c);
void control_source_list(struct control_client *c); /* control_sources.c */
void control_source_show(struct control_client *c);
void control_source_act(struct control_client *c);
void control_source_pools(struct control_client *c);
void control_shaping_export(struct control_client *c); /* control_learned.c */
void control_shaping_import(struct control_client *c);
void control_status(struct control_client *c); /* control_status.c */
/* Appends the members that describe a message; recipients until the line is
 * full, the others are counted. */
void control_describe(struct control_client *c, struct buf *b, struct message *m);
/* Parses "select" of the request into c->request.select; false: it was answered
 * with an error. */
bool control_selection(struct control_client *c);
/* Walks over what is selected. visit gets only messages that match; `end` is
 * called once at the end. */
void control_walk(struct control_client *c,
                  enum walk_answer (*visit)(struct control_client *c, struct message *m),
                  void (*end)(struct control_client *c));

#endif
