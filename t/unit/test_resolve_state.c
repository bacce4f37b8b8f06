/* libraries: resolve_parts */
/* A state that is written by two turns: what was saved last is what is loaded, and
 * a file that is torn costs one turn, not all. */
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/mem.h"
#include "resolve/state.h"

static char place[64];

static void open_state(struct state *s)
{
    assert_int_equal(state_open(s, place, "x", NULL), 0);
}

static void close_state(struct state *s)
{
    close(s->fds[0]);
    close(s->fds[1]);
    free(s->name);
}

static void assert_loads(const char *text)
{
    struct state s;
    struct buf got = BUF_INIT(STATE_MAX);
    open_state(&s);
    state_load(&s, &got);
    assert_slice_is(buf_slice(&got), text);
    buf_free(&got);
    close_state(&s);
}

static void save(const char *text)
{
    struct state s;
    struct buf before = BUF_INIT(STATE_MAX);
    open_state(&s);
    state_load(&s, &before);
    assert_int_equal(state_save(&s, slice_str(text), NULL), 0);
    buf_free(&before);
    close_state(&s);
}

static void what_was_saved_last_is_loaded(void **state)
{
    (void)state;
    assert_loads("");
    save("one");
    assert_loads("one");
    save("a longer second");
    assert_loads("a longer second");
    save("3");
    assert_loads("3");
    save("");
    assert_loads("");
}

/* Every file may be damaged at any byte. */
static void a_torn_file_costs_one_turn(void **state)
{
    (void)state;
    save("old");
    struct state s;
    struct buf text = BUF_INIT(STATE_MAX);
    open_state(&s);
    state_load(&s, &text);
    assert_int_equal(state_save(&s, SLICE("new"), NULL), 0);
    int fd = s.fds[s.generation % 2];
    off_t size = lseek(fd, 0, SEEK_END);
    for (off_t at = 0; at < size; at++) {
        char was, is;
        assert_int_equal(pread(fd, &was, 1, at), 1);
        is = (char)(was ^ 1);
        assert_int_equal(pwrite(fd, &is, 1, at), 1);
        assert_loads("old");
        assert_int_equal(pwrite(fd, &was, 1, at), 1);
    }
    for (off_t at = 0; at < size; at++) {
        assert_int_equal(ftruncate(fd, at), 0);
        assert_loads("old");
    }
    buf_free(&text);
    close_state(&s);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(place, sizeof place, "/tmp/postern-state-XXXXXX");
    return mkdtemp(place) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        char *path = xasprintf("%s/x.%d", place, i);
        unlink(path);
        free(path);
    }
    return rmdir(place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_saved_last_is_loaded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_torn_file_costs_one_turn, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
