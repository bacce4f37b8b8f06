/*
 * The controller alone against models of what limits a sender, in simulated time:
 * usage: shaper-sim [-v] [-q] [-w] [-s SECONDS] [-d DIVISOR] [-r SEED] [MODEL...]
 *
 * For each model: the share of what it allowed that was used, refusals per 1,000
 * deliveries, and how long the limit's change took to be followed. Then (not with -q) what a
 * decision costs at 10^6 messages a minute, and the size of a lane. JSON lines.
 * -w: as if the time of a whole transaction, content included, were the server's latency; the
 * model "large" shows what comes of that.
 * t/bench/shaper-tune varies each constant of the controller and asks it.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "qmgr/brakes.h"
#include "qmgr/odd.h"
#include "qmgr/shaper.h"
#include "strangers.h"

enum { FLIGHT_MAX = 512, SOURCES_MAX = 2 };

/* How the rate is limited: a bucket of tokens; so many in each period; a bucket, and a door
 * that is shut for a while after too many refusals. */
enum kind { BUCKET, WINDOW, BOX };

struct model {
    const char *name;
    enum kind kind;
    double rate, burst;            /* recipients a second */
    unsigned connections;          /* at a time */
    unsigned messages;             /* on a connection */
    double latency, greeting;      /* seconds */
    double change_at, change_rate; /* seconds; 0: never */
    double period;                 /* WINDOW, BOX: seconds */
    /* more than that */
    double wave;      /* the rate goes up and down by this part of it, in a minute */
    double flaky;     /* part of the attempts that fail by chance, in unknown words */
    double grey;      /* seconds after which a recipient is taken that was put off; 0: none */
    double known;     /* this part of the recipients is not put off */
    bool strange;     /* they are put off in words that no rule knows */
    bool unknown;     /* the rate is refused in words that no rule knows */
    bool hidden;      /* too many connections: no answer instead of a refusal */
    double knee;      /* with more deliveries at a time it becomes slow; 0: never */
    double content;   /* seconds that the content takes, in the second half of the time */
    double connects;  /* new connections a minute (of the divisor's); 0: any */
    unsigned sources; /* that share all of it: refused in the provider's name; 0: one */
    double sender;    /* the limit is of one sender: a brake's work, no lane's; without a brake it
                       * has so much of the lane's rate; 0: no such limit */
};

