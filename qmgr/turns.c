/*
 * A queue is idle, ready in its account, waits for a seat of its account's (seats.h), or waits
 * at its lane for room. An account has one
 * place in line at a lane, whatever classes its mail is of: so accounts share a slow
 * destination evenly, and a customer's bulk mail never stands before another's password
 * reset. Whoever had a large job pays for it with its next turns, and whoever made up a refused
 * window leaves turns to others.
 */
#include "qmgr/dispatch_inside.h"
#include "qmgr/seats.h"
#include "qmgr/whole.h"

void queue_ready(struct qmgr *q, struct queue *k)
{
    struct account *a = k->account;
    list_remove(&k->link);
    list_push(&a->ready[k->mail_class], &k->link);
    k->place = PLACE_READY;
    seats_ready(q, k, true);
    if (a->ready_count++ == 0)
        list_push(&q->dispatch.active, &a->active);
}

/* ---- waiting at a lane ---------------------------------------------------------------------- */

/* An account has one place in line there, however many classes of mail: of its queues that
 * wait, one is in the list. */
static struct queue *standing_for(const struct qmgr *q, struct queue *k)
{
    for (uint8_t class = 0; class < 3; class ++) {
        struct queue *other = class == k->mail_class ? k : queue_kin(q, k, class);
        if (other && other->place == PLACE_WAITING && !list_empty(&other->link))
            return other;
    }
    return NULL;
}

static struct queue *other_that_waits(const struct qmgr *q, const struct queue *k)
{
    for (uint8_t class = 0; class < 3; class ++) {
        struct queue *other = class == k->mail_class ? NULL : queue_kin(q, k, class);
        if (other && other->place == PLACE_WAITING)
            return other;
    }
    return NULL;
}

/* It waits there; `first`: it has had its turn already, and there was no room. */
void queue_waits(const struct qmgr *q, struct queue *k, bool first)
{
    struct queue *before = standing_for(q, k);
    k->place = PLACE_WAITING;
    if (before && first) {
        list_remove(&before->link);
        before = NULL;
    }
    if (before)
        return;
    if (first)
        list_push_front(&k->lane->waiting, &k->link);
    else
        list_push(&k->lane->waiting, &k->link);
}

/* Out of the ready ones, or out of the lane's waiting ones, where another of its account
 * takes the place. */
void queue_idle(struct qmgr *q, struct queue *k)
{
    struct account *a = k->account;
    bool ready = k->place == PLACE_READY,
         stood = k->place == PLACE_WAITING && !list_empty(&k->link);
    struct queue *other = stood ? other_that_waits(q, k) : NULL;
    if (other)
        list_insert_after(&k->link, &other->link);
    list_remove(&k->link);
    if (ready && --a->ready_count == 0) {
        list_remove(&a->active);
        a->deficit = 0;
    }
    k->place = PLACE_IDLE;
    if (ready)
        seats_ready(q, k, false);
}

bool lane_has_waiting(const struct lane *l)
{
    return !list_empty(&l->waiting);
}

/* Whether the account has as many deliveries under way there as one may have while others
 * wait: all of its classes count. */
static bool has_its_share(const struct qmgr *q, const struct queue *k)
{
    uint32_t most = k->lane->shaper.limits->account_connections, under_way = k->in_flight;
    for (uint8_t class = 0; most && class < 3; class ++) {
        const struct queue *of = class == k->mail_class ? NULL : queue_kin(q, k, class);
        under_way += of ? of->in_flight : 0;
    }
    return most && under_way >= most;
}

/* Whether the account is to blame for the last refusal; then that was one of the turns that it
 * leaves to others. */
static bool leaves_its_turn(const struct qmgr *q, struct queue *k)
{
    for (uint8_t class = 0; class < 3; class ++) {
        struct queue *of = class == k->mail_class ? k : queue_kin(q, k, class);
        if (of && of->debt > 0) {
            of->debt--;
            return true;
        }
    }
    return false;
}

/* ---- what a turn costs -----------------------------------------------------------------------

   Deficit round robin, on credit: a job starts whatever its size, and its account's next turns
   pay for it. A turn pays for one unit. */

enum { BYTES_UNIT = 64 * 1024, COST_MAX = 4096, OWED_MAX = 4 * COST_MAX };

