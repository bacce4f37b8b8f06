/* Requests about shaping: what their files share. */
#ifndef POSTERN_QMGR_CONTROL_SHAPING_H
#define POSTERN_QMGR_CONTROL_SHAPING_H

#include "qmgr/control_client.h"
#include "qmgr/halts.h"

/* The destination that is asked for, in *name; false: there is none, and the client was told. */
bool control_name_given(struct control_client *c, struct slice *name);
/* Whether a lane is meant: by the destination's name, its provider's, or a domain whose mail goes
 * there, and by its source (empty: any). */
bool control_lane_is_meant(struct qmgr *q, const struct lane *l, struct slice name,
                           struct slice source);
/* The same, and lanes that were that destination before it had another place and still have mail
 * of it. */
bool control_lane_is_shown(struct qmgr *q, const struct lane *l, struct slice name,
                           struct slice source);
/* Whether a suspension is of that name, or of one that people mean the same by: it then holds
 * where `name` leads to. */
bool control_halt_is_meant(const struct qmgr *q, const struct halt *h, struct slice name);
/* Whether a line more fits; else it is counted. */
bool control_fits(struct control_client *c, unsigned *shown);
/* A line on a lane, `whole` with limits and history. */
void control_put_lane(struct control_client *c, struct lane *l, bool whole);
/* A line on a suspension; false: it is over, or does not fit. */
bool control_put_halt(struct control_client *c, const struct halt *h, unsigned *shown);
/* Answers that there is no such destination. */
void control_not_there(struct control_client *c, struct slice name);

#endif