static const struct model models[] = {
    {"fast", BUCKET, 80, 80, 10, 100, 0.004, 0.002, 0, 0, 0, .sources = 1},
    {"middling", BUCKET, 40, 20, 5, 20, 0.004, 0.002, 0, 0, 0, .sources = 1},
    {"slow", BUCKET, 20, 20, 4, 20, 0.004, 0.002, 0, 0, 0, .sources = 1},
    {"slower", BUCKET, 10, 10, 2, 100, 0.004, 0.002, 0, 0, 0, .sources = 1},
    {"village", BUCKET, 5, 5, 3, 10, 0.004, 0.002, 0, 0, 0, .sources = 1},
    {"drop", BUCKET, 80, 80, 10, 100, 0.004, 0.002, 30, 20, 0, .sources = 1},
    {"rise", BUCKET, 20, 20, 10, 100, 0.004, 0.002, 40, 80, 0, .sources = 1},
    {"rise-small", BUCKET, 10, 5, 5, 20, 0.004, 0.002, 40, 40, 0, .sources = 1},
    {"wave", BUCKET, 40, 20, 10, 100, 0.004, 0.002, 0, 0, 0, .wave = 0.5, .sources = 1},
    {"far", BUCKET, 60, 60, 20, 50, 0.4, 0.3, 0, 0, 0, .sources = 1},
    {"tarpit", BUCKET, 30, 60, 20, 100, 0.95, 3.0, 0, 0, 0, .sources = 1},
    {"huge", BUCKET, 800, 800, 50, 100, 0.02, 0.02, 0, 0, 0, .sources = 1},
    {"hidden", BUCKET, 200, 200, 3, 100, 0.05, 0.02, 0, 0, 0, .hidden = true, .sources = 1},
    {"one", BUCKET, 40, 40, 1, 100, 0.05, 0.02, 0, 0, 0, .hidden = true, .sources = 1},
    {"overload", BUCKET, 200, 200, 30, 100, 0.1, 0.02, 0, 0, 0, .knee = 6, .sources = 1},
    {"large", BUCKET, 200, 200, 20, 100, 0.1, 0.02, 0, 0, 0, .content = 4, .sources = 1},
    {"connects", BUCKET, 40, 40, 5, 4, 0.02, 0.02, 0, 0, 0, .connects = 6, .sources = 1},
    {"flaky", BUCKET, 40, 20, 5, 20, 0.004, 0.002, 0, 0, 0, .flaky = 0.05, .sources = 1},
    {"flakier", BUCKET, 140, 140, 7, 2, 0.004, 0.002, 0, 0, 0, .flaky = 0.08, .sources = 1},
    {"flaky-unknown", BUCKET, 40, 20, 5, 20, 0.004, 0.002, 40, 15, 0, .flaky = 0.05,
     .unknown = true, .sources = 1},
    {"greylist", BUCKET, 20, 20, 5, 20, 0.004, 0.002, 0, 0, 0, .grey = 5, .sources = 1},
    {"greylist-fast", BUCKET, 140, 140, 5, 60, 0.004, 0.002, 0, 0, 0, .grey = 5, .sources = 1},
    {"greylist-half", BUCKET, 60, 60, 5, 60, 0.004, 0.002, 0, 0, 0, .grey = 18, .known = 0.5,
     .sources = 1},
    {"greylist-unknown", BUCKET, 60, 60, 5, 60, 0.004, 0.002, 0, 0, 0, .grey = 5, .strange = true,
     .sources = 1},
    {"greylist-some", BUCKET, 60, 60, 5, 60, 0.004, 0.002, 0, 0, 0, .grey = 24, .known = 0.5,
     .strange = true, .sources = 1},
    {"unknown", BUCKET, 40, 20, 5, 20, 0.004, 0.002, 0, 0, 0, .unknown = true, .sources = 1},
    {"two-sources", BUCKET, 40, 20, 8, 100, 0.02, 0.02, 0, 0, 0, .sources = 2},
    {"two-drop", BUCKET, 80, 40, 8, 100, 0.02, 0.02, 40, 20, 0, .sources = 2},
    {"fixed-window", WINDOW, 20, 0, 5, 100, 0.05, 0.02, 0, 0, 5, .sources = 1},
    {"quota", WINDOW, 20, 0, 5, 100, 0.01, 0.02, 0, 0, 10, .sources = 1},
    {"hourly", WINDOW, 20, 0, 5, 100, 0.01, 0.02, 0, 0, 15, .sources = 1},
    {"box", BOX, 40, 20, 5, 20, 0.004, 0.002, 40, 10, 8, .sources = 1},
    {"sender", BUCKET, 5, 5, 0, 0, 0, 0, 0, 0, 0, .sender = 10},
    {"sender-drop", BUCKET, 8, 4, 0, 0, 0.02, 0, 40, 2, 0, .sender = 10},
    {"sender-rise", BUCKET, 2, 2, 0, 0, 0.02, 0, 40, 8, 0, .sender = 10},
    {"sender-fast", BUCKET, 5, 10, 0, 0, 0.1, 0, 0, 0, 0, .sender = 100},
};

struct flight {
    int64_t started, ends;
    enum shaper_signal signal;
    unsigned use_count, source;
    bool unknown, put_off, may_connect;
    struct stranger who;
    double latency;
};

/* One of our source addresses. */
struct sender {
    struct shaper s;
    struct odd odd;
    unsigned sessions[FLIGHT_MAX], idle_count;
};

struct world {
    const struct model *m;
    unsigned divisor;
    bool whole_time;
    int64_t half;
    struct sender from[SOURCES_MAX];
    struct shaper all; /* of a provider, where there are several sources */
    struct shaper_limits limits, limits_all;
    double tokens, rate, connect_tokens;
    int64_t filled, connect_filled, boxed_until, recent[64];
    unsigned recent_at, used_in_period;
    int64_t period;
    struct flight flight[FLIGHT_MAX];
    unsigned open, in_flight;
    struct strangers strangers;
    uint64_t delivered, refused, decisions, random;
    double allowed;
    int64_t settled;
};