void lane_no_room(const struct qmgr *q, struct lane *l, enum shaper_room room)
{
    const struct whole *w = l->group->whole;
    bool of_whole = w && !list_empty(&l->of_whole); /* that always says SHAPER_FULL */
    l->paced = room == SHAPER_LATER || (of_whole && w->shaper.next_start > q->now);
}

uint32_t turn_cost(const struct queue *k, const struct job *j)
{
    const struct lane *l = k->lane;
    uint32_t window = shaper_window(&l->shaper);
    /* a large message that takes the last of several connections leaves none for others,
     * although until now the rate was what they waited for */
    bool last = window > 1 && l->in_flight + 1 >= window;
    uint64_t cost = j->count;
    if (!l->paced || last)
        cost += message_size(j->m) / BYTES_UNIT;
    return cost < COST_MAX ? (uint32_t)cost : COST_MAX;
}

static bool others_wait(const struct queue *k)
{
    const struct list *line = &k->lane->waiting;
    if (list_empty(line))
        return false;
    const struct queue *first = container_of(line->next, struct queue, link);
    return line->next != line->prev || first->account != k->account;
}

static uint32_t owed_by(const struct qmgr *q, const struct queue *k)
{
    uint32_t owed = 0;
    for (uint8_t class = 0; class < 3; class ++) {
        const struct queue *of = class == k->mail_class ? k : queue_kin(q, k, class);
        owed += of ? of->owed : 0;
    }
    return owed;
}

static void take_off(const struct qmgr *q, struct queue *k, uint32_t units)
{
    for (uint8_t class = 0; units && class < 3; class ++) {
        struct queue *of = class == k->mail_class ? k : queue_kin(q, k, class);
        uint16_t part = of ? of->owed : 0;
        part = part < units ? part : (uint16_t)units;
        if (of)
            of->owed = (uint16_t)(of->owed - part);
        units -= part;
    }
}

void turn_pay(const struct qmgr *q, struct queue *k, uint32_t cost)
{
    if (!others_wait(k)) {
        take_off(q, k, 3 * OWED_MAX);
        return;
    }
    uint32_t owed = k->owed + (cost ? cost - 1 : 0); /* this turn pays for one */
    k->owed = (uint16_t)(owed < OWED_MAX ? owed : OWED_MAX);
}

void turn_pay_back(const struct qmgr *q, struct queue *k, uint32_t cost)
{
    take_off(q, k, cost ? cost - 1 : 0);
}

/* ---- whose turn it is ------------------------------------------------------------------------ */

/* Among those that were passed. */
struct passed {
    struct queue *least; /* owes least of those that may go; NULL: none may */
    uint32_t owed;
    int count;
};

/* k's account comes by: true if it has the turn. Else it goes to the end of the line. */
static bool comes_by(const struct qmgr *q, struct queue *k, struct passed *p)
{
    bool may_go = !leaves_its_turn(q, k) && !has_its_share(q, k);
    uint32_t owed = owed_by(q, k);
    if (may_go && owed == 0)
        return true;
    if (owed)
        take_off(q, k, 1);
    owed -= owed > 0;
    if (may_go && (!p->least || owed < p->owed)) {
        p->least = k;
        p->owed = owed;
    }
    p->count++;
    list_remove(&k->link);
    list_push(&k->lane->waiting, &k->link);
    return false;
}

/* All of those passed owe something: so many rounds would serve nobody, and are left out. Where
 * not all that wait were looked at, it is the one's alone: the others have their rounds yet. */
static void skip_rounds(const struct qmgr *q, const struct lane *l, const struct passed *p,
                        bool all)
{
    const struct list *n = l->waiting.prev;
    if (!all) {
        take_off(q, p->least, p->owed);
        return;
    }
    for (int i = 0; i < p->count; i++, n = n->prev)
        take_off(q, container_of(n, struct queue, link), p->owed);
}

/* The account that waits first, but those that are to blame for the last refusal, those that
 * have their share, and those that owe turns for jobs that were larger than others', leave
 * theirs: one of its queues, in the list. At most PASSED_MAX are looked at; if all of them owe
 * something it is the one that owes least. */
static struct queue *next_account(const struct qmgr *q, struct lane *l)
{
    enum { PASSED_MAX = 32 };
    struct queue *first = container_of(l->waiting.next, struct queue, link), *k = first;
    struct passed p = {0};
    if (l->waiting.next == l->waiting.prev)
        return k;
    do {
        if (comes_by(q, k, &p))
            return k;
        k = container_of(l->waiting.next, struct queue, link);
    } while (k != first && p.count < PASSED_MAX);
    if (!p.least)
        return k;
    skip_rounds(q, l, &p, k == first);
    return p.least;
}

