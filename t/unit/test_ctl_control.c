/* libraries: qmgr_parts postern_service postern_ipc postern_core */
/* The control socket, by its requests and answers. */
#include "control_world.h"

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
        {"{\"request\":\"queue.list\",\"select\":{\"min_attempts\":3}}\n", MESSAGES},
        {"{\"request\":\"queue.list\",\"select\":{\"max_attempts\":2}}\n", 0},
        {"{\"request\":\"queue.list\",\"select\":{\"larger_than\":0}}\n", 0},
        {"{\"request\":\"queue.list\",\"select\":{\"smaller_than\":1}}\n", MESSAGES},
        {"{\"request\":\"queue.list\",\"select\":{\"account\":\"x\"}}\n", 0},
        {"{\"request\":\"queue.list\",\"select\":{\"source\":\"192.0.2.1\"}}\n", 0},
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
