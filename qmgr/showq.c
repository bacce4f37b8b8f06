/* One walk over the queue for each client. A message whose recipients do not fit
 * into the output at once is visited again for the rest (struct rest). */
#include "qmgr/showq.h"

#include <stdio.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "service/local.h"

struct showq {
    struct service *service;
    struct qmgr *queue;
    struct event *accept, *tick;
    struct list clients;
    unsigned count;
};

struct client {
    struct list link;
    struct showq *showq;
    int fd;
    struct event *writable;
    struct buf out;
    struct queue_walk *walk; /* over the queue; NULL when all is in `out` */
    struct queue_walk *rest; /* of one message; the walk is paused meanwhile */
    struct id id;            /* of that message */
    uint32_t next;           /* its first recipient that is not in `out` */
    bool unfinished;         /* there are such */
    bool visited;            /* the message was still there for the rest */
    int64_t last_moved;      /* monotonic */
};

static void client_end(struct client *c)
{
    if (c->rest)
        queue_walk_cancel(c->rest);
    if (c->walk)
        queue_walk_cancel(c->walk);
    list_remove(&c->link);
    c->showq->count--;
    event_free(c->writable);
    close(c->fd);
    buf_free(&c->out);
    free(c);
}

/* ---- records ---------------------------------------------------------------------- */

/* Control characters would be obeyed by a terminal, or end the value. */
static void add_value(struct buf *b, const char *name, struct slice value)
{
    buf_add(b, name, strlen(name) + 1);
    size_t at = b->len;
    buf_adds(b, value);
    for (; at < b->len; at++)
        if ((unsigned char)b->data[at] < ' ' || b->data[at] == 0x7f)
            b->data[at] = '?';
    buf_addc(b, '\0');
}

static void add_number(struct buf *b, const char *name, uint64_t number)
{
    buf_add(b, name, strlen(name) + 1);
    buf_addu64(b, number);
    buf_addc(b, '\0');
}

static void add_message(struct buf *b, const struct message *m)
{
    static const char *const names[] = {[QUEUE_ACTIVE] = "active",
                                        [QUEUE_DEFERRED] = "deferred",
                                        [QUEUE_HOLD] = "hold",
                                        [QUEUE_INCOMING] = "incoming",
                                        [QUEUE_DELETED] = "deleted"};
    struct slice sender = message_sender(m);
    add_value(b, "queue_name", slice_str(names[queue_status(m)]));
    add_value(b, "queue_id", id_slice(&m->id));
    add_number(b, "time", (uint64_t)(m->arrival / CLOCK_SECOND));
    add_number(b, "size", message_size(m));
    add_number(b, "forced_expire", m->flags & MESSAGE_EXPIRED ? 1 : 0);
    add_value(b, "sender", sender.len ? sender : SLICE("MAILER-DAEMON"));
}

static void add_recipient(struct buf *b, const struct queue_recipient *r)
{
    struct buf reason = BUF_INIT(SHOWQ_REASON_MAX);
    if (r->answer)
        answer_describe(r->answer, &reason);
    add_value(b, "recipient", r->address);
    add_value(b, "reason", buf_slice(&reason));
    buf_free(&reason);
}

/* Recipients from c->next on for as long as there is room; then the record's end. */
static void add_recipients(struct client *c, struct message *m)
{
    for (; c->next < m->recipient_count; c->next++) {
        struct queue_recipient r;
        if (m->env->recipients[c->next].state == RCPT_DONE)
            continue;
        c->unfinished = c->out.len >= SHOWQ_OUTPUT_HIGH;
        if (c->unfinished) {
            c->id = m->id;
            return;
        }
        queue_recipient(c->showq->queue, m, c->next, &r);
        add_recipient(&c->out, &r);
    }
    c->unfinished = false;
    buf_addc(&c->out, '\0');
}

/* ---- walking ---------------------------------------------------------------------- */

static void want_to_write(struct client *c)
{
    if (c->out.len > 0)
        event_add(c->writable, NULL);
}

static enum walk_answer visit(struct message *m, void *arg)
{
    struct client *c = arg;
    add_message(&c->out, m);
    c->next = 0;
    add_recipients(c, m);
    if (!c->unfinished && c->out.len < SHOWQ_OUTPUT_HIGH)
        return WALK_ON;
    want_to_write(c);
    return WALK_PAUSE;
}

