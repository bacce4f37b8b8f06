/* Walks over the queue in slices, for the control socket. A walk stands before a
 * message; when that message leaves the queue, the walk moves on with the list. */
#include "core/mem.h"
#include "qmgr/qmgr.h"

enum { VISITS_PER_TURN = 200 };

struct queue_walk {
    struct list link;
    struct qmgr *q;
    struct list *at;         /* the next message's node, or the list's head: the end */
    struct message *awaited; /* its envelope is being read */
    enum walk_answer (*visit)(struct message *m, void *arg);
    void (*done)(void *arg);
    void *arg;
    bool paused, running, cancelled, one;
};

static struct queue_walk *walk_new(struct qmgr *q, struct list *at,
                                   enum walk_answer (*visit)(struct message *m, void *arg),
                                   void (*done)(void *arg), void *arg)
{
    struct queue_walk *w = xcalloc(1, sizeof *w);
    *w = (struct queue_walk){.q = q, .at = at, .visit = visit, .done = done, .arg = arg};
    list_push(&q->walks, &w->link);
    return w;
}

struct queue_walk *queue_walk_start(struct qmgr *q,
                                    enum walk_answer (*visit)(struct message *m, void *arg),
                                    void (*done)(void *arg), void *arg)
{
    return walk_new(q, q->all.next, visit, done, arg);
}

struct queue_walk *queue_visit_one(struct qmgr *q, struct slice id,
                                   enum walk_answer (*visit)(struct message *m, void *arg),
                                   void (*done)(void *arg), void *arg)
{
    struct message *m = queue_find(q, id);
    struct queue_walk *w = walk_new(q, m ? &m->all : &q->all, visit, done, arg);
    w->one = true;
    return w;
}

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
    free(w);
}

void walks_forget(struct qmgr *q, const struct message *m)
{
    list_each(&q->walks, n)
    {
        struct queue_walk *w = container_of(n, struct queue_walk, link);
        if (w->at == &m->all)
            w->at = w->one ? &q->all : m->all.next;
        if (w->awaited == m)
            w->awaited = NULL;
    }
}

/* Visits m and stands at what follows, before m can vanish. */
static enum walk_answer visit(struct queue_walk *w, struct message *m)
{
    w->at = w->one ? &w->q->all : m->all.next;
    w->running = true;
    enum walk_answer answer = w->visit(m, w->arg);
    w->running = false;
    return w->cancelled ? WALK_STOP : answer;
}

static void end(struct queue_walk *w)
{
    list_remove(&w->link);
    if (!w->cancelled)
        w->done(w->arg);
    free(w);
}

static void apply(struct queue_walk *w, enum walk_answer answer)
{
    if (answer == WALK_STOP)
        end(w);
    else
        w->paused = answer == WALK_PAUSE;
}

void walks_loaded(struct qmgr *q, struct message *m)
{
    list_each_safe(&q->walks, n)
    {
        struct queue_walk *w = container_of(n, struct queue_walk, link);
        if (w->awaited != m)
            continue;
        w->awaited = NULL;
        /* now, before the envelope is dropped again for want of memory */
        if (m->phase == PHASE_LOADED && w->at == &m->all)
            apply(w, visit(w, m));
    }
}

/* False when the walk has to wait, or has ended. */
static bool step(struct queue_walk *w)
{
    struct qmgr *q = w->q;
    if (w->at == &q->all) {
        end(w);
        return false;
    }
    struct message *m = container_of(w->at, struct message, all);
    if (m->phase == PHASE_LOADED) {
        enum walk_answer answer = visit(w, m);
        apply(w, answer);
        return answer == WALK_ON;
    }
    if (m->phase == PHASE_COMMITTING || (m->phase == PHASE_STUB && m->unreadable)) {
        w->at = w->one ? &q->all : m->all.next;
        return true;
    }
    if (m->phase == PHASE_STUB)
        message_load(q, m);
    w->awaited = m;
    return false;
}

void walks_turn(struct qmgr *q)
{
    list_each_safe(&q->walks, n)
    {
        struct queue_walk *w = container_of(n, struct queue_walk, link);
        for (int i = 0; i < VISITS_PER_TURN && !w->paused && !w->awaited; i++)
            if (!step(w))
                break;
    }
}

bool walks_ready(const struct qmgr *q)
{
    list_each(&q->walks, n)
    {
        const struct queue_walk *w = container_of(n, struct queue_walk, link);
        if (!w->paused && !w->awaited)
            return true;
    }
    return false;
}