static double chance(struct world *w)
{
    w->random ^= w->random << 13, w->random ^= w->random >> 7, w->random ^= w->random << 17;
    return (double)(w->random >> 11) / 9007199254740992.0;
}

static double present_rate(const struct world *w, int64_t now)
{
    return w->rate * (1 + w->m->wave * sin((double)now / 60e6 * 2 * M_PI));
}

static void refill(struct world *w, int64_t now)
{
    double burst = w->rate < w->m->rate ? w->rate : w->m->burst;
    w->tokens += (double)(now - w->filled) / 1e6 * present_rate(w, now);
    w->tokens = w->tokens < burst ? w->tokens : burst;
    w->filled = now;
}

static enum shaper_signal violation(struct world *w, enum shaper_signal signal, int64_t now)
{
    w->refused++;
    if (w->m->kind == BOX) {
        w->recent[w->recent_at++ % 64] = now;
        int64_t fifteenth = w->recent_at >= 15 ? w->recent[(w->recent_at - 15) % 64] : -10000000;
        if (now - fifteenth < 5 * CLOCK_SECOND)
            w->boxed_until = now + (int64_t)(w->m->period * 1e6);
    }
    return signal;
}

static bool may_open(struct world *w, int64_t now)
{
    double rate = w->m->connects * w->divisor / 60;
    if (rate <= 0)
        return true;
    w->connect_tokens += (double)(now - w->connect_filled) / 1e6 * rate;
    w->connect_tokens = w->connect_tokens < w->m->connects ? w->connect_tokens : w->m->connects;
    w->connect_filled = now;
    if (w->connect_tokens < 1)
        return false;
    w->connect_tokens -= 1;
    return true;
}

static enum shaper_signal judge_rate(struct world *w, int64_t now)
{
    if (w->m->kind == WINDOW) {
        int64_t period = now / (int64_t)(w->m->period * 1e6);
        if (period != w->period)
            w->used_in_period = 0;
        w->period = period;
        if (w->used_in_period >= w->rate * w->m->period)
            return violation(w, SHAPER_TOO_FAST, now);
        w->used_in_period++;
        return SHAPER_OK;
    }
    refill(w, now);
    if (w->tokens < 1)
        return violation(w, SHAPER_TOO_FAST, now);
    w->tokens -= 1;
    return SHAPER_OK;
}

static enum shaper_signal judge(struct world *w, int64_t now, const struct flight *f)
{
    if (w->m->kind == BOX && now < w->boxed_until) {
        w->refused++;
        w->boxed_until += CLOCK_SECOND;
        return SHAPER_GO_AWAY;
    }
    if (f->use_count == 1 && w->open >= w->m->connections)
        return violation(w, SHAPER_TOO_MANY, now);
    if (f->use_count == 1 && !may_open(w, now))
        return violation(w, SHAPER_TOO_OFTEN, now);
    if (f->use_count > w->m->messages)
        return violation(w, SHAPER_TOO_LONG, now);
    return f->put_off ? SHAPER_OK : judge_rate(w, now);
}

static unsigned session(struct world *w, struct sender *from)
{
    unsigned limit = shaper_messages(&from->s), used;
    while (from->idle_count) {
        used = from->sessions[--from->idle_count];
        w->open--;
        if (!limit || used < limit)
            return used + 1;
    }
    return 1;
}

/* Who is next, and whether the server puts him off. */
static bool is_stranger(struct world *w, struct stranger *who, int64_t now)
{
    *who = (struct stranger){.since = 0};
    if (w->m->grey <= 0)
        return false;
    if (strangers_take(&w->strangers, now, who))
        return now < who->since + (int64_t)(w->m->grey * 1e6);
    return chance(w) >= w->m->known;
}

static bool is_of_connection(enum shaper_signal signal)
{
    return signal == SHAPER_TOO_MANY || signal == SHAPER_TOO_OFTEN;
}

