/* libraries: qmgr_parts postern_service postern_ipc postern_core */
/* The control socket over a queue that is made up here: a real socket, real
 * clients, and messages without a spool. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "core/clock.h"
#include "core/mem.h"
#include "qmgr/control.h"

enum { MESSAGES = 2000, VISITS_A_TURN = 8, TURNS_MAX = 100000 };

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

struct queue_walk *queue_walk_start(struct qmgr *q,
                                    enum walk_answer (*visit)(struct message *m, void *arg),
                                    void (*done)(void *arg), void *arg)
{
    (void)q;
    return walk_from(0, fake.count, visit, done, arg);
}

struct queue_walk *queue_visit_one(struct qmgr *q, struct slice id,
                                   enum walk_answer (*visit)(struct message *m, void *arg),
                                   void (*done)(void *arg), void *arg)
{
    size_t i = 0;
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

/* ---- tests ------------------------------------------------------------------------- */

static void test_list_and_selectors(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        long long matched;
    } rows[] = {
        {"{\"request\":\"queue.list\",\"select\":{\"all\":true}}\n", MESSAGES},
        {"{\"request\":\"queue.list\",\"select\":{\"recipient\":\"@odd.test\"}}\n", MESSAGES / 2},
        {"{\"request\":\"queue.list\",\"select\":{\"sender\":\"S1@SRC.test\"}}\n", 1},
        {"{\"request\":\"queue.list\",\"select\":{\"sender\":\"s1?@*\"}}\n", 10},
        {"{\"request\":\"queue.list\",\"select\":{\"older_than\":1000}}\n", MESSAGES - 1001},
        {"{\"request\":\"queue.list\",\"select\":{\"site\":\"even.*\",\"newer_than\":11}}\n", 6},
        {"{\"request\":\"queue.list\",\"select\":{\"status\":\"hold\"}}\n", 0},
        {"{\"request\":\"queue.list\",\"select\":{\"sender\":\"\"}}\n", 0},
        {"{\"request\":\"queue.list\",\"select\":{\"all\":true},\"limit\":7}\n", 7},
    };
    struct bench *b = bench_open(MESSAGES);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        json_t *lines = ask(b, rows[i].request);
        assert_int_equal(count_in(lines, "matched"), rows[i].matched);
        assert_int_equal(json_array_size(lines), rows[i].matched + 1);
        json_decref(lines);
    }
    bench_close(b);
}

static void test_slips_select_nothing(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "{\"request\":\"queue.action\",\"action\":\"delete\",\"select\":{}}\n",
        "{\"request\":\"queue.action\",\"action\":\"delete\"}\n",
        "{\"request\":\"queue.action\",\"action\":\"delete\",\"select\":{\"al\":true}}\n",
        "{\"request\":\"queue.action\",\"action\":\"delete\",\"select\":{\"all\":1}}\n",
        "{\"request\":\"queue.action\",\"action\":\"delete\",\"select\":{\"all\":false}}\n",
        "{\"request\":\"queue.action\",\"action\":\"remove\",\"select\":{\"all\":true}}\n",
        "{\"request\":\"queue.action\",\"action\":\"delete\",\"select\":{\"older_than\":-1}}\n",
        "{\"request\":\"queue.action\",\"action\":\"delete\",\"select\":{\"ids\":[1]}}\n",
        "{\"request\":\"queue.action\",\"action\":\"delete\",\"select\":{\"all\":true,"
        "\"recipient\":\"\"}}\n",
        "{\"request\":\"queue.action\",\"action\":\"delete\",\"select\":{\"older_than\":1,"
        "\"site\":\"\"}}\n",
        "{\"request\":\"queue.action\",\"action\":\"delete\",\"select\":{\"older_than\":1,"
        "\"reply\":\"\"}}\n",
        "{\"request\":\"queue.list\",\"select\":{\"status\":\"lost\"}}\n",
        "{\"request\":\"queue.list\",\"select\":{\"all\":true},\"limit\":0}\n",
        "{\"request\":\"message.show\",\"id\":\"../etc/passwd\"}\n",
        "{\"request\":\"site.show\",\"domain\":\"\"}\n",
        "{\"request\":\"nonsense\"}\n",
        "[]\n",
    };
    struct bench *b = bench_open(3);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        expect_error(b, wrong[i]);
    assert_int_equal(fake.acted, 0);
    bench_close(b);
}

