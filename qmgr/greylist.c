#include "qmgr/greylist.h"

/* While nothing is known: so many steps of the first time's length, then half as long
 * again each. 5, 10, 15, 20, 30, 45, 68 minutes: what is customary is met soon. */
enum { EVEN_STEPS = 4 };
/* So many must be refused that should have been taken, before it is the destination that
 * has changed, and not some recipients that are never taken. */
enum { LATE_ENOUGH = 4 };
/* What nobody was taken after says little about others beyond so many first times. */
enum { ALONE_MOST = 4 };

/* Ages of one round differ by what it takes to get in line. */
static int64_t a_little_more(int64_t age)
{
    return age + age / 20;
}

void greylist_refused(struct greylist *g, int64_t age, int64_t first)
{
    g->first = first;
    if (g->passed && age >= g->passed) {
        if (++g->late < LATE_ENOUGH)
            return;
        g->passed = 0; /* it takes longer now */
    }
    if (age > g->refused)
        g->refused = age;
}

/* The age up to which others were refused, as far as it tells. */
static int64_t refused_until(const struct greylist *g)
{
    int64_t most = ALONE_MOST * g->first;
    return g->passed || g->refused < most ? g->refused : most;
}

void greylist_passed(struct greylist *g, int64_t age)
{
    g->late = 0;
    if (age <= g->refused)
        g->refused = 0; /* it takes less now */
    if (age > 0 && (g->passed == 0 || age < g->passed))
        g->passed = age;
}

int64_t greylist_next(const struct greylist *g, int64_t age)
{
    int64_t others = refused_until(g);
    int64_t beyond = age > others ? age : others, next = g->first;
    for (int i = 1; next < a_little_more(beyond) && next < INT64_MAX / 4; i++)
        next += i < EVEN_STEPS ? g->first : next / 2;
    return g->passed > age && g->passed < next ? g->passed : next;
}

bool greylist_in_vain(const struct greylist *g, int64_t age)
{
    return age <= refused_until(g);
}