static enum walk_answer visit_rest(struct message *m, void *arg)
{
    struct client *c = arg;
    c->visited = true;
    add_recipients(c, m);
    return WALK_STOP;
}

/* The message may have left the queue meanwhile: its record ends all the same. */
static void rest_over(void *arg)
{
    struct client *c = arg;
    c->rest = NULL;
    if (!c->visited) {
        c->unfinished = false;
        buf_addc(&c->out, '\0');
    }
    want_to_write(c);
}

static void walk_over(void *arg)
{
    struct client *c = arg;
    c->walk = NULL;
    buf_addc(&c->out, '\0');
    want_to_write(c);
}

/* All is sent that was made: makes more, or ends. */
static void go_on(struct client *c)
{
    if (c->rest)
        return;
    if (c->unfinished) {
        c->visited = false;
        c->rest = queue_visit_one(c->showq->queue, WALK_QUEUE, id_slice(&c->id), visit_rest,
                                  rest_over, c);
    } else if (c->walk)
        queue_walk_resume(c->walk);
    else
        client_end(c);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct client *c = arg;
    (void)what;
    enum local_status status = local_write(fd, &c->out);
    if (status == LOCAL_LOST) {
        client_end(c);
        return;
    }
    if (status == LOCAL_OK)
        c->last_moved = clock_mono();
    if (c->out.len > 0)
        event_add(c->writable, NULL);
    else
        go_on(c);
}

/* ---- clients ---------------------------------------------------------------------- */

static void client_new(struct showq *sq, int fd)
{
    struct client *c = xcalloc(1, sizeof *c);
    c->showq = sq;
    c->fd = fd;
    c->out = BUF_INIT(SHOWQ_OUTPUT_MAX);
    c->last_moved = clock_mono();
    c->writable = event_new(sq->service->base, fd, EV_WRITE, on_writable, c);
    if (!c->writable)
        panic("cannot watch a connection");
    list_push(&sq->clients, &c->link);
    sq->count++;
    add_value(&c->out, "protocol", SLICE("mail_queue_list_protocol"));
    buf_addc(&c->out, '\0');
    c->walk = queue_walk_start(sq->queue, WALK_QUEUE, visit, walk_over, c);
}

static void on_accept(evutil_socket_t listener, short what, void *arg)
{
    struct showq *sq = arg;
    (void)what;
    int fd = local_accept(listener, sq->accept, "the showq socket");
    if (fd >= 0 && sq->count >= SHOWQ_CLIENTS_MAX)
        close(fd); /* it sees a list that ends too early, and says so */
    else if (fd >= 0)
        client_new(sq, fd);
}

/* Once a second: ends clients that do not read. */
static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct showq *sq = arg;
    int64_t now = clock_mono();
    (void)fd, (void)what;
    event_add(sq->accept, NULL);
    list_each_safe(&sq->clients, n)
    {
        struct client *c = container_of(n, struct client, link);
        if (c->out.len == 0)
            c->last_moved = now; /* it waits for us */
        else if (now - c->last_moved >= SHOWQ_IDLE_SECONDS * CLOCK_SECOND)
            client_end(c);
    }
}

struct showq *showq_new(struct service *s, unsigned at, struct qmgr *q)
{
    static const struct timeval second = {1, 0};
    if (s->listener_count <= at)
        return NULL;
    struct showq *sq = xcalloc(1, sizeof *sq);
    sq->service = s;
    sq->queue = q;
    list_init(&sq->clients);
    evutil_make_socket_nonblocking(s->listeners[at]);
    sq->accept = event_new(s->base, s->listeners[at], EV_READ | EV_PERSIST, on_accept, sq);
    sq->tick = event_new(s->base, -1, EV_PERSIST, on_tick, sq);
    if (!sq->accept || !sq->tick)
        panic("cannot watch the showq socket");
    event_add(sq->accept, NULL);
    event_add(sq->tick, &second);
    return sq;
}

void showq_free(struct showq *sq)
{
    if (!sq)
        return;
    list_each_safe(&sq->clients, n) client_end(container_of(n, struct client, link));
    event_free(sq->accept);
    event_free(sq->tick);
    free(sq);
}
