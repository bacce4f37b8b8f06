/* libraries: quota_parts */
/*
 * What a client of the accounts' socket asks for: requests with bad members, in any order,
 * against the real quota with a real database. Every line has an answer or ends the connection,
 * quota goes on, and whatever was taken can be exported and imported again: the records are
 * whole.
 *
 * Input: lines as the socket takes them. A line of "!" ends the connection and begins another.
 */
#include "quota_world.h"

enum { LINES_MAX = 24, INPUTS_BETWEEN = 50, INPUT_MAX = 16384 };

static struct {
    bool running;
    unsigned inputs;
    struct buf text;
} fuzz;

static const char config_text[] = "myhostname = relay.test\naccounts_enable = yes\n"
                                  "accounts_minfree = 0\nscram_iterations = 4096\n";
static const char plans_text[] = "plan small { messages = 1000\n at_limit = surcharge\n"
                                 " overage = block:100 }\n"
                                 "plan volume { bytes = 5GB\n credit_unit = 500MB\n"
                                 " credit_minimum = 2GB\n credit_until = year }\n";

static void begin(void)
{
    world_start(config_text, plans_text);
    buf_init(&fuzz.text, INPUT_MAX + LINES_MAX);
    fuzz.running = true;
}

/* Accounts by their own requests, so that memory forgets them, too; then the tables that only
 * grow. */
static void forget_all(void)
{
    static const enum table tables[] = {T_AUDIT, T_FAILURE, T_NOTICE, T_CHARGE, T_HELD};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        world_clear(tables[i]);
    fuzz.inputs = 0;
}

struct session {
    int fd;
    size_t lines, heard, answers;
    bool closed;
};

static size_t count_answers(struct slice text)
{
    size_t n = 0;
    while (text.len) {
        struct slice line = slice_cut(&text, '\n');
        json_t *j = json_loadb(line.ptr, line.len, 0, NULL);
        if (!json_is_object(j))
            panic("an answer that is no JSON object");
        n += json_is_true(json_object_get(j, "done")) || json_object_get(j, "error");
        json_decref(j);
    }
    return n;
}

static bool is_served(void *arg)
{
    struct session *s = arg;
    s->closed = !world_hear(s->fd);
    struct slice all = buf_slice(&world.answer);
    if (all.len && all.len != s->heard && all.ptr[all.len - 1] == '\n') {
        s->answers = count_answers(all);
        s->heard = all.len;
    }
    return s->closed || s->answers >= s->lines;
}

/* The lines of one connection, and all that is answered. */
static void serve(struct slice text, size_t lines)
{
    struct session s = {.fd = world_client(), .lines = lines};
    buf_clear(&world.answer);
    if (text.len && send(s.fd, text.ptr, text.len, MSG_NOSIGNAL) < 0)
        panic("the accounts' socket: %s", strerror(errno));
    shutdown(s.fd, SHUT_WR);
    if (lines)
        world_wait(is_served, &s, "an answer to every line");
    close(s.fd);
    world_turn(EVLOOP_NONBLOCK);
}

static void play(struct slice input)
{
    size_t lines = 0;
    buf_clear(&fuzz.text);
    for (int i = 0; i < LINES_MAX && input.len; i++) {
        struct slice line = slice_cut(&input, '\n');
        if (slice_eq(line, SLICE("!"))) {
            serve(buf_slice(&fuzz.text), lines);
            buf_clear(&fuzz.text);
            lines = 0;
            continue;
        }
        buf_adds(&fuzz.text, line);
        buf_addc(&fuzz.text, '\n');
        lines++;
    }
    serve(buf_slice(&fuzz.text), lines);
}

/* Every record can be read: they are exported, and taken again as they are. */
static void check_records(void)
{
    if (!world_ask("{\"request\":\"export\"}"))
        panic("no export: %s", world.answer.data);
    struct buf request = BUF_INIT(WORLD_ANSWER_MAX);
    struct slice rest = slice_str(world.answer.data);
    buf_addstr(&request, "{\"request\":\"import\",\"records\":[");
    for (bool first = true; rest.len;) {
        struct slice line = slice_cut(&rest, '\n');
        if (line.len == 0 || slice_starts(line, SLICE("{\"done\"")))
            continue;
        buf_adds(&request, first ? SLICE("") : SLICE(","));
        buf_adds(&request, line);
        first = false;
    }
    buf_addstr(&request, "]}");
    buf_addc(&request, '\0');
    if (request.len < CONTROL_LINE_MAX && !world_ask(request.data))
        panic("an export cannot be imported: %s: %s", request.data, world.answer.data);
    buf_free(&request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!fuzz.running)
        begin();
    if (size > INPUT_MAX)
        return 0;
    play(slice_make((const char *)data, size));
    check_records();
    if (++fuzz.inputs == INPUTS_BETWEEN)
        forget_all();
    return 0;
}