/* Of the account's queues that wait there, the one whose class is in turn; that takes the
 * account's turn: the others wait behind those of other accounts. */
static struct queue *next_class(const struct qmgr *q, struct queue *stands)
{
    const int32_t weights[3] = {[CLASS_TRANSACTIONAL] =
                                    (int32_t)q->s->config->class_weight_transactional,
                                [CLASS_NORMAL] = (int32_t)q->s->config->class_weight_normal,
                                [CLASS_BULK] = (int32_t)q->s->config->class_weight_bulk};
    static const uint8_t order[3] = {CLASS_TRANSACTIONAL, CLASS_NORMAL, CLASS_BULK};
    struct queue *chosen = NULL, *other;
    int32_t all = 0;
    for (int i = 0; i < 3; i++) {
        struct queue *k = order[i] == stands->mail_class ? stands : queue_kin(q, stands, order[i]);
        if (!k)
            continue;
        if (k->place != PLACE_WAITING) {
            k->credit = 0;
            continue;
        }
        k->credit = (int16_t)(k->credit + weights[order[i]]);
        all += weights[order[i]];
        if (!chosen || k->credit > chosen->credit)
            chosen = k;
    }
    chosen->credit = (int16_t)(chosen->credit - all);
    list_remove(&stands->link);
    other = chosen == stands ? other_that_waits(q, chosen) : stands;
    if (other)
        list_push(&stands->lane->waiting, &other->link);
    return chosen;
}

void queue_in_line(struct qmgr *q, struct queue *k)
{
    int64_t when;
    if (!lane_has_waiting(k->lane) && whole_room(q, k->lane, false, &when) == SHAPER_GO) {
        queue_ready(q, k);
        return;
    }
    queue_waits(q, k, false);
    lane_wake(q, k->lane);
}

/* ---- blame ----------------------------------------------------------------------------------- */

/* What one account has at a lane, in all classes. */
struct part {
    uint64_t window;
    bool shares; /* something was started, or waits */
};

/* False: another of the account's queues stands for it. */
static bool part_of(const struct qmgr *q, const struct queue *k, struct part *out)
{
    *out = (struct part){0};
    for (uint8_t class = 0; class < 3; class ++) {
        const struct queue *of = class == k->mail_class ? k : queue_kin(q, k, class);
        if (!of)
            continue;
        if (class < k->mail_class)
            return false;
        out->window += of->window;
        out->shares =
            out->shares || of->window || of->place == PLACE_WAITING || of->place == PLACE_READY;
    }
    return true;
}

void lane_blame(const struct qmgr *q, struct lane *l, int64_t started)
{
    enum { UNEVEN = 3 /* half more than an even share */, DEBT_MAX = 8, ENOUGH = 4 };
    uint64_t all = 0, some = 0;
    struct part part;
    if (started <= l->blamed) /* of the same burst */
        return;
    list_each(&l->queues, n) if (part_of(q, container_of(n, struct queue, of_lane), &part))
    {
        all += part.window;
        some += part.shares;
    }
    if (all < ENOUGH)
        return;
    l->blamed = q->now;
    list_each(&l->queues, n)
    {
        struct queue *k = container_of(n, struct queue, of_lane);
        k->debt = 0;
        if (!part_of(q, k, &part))
            continue;
        uint64_t halves = some * 2 * part.window / all; /* of an even share */
        k->debt = (uint8_t)(halves < UNEVEN ? 0 : halves < DEBT_MAX ? halves : DEBT_MAX);
    }
    list_each(&l->queues, n) container_of(n, struct queue, of_lane)->window = 0;
}

/* One waiting queue becomes ready, if the lane has room. */
bool lane_wake(struct qmgr *q, struct lane *l)
{
    int64_t when;
    if (!lane_has_waiting(l))
        return false;
    enum shaper_room room = whole_room(q, l, true, &when);
    if (room == SHAPER_LATER || room == SHAPER_SUSPENDED)
        heap_set(&q->dispatch.wakes, &l->wake, when);
    if (room != SHAPER_GO) {
        lane_no_room(q, l, room);
        return false;
    }
    queue_ready(q, next_class(q, next_account(q, l)));
    return true;
}
