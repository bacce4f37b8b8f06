/*
 * shaping.why: what each recipient of a message waits for, who or what is the cause, and
 * until when. A message that waits on the disk only is read back for it.
 *
 * A line has `state` for programs and `waits` for people; they go together.
 */
#include "core/json.h"
#include "core/log.h"
#include "qmgr/brakes.h"
#include "qmgr/control_client.h"
#include "qmgr/dispatch_inside.h"
#include "qmgr/halts.h"
#include "qmgr/relays.h"
#include "qmgr/seats.h"
#include "qmgr/shaping_show.h"
#include "qmgr/sites.h"
#include "qmgr/sources.h"

enum {
    WHY_SHOWN_MAX = 200, /* lines about one message; the others are counted */
    WHY_BYTES_MAX = 256 * 1024,
    AHEAD_MAX = 10000,   /* jobs that are counted before one */
    SHARERS_MAX = 10000, /* queues that are looked at */
    BUSY_SECONDS = 10 /* a delivery that is under way for longer says that the rate means nothing */
};

/* A rate of a lane, recipients a second, that is none; a guess, seconds, that is worth nothing. */
static const double RATE_UNLIMITED = 1e5, EXPECTED_MAX = 1e7;

struct why {
    struct control_client *c;
    struct qmgr *q;
    struct message *m;
    unsigned shown, left_out; /* lines; recipients without a line of their own */
};

static void put_until(struct buf *b, int64_t wall)
{
    int64_t left = wall - clock_wall();
    json_seconds(b, "until", wall);
    json_seconds(b, "next_in", left > 0 ? left : 0);
}

static void put_until_mono(const struct qmgr *q, struct buf *b, int64_t mono)
{
    put_until(b, clock_wall() + (mono > q->now ? mono - q->now : 0));
}

/* NULL: the client has enough, or there are too many lines. */
static struct buf *line_begin(struct why *w, const char *state, uint32_t recipients)
{
    if (w->shown >= WHY_SHOWN_MAX || w->c->base.out.len >= WHY_BYTES_MAX) {
        w->left_out += recipients;
        return NULL;
    }
    w->shown++;
    struct buf *b = control_line_begin(w->c);
    json_str(b, "state", slice_str(state));
    return b;
}

static void put_answer(struct buf *b, const struct answer *a)
{
    struct buf text = BUF_INIT(8 * ANSWER_TEXT_MAX);
    if (a) {
        answer_describe(a, &text);
        json_str(b, "because", buf_slice(&text));
    }
    buf_free(&text);
}

static void put_lane(struct why *w, struct lane *l, bool whole, struct buf *b)
{
    json_member(b, "lane");
    lane_show(w->q, l, whole, b);
    json_end(b);
}

/* ---- in line, or under way ------------------------------------------------------------ */

/* Jobs of its own queue that go before it, or in the line of the brake that holds it. */
static unsigned ahead_of(const struct job *j)
{
    struct queue *k = j->queue;
    const struct list *mine = j->link.prev;
    unsigned n = 0, others = 0;
    if (j->brake)
        return brake_ahead(j);
    for (; n < AHEAD_MAX && mine != &k->again && mine != &k->jobs; mine = mine->prev)
        n++;
    /* of those in the other line one goes before each of these, and one more if it is its turn */
    unsigned most = n + (n < AHEAD_MAX && queue_line(k) != mine);
    list_each(mine == &k->again ? &k->jobs : &k->again, at)
    {
        (void)at;
        if (others >= most)
            break;
        others++;
    }
    return n + others < AHEAD_MAX ? n + others : AHEAD_MAX;
}

/* Other accounts or senders with mail in line there. */
static unsigned sharers_of(const struct job *j)
{
    unsigned n = 0, seen = 0;
    list_each(&j->queue->lane->queues, at)
    {
        const struct queue *k = container_of(at, struct queue, of_lane);
        n += k->count > 0 && k->account != j->queue->account;
        if (++seen >= SHARERS_MAX)
            break;
    }
    return n;
}

/* What the job waits for, given what the lane does: only if the lane lets mail through it
 * is something else. */
