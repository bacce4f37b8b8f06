/* A lane in words. */
#ifndef POSTERN_QMGR_SHAPING_SHOW_H
#define POSTERN_QMGR_SHAPING_SHOW_H

#include "qmgr/qmgr.h"

enum { LANE_SOURCE_MAX = 48 };

/* The source address as text in `text`; empty: the system's choice. */
struct slice lane_source(const struct lane *l, char text[static LANE_SOURCE_MAX]);
/* Appends the members of a JSON object; `whole`: with limits and history. */
void lane_show(struct qmgr *q, struct lane *l, bool whole, struct buf *b);

#endif