static void test_actions(void **state)
{
    (void)state;
    struct bench *b = bench_open(10);
    json_t *lines = ask(b, "{\"request\":\"queue.action\",\"action\":\"hold\",\"dry_run\":true,"
                           "\"select\":{\"recipient\":\"@odd.test\"}}\n");
    assert_int_equal(count_in(lines, "matched"), 5);
    assert_int_equal(fake.acted, 0);
    json_decref(lines);
    lines = ask(b, "{\"request\":\"queue.action\",\"action\":\"hold\",\"list\":true,"
                   "\"select\":{\"recipient\":\"@odd.test\"}}\n");
    assert_int_equal(count_in(lines, "changed"), 5);
    assert_int_equal(json_array_size(lines), 6);
    json_decref(lines);
    lines = ask(b, "{\"request\":\"queue.list\",\"select\":{\"status\":\"hold\"}}\n");
    assert_int_equal(count_in(lines, "matched"), 5);
    json_decref(lines);

    char request[256];
    snprintf(request, sizeof request,
             "{\"request\":\"queue.action\",\"action\":\"hold\",\"select\":{\"ids\":[\"%s\","
             "\"0000000000z0000\"]}}\n",
             fake.messages[0]->id.text);
    lines = ask(b, request);
    assert_int_equal(count_in(lines, "changed"), 1);
    assert_int_equal(count_in(lines, "missing"), 1);
    json_decref(lines);

    lines =
        ask(b, "{\"request\":\"queue.action\",\"action\":\"flush\",\"select\":{\"all\":true}}\n");
    assert_int_equal(count_in(lines, "changed"), 10);
    assert_int_equal(fake.flushed_all, 1);
    json_decref(lines);
    bench_close(b);
}

static void test_summary(void **state)
{
    (void)state;
    struct bench *b = bench_open(11);
    json_t *lines = ask(b, "{\"request\":\"queue.summary\",\"select\":{\"all\":true}}\n");
    assert_int_equal(json_array_size(lines), 3);
    assert_int_equal(count_in(lines, "messages"), 11);
    assert_int_equal(count_in(lines, "deferred"), 11);
    for (size_t i = 0; i < 2; i++) {
        const json_t *row = json_array_get(lines, i);
        const char *domain = json_string_value(json_object_get(row, "domain"));
        assert_int_equal(json_integer_value(json_object_get(row, "recipients")),
                         strcmp(domain, "even.test") == 0 ? 6 : 5);
    }
    json_decref(lines);
    bench_close(b);
}

static void test_message_show(void **state)
{
    (void)state;
    struct bench *b = bench_open(2);
    char request[128];
    snprintf(request, sizeof request,
             "{\"request\":\"message.show\",\"id\":\"%s\",\"content\":true}\n",
             fake.messages[1]->id.text);
    json_t *lines = ask(b, request);
    assert_string_equal(json_string_value(json_object_get(json_array_get(lines, 0), "sender")),
                        "s1@src.test");
    assert_string_equal(json_string_value(json_object_get(json_array_get(lines, 1), "content")),
                        "UmVjZWl2ZWQ6IHgNClN1YmplY3Q6IHkNCg0KYm9keQD/DQo=");
    assert_int_equal(count_in(lines, "content_bytes"), 35);
    json_decref(lines);
    expect_error(b, "{\"request\":\"message.show\",\"id\":\"0000000000z0000\"}\n");
    bench_close(b);
}

/* A system call for each message of a long queue would be the most of its cost. */
static void test_a_long_list_travels_in_large_pieces(void **state)
{
    (void)state;
    struct bench *b = bench_open(MESSAGES);
    json_decref(ask(b, "{\"request\":\"queue.list\",\"select\":{\"all\":true}}\n"));
    assert_true(b->len > 10 * CONTROL_OUTPUT_LOW);
    assert_true(b->reads <= b->len / CONTROL_OUTPUT_LOW + 1);
    bench_close(b);
}

/* F17: master has died, qmgr is about to follow, and somebody asks. */
static void test_F17_status_without_master(void **state)
{
    (void)state;
    struct bench *b = bench_open(5);
    assert_null(b->service.master);
    json_t *lines = ask(b, "{\"request\":\"status\"}\n");
    assert_int_equal(json_array_size(lines), 2);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(lines, 0), "messages")), 5);
    json_decref(lines);
    bench_close(b);
}

