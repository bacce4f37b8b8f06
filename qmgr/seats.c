#include "qmgr/seats.h"

#include <stdlib.h>

#include "core/json.h"
#include "core/mem.h"
#include "qmgr/classes.h"
#include "qmgr/dispatch_inside.h"

enum { SEATS_SHOWN_MAX = 100 };

/* What a delivery may start too late without the next one waiting longer: a turn of the loop. */
static const int64_t SLACK = CLOCK_SECOND / 10;

struct seats_key {
    struct account *account;
    struct group *group;
};
_Static_assert(offsetof(struct seats, group) == offsetof(struct seats_key, group),
               "seats begin with their key");

static struct slice seats_key(const void *value)
{
    return slice_make(value, sizeof(struct seats_key));
}

void seats_init(struct qmgr *q)
{
    map_init(&q->dispatch.seats, seats_key);
    list_init(&q->dispatch.seats_due);
    q->dispatch.seats_generation = 1;
}

static struct slice name_of(const struct account *a)
{
    return slice_make(a->name, a->name_len);
}

/* ---- limits in force ------------------------------------------------------------------- */

static uint32_t stricter(uint32_t a, uint32_t b)
{
    return a == 0 || (b > 0 && b < a) ? b : a;
}

static double stricter_rate(double a, double b)
{
    return a <= 0 || (b > 0 && b < a) ? b : a;
}

static bool has_waiting(const struct seats *s)
{
    return !list_empty(&s->waiting[0]) || !list_empty(&s->waiting[1]) ||
           !list_empty(&s->waiting[2]);
}

/* Its line is looked at in the next turn. */
static void look_later(struct qmgr *q, struct seats *s)
{
    if (has_waiting(s) && list_empty(&s->due))
        list_push(&q->dispatch.seats_due, &s->due);
}

static void take_limits(struct qmgr *q, struct seats *s, const struct lane *l)
{
    const struct shaper_limits *place = l->shaper.limits;
    const struct account *a = s->account;
    double divisor = (double)q->s->config->shaping_time_divisor;
    s->connections = stricter(place->account_connections_max, a->connections);
    s->rate = stricter_rate(place->account_message_rate, a->rate * divisor);
    look_later(q, s);
}

static void attach(struct queue *k, struct seats *s)
{
    k->seats = s;
    s->refs++;
    s->in_flight += k->in_flight;
    s->ready += k->place == PLACE_READY;
}

/* With all that the account has there already, so that what is under way counts. */
static struct seats *make(struct qmgr *q, const struct queue *k)
{
    struct seats *s = xcalloc(1, sizeof *s);
    s->account = k->account;
    s->group = k->lane->group;
    list_init(&s->due);
    list_init(&s->of_account);
    for (int i = 0; i < 3; i++)
        list_init(&s->waiting[i]);
    list_push(&k->account->seats, &s->of_account);
    map_put(&q->dispatch.seats, s);
    list_each(&s->group->lanes, n)
    {
        struct lane *l = container_of(n, struct lane, of_group);
        for (uint8_t class = 0; class < 3; class ++) {
            struct queue *of = queue_known(q, s->account, l, class);
            if (of)
                attach(of, s);
        }
    }
    return s;
}

/* Once there are seats all queues of the account there have them. */
static void join(struct qmgr *q, struct queue *k)
{
    const struct shaper_limits *place = k->lane->shaper.limits;
    struct account *a = k->account;
    bool limited = place->account_connections_max || place->account_message_rate > 0 ||
                   a->connections || a->rate > 0;
    if (k->seats || (!limited && list_empty(&a->seats)))
        return;
    struct seats_key key = {a, k->lane->group};
    struct seats *s = map_get(&q->dispatch.seats, slice_make(&key, sizeof key));
    if (s)
        attach(k, s);
    else if (limited)
        (void)make(q, k);
}

static void refresh(struct qmgr *q, struct queue *k)
{
    uint32_t generation = q->dispatch.seats_generation + k->account->generation;
    if (k->seats_seen == generation)
        return;
    k->seats_seen = generation;
    join(q, k);
    if (k->seats)
        take_limits(q, k->seats, k->lane);
}

void seats_leave(struct qmgr *q, struct queue *k)
{
    struct seats *s = k->seats;
    if (!s)
        return;
    k->seats = NULL;
    if (--s->refs > 0)
        return;
    map_remove(&q->dispatch.seats, seats_key(s));
    heap_remove(&q->dispatch.seats_wakes, &s->wake);
    list_remove(&s->of_account);
    list_remove(&s->due);
    free(s);
}

/* Of those that wait, one in line is enough to take the new limits over. */
static void refresh_waiting(struct qmgr *q, struct seats *s)
{
    for (int i = 0; i < 3; i++)
        if (!list_empty(&s->waiting[i])) {
            refresh(q, container_of(s->waiting[i].next, struct queue, link));
            return;
        }
}

void seats_reload(struct qmgr *q)
{
    size_t cursor = 0;
    struct seats *s;
    q->dispatch.seats_generation++;
    while ((s = map_next(&q->dispatch.seats, &cursor)))
        refresh_waiting(q, s);
}

double seats_rate(uint64_t recipients_a_day)
{
    static const double DAY_SECONDS = 86400;
    return (double)recipients_a_day / DAY_SECONDS;
}

void seats_account(struct qmgr *q, struct slice account, uint32_t connections,
                   uint64_t recipients_a_day)
{
    struct account *a = account_known(q, account);
    double rate = seats_rate(recipients_a_day);
    bool same = a && a->connections == connections && !(a->rate < rate) && !(a->rate > rate);
    if (!a || same)
        return;
    a->connections = connections;
    a->rate = rate;
    a->generation++;
    list_each(&a->seats, n) refresh_waiting(q, container_of(n, struct seats, of_account));
}

