/*
 * Walks over the queue in slices, for the control and showq sockets. What is on
 * the disk only is read ahead, so that many reads are under way at a time; what
 * was read is kept until it was visited. A message that leaves the queue leaves
 * the walks that have it in view.
 */
#include "core/mem.h"
#include "qmgr/qmgr.h"

enum {
    VISITS_PER_TURN = 200,
    VIEW_MAX = 512,              /* messages that a walk has in view, being read or to be visited */
    VIEW_RECIPIENTS_MAX = 100000 /* their recipients; one message may have more */
};

struct queue_walk {
    struct list link;
    struct qmgr *q;
    struct list *all;               /* the list that is walked over */
    struct list *at;                /* what comes into view next, or the list's head: the end */
    struct message *view[VIEW_MAX]; /* a ring; NULL: has left the queue */
    unsigned first, count;
    uint64_t recipients;     /* in view */
    struct message *visited; /* NULL once it has left the queue */
    enum walk_answer (*visit)(struct message *m, void *arg);
    void (*done)(void *arg);
    void *arg;
    bool paused, running, cancelled, one;
};

static struct queue_walk *walk_new(struct qmgr *q, struct list *all, struct list *at,
                                   enum walk_answer (*visit)(struct message *m, void *arg),
                                   void (*done)(void *arg), void *arg)
{
    struct queue_walk *w = xcalloc(1, sizeof *w);
    w->q = q;
    w->all = all;
    w->at = at;
    w->visit = visit;
    w->done = done;
    w->arg = arg;
    list_push(&q->walks, &w->link);
    return w;
}

struct queue_walk *queue_walk_start(struct qmgr *q, enum walk_over over,
                                    enum walk_answer (*visit)(struct message *m, void *arg),
                                    void (*done)(void *arg), void *arg)
{
    struct list *all = over == WALK_DELETED ? &q->deleted : &q->all;
    return walk_new(q, all, all->next, visit, done, arg);
}

struct queue_walk *queue_visit_one(struct qmgr *q, enum walk_over over, struct slice id,
                                   enum walk_answer (*visit)(struct message *m, void *arg),
                                   void (*done)(void *arg), void *arg)
{
    struct message *m = queue_find(q, id);
    if (m && over != WALK_BOTH && m->kept != (over == WALK_DELETED))
        m = NULL;
    struct queue_walk *w = walk_new(q, &q->all, m ? &m->all : &q->all, visit, done, arg);
    w->one = true;
    return w;
}

/* ---- what is in view ---------------------------------------------------------------- */

/* Takes the first message out of view. */
static struct message *view_pop(struct queue_walk *w)
{
    struct message *m = w->view[w->first];
    w->first = (w->first + 1) % VIEW_MAX;
    w->count--;
    if (m) {
        w->recipients -= m->recipient_count;
        m->viewers--;
    }
    return m;
}

/* Half of it at a time: each group of reads costs the threads that make them some
 * waking up. */
static void view_fill(struct queue_walk *w)
{
    if (w->count > VIEW_MAX / 2)
        return;
    while (w->count < VIEW_MAX && w->at != w->all && w->recipients < VIEW_RECIPIENTS_MAX) {
        struct message *m = container_of(w->at, struct message, all);
        w->at = w->one ? w->all : m->all.next;
        w->view[(w->first + w->count++) % VIEW_MAX] = m;
        w->recipients += m->recipient_count;
        m->viewers++;
        if (m->phase == PHASE_STUB && !m->unreadable)
            message_peek(w->q, m);
    }
}

static void view_clear(struct queue_walk *w)
{
    while (w->count > 0) {
        struct message *m = view_pop(w);
        if (m)
            message_viewed(w->q, m);
    }
}

void walks_forget(struct qmgr *q, struct message *m)
{
    list_each(&q->walks, n)
    {
        struct queue_walk *w = container_of(n, struct queue_walk, link);
        if (w->at == &m->all)
            w->at = w->one ? w->all : m->all.next;
        if (w->visited == m)
            w->visited = NULL;
        for (unsigned i = 0; i < w->count && m->viewers > 0; i++) {
            struct message **in_view = &w->view[(w->first + i) % VIEW_MAX];
            if (*in_view != m)
                continue;
            *in_view = NULL;
            w->recipients -= m->recipient_count;
            m->viewers--;
        }
    }
}

/* ---- going on ------------------------------------------------------------------------- */

void queue_walk_resume(struct queue_walk *w)
{
    w->paused = false;
}

void queue_walk_cancel(struct queue_walk *w)
{
    w->cancelled = true;
    if (w->running)
        return; /* freed when its visit has returned */
    list_remove(&w->link);
    view_clear(w);
    free(w);
}

static void end(struct queue_walk *w)
{
    list_remove(&w->link);
    view_clear(w);
    if (!w->cancelled)
        w->done(w->arg);
    free(w);
}

/* Visits m, which may be gone afterwards. */
static enum walk_answer visit(struct queue_walk *w, struct message *m)
{
    w->visited = m;
    w->running = true;
    enum walk_answer answer = w->visit(m, w->arg);
    w->running = false;
    if (w->visited)
        message_viewed(w->q, m);
    w->visited = NULL;
    return w->cancelled ? WALK_STOP : answer;
}

/* Whether the message that is first in view can be visited or passed over now. */
static bool ready(const struct queue_walk *w)
{
    const struct message *m = w->count > 0 ? w->view[w->first] : NULL;
    return !m || m->phase != PHASE_LOADING;
}

/* False when the walk has to wait, or has ended. */
static bool step(struct queue_walk *w)
{
    view_fill(w);
    if (w->count == 0) {
        end(w);
        return false;
    }
    struct message *m = w->view[w->first];
    if (m && m->phase == PHASE_STUB && !m->unreadable)
        message_peek(w->q, m); /* its envelope was dropped since it came into view */
    if (!ready(w))
        return false;
    view_pop(w);
    if (!m || m->phase != PHASE_LOADED)
        return true;
    enum walk_answer answer = visit(w, m);
    if (answer == WALK_STOP)
        end(w);
    else
        w->paused = answer == WALK_PAUSE;
    return answer == WALK_ON;
}

void walks_turn(struct qmgr *q)
{
    list_each_safe(&q->walks, n)
    {
        struct queue_walk *w = container_of(n, struct queue_walk, link);
        for (int i = 0; i < VISITS_PER_TURN && !w->paused; i++)
            if (!step(w))
                break;
    }
}

bool walks_ready(const struct qmgr *q)
{
    list_each(&q->walks, n)
    {
        const struct queue_walk *w = container_of(n, struct queue_walk, link);
        if (!w->paused && ready(w))
            return true;
    }
    return false;
}
