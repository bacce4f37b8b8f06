/* libraries: postern_core postern_smtp */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "smtp/data.h"
#include "smtp/stuff.h"

enum { OUT_MAX = 1 << 20 };

/* Feeds `in` in pieces of `step` bytes through a buffer that holds `room`. */
static enum data_status run(struct data_machine *m, struct slice in, size_t step, size_t room,
                            struct buf *all, size_t *consumed)
{
    enum data_status status = DATA_MORE;
    struct buf out = BUF_INIT(room);
    *consumed = 0;
    while (in.len && status != DATA_END) {
        size_t taken;
        status = data_feed(m, slice_first(in, step), &taken, &out);
        *consumed += taken;
        in = slice_from(in, taken);
        assert_int_equal(buf_adds(all, buf_slice(&out)), 0);
        buf_clear(&out);
    }
    buf_free(&out);
    return status;
}

struct row {
    const char *name;
    struct slice in;
    enum data_status status;
    size_t consumed;
    uint8_t flags;
    struct slice content; /* when normalized */
    int code;             /* of the refusal in reject mode; 0: taken */
};
#define IN(text) SLICE(text)

static const struct row rows[] = {
    {"plain", IN("a\r\nb\r\n.\r\nQUIT\r\n"), DATA_END, 9, 0, IN("a\r\nb\r\n"), 0},
    {"empty message", IN(".\r\nNOOP\r\n"), DATA_END, 3, 0, IN(""), 0},
    {"stuffed dots", IN("..a\r\n...\r\n.b\r\n.\r\n"), DATA_END, 17, 0, IN(".a\r\n..\r\nb\r\n"), 0},
    {"B01 LF.LF", IN("a\n.\nb\r\n.\r\n"), DATA_END, 10, DATA_BARE_LF, IN("a\r\n\r\nb\r\n"), 550},
    {"B01 LF.CRLF", IN("a\n.\r\nb\r\n.\r\n"), DATA_END, 11, DATA_BARE_LF, IN("a\r\n\r\nb\r\n"),
     550},
    {"B01 CRLF.LF", IN("a\r\n.\nb\r\n.\r\n"), DATA_END, 11, DATA_BARE_LF, IN("a\r\n\r\nb\r\n"),
     550},
    {"B01 CR.CR", IN("a\r.\rb\r\n.\r\n"), DATA_END, 10, DATA_BARE_CR, IN("a\r\n\r\nb\r\n"), 550},
    {"B01 LF.LF at the start", IN("\n.\nb\r\n.\r\n"), DATA_END, 9, DATA_BARE_LF,
     IN("\r\n\r\nb\r\n"), 550},
    {"B01 dot LF at the start", IN(".\nb\r\n.\r\n"), DATA_END, 8, DATA_BARE_LF, IN("\r\nb\r\n"),
     550},
    {"B01 CRLF.CR without LF", IN("a\r\n.\rb\r\n.\r\n"), DATA_END, 11, DATA_BARE_CR,
     IN("a\r\n\r\nb\r\n"), 550},
    {"B02 bare CR in a line", IN("a\rb\r\n.\r\n"), DATA_END, 8, DATA_BARE_CR, IN("a\r\nb\r\n"),
     550},
    {"B03 CRLF.CRCRLF", IN("a\r\n.\r\r\nb\r\n.\r\n"), DATA_END, 13, DATA_BARE_CR,
     IN("a\r\n\r\n\r\nb\r\n"), 550},
    {"B03 CRCRLF.CRLF ends", IN("a\r\r\n.\r\n"), DATA_END, 7, DATA_BARE_CR, IN("a\r\n\r\n"), 550},
    {"dot and text in a later line", IN("a.\r\n.x.\r\n.\r\n"), DATA_END, 12, 0, IN("a.\r\nx.\r\n"),
     0},
    {"B05 NUL", IN("a\0b\r\n.\r\n"), DATA_END, 8, DATA_NUL, IN("a\0b\r\n"), 550},
    {"8-bit", IN("\xc3\xa4\r\n.\r\n"), DATA_END, 7, DATA_8BIT, IN("\xc3\xa4\r\n"), 0},
    {"8-bit behind the end", IN("a\r\n.\r\n\xff\0"), DATA_END, 6, 0, IN("a\r\n"), 0},
    {"unfinished", IN("a\r\n."), DATA_MORE, 4, 0, IN("a\r\n"), 0},
    {"unfinished CR", IN("a\r\n.\r"), DATA_MORE, 5, 0, IN("a\r\n"), 0},
};