/* ---- taking and giving ------------------------------------------------------------------ */

/* `given`: places that were promised to queues that are ready. */
static bool has_room(struct qmgr *q, struct seats *s, uint32_t given)
{
    if (s->connections && s->in_flight + given >= s->connections)
        return false;
    if (s->rate <= 0)
        return true;
    if (s->next_start > q->now && has_waiting(s))
        heap_set(&q->dispatch.seats_wakes, &s->wake, s->next_start);
    return s->next_start <= q->now && given == 0;
}

bool seats_free(struct qmgr *q, struct queue *k)
{
    refresh(q, k);
    return !k->seats || has_room(q, k->seats, 0);
}

void seats_wait(struct qmgr *q, struct queue *k, bool first)
{
    struct seats *s = k->seats;
    struct list *line = &s->waiting[k->mail_class];
    k->place = PLACE_SEATS;
    if (first)
        list_push_front(line, &k->link);
    else
        list_push(line, &k->link);
    if (has_room(q, s, s->ready))
        look_later(q, s);
}

void seats_ready(struct qmgr *q, struct queue *k, bool ready)
{
    struct seats *s = k->seats;
    if (!s)
        return;
    s->ready = ready ? s->ready + 1 : s->ready - 1;
    if (!ready)
        look_later(q, s);
}

void seats_started(struct qmgr *q, struct queue *k, uint32_t recipients)
{
    struct seats *s = k->seats;
    if (!s)
        return;
    s->in_flight++;
    if (s->rate <= 0)
        return;
    int64_t late = q->now - s->next_start, from = late < SLACK ? s->next_start : q->now;
    s->next_start = from + (int64_t)(recipients / s->rate * (double)CLOCK_SECOND);
}

void seats_over(struct qmgr *q, struct queue *k)
{
    if (!k->seats)
        return;
    k->seats->in_flight--;
    look_later(q, k->seats);
}

void seats_returned(struct qmgr *q, struct queue *k, uint32_t recipients)
{
    seats_over(q, k);
    if (k->seats && k->seats->rate > 0)
        k->seats->next_start -= (int64_t)(recipients / k->seats->rate * (double)CLOCK_SECOND);
}

static void look(struct qmgr *q, struct seats *s)
{
    while (has_waiting(s) && has_room(q, s, s->ready)) {
        uint8_t class = class_in_turn(q->s->config, s->waiting, &s->turns);
        struct queue *k = container_of(list_pop(&s->waiting[class]), struct queue, link);
        k->place = PLACE_IDLE;
        queue_in_line(q, k);
    }
}

void seats_turn(struct qmgr *q)
{
    struct dispatch *d = &q->dispatch;
    struct heap_node *n;
    struct list *due;
    while ((n = heap_min(&d->seats_wakes)) && n->key <= q->now) {
        heap_remove(&d->seats_wakes, n);
        look_later(q, container_of(n, struct seats, wake));
    }
    while ((due = list_pop(&d->seats_due)))
        look(q, container_of(due, struct seats, due));
}

int64_t seats_next_due(const struct qmgr *q)
{
    const struct heap_node *n = heap_min(&q->dispatch.seats_wakes);
    if (!list_empty(&q->dispatch.seats_due))
        return q->now;
    return n ? n->key : INT64_MAX;
}

/* ---- to show ------------------------------------------------------------------------------ */

bool seats_describe(const struct qmgr *q, const struct queue *k, struct buf *text)
{
    const struct seats *s = k->seats;
    struct slice who = name_of(k->account);
    if (k->place != PLACE_SEATS)
        return false;
    (void)buf_printf(text, "%s%.*s ",
                     who.len && who.ptr[0] == '@' ? "mail of no account from " : "account ",
                     SLICE_ARG(who));
    if (s->connections && s->in_flight >= s->connections)
        (void)buf_printf(text, "has its %u of %u connections at %s", s->in_flight, s->connections,
                         k->lane->group->name);
    else if (s->rate > 0 && s->next_start > q->now)
        (void)buf_printf(text, "sends as fast as it may at %s: %.3g recipients a minute",
                         k->lane->group->name, s->rate * 60);
    else
        (void)buf_printf(text, "is about to use a connection that came free at %s",
                         k->lane->group->name);
    return true;
}

static uint32_t waiting_of(const struct seats *s)
{
    uint32_t jobs = 0;
    for (int i = 0; i < 3; i++)
        list_each(&s->waiting[i], n) jobs += container_of(n, struct queue, link)->count;
    return jobs;
}

void seats_show(const struct qmgr *q, const struct group *g, struct buf *b)
{
    const struct seats *s;
    unsigned shown = 0;
    for (size_t cursor = 0; (s = map_next(&q->dispatch.seats, &cursor));) {
        bool used = s->in_flight > 0 || has_waiting(s);
        if (s->group != g || !used || (!s->connections && s->rate <= 0))
            continue;
        if (shown++ == 0)
            json_list(b, "accounts");
        if (shown > SEATS_SHOWN_MAX)
            break;
        json_begin(b);
        json_str(b, "account", name_of(s->account));
        json_int(b, "in_flight", s->in_flight);
        if (s->connections)
            json_int(b, "connections", s->connections);
        if (s->rate > 0)
            json_seconds(b, "rate", (int64_t)(s->rate * (double)CLOCK_SECOND));
        json_int(b, "waiting", waiting_of(s));
        json_end(b);
    }
    if (shown)
        json_list_end(b);
}