/* False: it may not open a connection, and none is open. */
static bool start(struct world *w, unsigned source, int64_t now)
{
    struct sender *from = &w->from[source];
    unsigned i = 0;
    while (i < FLIGHT_MAX && w->flight[i].ends)
        i++;
    if (i == FLIGHT_MAX)
        abort();
    shaper_started(&from->s, 1, now);
    if (w->m->sources > 1)
        shaper_started(&w->all, 1, now);
    bool may_connect = shaper_may_connect(&from->s, now);
    unsigned use = session(w, from);
    if (use == 1 && !may_connect) {
        shaper_returned(&from->s, 1, now, now);
        if (w->m->sources > 1)
            shaper_returned(&w->all, 1, now, now);
        return false;
    }
    struct flight *f = &w->flight[i];
    *f = (struct flight){
        .started = now, .use_count = use, .source = source, .may_connect = may_connect};
    f->put_off = is_stranger(w, &f->who, now);
    f->signal = judge(w, now, f);
    f->unknown = w->m->unknown && f->signal == SHAPER_TOO_FAST;
    f->unknown = f->unknown || (w->m->strange && f->put_off && f->signal == SHAPER_OK);
    if (f->signal == SHAPER_OK && chance(w) < w->m->flaky) {
        f->signal = SHAPER_NEUTRAL;
        f->unknown = true;
    }
    bool connected = !is_of_connection(f->signal);
    double more = w->m->knee > 0 ? (double)w->in_flight / w->m->knee : 0;
    f->latency = w->m->latency * (more > 1 ? more * more : 1);
    double took = connected ? f->latency : 0.02;
    if (connected && now > w->half)
        took += w->m->content;
    if (use == 1 && connected)
        took += w->m->greeting;
    f->ends = now + (int64_t)(took * 1e6) + 1;
    w->open += connected;
    w->in_flight++;
    return true;
}

/* As the queue's verdict on a reply that no rule knows. */
static void ask_odd(struct world *w, struct sender *from, const struct flight *f,
                    struct shaper_report *r, int64_t now)
{
    bool taken = f->signal == SHAPER_OK && !f->put_off && !f->who.since;
    if (!shaper_on_trial(&from->s))
        odd_stop(&from->odd);
    enum odd_says says = !f->unknown
                             ? odd_other(&from->odd, taken, now)
                             : odd_refused(&from->odd, f->who.since ? ODD_AGAIN : ODD_FIRST,
                                           f->use_count - 1, 20 * w->limits.times.growth, now);
    enum shaper_signal signal = odd_signal(&from->odd, &from->s, says, r);
    if (f->unknown)
        r->signal = signal;
    from->odd.says_rate = from->odd.says_rate || (!f->unknown && f->signal == SHAPER_TOO_FAST);
    if (!odd_is_trying(&from->odd) && r->trial != SHAPER_TRIAL_FAILED)
        shaper_end_trial(&from->s);
}

/* What a recipient that was put off, or taken, tells of greylisting. */
static void greet(struct world *w, const struct flight *f)
{
    struct odd *odd = w->m->strange ? &w->from[f->source].odd : NULL;
    int64_t first = 300 * CLOCK_SECOND / w->divisor;
    if (w->m->grey <= 0)
        return;
    if (f->signal != SHAPER_OK)
        strangers_back(&w->strangers, f->who);
    else if (f->put_off)
        strangers_put_off(&w->strangers, f->who, odd, f->started, first);
    else
        strangers_taken(&w->strangers, &f->who, odd, f->started);
}

