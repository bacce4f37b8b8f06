/* A lane in words. */
#ifndef POSTERN_QMGR_SHAPING_SHOW_H
#define POSTERN_QMGR_SHAPING_SHOW_H

#include "qmgr/halts.h"
#include "qmgr/qmgr.h"

enum { LANE_SOURCE_MAX = 48 };

/* The source address as text in `text`; empty: the system's choice. */
struct slice lane_source(const struct lane *l, char text[static LANE_SOURCE_MAX]);
/* Beside an IPv4 address its IPv6 one; empty: it has none, or no other. */
struct slice lane_source6(const struct lane *l, char text[static LANE_SOURCE_MAX]);
/* Appends "where": the rule's file and line. */
void rules_put_where(struct buf *b, const struct rule *rule);
/* What holds a lane's next delivery back. */
struct lane_state {
    enum shaper_room room;
    const char *code, *words; /* for programs, and for people */
    int64_t when;             /* monotonic: until then; 0: until something else happens */
    const struct halt *halt;  /* what suspends it by hand, or NULL */
};
void lane_state(const struct qmgr *q, struct lane *l, struct lane_state *out);
/* The same of a controller alone; true if it does hold something back. */
bool shaper_state(struct shaper *s, int64_t now, struct lane_state *out);
/* Appends a number with as many digits as people want. */
void shaping_put_number(struct buf *b, const char *name, double value);
/* Appends what a controller has learned, as members; its last changes, as a list "events". */
void shaping_put_learned(const struct shaper *s, struct buf *b);
void shaping_put_events(const struct qmgr *q, const struct shaper *s, struct buf *b);
/* The rule that has suspended it, as it is; NULL: it is not suspended, or by something else. */
const struct rule *shaping_rule_of_suspension(const struct qmgr *q, const struct shaper *s);
/* Appends the members of a JSON object; `whole`: with limits and history. */
void lane_show(struct qmgr *q, struct lane *l, bool whole, struct buf *b);

#endif
