/* The bounds of a lane that a setting by hand cannot pass, and which setting they come from. */
#ifndef POSTERN_QMGR_BOUNDS_H
#define POSTERN_QMGR_BOUNDS_H

#include "qmgr/qmgr.h"

/* What was asked for by hand; 0: nothing of that kind. */
struct bounds_asked {
    double rate; /* recipients a second */
    uint32_t connections, messages;
};

/* Appends a list "bounded" of what was asked for and does not hold: setting, asked, holds, and
 * because: the setting in words, with file and line. Nothing if all of it holds. */
void bounds_show(struct qmgr *q, const struct lane *l, const struct bounds_asked *asked,
                 struct buf *b);

#endif
