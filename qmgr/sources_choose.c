/* Which source address a job gets: by weight among those of its pool that may send there. */
#include <stdio.h>
#include <xxhash.h>

#include "core/log.h"
#include "core/mem.h"
#include "qmgr/halts.h"
#include "qmgr/sources_inside.h"

enum { TRIES = 8 /* weighted choices before the pool is gone through */ };
enum family { FAMILY_4 = 1, FAMILY_6 = 2 };

/* ---- whether it may send there -------------------------------------------------------- */

static bool reaches(const struct source *s, const struct site *site)
{
    return (s->has_v4 && (site->families & FAMILY_4)) || (s->has_v6 && (site->families & FAMILY_6));
}

/* When mail may go there from it again; monotonic. 0: now, or it has no lane there. */
static int64_t opens(const struct qmgr *q, struct source *s, const struct site *site)
{
    const struct lane *l = dispatch_lane_known(q, site->group, s);
    return l && l->shaper.suspended_until > q->now ? l->shaper.suspended_until : 0;
}

static bool is_blocked(const struct qmgr *q, const struct lane *l)
{
    return l && l->blocked && l->shaper.suspended_until > q->now;
}

/* ---- which one -------------------------------------------------------------------------- */

/* Notes why not, of the one that comes free first. */
static bool refuse(struct choice *c, const struct source *s, const char *why, int64_t until)
{
    static char kept[SOURCE_REASON_MAX + 64];
    if (!c->why || until < c->until) {
        snprintf(kept, sizeof kept, "%s", why);
        c->why = kept;
        c->who = s;
        c->until = until;
        c->day_over = false;
    }
    return false;
}

/* What may go there from it today has been sent. */
static bool refuse_today(const struct qmgr *q, struct choice *c, const struct source *s,
                         const struct day_use *use)
{
    struct buf text = BUF_INIT(SOURCE_REASON_MAX);
    (void)buf_addstr(&text, s ? "it has sent what it may today: " : "");
    day_describe(use, &text);
    (void)buf_addc(&text, '\0');
    (void)refuse(c, s, text.data, sources_day_ends(q));
    c->day_over |= c->who == s;
    buf_free(&text);
    return false;
}

/* It is on a block list, and its pool has no source that is not. */
static bool is_last(const struct qmgr *q, const struct source *s, struct choice *c)
{
    int64_t until;
    if (source_outage(q, s, &until))
        return false;
    if (!c->looked)
        c->none_else = !pool_has_usable(q, c->pool);
    c->looked = true;
    return c->none_else;
}

static bool may_send(struct qmgr *q, struct source *s, const struct site *site, struct choice *c)
{
    int64_t until;
    if (!reaches(s, site))
        return refuse(c, s, "it has no address of the destination's family",
                      q->now + SOURCE_LOOK_AGAIN);
    const char *why = source_trouble(q, s, &until);
    if (why && !is_last(q, s, c))
        return refuse(c, s, why, until);
    const struct halt *halt = halts_of_source(q, site->group, s);
    if (halt)
        return refuse(c, s, "suspended by hand at this destination", halt->until);
    const struct lane *l = dispatch_lane_known(q, site->group, s);
    struct day_use use;
    if (l)
        lane_day(q, l, &use);
    else
        record_day(q, source_record(s, slice_str(site->group->provider)), &use);
    if (day_left(&use) == 0)
        return refuse_today(q, c, s, &use);
    if (!is_blocked(q, l))
        return true;
    if (!c->waiting || opens(q, s, site) < opens(q, c->waiting, site))
        c->waiting = s;
    return false;
}

/* From the message's ID: the same after a restart. */
static uint64_t number_of(const struct message *m, unsigned attempt)
{
    return XXH3_64bits_withSeed(m->id.text, strlen(m->id.text), attempt);
}