static const char *what_else(const struct qmgr *q, unsigned ahead, const char **state)
{
    *state = "processes";
    if (q->relays.count == 0)
        return "no delivery process is connected to the queue manager ('postern status')";
    if (relays_ready(q) == 0)
        return "all delivery processes have as much to do as they take";
    *state = "turn";
    return ahead ? "the destination has room; mail of this account goes before it"
                 : "the destination has room; it is about to be delivered";
}

/* When its turn comes at the present rate, if the others get as much as its sender: a guess,
 * but what people want to know. */
static void put_expected(const struct lane *l, unsigned ahead, unsigned others, struct buf *b)
{
    double rate = l->shaper.rate, seconds = ((double)ahead + 1) * ((double)others + 1) / rate;
    if (rate > 0 && rate < RATE_UNLIMITED && seconds < EXPECTED_MAX)
        json_seconds(b, "expected_in", (int64_t)(seconds * 1e6));
}

/* The delivery that is under way there for longest, or NULL. */
static const struct job *oldest_under_way(const struct qmgr *q, const struct lane *l)
{
    const struct job *oldest = NULL;
    for (unsigned i = 0; l->in_flight && i < q->relays.count; i++)
        list_each(&q->relays.list[i]->jobs, n)
        {
            const struct job *j = container_of(n, struct job, link);
            if (j->queue->lane == l && (!oldest || j->sent_at < oldest->sent_at))
                oldest = j;
        }
    return oldest;
}

/* What has to end before another may begin there: told, if that takes long; false: it does not. */
static bool put_busy(const struct qmgr *q, const struct lane *l, struct buf *b)
{
    const struct job *j = oldest_under_way(q, l);
    if (!j || q->now - j->sent_at < BUSY_SECONDS * CLOCK_SECOND)
        return false;
    json_member(b, "busy");
    json_str(b, "id", id_slice(&j->m->id));
    json_seconds(b, "for", q->now - j->sent_at);
    json_bool(b, "sent", j->dot); /* all of it: the answer to its end is waited for */
    json_end(b);
    return true;
}

static void put_in_line(struct why *w, const struct job *j)
{
    struct qmgr *q = w->q;
    struct lane *l = j->queue->lane;
    unsigned ahead = ahead_of(j), others = sharers_of(j);
    struct lane_state s;
    lane_state(q, l, &s);
    const char *state = s.code, *words = s.words;
    if (s.room == SHAPER_GO && !l->shaper.probing)
        words = what_else(q, ahead, &state);
    bool braked = brakes_effect(q, l->group, w->m) == BRAKE_SLOWS;
    struct buf seat = BUF_INIT(1024);
    bool seated = !j->brake && seats_describe(q, j->queue, &seat) && buf_addc(&seat, '\0') == 0;
    if (seated) {
        state = "account_limit";
        words = seat.data;
        braked = false;
    } else if (j->queue->place == PLACE_ROUTE && !j->brake) {
        state = "routing";
        words = "its destination is being looked up in DNS again";
    }
    struct buf *b = line_begin(w, braked ? "sender_slowed" : state, j->count);
    if (!b) {
        buf_free(&seat);
        return;
    }
    words = braked ? "its sender is slowed down at this destination" : words;
    struct buf text = BUF_INIT(1024);
    (void)buf_printf(&text, "in line: %s", words);
    json_str(b, "waits", buf_slice(&text));
    json_str(b, "recipient", recipient_address(w->m, j->rcpts[0]));
    json_int(b, "recipients", j->count);
    json_int(b, "before_it", ahead);
    json_int(b, "in_line", j->queue->count); /* of this account or sender, for this place */
    json_int(b, "others", others);
    if (j->brake)
        put_until_mono(q, b, brake_when(q, j, ahead));
    else if (s.when > q->now && !braked && !seated)
        put_until_mono(q, b, s.when);
    bool capped = strcmp(s.code, "daily_cap") == 0; /* the rate says nothing then */
    bool full = strcmp(s.code, "connections") == 0 || strcmp(s.code, "probe") == 0;
    bool busy = full && !braked && !seated && put_busy(q, l, b);
    if (!busy && !braked && !seated && !capped && s.room != SHAPER_SUSPENDED)
        put_expected(l, ahead, others, b);
    put_answer(b, w->m->env->recipients[j->rcpts[0]].answer);
    (void)brakes_describe(q, l->group, w->m, b);
    put_lane(w, l, true, b);
    control_line_end(w->c);
    buf_free(&text);
    buf_free(&seat);
}