static void finish(struct world *w, struct flight *f, int64_t now)
{
    struct sender *from = &w->from[f->source];
    bool ok = f->signal == SHAPER_OK, taken = ok && !f->put_off;
    struct shaper_report r = {.signal = f->signal,
                              .started = f->started,
                              .recipients = taken,
                              .put_off = ok && f->put_off,
                              .use_count = f->use_count,
                              .taken_count = f->use_count - 1,
                              .time = 3 * CLOCK_SECOND,
                              .connections = f->use_count == 1,
                              .may_connect = f->may_connect,
                              .latency = (uint64_t)(f->latency * 1e6)};
    if (w->whole_time) /* what must not be looked at, to show why */
        r.latency = (uint64_t)(now - f->started);
    f->ends = 0;
    w->in_flight--;
    if (f->signal == SHAPER_TOO_MANY && w->m->hidden &&
        (from->s.in_flight <= 1 || !shaper_works(&from->s, now)))
        r.signal = SHAPER_UNREACHABLE; /* the queue takes it for that */
    if (w->m->unknown || w->m->flaky > 0 || w->m->strange)
        ask_odd(w, from, f, &r, now);
    greet(w, f);
    w->delivered += taken;
    if (ok || f->signal == SHAPER_NEUTRAL)
        from->sessions[from->idle_count++] = f->use_count;
    else if (!is_of_connection(f->signal))
        w->open--;
    if (w->m->sources > 1) { /* as whole.c tells the two apart */
        struct shaper_report all = r;
        all.use_count = all.taken_count = 0;
        all.latency = 0;
        all.signal = r.signal == SHAPER_TOO_LONG ? SHAPER_NEUTRAL : r.signal;
        (void)shaper_finished(&w->all, &all, now);
        if (r.signal == SHAPER_TOO_FAST || r.signal == SHAPER_TOO_MANY)
            r.signal = SHAPER_NEUTRAL;
    }
    (void)shaper_finished(&from->s, &r, now);
}

static int64_t next_time(const struct world *w, int64_t now, int64_t when)
{
    int64_t next = when;
    for (unsigned i = 0; i < FLIGHT_MAX; i++)
        if (w->flight[i].ends && w->flight[i].ends < next)
            next = w->flight[i].ends;
    return next > now ? next : now + 1;
}

/* Starts what this source may; returns when it may go on: INT64_MAX: something must end. */
static int64_t start_all(struct world *w, unsigned source, int64_t now)
{
    for (;;) {
        int64_t when = INT64_MAX;
        enum shaper_room room = shaper_room(&w->from[source].s, now, &when);
        w->decisions++;
        if (room == SHAPER_GO && w->m->sources > 1)
            room = shaper_room(&w->all, now, &when);
        if (room != SHAPER_GO)
            return room == SHAPER_FULL ? INT64_MAX : when;
        (void)start(w, source, now);
    }
}

static void step(struct world *w, int64_t now, int64_t *next)
{
    int64_t when = INT64_MAX;
    for (unsigned i = 0; i < FLIGHT_MAX; i++)
        if (w->flight[i].ends && w->flight[i].ends <= now)
            finish(w, &w->flight[i], now);
    for (unsigned i = 0; i < w->m->sources; i++) {
        int64_t later = start_all(w, (i + (unsigned)w->decisions) % w->m->sources, now);
        when = later < when ? later : when;
    }
    *next = next_time(w, now, when);
}

/* The most that the model lets through in a second, its connections considered. */
static double offered(const struct world *w, int64_t now)
{
    const struct model *m = w->m;
    double at_a_time = m->knee > 0 ? m->knee : m->connections, rate = present_rate(w, now);
    double content = now > w->half ? m->content : 0;
    double by_connections = at_a_time / (m->latency + content + m->greeting / m->messages);
    double by_connects = m->connects * w->divisor / 60 * m->messages;
    rate = rate < by_connections ? rate : by_connections;
    return (by_connects <= 0 || rate < by_connects ? rate : by_connects) * (1 - m->flaky);
}

/* Changes the limit when it is time; counts each second what it allowed. */
static void note_second(struct world *w, int64_t began, int64_t now, uint64_t in_second)
{
    double rate = (double)in_second, most = offered(w, now);
    int64_t change = (int64_t)(w->m->change_at * 1e6);
    w->allowed += most;
    if (change && now - began >= change && !w->settled && rate >= 0.8 * most && rate <= 1.2 * most)
        w->settled = now - began - change + 1;
}

static bool is_changed(struct world *w, int64_t began, int64_t now)
{
    bool due = w->m->change_at > 0 && now - began >= (int64_t)(w->m->change_at * 1e6);
    if (!due || w->rate < w->m->rate || w->rate > w->m->rate)
        return false;
    refill(w, now);
    w->rate = w->m->change_rate;
    return true;
}

