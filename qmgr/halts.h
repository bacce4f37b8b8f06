/*
 * Halts: suspensions of destinations by hand. A halt is a record of its own, not a state of the
 * lanes that exist just now: it names a provider or section of providers.conf, a destination of
 * `shaping list`, a site, or a domain, and one source address or all, and it is asked whenever a
 * job comes into line or is about to start. So it also holds for what comes later: other
 * addresses of the site, other sources, sections of their own, mail after a restart.
 *
 * What is halted is deferred, for a while at a time, so that it expires and warns of delays as
 * ever; from one source only, it goes from the others of its pool. Only the operator's resume
 * and its own end take a halt off, no flush of the queue does.
 *
 * Times are monotonic in memory, so that a clock that is set neither ends a halt nor prolongs it,
 * and wall time in the file "shaping.suspensions" in the spool, which is written at once.
 */
#ifndef POSTERN_QMGR_HALTS_H
#define POSTERN_QMGR_HALTS_H

#include "qmgr/kept_file.h"
#include "qmgr/qmgr.h"

enum {
    HALTS_MAX = 200, /* each is looked at for each job */
    HALT_REASON_MAX = 300,
    HALT_SOURCE_MAX = 64, /* an address as text, or a name of sources.conf */
    HALT_DAYS_MAX = 366   /* a longer one is for good */
};

struct halt {
    struct list link;
    char *name;    /* in lower case */
    char *source;  /* "": all */
    char *reason;  /* the operator's words */
    int64_t until; /* INT64_MAX: for good */
    int64_t since; /* put on; after a restart: since then */
};

struct halts {
    struct list all; /* oldest first */
    size_t count;
    struct kept_file file;
};

/* ---- halts.c ----------------------------------------------------------------------------- */

void halts_init(struct qmgr *q);
/* Whether people mean this group by that name: its own, one of its sections in providers.conf, a
 * site of it, or a domain whose mail goes there as far as that is known. Case does not count. */
bool group_is_called(const struct qmgr *q, const struct group *g, struct slice name);
/* Whether the lane's source is meant: by an address or its name; "": any. */
bool source_is_called(const struct source *s, struct slice name);
/* Suspends for `time` microseconds (INT64_MAX: for good), or changes the halt of that name and
 * source. What is in line there is deferred. NULL: there are too many. */
struct halt *halts_set(struct qmgr *q, struct slice name, struct slice source, int64_t time,
                       struct slice reason);
/* Takes off those of that name, for that source or ("") all that there are. Returns how many
 * were on, and calls `ended` (may be NULL) with each. Their mail is woken by the caller. */
unsigned halts_release(struct qmgr *q, struct slice name, struct slice source,
                       void (*ended)(const struct halt *h, void *arg), void *arg);
/* What suspends a group for mail from a source (NULL: the default one): the one that lasts
 * longest, or NULL. */
const struct halt *halts_at(const struct qmgr *q, const struct group *g, const struct source *s);
/* The same if it is about this source alone: others may send. */
const struct halt *halts_of_source(const struct qmgr *q, const struct group *g,
                                   const struct source *s);
/* What suspends mail to a domain from any source, wherever it goes; or NULL. */
const struct halt *halts_of_domain(const struct qmgr *q, struct slice address,
                                   const struct source *s);
/* Whether the job must not go: then it is deferred and gone, and the caller settles its
 * message. */
bool halts_hold(struct qmgr *q, struct lane *l, struct job *j);
bool halt_is_on(const struct qmgr *q, const struct halt *h);
/* Forgets those that are over. Now and then. */
void halts_sweep(struct qmgr *q);
/* Appends h's members to a JSON object: name, source (""; all), reason, since (seconds),
 * suspended_for (not given: for good). */
void halt_put(const struct qmgr *q, const struct halt *h, struct buf *out);

/* ---- halts_file.c ------------------------------------------------------------------------- */

/* Reads the file; in the spool's directory. */
void halts_load(struct qmgr *q);

#endif
