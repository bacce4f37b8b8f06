/* What the files of sources share: sources.c, sources_choose.c, sources_submit.c. */
#ifndef POSTERN_QMGR_SOURCES_INSIDE_H
#define POSTERN_QMGR_SOURCES_INSIDE_H

#include "qmgr/sources.h"

/* Where nothing says when a source may send again. */
#define SOURCE_LOOK_AGAIN (900 * CLOCK_SECOND)

/* ---- sources.c ------------------------------------------------------------------------ */

/* Why it may not send, whatever block lists say; as source_trouble. */
const char *source_outage(const struct qmgr *q, const struct source *s, int64_t *until);
/* Whether the pool, or one that takes what it may not send, has the source. */
bool source_is_reached(const struct sources_conf *conf, const struct pool_conf *p,
                       const struct source *s);
/* The same of any source without trouble. */
bool pool_has_usable(const struct qmgr *q, const struct pool_conf *p);

/* ---- sources_choose.c ------------------------------------------------------------------- */

struct choice {
    const struct pool_conf *pool; /* the message's */
    struct source *source;        /* what a job gets; NULL: none may send */
    struct source *waiting; /* that is only blocked there; if several are, for the shortest time */
    const char *why;        /* of the one that comes free first */
    const struct source *who;
    int64_t until;
    bool day_over;          /* for it has sent what it may today */
    bool looked, none_else; /* for sources that are on no block list: there is none in the pool */
};

/* The lane that the job goes to, or NULL: no source may send it, *c tells why. */
struct lane *source_choose(struct qmgr *q, struct site *site, const struct job *j,
                           struct choice *c);
/* Where the job's last attempt went from, or NULL. */
struct source *source_of_last(const struct qmgr *q, const struct job *j);

#endif