static void set_limits(struct world *w)
{
    unsigned divisor = w->divisor;
    w->limits = (struct shaper_limits){.concurrency = 20,
                                       .initial = 5,
                                       .cohorts = 1,
                                       .suspend = 60 * CLOCK_SECOND / divisor,
                                       .suspend_max = 480 * CLOCK_SECOND / divisor,
                                       .unreachable_max = 300 * CLOCK_SECOND / divisor,
                                       .start_rate = 10,
                                       .messages = 100};
    if (w->m->connections > 20)
        w->limits.concurrency = w->m->connections;
    shaper_times_init(&w->limits.times, divisor);
    w->limits_all = w->limits;
    w->limits_all.concurrency = w->limits_all.initial = 1000000;
    w->limits_all.start_rate = 0;
    w->limits_all.messages = 0;
    shaper_init(&w->all, &w->limits_all);
    for (unsigned i = 0; i < w->m->sources; i++)
        shaper_init(&w->from[i].s, &w->limits);
}

static void run_lanes(struct world *w, double seconds, bool verbose)
{
    int64_t began = CLOCK_SECOND, now = began, end = now + (int64_t)(seconds * 1e6), next = now,
            second = now;
    uint64_t at_second = 0;
    w->filled = w->connect_filled = now;
    while (now < end) {
        step(w, now, &next);
        (void)is_changed(w, began, now);
        for (; second <= now; second += CLOCK_SECOND) {
            const struct shaper *s = w->m->sources > 1 ? &w->all : &w->from[0].s;
            note_second(w, began, second, w->delivered - at_second);
            if (verbose)
                printf("%3lld s: %4.0f/s, rate %6.1f, failed %6.1f, window %4.1f, refused %llu%s\n",
                       (long long)(second / CLOCK_SECOND - 1), (double)(w->delivered - at_second),
                       s->rate, s->failed_rate, s->window, (unsigned long long)w->refused,
                       s->probing ? ", shut" : "");
            at_second = w->delivered;
        }
        now = next < end ? next : end;
    }
}

/* What became of a brake's messages that were under way until now. */
static void finish_braked(struct world *w, struct brake *b, int64_t now)
{
    for (unsigned i = 0; i < FLIGHT_MAX; i++) {
        struct flight *f = &w->flight[i];
        if (!f->ends || f->ends > now)
            continue;
        f->ends = 0;
        w->delivered += f->signal == SHAPER_OK;
        if (f->signal == SHAPER_OK && f->started >= b->cut)
            brake_rate_taken(b, 1);
        else if (f->signal != SHAPER_OK && (b->cut == 0 || f->started >= b->cut + b->pause))
            brake_rate_cut(b, b->rate > 0 ? b->rate : w->m->sender, 0, 0, now);
    }
}

static void start_braked(struct world *w, int64_t now)
{
    unsigned i = 0;
    while (i < FLIGHT_MAX && w->flight[i].ends)
        i++;
    if (i == FLIGHT_MAX)
        abort();
    w->flight[i] = (struct flight){.started = now,
                                   .signal = judge_rate(w, now),
                                   .ends = now + (int64_t)(w->m->latency * 1e6) + 1};
}

/* A sender's mail at a destination that has room for more of it, and refuses above the model's
 * rate: the brake alone. */
static void run_brake(struct world *w, double seconds, bool verbose)
{
    enum { STEP = CLOCK_SECOND / 200 };
    struct brake b = {.times = w->limits.times};
    int64_t began = 1000 * CLOCK_SECOND, now = began, end = now + (int64_t)(seconds * 1e6);
    int64_t last = now, second = now;
    uint64_t at_second = 0;
    w->filled = now;
    for (; now < end; now += STEP) {
        (void)is_changed(w, began, now);
        finish_braked(w, &b, now);
        (void)brake_rate_grow(&b, now);
        bool goes = b.rate > 0 ? brake_rate_has_token(&b, now)
                               : now - last >= (int64_t)(1e6 / w->m->sender);
        if (goes) {
            last = now;
            b.tokens -= b.rate > 0;
            start_braked(w, now);
        }
        for (; second <= now; second += CLOCK_SECOND, at_second = w->delivered) {
            double most = w->rate;
            w->allowed += most < w->m->sender ? most : w->m->sender;
            if (w->m->change_at > 0 && w->rate != w->m->rate && !w->settled &&
                (double)(w->delivered - at_second) >= 0.8 * most)
                w->settled = second - began - (int64_t)(w->m->change_at * 1e6);
            if (verbose)
                printf("%3lld s: %4.0f/s, rate %6.2f, failed %6.2f, refused %llu\n",
                       (long long)((second - began) / CLOCK_SECOND),
                       (double)(w->delivered - at_second), b.rate, b.failed,
                       (unsigned long long)w->refused);
        }
    }
}