static void check_row(const struct row *r, enum data_mode mode, size_t step, size_t room)
{
    struct data_machine m;
    struct buf all = BUF_INIT(OUT_MAX);
    size_t consumed;
    data_init(&m, DATA_DOTS, mode, 0, DATA_LINE_MAX);
    enum data_status status = run(&m, r->in, step, room, &all, &consumed);
    if (status != r->status || consumed != r->consumed || m.flags != r->flags)
        fail_msg("%s: status %d, consumed %zu, flags %d", r->name, status, consumed, m.flags);
    const struct refusal *no = data_refusal(&m);
    int code = mode == DATA_NORMALIZE && !(r->flags & DATA_NUL) ? 0 : r->code;
    if ((no ? no->code : 0) != code)
        fail_msg("%s: refused with %d", r->name, no ? no->code : 0);
    if (!no && !slice_eq(buf_slice(&all), r->content))
        fail_msg("%s: content is '%.*s'", r->name, (int)all.len, all.data);
    if (!no)
        assert_int_equal(m.size, r->content.len);
    buf_free(&all);
}

static void test_B01_B05_end_of_data_and_content(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check_row(&rows[i], DATA_REJECT, 1000, 1000);
        check_row(&rows[i], DATA_NORMALIZE, 1000, 1000);
    }
}

static void test_B04_any_split_gives_the_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (size_t step = 1; step <= 6; step++) {
            check_row(&rows[i], DATA_REJECT, step, DATA_ROOM_MIN);
            check_row(&rows[i], DATA_NORMALIZE, step, DATA_ROOM_MIN);
        }
}

static void test_output_that_fills_up_is_resumed(void **state)
{
    (void)state;
    struct buf in = BUF_INIT(OUT_MAX), all = BUF_INIT(OUT_MAX), want = BUF_INIT(OUT_MAX);
    for (int i = 0; i < 2000; i++) {
        buf_addstr(&in, i % 3 ? "..line\r\n" : "text\n");
        buf_addstr(&want, i % 3 ? ".line\r\n" : "text\r\n");
    }
    buf_addstr(&in, "x\r\n.\r\n");
    buf_addstr(&want, "x\r\n");
    struct data_machine m;
    size_t consumed;
    data_init(&m, DATA_DOTS, DATA_NORMALIZE, 0, DATA_LINE_MAX);
    assert_int_equal(run(&m, buf_slice(&in), SIZE_MAX, 100, &all, &consumed), DATA_END);
    assert_int_equal(consumed, in.len);
    assert_true(slice_eq(buf_slice(&all), buf_slice(&want)));
    buf_free(&in);
    buf_free(&all);
    buf_free(&want);
}

static void test_B08_line_of_64_KiB_passes_and_a_longer_one_does_not(void **state)
{
    (void)state;
    for (size_t extra = 0; extra < 2; extra++) {
        struct buf in = BUF_INIT(OUT_MAX), all = BUF_INIT(OUT_MAX);
        struct data_machine m;
        size_t consumed;
        for (size_t i = 0; i < DATA_LINE_MAX + extra; i++)
            buf_addc(&in, 'x');
        buf_addstr(&in, "\r\n.\r\n");
        data_init(&m, DATA_DOTS, DATA_REJECT, 0, DATA_LINE_MAX);
        assert_int_equal(run(&m, buf_slice(&in), 4000, 4096, &all, &consumed), DATA_END);
        assert_int_equal(m.longest, DATA_LINE_MAX + extra);
        assert_int_equal(data_refusal(&m) ? data_refusal(&m)->code : 0, extra ? 550 : 0);
        if (!extra)
            assert_true(slice_eq(buf_slice(&all), slice_first(buf_slice(&in), in.len - 3)));
        buf_free(&in);
        buf_free(&all);
    }
}