static size_t by_weight(const struct pool_conf *p, uint64_t number)
{
    uint32_t at = (uint32_t)(number % p->weights[p->count - 1]);
    size_t low = 0, high = p->count - 1;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (p->weights[middle] > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Takes it. If nothing goes there from it for a while, mail that has gone from no source yet had
 * better go from one that is let in: *shut is the one that is let in first. */
static bool take(struct qmgr *q, struct source *s, const struct site *site, struct source **shut,
                 struct choice *c)
{
    if (!may_send(q, s, site, c))
        return false;
    if (opens(q, s, site)) {
        if (!*shut || opens(q, s, site) < opens(q, *shut, site))
            *shut = s;
        return false;
    }
    c->source = s;
    return true;
}

static bool from_pool(struct qmgr *q, const struct pool_conf *p, const struct message *m,
                      const struct site *site, struct choice *c)
{
    struct source **all = q->from->by_position, *shut = NULL;
    size_t at = 0;
    if (p->count == 0)
        return false;
    for (unsigned i = 0; i < TRIES; i++) {
        at = by_weight(p, number_of(m, i));
        if (take(q, all[p->members[at]], site, &shut, c))
            return true;
    }
    for (size_t i = 1; i < p->count; i++)
        if (take(q, all[p->members[(at + i) % p->count]], site, &shut, c))
            return true;
    c->source = shut;
    return shut != NULL;
}

static const struct pool_conf *pool_of(struct qmgr *q, const struct message *m)
{
    static const struct slice classes[] = {
        [CLASS_NORMAL] = {"normal", 6},
        [CLASS_TRANSACTIONAL] = {"transactional", 13},
        [CLASS_BULK] = {"bulk", 4},
    };
    struct slice sender = message_sender(m), wanted = pools_name(q, m);
    struct sources *all = q->from;
    if (wanted.len && !sources_pool(all->conf, wanted) &&
        (!all->unknown_pool || !slice_eq(slice_str(all->unknown_pool), wanted))) {
        free(all->unknown_pool);
        all->unknown_pool = slice_dup(wanted);
        log_warning("there is no pool %s in sources.conf, which account %s is to send from: it "
                    "sends from the pool \"default\"",
                    log_esc(wanted), log_esc(message_account(m)));
    }
    return sources_pool_for(all->conf, message_account(m), wanted,
                            slice_from(sender, slice_rchr(sender, '@') + 1),
                            classes[m->env->mail_class]);
}

static void choose(struct qmgr *q, struct message *m, struct source *last, const struct site *site,
                   struct choice *c)
{
    const struct sources_conf *conf = q->from->conf;
    const struct pool_conf *p = pool_of(q, m);
    *c = (struct choice){.pool = p};
    if (last && last->conf && source_is_reached(conf, p, last) && may_send(q, last, site, c)) {
        c->source = last;
        return;
    }
    for (;;) {
        if (from_pool(q, p, m, site, c) || p->overflow < 0)
            return;
        p = &conf->pools[p->overflow];
    }
}

struct source *source_of_last(const struct qmgr *q, const struct job *j)
{
    const struct answer *a = j->m->env->recipients[j->rcpts[0]].answer;
    return a && a->source ? q->from->numbers[a->source - 1] : NULL;
}

/* Of mail without a source. */
static struct lane *plain_lane(struct qmgr *q, struct site *site, struct choice *c)
{
    struct lane *l = dispatch_lane(q, site->group, NULL);
    struct day_use use;
    *c = (struct choice){0};
    lane_day(q, l, &use);
    return day_left(&use) > 0 || refuse_today(q, c, NULL, &use) ? l : NULL;
}

/* A lane that is made may be remembered to be blocked or suspended, or to have sent what it may
 * today: then it is known now, and the choice is made once more. */
struct lane *source_choose(struct qmgr *q, struct site *site, const struct job *j, struct choice *c)
{
    if (!q->from->conf || q->from->conf->count == 0 || site->transport != TRANSPORT_SMTP)
        return plain_lane(q, site, c);
    for (;;) {
        choose(q, j->m, source_of_last(q, j), site, c);
        struct source *s = c->source ? c->source : c->waiting;
        if (!s)
            return NULL;
        bool known = dispatch_lane_known(q, site->group, s) != NULL;
        struct lane *l = dispatch_lane(q, site->group, s);
        if (known || (l->shaper.suspended_until <= q->now && lane_room(q, l)))
            return l;
    }
}