static void run(const struct model *m, double seconds, unsigned divisor, uint64_t seed,
                bool verbose, bool whole_time)
{
    static struct world w;
    w = (struct world){.m = m,
                       .divisor = divisor,
                       .whole_time = whole_time,
                       .half = CLOCK_SECOND + (int64_t)(seconds / 2 * 1e6),
                       .rate = m->rate,
                       .tokens = m->burst,
                       .connect_tokens = m->connects,
                       .period = -1,
                       .random = 88172645463325252ULL + seed * 0x9e3779b97f4a7c15ULL};
    set_limits(&w);
    if (m->sender > 0)
        run_brake(&w, seconds, verbose);
    else
        run_lanes(&w, seconds, verbose);
    printf("{\"model\": \"%s\", \"used\": %.3f, \"refused_per_1000\": %.2f, \"delivered\": %llu, "
           "\"settled_s\": %.1f}\n",
           m->name, (double)w.delivered / w.allowed,
           1000.0 * (double)w.refused / (double)(w.delivered ? w.delivered : 1),
           (unsigned long long)w.delivered, (double)w.settled / 1e6);
}

/* 10^6 messages a minute, spread over many lanes, so that memory counts too. */
static void cost(void)
{
    enum { LANES = 20000, MESSAGES = 1000000 };
    static struct shaper_limits limits = {
        .concurrency = 20, .initial = 5, .cohorts = 1, .start_rate = 10};
    struct shaper *lanes = calloc(LANES, sizeof *lanes);
    int64_t now = CLOCK_SECOND, when;
    uint64_t delivered = 0, x = 88172645463325252ULL;
    if (!lanes)
        abort();
    shaper_times_init(&limits.times, 1);
    for (int i = 0; i < LANES; i++)
        shaper_init(&lanes[i], &limits);
    int64_t began = clock_mono();
    while (delivered < MESSAGES) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        struct shaper *s = &lanes[x % LANES];
        now += 60;
        if (shaper_room(s, now, &when) != SHAPER_GO)
            continue;
        shaper_started(s, 1, now);
        struct shaper_report r = {.signal = x >> 32 & 1023 ? SHAPER_OK : SHAPER_TOO_FAST,
                                  .started = now,
                                  .recipients = 1,
                                  .use_count = 1,
                                  .latency = 50};
        shaper_finished(s, &r, now + 50);
        delivered++;
    }
    int64_t took = clock_mono() - began;
    printf("{\"messages\": %llu, \"simulated_minutes\": %.2f, \"us_per_message\": %.3f, "
           "\"bytes_per_lane\": %zu}\n",
           (unsigned long long)delivered, (double)now / 60e6, (double)took / (double)delivered,
           sizeof *lanes);
    free(lanes);
}

static bool is_wanted(const char *name, char **names)
{
    bool wanted = !*names;
    for (; *names && !wanted; names++)
        wanted = strcmp(*names, name) == 0;
    return wanted;
}

int main(int argc, char **argv)
{
    double seconds = 120;
    unsigned divisor = 60;
    uint64_t seed = 0;
    bool verbose = false, quick = false, whole_time = false;
    int option;
    while ((option = getopt(argc, argv, "vqws:d:r:")) != -1) {
        if (option == 'v')
            verbose = true;
        else if (option == 'q')
            quick = true;
        else if (option == 'w')
            whole_time = true;
        else if (option == 's')
            seconds = strtod(optarg, NULL);
        else if (option == 'd')
            divisor = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'r')
            seed = strtoull(optarg, NULL, 10);
        else
            return 2;
    }
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
        if (is_wanted(models[i].name, argv + optind))
            run(&models[i], seconds, divisor, seed, verbose, whole_time);
    if (!quick)
        cost();
    return 0;
}