static void test_B09_endless_data_without_line_end_takes_constant_memory(void **state)
{
    (void)state;
    enum { CHUNK = 64 * 1024, CHUNKS = 3200 }; /* 200 MB */
    char *chunk = xmalloc(CHUNK);
    memset(chunk, 'x', CHUNK);
    struct data_machine m;
    struct buf out = BUF_INIT(CHUNK);
    size_t consumed;
    data_init(&m, DATA_DOTS, DATA_REJECT, 1000, UINT64_MAX);
    for (int i = 0; i < CHUNKS; i++) {
        assert_int_equal(data_feed(&m, slice_make(chunk, CHUNK), &consumed, &out), DATA_MORE);
        assert_int_equal(consumed, CHUNK);
    }
    assert_true(m.discard);
    assert_int_equal(out.len, 0);
    assert_int_equal(data_refusal(&m)->code, 552);
    assert_int_equal(data_feed(&m, SLICE("\r\n.\r\nX"), &consumed, &out), DATA_END);
    assert_int_equal(consumed, 5);
    buf_free(&out);
    free(chunk);
}

static void test_many_bare_CRs_are_read_in_linear_time(void **state)
{
    (void)state;
    enum { LENGTH = 1 << 20 };
    char *in = xmalloc(LENGTH);
    memset(in, '\r', LENGTH);
    struct data_machine m;
    struct buf out = BUF_INIT(4 * LENGTH);
    size_t consumed;
    data_init(&m, DATA_DOTS, DATA_NORMALIZE, 0, DATA_LINE_MAX);
    assert_int_equal(data_feed(&m, slice_make(in, LENGTH), &consumed, &out), DATA_MORE);
    assert_int_equal(consumed, LENGTH);
    assert_int_equal(m.size, 2 * (LENGTH - 1)); /* the last CR waits for what follows */
    buf_free(&out);
    free(in);
}

static void test_bdat_has_no_dots_and_no_end(void **state)
{
    (void)state;
    static const struct {
        struct slice in, content;
        uint8_t flags;
    } cases[] = {
        {IN("a\r\n.\r\nb\r\n"), IN("a\r\n.\r\nb\r\n"), 0},
        {IN("..a"), IN("..a\r\n"), 0},
        {IN(""), IN(""), 0},
        {IN("a\r"), IN("a\r\n"), DATA_BARE_CR},
        {IN("a\nb"), IN("a\r\nb\r\n"), DATA_BARE_LF},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t step = 1; step < 10; step++) {
            struct data_machine m;
            struct buf all = BUF_INIT(OUT_MAX);
            size_t consumed;
            data_init(&m, DATA_BDAT, DATA_NORMALIZE, 0, DATA_LINE_MAX);
            assert_int_equal(run(&m, cases[i].in, step, 1000, &all, &consumed), DATA_MORE);
            data_finish(&m, &all);
            assert_true(slice_eq(buf_slice(&all), cases[i].content));
            assert_int_equal(m.flags, cases[i].flags);
            assert_int_equal(m.size, all.len);
            buf_free(&all);
        }
}