static void put_job(struct why *w, const struct job *j)
{
    static const struct {
        const char *state, *words;
    } states[] = {
        [JOB_ROUTING] = {"routing", "its destination is being looked up in DNS"},
        [JOB_READING] = {"reading", "its content is being read for a delivery process"},
        [JOB_SENT] = {"delivering", "a delivery process has it"},
    };
    if (j->state == JOB_QUEUED) {
        put_in_line(w, j);
        return;
    }
    struct buf *b = line_begin(w, states[j->state].state, j->count);
    if (!b)
        return;
    bool dot = j->state == JOB_SENT && j->dot;
    json_str(b, "waits",
             slice_str(dot ? "all of it was sent; the server's answer is waited for"
                           : states[j->state].words));
    json_str(b, "recipient", recipient_address(w->m, j->rcpts[0]));
    json_int(b, "recipients", j->count);
    if (j->state != JOB_ROUTING)
        json_seconds(b, "for", w->q->now - j->sent_at);
    if (j->queue)
        put_lane(w, j->queue->lane, false, b);
    control_line_end(w->c);
}

/* ---- waiting for a time ------------------------------------------------------------------ */

/* Where the recipient's mail goes, as far as it is known: it was tried there lately. */
static struct group *group_of(const struct why *w, uint32_t i, uint8_t *transport)
{
    const struct route *r = sites_route_known(w->q, recipient_address(w->m, i));
    if (!r || !r->site)
        return NULL;
    *transport = r->transport;
    return r->site->group;
}

/* The lane of the last attempt, or the one that there is. */
static struct lane *lane_of(const struct group *g, const struct answer *a)
{
    struct lane *found = NULL;
    if (!g)
        return NULL;
    list_each(&g->lanes, n)
    {
        struct lane *l = container_of(n, struct lane, of_group);
        if (a && a->source == (l->from ? l->from->number : 0))
            return l;
        if (!found || l->shaper.suspended_until > found->shaper.suspended_until)
            found = l;
    }
    return found;
}

/* The operator's suspension that holds it, or NULL. */
static const struct halt *halt_of(const struct why *w, uint32_t i, const struct group *g,
                                  const struct lane *l)
{
    const struct source *from = l ? l->from : NULL;
    const struct halt *h = g ? halts_at(w->q, g, from) : NULL;
    return h ? h : halts_of_domain(w->q, recipient_address(w->m, i), from);
}

struct cause {
    const char *state, *words;
};

/* Due, but not in line. */
static struct cause overdue(const struct why *w)
{
    const struct message *m = w->m;
    if (!w->q->scanned && notices_is_one(m))
        return (struct cause){"scan", "until the spool has been read after the start"};
    if (pools_due(w->q, m) > w->q->now)
        return (struct cause){"source_pool",
                              "until the accounts' process tells from which source pool it goes"};
    if (m->env->peeked)
        return (struct cause){"memory", "it is due, and waits on the disk until messages before it "
                                        "have made room in memory (qmgr_message_active_limit)"};
    if (m->env->more)
        return (struct cause){"recipients", "it is due, and follows when recipients of the same "
                                            "message that are in line have been tried"};
    return (struct cause){"due", "it is due now"};
}

/* Today, not before the last midnight. */
static bool ran_out_today(const struct qmgr *q, const struct recipient *r)
{
    return r->answer && r->answer->day_over &&
           r->answer->when / sources_day_length(q) == sources_today(q);
}

