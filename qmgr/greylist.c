#include "qmgr/greylist.h"

/* While nothing is known: so many steps of the first time's length, then half as long
 * again each. 5, 10, 15, 20, 30, 45, 68 minutes: what is customary is met soon. */
enum { EVEN_STEPS = 4 };

/* Ages of one round differ by what it takes to get in line. */
static int64_t a_little_more(int64_t age)
{
    return age + age / 20;
}

void greylist_refused(struct greylist *g, int64_t age, int64_t first)
{
    g->first = first;
    if (g->passed && age >= g->passed)
        g->passed = 0; /* it takes longer now */
    if (age > g->refused)
        g->refused = age;
}

void greylist_passed(struct greylist *g, int64_t age)
{
    if (age <= g->refused)
        g->refused = 0; /* it takes less now */
    if (age > 0 && (g->passed == 0 || age < g->passed))
        g->passed = age;
}

int64_t greylist_next(const struct greylist *g, int64_t age)
{
    int64_t beyond = age > g->refused ? age : g->refused, next = g->first;
    for (int i = 1; next < a_little_more(beyond) && next < INT64_MAX / 4; i++)
        next += i < EVEN_STEPS ? g->first : next / 2;
    return g->passed > age && g->passed < next ? g->passed : next;
}

bool greylist_in_vain(const struct greylist *g, int64_t age)
{
    return age <= g->refused;
}
