/*
 * The controller alone against models of what limits a sender, in simulated time:
 * usage: shaper-sim [-v] [-s SECONDS] [-d DIVISOR]
 *
 * For each model: the share of what it allowed that was used, refusals per 1,000
 * deliveries, and how long the limit's change took to be followed. Then what a
 * decision costs at 10^6 messages a minute, and the size of a lane. JSON lines.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/clock.h"
#include "qmgr/shaper.h"

enum { FLIGHT_MAX = 512 };

enum kind { BUCKET, WINDOW, BOX };

struct model {
    const char *name;
    enum kind kind;
    double rate, burst;            /* recipients a second */
    unsigned connections;          /* at a time */
    unsigned messages;             /* on a connection */
    double latency, greeting;      /* seconds */
    double change_at, change_rate; /* seconds; 0: never */
    double period;                 /* WINDOW: seconds */
};

static const struct model models[] = {
    {"fast", BUCKET, 80, 80, 10, 100, 0.004, 0.002, 0, 0, 0},
    {"middling", BUCKET, 40, 20, 5, 20, 0.004, 0.002, 0, 0, 0},
    {"slow", BUCKET, 20, 20, 4, 20, 0.004, 0.002, 0, 0, 0},
    {"slower", BUCKET, 10, 10, 2, 100, 0.004, 0.002, 0, 0, 0},
    {"village", BUCKET, 5, 5, 3, 10, 0.004, 0.002, 0, 0, 0},
    {"drop", BUCKET, 80, 80, 10, 100, 0.004, 0.002, 30, 20, 0},
    {"rise", BUCKET, 20, 20, 10, 100, 0.004, 0.002, 40, 80, 0},
    {"rise-small", BUCKET, 10, 5, 5, 20, 0.004, 0.002, 40, 40, 0},
    {"far", BUCKET, 60, 60, 20, 50, 0.4, 0.3, 0, 0, 0},
    {"tarpit", BUCKET, 30, 60, 20, 100, 0.95, 3.0, 0, 0, 0},
    {"huge", BUCKET, 800, 800, 50, 100, 0.02, 0.02, 0, 0, 0},
    {"fixed-window", WINDOW, 20, 0, 5, 100, 0.05, 0.02, 0, 0, 5},
    {"quota", WINDOW, 20, 0, 5, 100, 0.01, 0.02, 0, 0, 10},
    {"hourly", WINDOW, 20, 0, 5, 100, 0.01, 0.02, 0, 0, 15},
    {"box", BOX, 40, 20, 5, 20, 0.004, 0.002, 40, 10, 8},
};

struct flight {
    int64_t started, ends;
    enum shaper_signal signal;
    unsigned use_count;
};

struct world {
    const struct model *m;
    struct shaper s;
    struct shaper_limits limits;
    double tokens, rate;
    int64_t filled, boxed_until, recent[64];
    unsigned recent_at, used_in_period;
    int64_t period;
    struct flight flight[FLIGHT_MAX];
    unsigned open, sessions[FLIGHT_MAX], idle_count;
    uint64_t delivered, refused, decisions;
    double allowed;
    int64_t settled;
};

static void refill(struct world *w, int64_t now)
{
    double burst = w->rate < w->m->rate ? w->rate : w->m->burst;
    w->tokens += (double)(now - w->filled) / 1e6 * w->rate;
    w->tokens = w->tokens < burst ? w->tokens : burst;
    w->filled = now;
}

static bool violation(struct world *w, int64_t now)
{
    w->refused++;
    if (w->m->kind == BOX) {
        w->recent[w->recent_at++ % 64] = now;
        int64_t fifteenth = w->recent_at >= 15 ? w->recent[(w->recent_at - 15) % 64] : -10000000;
        if (now - fifteenth < 5 * CLOCK_SECOND)
            w->boxed_until = now + (int64_t)(w->m->period * 1e6);
    }
    return true;
}

static enum shaper_signal judge(struct world *w, int64_t now, unsigned use_count)
{
    if (w->m->kind == BOX && now < w->boxed_until) {
        w->refused++;
        w->boxed_until += CLOCK_SECOND;
        return SHAPER_GO_AWAY;
    }
    if (use_count == 1 && w->open >= w->m->connections)
        return violation(w, now) ? SHAPER_TOO_MANY : 0;
    if (use_count > w->m->messages)
        return violation(w, now) ? SHAPER_TOO_LONG : 0;
    if (w->m->kind == WINDOW) {
        int64_t period = now / (int64_t)(w->m->period * 1e6);
        if (period != w->period)
            w->used_in_period = 0;
        w->period = period;
        if (w->used_in_period >= w->rate * w->m->period)
            return violation(w, now) ? SHAPER_TOO_FAST : 0;
        w->used_in_period++;
        return SHAPER_OK;
    }
    refill(w, now);
    if (w->tokens < 1)
        return violation(w, now) ? SHAPER_TOO_FAST : 0;
    w->tokens -= 1;
    return SHAPER_OK;
}

static unsigned session(struct world *w)
{
    unsigned limit = shaper_messages(&w->s), used;
    while (w->idle_count) {
        used = w->sessions[--w->idle_count];
        w->open--;
        if (!limit || used < limit)
            return used + 1;
    }
    return 1;
}

