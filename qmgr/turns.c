/*
 * A queue is idle, ready in its account, waits for a seat of its account's (seats.h), or waits
 * at its lane for room. An account has one
 * place in line at a lane, whatever classes its mail is of: so accounts share a slow
 * destination evenly, and a customer's bulk mail never stands before another's password
 * reset. Whoever made up a refused window leaves turns to others.
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

/* The account that waits first, but those that are to blame for the last refusal, and those
 * that have their share, leave their turn to others: one of its queues, in the list. */
static struct queue *next_account(const struct qmgr *q, struct lane *l)
{
    enum { PASSED_MAX = 32 };
    struct queue *first = container_of(l->waiting.next, struct queue, link), *k = first;
    bool alone = l->waiting.next == l->waiting.prev;
    for (int i = 0; i < PASSED_MAX && !alone && (leaves_its_turn(q, k) || has_its_share(q, k));
         i++) {
        list_remove(&k->link);
        list_push(&l->waiting, &k->link);
        k = container_of(l->waiting.next, struct queue, link);
        if (k == first)
            break;
    }
    return k;
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

/* Something was refused: whose deliveries were more than an even share of those since the
 * refusal before? */
void lane_blame(const struct lane *l)
{
    enum { UNEVEN = 3 /* half more than an even share */, DEBT_MAX = 8 };
    uint64_t all = 0, some = 0;
    list_each(&l->queues, n)
    {
        const struct queue *k = container_of(n, struct queue, of_lane);
        all += k->window;
        some += k->window > 0;
    }
    list_each(&l->queues, n)
    {
        struct queue *k = container_of(n, struct queue, of_lane);
        uint64_t halves = all ? some * 2 * k->window / all : 0; /* of an even share */
        k->debt = (uint8_t)(halves < UNEVEN ? 0 : halves < DEBT_MAX ? halves : DEBT_MAX);
        k->window = 0;
    }
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
    if (room != SHAPER_GO)
        return false;
    queue_ready(q, next_class(q, next_account(q, l)));
    return true;
}