static void test_pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    struct bench *b = bench_open(1);
    static const char two[] =
        "{\"request\":\"site.show\",\"domain\":\"x\"}\n{\"request\":\"ping\"}\n"
        "{\"request\":\"queue.list\",\"select\":{\"all\":true}}\n";
    send(b->client, two, sizeof two - 1, 0);
    for (int i = 0; i < 1000 && !(b->text && strstr(b->text, "\"matched\":1")); i++) {
        turn(b);
        client_read(b);
    }
    assert_non_null(b->text);
    const char *site = strstr(b->text, "{\"site\":{\"site\":\"mx.test\"}}\n{\"done\":true}\n");
    assert_non_null(site);
    assert_non_null(strstr(site, "{\"done\":true}\n{\"done\":true}\n{\"id\""));
    bench_close(b);
}

/* B95: random bytes on the control socket end, at most, that client. */
static void test_B95_random_bytes_hurt_that_client_only(void **state)
{
    (void)state;
    struct bench *b = bench_open(3);
    int bad = client_connect(b);
    unsigned seed = 95;
    for (int round = 0; round < 200; round++) {
        char junk[4096];
        for (size_t i = 0; i < sizeof junk; i++)
            junk[i] = (char)rand_r(&seed);
        (void)!send(bad, junk, sizeof junk, MSG_NOSIGNAL);
        turn(b);
        char drop[65536];
        (void)!recv(bad, drop, sizeof drop, 0);
    }
    json_t *lines = ask(b, "{\"request\":\"queue.list\",\"select\":{\"all\":true}}\n");
    assert_int_equal(count_in(lines, "matched"), 3);
    json_decref(lines);
    close(bad);
    bench_close(b);
}

static void test_B95_endless_line_is_refused(void **state)
{
    (void)state;
    struct bench *b = bench_open(1);
    char junk[8192];
    memset(junk, 'x', sizeof junk);
    bool open = true;
    for (int i = 0; i < 1000 && open; i++) {
        (void)!send(b->client, junk, sizeof junk, MSG_NOSIGNAL);
        turn(b);
        open = client_read(b);
    }
    assert_false(open);
    assert_non_null(strstr(b->text, "longer than"));
    bench_close(b);
}

static void test_client_that_leaves_ends_its_walk(void **state)
{
    (void)state;
    struct bench *b = bench_open(MESSAGES);
    int other = client_connect(b);
    static const char list[] = "{\"request\":\"queue.list\",\"select\":{\"all\":true}}\n";
    send(other, list, sizeof list - 1, 0);
    for (int i = 0; i < 200; i++)
        turn(b); /* it does not read: its walk comes to a halt */
    assert_non_null(fake.walk);
    assert_true(fake.walk->paused);
    assert_true(fake.pauses > 0);
    assert_true(fake.walk->at < MESSAGES);
    close(other);
    for (int i = 0; i < 10; i++)
        turn(b);
    assert_null(fake.walk);
    bench_close(b);
}

static void test_too_many_clients_are_told(void **state)
{
    (void)state;
    struct bench *b = bench_open(1);
    int clients[CONTROL_CLIENTS_MAX + 4];
    for (int i = 0; i < CONTROL_CLIENTS_MAX + 4; i++) {
        clients[i] = client_connect(b);
        turn(b);
    }
    char text[256] = "";
    assert_true(recv(clients[CONTROL_CLIENTS_MAX + 3], text, sizeof text - 1, 0) > 0);
    assert_non_null(strstr(text, "Too many clients"));
    for (int i = 0; i < CONTROL_CLIENTS_MAX + 4; i++)
        close(clients[i]);
    for (int i = 0; i < 10; i++)
        turn(b);
    json_t *lines = ask(b, "{\"request\":\"ping\"}\n");
    json_decref(lines);
    bench_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list_and_selectors),
        cmocka_unit_test(test_slips_select_nothing),
        cmocka_unit_test(test_actions),
        cmocka_unit_test(test_summary),
        cmocka_unit_test(test_message_show),
        cmocka_unit_test(test_a_long_list_travels_in_large_pieces),
        cmocka_unit_test(test_F17_status_without_master),
        cmocka_unit_test(test_pipelined_requests_are_answered_in_order),
        cmocka_unit_test(test_B95_random_bytes_hurt_that_client_only),
        cmocka_unit_test(test_B95_endless_line_is_refused),
        cmocka_unit_test(test_client_that_leaves_ends_its_walk),
        cmocka_unit_test(test_too_many_clients_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