static void start(struct world *w, int64_t now)
{
    for (unsigned i = 0; i < FLIGHT_MAX; i++) {
        struct flight *f = &w->flight[i];
        if (f->ends)
            continue;
        unsigned use = session(w);
        *f = (struct flight){.started = now, .use_count = use, .signal = judge(w, now, use)};
        double took = f->signal == SHAPER_TOO_MANY ? 0.02 : w->m->latency;
        if (use == 1 && f->signal != SHAPER_TOO_MANY)
            took += w->m->greeting;
        f->ends = now + (int64_t)(took * 1e6) + 1;
        if (f->signal != SHAPER_TOO_MANY)
            w->open++;
        shaper_started(&w->s, 1, now);
        return;
    }
}

static void finish(struct world *w, struct flight *f, int64_t now)
{
    struct shaper_report r = {.signal = f->signal,
                              .started = f->started,
                              .recipients = f->signal == SHAPER_OK,
                              .use_count = f->use_count,
                              .time = 3 * CLOCK_SECOND,
                              .latency = (uint64_t)(w->m->latency * 1e6)};
    f->ends = 0;
    if (f->signal == SHAPER_OK) {
        w->delivered++;
        w->sessions[w->idle_count++] = f->use_count;
    } else if (f->signal != SHAPER_TOO_MANY) {
        w->open--;
    }
    shaper_finished(&w->s, &r, now);
}

static int64_t next_time(const struct world *w, int64_t now, int64_t when)
{
    int64_t next = when;
    for (unsigned i = 0; i < FLIGHT_MAX; i++)
        if (w->flight[i].ends && w->flight[i].ends < next)
            next = w->flight[i].ends;
    return next > now ? next : now + 1;
}

static void step(struct world *w, int64_t now, int64_t *next)
{
    int64_t when = INT64_MAX;
    for (unsigned i = 0; i < FLIGHT_MAX; i++)
        if (w->flight[i].ends && w->flight[i].ends <= now)
            finish(w, &w->flight[i], now);
    for (;;) {
        enum shaper_room room = shaper_room(&w->s, now, &when);
        w->decisions++;
        if (room != SHAPER_GO) {
            *next = next_time(w, now, room == SHAPER_FULL ? INT64_MAX : when);
            return;
        }
        start(w, now);
    }
}

/* The most that the model lets through in a second, its connections considered. */
static double offered(const struct world *w)
{
    double by_connections = w->m->connections / (w->m->latency + w->m->greeting / w->m->messages);
    return w->rate < by_connections ? w->rate : by_connections;
}

static void run(const struct model *m, double seconds, unsigned divisor, bool verbose)
{
    static struct world w;
    w = (struct world){.m = m, .rate = m->rate, .tokens = m->burst, .period = -1};
    w.limits = (struct shaper_limits){.concurrency = 20,
                                      .initial = 5,
                                      .cohorts = 1,
                                      .suspend = 60 * CLOCK_SECOND / divisor,
                                      .suspend_max = 480 * CLOCK_SECOND / divisor,
                                      .unreachable_max = 300 * CLOCK_SECOND / divisor,
                                      .start_rate = 10,
                                      .messages = 100};
    if (m->connections > 20)
        w.limits.concurrency = m->connections;
    shaper_times_init(&w.limits.times, divisor);
    shaper_init(&w.s, &w.limits);
    int64_t now = 1000000, end = now + (int64_t)(seconds * 1e6), next = now, second = now;
    uint64_t at_second = 0, at_change = 0;
    int64_t changed = 0;
    w.filled = now;
    while (now < end) {
        step(&w, now, &next);
        if (m->change_at > 0 && !changed && now >= 1000000 + (int64_t)(m->change_at * 1e6)) {
            refill(&w, now);
            w.rate = m->change_rate;
            changed = now;
            at_change = w.delivered;
        }
        for (; second <= now; second += CLOCK_SECOND) {
            double rate = (double)(w.delivered - at_second);
            w.allowed += offered(&w);
            if (changed && !w.settled && rate >= 0.8 * offered(&w) && rate <= 1.2 * offered(&w))
                w.settled = second - changed;
            if (verbose)
                printf("%3lld s: %4.0f/s, rate %6.1f, failed %6.1f, window %4.1f, refused %llu%s\n",
                       (long long)(second / CLOCK_SECOND - 1), rate, w.s.rate, w.s.failed_rate,
                       w.s.window, (unsigned long long)w.refused, w.s.probing ? ", shut" : "");
            at_second = w.delivered;
        }
        now = next;
    }
    (void)at_change;
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

int main(int argc, char **argv)
{
    double seconds = 120;
    unsigned divisor = 60;
    bool verbose = false;
    int option;
    while ((option = getopt(argc, argv, "vs:d:")) != -1) {
        if (option == 'v')
            verbose = true;
        else if (option == 's')
            seconds = strtod(optarg, NULL);
        else if (option == 'd')
            divisor = (unsigned)strtoul(optarg, NULL, 10);
        else
            return 2;
    }
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
        if (optind == argc || strcmp(argv[optind], models[i].name) == 0)
            run(&models[i], seconds, divisor, verbose);
    cost();
    return 0;
}
