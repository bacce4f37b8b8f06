/*
 * The accounts' socket: JSON lines, as doc/control-protocol.md has them for the
 * queue's. A request is answered by lines of results and one last line, {"done":
 * true, ...} or {"error": ...}. Requests of one client are served in order; changes
 * are answered when they are durable.
 */
#ifndef POSTERN_QUOTA_CONTROL_H
#define POSTERN_QUOTA_CONTROL_H

#include "quota/quota.h"

enum {
    CONTROL_CLIENTS_MAX = 64,
    CONTROL_LINE_MAX = 4 * 1024 * 1024, /* of a request: an import has many records */
    CONTROL_OUTPUT_LOW = 16 * 1024,   /* unsent results that wait for more, for a second at most */
    CONTROL_OUTPUT_HIGH = 256 * 1024, /* a list waits until less is on its way */
    CONTROL_OUTPUT_MAX = 8 * 1024 * 1024,
    CONTROL_IDLE_SECONDS = 300,
    CONTROL_SLICE = 500, /* records of a list in one turn */
    WARNINGS_MAX = 50,   /* of one request */
    AUDIT_TEXT_MAX = 2000
};

struct client;

/* A request is served by one function. It adds results and ends with
 * control_done or control_fail, now or in a callback that was given the client. */
struct client *control_client_pin(struct client *c);
/* NULL if it is gone meanwhile; the pin is over either way. */
struct client *control_client_unpin(struct client *c);
struct quota *control_quota(const struct client *c);
/* The request under way. */
const json_t *control_request(const struct client *c);
/* A line of results; takes the reference. */
void control_result(struct client *c, json_t *result);
/* The same, its members sorted: a record that is stored in another order is the same line. */
void control_result_sorted(struct client *c, json_t *result);
/* The last line: {"done": true} with the members of `more` (may be NULL; taken). */
void control_done(struct client *c, json_t *more);
/* A sentence for the last line's "warnings": what was done is mostly a mistake. */
void control_warn(struct client *c, struct slice sentence);
void control_fail(struct client *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Goes on with `more` whenever there is room for results, until done or failed. */
void control_continue(struct client *c, void (*more)(struct client *c));
/* Where a list goes on, for `more`. */
struct key *control_position(struct client *c);
/* What belongs to the request under way: `drop` is called when it is over, or the client gone. */
void control_attach(struct client *c, void *state, void (*drop)(void *state));
void *control_state(const struct client *c);

/* Writes a change and the audit record of it; control_done when it is durable.
 * `what` names the thing: "account acme". */
void control_change(struct client *c, struct buf *batch, const char *what);
/* A record of the audit log: who (0 is root; quota itself has its own user's), about what, and a
 * text in place of the request. */
void audit_add(struct quota *q, struct buf *batch, long uid, const char *what, struct slice text);
/* One more for the client's request. */
void control_audit(struct client *c, struct buf *batch, const char *what, struct slice text);
/* As control_change, with members for the last line (taken). */
void control_change_with(struct client *c, struct buf *batch, const char *what, json_t *more);

/* The table of requests: requests.c. */
typedef void control_serve(struct client *c);
control_serve *control_find(const char *name);

#endif