static struct cause cause_of(const struct why *w, uint32_t i, const struct group *g,
                             const struct lane *l, uint8_t transport)
{
    const struct recipient *r = &w->m->env->recipients[i];
    const struct qmgr *q = w->q;
    bool due = r->due <= queue_seconds(q, q->now), parked = !list_empty(&w->m->parked);
    if (r->parked || (parked && w->m->env->peeked))
        return (struct cause){"parked",
                              "on the disk: its sender has as many messages in memory for this "
                              "destination as its share; it follows when they are delivered"};
    enum brake_effect brake = g ? brakes_effect(w->q, g, w->m) : BRAKE_NONE;
    if (brake == BRAKE_SUSPENDS)
        return (struct cause){"sender_suspended",
                              "for the end of a suspension of its sender at this destination"};
    if (halt_of(w, i, g, l))
        return (struct cause){"suspended_by_hand",
                              "for the end of the operator's suspension of the destination"};
    if (l && l->shaper.suspended_until > q->now)
        return (struct cause){"suspended", "for the end of the destination's suspension"};
    if (g && (q->sites.deferred_transports & 1u << transport) && !w->m->env->forced)
        return (struct cause){"transport", "its transport is in defer_transports: until that is "
                                           "changed, or 'postern queue flush'"};
    if (due)
        return overdue(w);
    if (r->answer && r->answer->greylisted)
        return (struct cause){"greylisted", "greylisted: for the time at which the server should "
                                            "take it, from the same source"};
    if (brake == BRAKE_SLOWS)
        return (struct cause){"sender_slowed",
                              "its sender is slowed down at this destination: for its turn"};
    if (ran_out_today(q, r))
        return (struct cause){"daily_cap", "what may go there today has been sent: for midnight "
                                           "UTC"};
    if (r->answer && r->answer->no_source)
        return (struct cause){"no_source", "for a source address that may send it"};
    return (struct cause){"retry", r->attempts ? "for its next attempt" : "for its first attempt"};
}

/* When the suspension ends that it waits for; it is looked at before, and soon after. */
static void put_end(const struct why *w, uint32_t i, const struct group *g, const struct lane *l,
                    struct buf *b)
{
    const struct halt *h = halt_of(w, i, g, l);
    int64_t ends = h ? h->until : l ? l->shaper.suspended_until : 0;
    if (!h && ends <= w->q->now && ran_out_today(w->q, &w->m->env->recipients[i]))
        ends = sources_day_ends(w->q);
    if (h) {
        json_member(b, "suspension");
        halt_put(w->q, h, b);
        json_end(b);
    }
    if (ends > w->q->now && ends < INT64_MAX) {
        json_seconds(b, "ends", clock_wall() + (ends - w->q->now));
        json_seconds(b, "ends_in", ends - w->q->now);
    }
}

static void put_waiting(struct why *w, uint32_t i)
{
    const struct recipient *r = &w->m->env->recipients[i];
    uint8_t transport = TRANSPORT_SMTP;
    struct group *g = group_of(w, i, &transport);
    struct lane *l = lane_of(g, r->answer);
    struct cause cause = cause_of(w, i, g, l, transport);
    struct buf *b = line_begin(w, cause.state, 1);
    if (!b)
        return;
    json_str(b, "waits", slice_str(cause.words));
    json_str(b, "recipient", recipient_address(w->m, i));
    json_int(b, "recipients", 1);
    json_int(b, "attempts", r->attempts);
    put_until_mono(w->q, b, queue_mono(w->q, r->due));
    put_end(w, i, g, l, b);
    put_answer(b, r->answer);
    if (g)
        (void)brakes_describe(w->q, g, w->m, b);
    if (l)
        put_lane(w, l, false, b);
    control_line_end(w->c);
}

/* ---- held, deleted, over -------------------------------------------------------------------- */

static void put_plain(struct why *w, const char *state, const char *words, uint32_t i,
                      uint32_t recipients)
{
    struct buf *b = line_begin(w, state, recipients);
    if (!b)
        return;
    json_str(b, "waits", slice_str(words));
    json_str(b, "recipient", recipient_address(w->m, i));
    json_int(b, "recipients", recipients);
    if (queue_status(w->m) == QUEUE_DELETED)
        put_until(b, queue_next_attempt(w->q, w->m));
    control_line_end(w->c);
}

