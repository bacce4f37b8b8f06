/* A lane in words. */
#ifndef POSTERN_QMGR_SHAPING_SHOW_H
#define POSTERN_QMGR_SHAPING_SHOW_H

#include "qmgr/qmgr.h"

enum { LANE_SOURCE_MAX = 48 };

/* The source address as text in `text`; empty: the system's choice. */
struct slice lane_source(const struct lane *l, char text[static LANE_SOURCE_MAX]);
/* What holds a lane's next delivery back. */
struct lane_state {
    enum shaper_room room;
    const char *code, *words; /* for programs, and for people */
    int64_t when;             /* monotonic: until then; 0: until something else happens */
};
void lane_state(struct lane *l, int64_t now, struct lane_state *out);
/* Appends the members of a JSON object; `whole`: with limits and history. */
void lane_show(struct qmgr *q, struct lane *l, bool whole, struct buf *b);

#endif
