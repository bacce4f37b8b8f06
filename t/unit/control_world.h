/* The control socket over a queue that is made up here: a real socket, real
 * clients, and messages without a spool. */
#ifndef POSTERN_T_CONTROL_WORLD_H
#define POSTERN_T_CONTROL_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "core/clock.h"
#include "core/mem.h"
#include "qmgr/control.h"
#include "qmgr/control_client.h"

enum { MESSAGES = 2000, VISITS_A_TURN = 8, TURNS_MAX = 100000 };

/* ---- clocks --------------------------------------------------------------------- */

int64_t clock_mono(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * CLOCK_SECOND + t.tv_nsec / 1000;
}

/* It stands still, so that messages stay as old as they were made. */
int64_t clock_wall(void)
{
    return INT64_C(1800000000) * CLOCK_SECOND;
}

/* ---- a queue ------------------------------------------------------------------- */

struct queue_walk {
    enum walk_answer (*visit)(struct message *m, void *arg);
    void (*done)(void *arg);
    void *arg;
    size_t at, end;
    bool paused, over;
};

static struct {
    struct message *messages[MESSAGES];
    size_t count;
    struct queue_walk *walk;
    unsigned acted, flushed_all, pauses;
} fake;

static struct message *fake_message(size_t n)
{
    char sender[40], recipient[40];
    int s = snprintf(sender, sizeof sender, "s%zu@src.test", n);
    int r = snprintf(recipient, sizeof recipient, "r%zu@%s.test", n, n % 2 ? "odd" : "even");
    struct message *m = xcalloc(1, sizeof *m);
    m->id = id_new();
    m->arrival = clock_wall() - (int64_t)n * CLOCK_SECOND;
    m->recipient_count = 1;
    m->phase = PHASE_LOADED;
    m->env = envelope_new(1, (size_t)(s + r));
    m->env->sender_len = (uint16_t)s;
    m->env->recipients[0].at = (uint32_t)s;
    m->env->recipients[0].address_len = (uint16_t)r;
    memcpy(envelope_strings(m), sender, (size_t)s);
    memcpy(envelope_strings(m) + s, recipient, (size_t)r);
    return m;
}

static void fake_fill(size_t count)
{
    fake.count = count;
    for (size_t i = 0; i < count; i++)
        fake.messages[i] = fake_message(i);
}

static void fake_empty(void)
{
    for (size_t i = 0; i < fake.count; i++) {
        envelope_free(fake.messages[i]->env, 1);
        free(fake.messages[i]);
    }
    memset(&fake, 0, sizeof fake);
}

struct message *queue_find(struct qmgr *q, struct slice id)
{
    (void)q;
    for (size_t i = 0; i < fake.count; i++)
        if (slice_eq(id_slice(&fake.messages[i]->id), id))
            return fake.messages[i];
    return NULL;
}

enum queue_status queue_status(const struct message *m)
{
    return m->flags & MESSAGE_HOLD ? QUEUE_HOLD : QUEUE_DEFERRED;
}

int64_t queue_next_attempt(struct qmgr *q, const struct message *m)
{
    (void)q;
    return m->arrival + 300 * CLOCK_SECOND;
}

void queue_recipient(struct qmgr *q, const struct message *m, uint32_t i,
                     struct queue_recipient *out)
{
    (void)q;
    *out = (struct queue_recipient){.address = recipient_address(m, i), .attempts = 3};
}

void queue_read(struct qmgr *q, struct message *m, uint64_t limit,
                void (*done)(struct slice prefix, struct slice body, const char *error, void *arg),
                void *arg)
{
    (void)q, (void)m, (void)limit;
    done(SLICE("Received: x\r\n"), SLICE("Subject: y\r\n\r\nbody\0\xff\r\n"), NULL, arg);
}

static struct queue_walk *walk_from(size_t at, size_t end,
                                    enum walk_answer (*visit)(struct message *, void *),
                                    void (*done)(void *), void *arg)
{
    struct queue_walk *w = xcalloc(1, sizeof *w);
    *w = (struct queue_walk){visit, done, arg, at, end, false, false};
    assert_null(fake.walk);
    fake.walk = w;
    return w;
}

struct queue_walk *queue_walk_start(struct qmgr *q, enum walk_over over,
                                    enum walk_answer (*visit)(struct message *m, void *arg),
                                    void (*done)(void *arg), void *arg)
{
    (void)q, (void)over;
    return walk_from(0, fake.count, visit, done, arg);
}

struct queue_walk *queue_visit_one(struct qmgr *q, enum walk_over over, struct slice id,
                                   enum walk_answer (*visit)(struct message *m, void *arg),
                                   void (*done)(void *arg), void *arg)
{
    size_t i = 0;
    (void)over;
    const struct message *m = queue_find(q, id);
    while (i < fake.count && fake.messages[i] != m)
        i++;
    return walk_from(i, m ? i + 1 : i, visit, done, arg);
}

void queue_walk_resume(struct queue_walk *w)
{
    w->paused = false;
}

void queue_walk_cancel(struct queue_walk *w)
{
    assert_ptr_equal(fake.walk, w);
    fake.walk = NULL;
    free(w);
}