/* RFC 1870 section 3: neither stuffed dots nor the end count, nor what we complete. */
static void test_size_is_what_the_client_sent(void **state)
{
    (void)state;
    static const struct {
        struct slice in;
        enum data_framing framing;
        size_t sent;
    } cases[] = {
        {IN("a\r\nb\r\n.\r\n"), DATA_DOTS, 6},
        {IN(".\r\n"), DATA_DOTS, 0},
        {IN("..a\r\n..\r\n.\r\n"), DATA_DOTS, 7},
        {IN("a\nb\rc\r\n.\r\n"), DATA_DOTS, 7},
        {IN("a\n.b\n\r\n.\r\n"), DATA_DOTS, 6},
        {IN("a\r\n.\rb\r\n.\r\n"), DATA_DOTS, 7},
        {IN("..a"), DATA_BDAT, 3},
        {IN("a\r"), DATA_BDAT, 2},
        {IN("a\nb\r\n.\r\n"), DATA_BDAT, 8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t limit = cases[i].sent ? cases[i].sent - 1 : 0; limit < cases[i].sent + 2;
             limit++)
            for (size_t step = 1; step < 10; step++) {
                struct data_machine m;
                struct buf all = BUF_INIT(OUT_MAX);
                size_t consumed;
                data_init(&m, cases[i].framing, DATA_NORMALIZE, limit, DATA_LINE_MAX);
                run(&m, cases[i].in, step, 1000, &all, &consumed);
                data_finish(&m, &all);
                assert_int_equal(m.sent, cases[i].sent);
                assert_int_equal((m.flags & DATA_TOO_BIG) != 0, limit && cases[i].sent > limit);
                assert_int_equal(data_refusal(&m) ? data_refusal(&m)->code : 0,
                                 limit && cases[i].sent > limit ? 552 : 0);
                buf_free(&all);
            }
}

/* ---- the way out ----------------------------------------------------------- */

static void check_stuffed(struct slice content, size_t step, struct slice want)
{
    struct stuffer s, t;
    struct buf copied = BUF_INIT(OUT_MAX), pointed = BUF_INIT(OUT_MAX);
    stuff_init(&s);
    stuff_init(&t);
    for (struct slice rest = content; rest.len; rest = slice_from(rest, step)) {
        struct slice piece = slice_first(rest, step), again = piece;
        struct iovec iov[3];
        stuff_copy(&s, &piece, &copied);
        assert_int_equal(piece.len, 0);
        while (again.len) {
            unsigned n = stuff_iov(&t, &again, iov, 3);
            assert_true(n > 0 && n <= 3);
            for (unsigned i = 0; i < n; i++)
                buf_add(&pointed, iov[i].iov_base, iov[i].iov_len);
        }
    }
    buf_adds(&copied, stuff_end(&s));
    buf_adds(&pointed, stuff_end(&t));
    assert_true(slice_eq(buf_slice(&copied), want));
    assert_true(slice_eq(buf_slice(&pointed), want));
    buf_free(&copied);
    buf_free(&pointed);
}

static void test_dots_are_stuffed_and_the_end_is_made(void **state)
{
    (void)state;
    static const struct {
        struct slice content, wire;
    } cases[] = {
        {IN(""), IN(".\r\n")},
        {IN("a\r\n"), IN("a\r\n.\r\n")},
        {IN("a"), IN("a\r\n.\r\n")},
        {IN(".\r\n"), IN("..\r\n.\r\n")},
        {IN("."), IN("..\r\n.\r\n")},
        {IN("..a\r\n.\r\n\r\nb.c\r\n.d\r\n"), IN("...a\r\n..\r\n\r\nb.c\r\n..d\r\n.\r\n")},
        {IN("......\r\n"), IN(".......\r\n.\r\n")},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t step = 1; step < 12; step++)
            check_stuffed(cases[i].content, step, cases[i].wire);
}

static void test_stuffing_fills_a_small_buffer_piecewise(void **state)
{
    (void)state;
    struct slice content = IN(".a\r\n.b\r\n.c\r\n"), rest = content;
    struct buf all = BUF_INIT(OUT_MAX), out = BUF_INIT(5);
    struct stuffer s;
    stuff_init(&s);
    for (int i = 0; rest.len && i < 100; i++) {
        stuff_copy(&s, &rest, &out);
        buf_adds(&all, buf_slice(&out));
        buf_clear(&out);
    }
    assert_true(slice_eq(buf_slice(&all), IN("..a\r\n..b\r\n..c\r\n")));
    buf_free(&all);
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_B01_B05_end_of_data_and_content),
        cmocka_unit_test(test_B04_any_split_gives_the_same),
        cmocka_unit_test(test_output_that_fills_up_is_resumed),
        cmocka_unit_test(test_B08_line_of_64_KiB_passes_and_a_longer_one_does_not),
        cmocka_unit_test(test_B09_endless_data_without_line_end_takes_constant_memory),
        cmocka_unit_test(test_many_bare_CRs_are_read_in_linear_time),
        cmocka_unit_test(test_bdat_has_no_dots_and_no_end),
        cmocka_unit_test(test_size_is_what_the_client_sent),
        cmocka_unit_test(test_dots_are_stuffed_and_the_end_is_made),
        cmocka_unit_test(test_stuffing_fills_a_small_buffer_piecewise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