/* Recipients in this state, in one line. */
static void put_all_in(struct why *w, enum recipient_state state, const char *code,
                       const char *words)
{
    uint32_t n = 0, first = 0;
    for (uint32_t i = w->m->recipient_count; i-- > 0;)
        if (w->m->env->recipients[i].state == state) {
            first = i;
            n++;
        }
    if (n)
        put_plain(w, code, words, first, n);
}

static void put_recipients(struct why *w)
{
    struct message *m = w->m;
    bool waits = (m->flags & (MESSAGE_HELD | MESSAGE_DELETED)) == 0;
    list_each(&m->env->jobs, n) put_job(w, container_of(n, struct job, of_message));
    if (m->flags & MESSAGE_DELETED)
        put_all_in(w, RCPT_WAITING, "deleted",
                   "deleted, and kept for a while: 'postern queue undelete' brings it back");
    else if (m->flags & MESSAGE_HELD)
        put_all_in(w, RCPT_WAITING, "held",
                   "held: not tried until it is released ('postern queue release')");
    for (uint32_t i = 0; i < m->recipient_count && waits; i++)
        if (m->env->recipients[i].state == RCPT_WAITING)
            put_waiting(w, i);
    put_all_in(w, RCPT_FAILING, "failing",
               "refused for good or too old; that is being written to the disk");
    put_all_in(w, RCPT_FAILED, "notice",
               m->env->notice_at > w->q->now
                   ? "refused for good or too old; the notice to its sender could not be made and "
                     "is tried again soon: the log says why"
                   : "refused for good or too old; the notice to its sender is being made");
    put_all_in(w, RCPT_CONFIRMED, "notice",
               "delivered; the notice of success to its sender is being made");
    if (m->env->left == 0)
        put_plain(w, "charges", "over; the accounts' process has not acknowledged its charges yet",
                  0, m->recipient_count);
}

/* ---- the request --------------------------------------------------------------------------- */

static void put_message(struct control_client *c, struct buf *b)
{
    const struct message *m = queue_find(c->control->queue, id_slice(&c->request.id));
    static const char *const classes[] = {
        [CLASS_TRANSACTIONAL] = "transactional", [CLASS_NORMAL] = "normal", [CLASS_BULK] = "bulk"};
    if (c->request.missing)
        json_int(b, "left_out", (int64_t)c->request.missing);
    if (!m || !m->env)
        return;
    json_str(b, "sender", message_sender(m));
    if (message_account(m).len)
        json_str(b, "account", message_account(m));
    if (message_signer(m).len)
        json_str(b, "domain", message_signer(m));
    json_str(b, "class", slice_str(classes[m->env->mail_class]));
    json_seconds(b, "arrival", m->arrival);
    json_seconds(b, "expires", retry_until(c->control->queue, m));
    json_bool(b, "on_disk", m->env->peeked);
}

static enum walk_answer visit(struct message *m, void *arg)
{
    struct control_client *c = arg;
    struct why w = {.c = c, .q = c->control->queue, .m = m};
    queue_tick(w.q);
    put_recipients(&w);
    c->request.missing = w.left_out;
    control_done(c, put_message); /* while its envelope is there; ends the walk, too */
    return WALK_STOP;
}

static void visited(void *arg)
{
    struct control_client *c = arg;
    const struct message *m = queue_find(c->control->queue, id_slice(&c->request.id));
    c->request.walk = NULL;
    if (m && m->phase == PHASE_COMMITTING)
        control_fail(c, "The message is just being written to the spool.");
    else if (m)
        control_fail(c,
                     "The message's file in the spool cannot be read at the moment; the log says "
                     "why.");
    else
        control_fail(c,
                     "There is no such message in the queue; it may have been delivered: 'postern "
                     "trace %s' tells.",
                     c->request.id.text);
}

void control_shaping_why(struct control_client *c)
{
    if (!control_id(c))
        return;
    c->request.walk =
        queue_visit_one(c->control->queue, WALK_BOTH, id_slice(&c->request.id), visit, visited, c);
}