/* What the queue does in one turn of the loop. */
static void fake_turn(void)
{
    struct queue_walk *w = fake.walk;
    for (int i = 0; w && fake.walk == w && !w->paused && i < VISITS_A_TURN; i++) {
        enum walk_answer answer = WALK_STOP;
        if (w->at < w->end)
            answer = w->visit(fake.messages[w->at++], w->arg);
        w->paused = answer == WALK_PAUSE;
        fake.pauses += w->paused;
        if (answer == WALK_STOP) {
            fake.walk = NULL;
            w->done(w->arg);
            free(w);
            return;
        }
    }
}

bool queue_act(struct qmgr *q, struct message *m, enum queue_action action, const char *by)
{
    (void)q;
    assert_non_null(strstr(by, "uid "));
    fake.acted++;
    if (action != QUEUE_DO_HOLD || (m->flags & MESSAGE_HOLD))
        return false;
    m->flags |= MESSAGE_HOLD;
    return true;
}

void queue_make_durable(struct qmgr *q, void (*done)(const char *error, void *arg), void *arg)
{
    (void)q;
    done(NULL, arg);
}

void queue_flush_all(struct qmgr *q)
{
    (void)q;
    fake.flushed_all++;
}

void queue_figures(struct qmgr *q, struct queue_figures *out)
{
    (void)q;
    *out = (struct queue_figures){.messages = fake.count};
}

/* These look into lanes, which this world does not have. */
void control_shaping_list(struct control_client *c)
{
    control_done(c, NULL);
}

void control_shaping_show(struct control_client *c)
{
    control_done(c, NULL);
}

void control_shaping_act(struct control_client *c)
{
    control_done(c, NULL);
}

void control_shaping_why(struct control_client *c)
{
    control_done(c, NULL);
}

void control_source_list(struct control_client *c)
{
    control_done(c, NULL);
}

void control_shaping_export(struct control_client *c)
{
    control_done(c, NULL);
}

void control_source_show(struct control_client *c)
{
    control_done(c, NULL);
}

void control_source_act(struct control_client *c)
{
    control_done(c, NULL);
}

void control_source_pools(struct control_client *c)
{
    control_done(c, NULL);
}

void control_shaping_import(struct control_client *c)
{
    control_done(c, NULL);
}

void queue_show_site(struct qmgr *q, struct slice domain,
                     void (*done)(struct slice json, void *arg), void *arg)
{
    (void)q, (void)domain;
    done(SLICE("{\"site\":\"mx.test\"}"), arg);
}

/* ---- a service and a client ------------------------------------------------------ */

struct bench {
    struct service service;
    struct control *control;
    struct sockaddr_un address;
    int client;
    char *text; /* what the client has read */
    size_t len;
    unsigned reads;
};

static int client_connect(const struct bench *b)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&b->address, sizeof b->address), 0);
    return fd;
}

static struct bench *bench_open(size_t messages)
{
    struct bench *b = xcalloc(1, sizeof *b);
    fake_fill(messages);
    b->address.sun_family = AF_UNIX; /* an abstract name */
    snprintf(b->address.sun_path + 1, sizeof b->address.sun_path - 1, "postern-test-%d", getpid());
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&b->address, sizeof b->address), 0);
    listen(listener, 64);
    b->service.base = event_base_new();
    b->service.listeners[0] = listener;
    b->service.listener_count = 1;
    b->control = control_new(&b->service, NULL);
    b->client = client_connect(b);
    return b;
}

static void bench_close(struct bench *b)
{
    control_free(b->control);
    close(b->client);
    close(b->service.listeners[0]);
    event_base_free(b->service.base);
    free(b->text);
    free(b);
    fake_empty();
}

static void turn(struct bench *b)
{
    event_base_loop(b->service.base, EVLOOP_NONBLOCK);
    fake_turn();
}

/* Reads what is there; false at the end of the stream. */
static bool client_read(struct bench *b)
{
    char piece[65536];
    ssize_t n = recv(b->client, piece, sizeof piece, 0);
    if (n <= 0)
        return n < 0;
    b->reads++;
    b->text = xrealloc(b->text, b->len + (size_t)n + 1);
    memcpy(b->text + b->len, piece, (size_t)n);
    b->len += (size_t)n;
    b->text[b->len] = '\0';
    return true;
}

static bool answered(const struct bench *b)
{
    return b->text && (strstr(b->text, "\"done\":true") || strstr(b->text, "{\"error\""));
}

/* Sends a request and returns all lines of the answer. */
static json_t *ask(struct bench *b, const char *request)
{
    json_t *lines = json_array();
    b->len = 0;
    if (b->text)
        b->text[0] = '\0';
    assert_int_equal(send(b->client, request, strlen(request), 0), (ssize_t)strlen(request));
    for (int i = 0; i < TURNS_MAX && !answered(b); i++) {
        turn(b);
        client_read(b);
    }
    assert_true(answered(b));
    for (char *line = strtok(b->text, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *value = json_loads(line, 0, NULL);
        assert_non_null(value);
        json_array_append_new(lines, value);
    }
    return lines;
}

static json_t *last_of(const json_t *lines)
{
    return json_array_get(lines, json_array_size(lines) - 1);
}

static long long count_in(const json_t *lines, const char *name)
{
    return (long long)json_integer_value(json_object_get(last_of(lines), name));
}

static void expect_error(struct bench *b, const char *request)
{
    json_t *lines = ask(b, request);
    assert_true(json_is_string(json_object_get(last_of(lines), "error")));
    json_decref(lines);
}

#endif
