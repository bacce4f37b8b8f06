/* libraries: smtpd_parts */
/*
 * Sequences of commands against a session. Each byte chooses a command, and a
 * model knows what a transaction must hold: every address is used once, so
 * whatever a former transaction leaves behind after RSET, EHLO or a refusal
 * shows in the next COMMIT (B19). An input that begins with 0xFF goes in raw,
 * split as its second byte says; then only the invariants are checked.
 */
#include "t/unit/smtpd_world.h"

enum { OPS_MAX = 200, RCPTS_AT_ONCE = 16, MEMORY_LIMIT = 4096, RAW = 0xFF };

/* What DATA and BDAT LAST end in. */
enum fate { FATE_TAKEN, FATE_NUL, FATE_BARE_LF, FATE_LARGE, FATE_REFUSED, FATE_NO_FILE, FATES };

static struct world world;

static struct {
    unsigned serial; /* makes every address and body unique */
    bool open, chunks;
    unsigned sender, rcpts[RCPTS_AT_ONCE], rcpt_count;
    bool options; /* SMTPUTF8, ENVID and so on were given */
    struct buf content;
    enum fate fate;
    unsigned commits;
} model;

static void forget(void)
{
    model.open = model.chunks = model.options = false;
    model.rcpt_count = 0;
    buf_clear(&model.content);
}

static void must(bool condition, const char *what)
{
    if (!condition)
        panic("%s", what);
}

/* ---- qmgr ----------------------------------------------------------------- */

static void check_commit(const struct ipc_commit *m)
{
    char expected[64];
    snprintf(expected, sizeof expected, "s%u@src.test", model.sender);
    must(slice_eq(m->sender, slice_str(expected)), "another transaction's sender");
    must(m->recipient_count == model.rcpt_count, "another number of recipients");
    struct ipc_cursor at = ipc_list_cursor(m->recipients);
    struct ipc_rcpt r;
    for (unsigned i = 0; ipc_rcpt_next(&at, &r); i++) {
        snprintf(expected, sizeof expected, "r%u@dst.test", model.rcpts[i]);
        must(slice_eq(r.address, slice_str(expected)), "another transaction's recipient");
    }
    must(!at.failed, "malformed recipients");
    must((m->envid.len != 0) == model.options, "another transaction's ENVID");
    must(((m->flags & MESSAGE_SMTPUTF8) != 0) == model.options, "another's SMTPUTF8");
    must(m->added <= (m->large_len ? m->large_len : m->body.len) / 2 + 2, "all is ours");
    must(m->ret == (model.options ? RET_HDRS : RET_UNSET), "another transaction's RET");
    if (m->large_len)
        must(m->large_len == model.content.len, "length of a large message");
    else
        must(slice_eq(m->body, buf_slice(&model.content)), "another transaction's content");
}

static void answer_commit(struct world *w, const struct ipc_commit *m)
{
    struct buf out = BUF_INIT(4096);
    model.commits++;
    if (model.fate == FATE_REFUSED)
        ipc_refused_encode(&out, &(struct ipc_refused){.tag = m->tag,
                                                       .code = 452,
                                                       .enhanced = SLICE("4.3.1"),
                                                       .text = SLICE("full")});
    else
        ipc_committed_encode(&out, &(struct ipc_committed){.tag = m->tag});
    world_answer(w, &out, -1);
    buf_free(&out);
}

static void answer_large(struct world *w, uint64_t tag)
{
    struct buf out = BUF_INIT(4096);
    int fd = -1;
    if (model.fate == FATE_NO_FILE) {
        ipc_refused_encode(&out, &(struct ipc_refused){.tag = tag, .code = 451});
    } else {
        ipc_large_fd_encode(&out, &(struct ipc_large_fd){.tag = tag});
        fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    }
    world_answer(w, &out, fd);
    if (fd >= 0)
        close(fd);
    buf_free(&out);
}

static void frame_checked(struct world *w, const struct ipc_frame *f)
{
    struct ipc_commit commit;
    struct ipc_large_open large;
    if (f->number == IPC_NUMBER_ipc_commit) {
        must(ipc_commit_decode(f->body, &commit) == 0, "malformed COMMIT");
        check_commit(&commit);
        answer_commit(w, &commit);
    } else if (f->number == IPC_NUMBER_ipc_large_open) {
        must(ipc_large_open_decode(f->body, &large) == 0, "malformed LARGE_OPEN");
        answer_large(w, large.tag);
    }
}

static void frame_unchecked(struct world *w, const struct ipc_frame *f)
{
    struct ipc_commit commit;
    struct ipc_large_open large;
    model.fate = FATE_TAKEN;
    if (f->number == IPC_NUMBER_ipc_commit && ipc_commit_decode(f->body, &commit) == 0)
        answer_commit(w, &commit);
    else if (f->number == IPC_NUMBER_ipc_large_open && ipc_large_open_decode(f->body, &large) == 0)
        answer_large(w, large.tag);
}

/* ---- the client ------------------------------------------------------------- */

static void check_invariants(void)
{
    const struct session *s = world_session(&world);
    if (!s) {
        must(world.server.memory == 0, "content is counted that nobody has");
        must(world.server.link.messages.count == 0, "qmgr's part outlives its session");
        return;
    }
    bool between = s->state == STATE_GREETED || s->state == STATE_READY;
    if (between && s->mode == INPUT_COMMAND)
        must(tx_is_clean(&s->tx), "something of a transaction is left");
    must(s->wait == WAIT_NOTHING || s->phase != PHASE_OPEN,
         "it waits for an answer that was given");
}

static int say(const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    world_send(&world, slice_make(text, (size_t)n));
    world_run(&world);
    check_invariants();
    return world_reply(&world);
}

static void do_mail(bool options)
{
    unsigned serial = ++model.serial;
    int code = say("MAIL FROM:<s%u@src.test>%s\r\n", serial,
                   options ? " SMTPUTF8 RET=HDRS ENVID=e BODY=8BITMIME" : "");
    must(code == (model.open ? 503 : 250), "reply to MAIL");
    if (model.open)
        return;
    model.open = true;
    model.sender = serial;
    model.options = options;
}

static void do_rcpt(bool good)
{
    unsigned serial = ++model.serial;
    if (model.rcpt_count == RCPTS_AT_ONCE)
        return;
    int code = say("RCPT TO:<r%u@dst%s>\r\n", serial, good ? ".test" : "..test");
    if (!model.open || model.chunks)
        must(code == 503, "RCPT out of order");
    else if (good)
        must(code == 250, "RCPT refused");
    if (code == 250)
        model.rcpts[model.rcpt_count++] = serial;
}

/* Appends one part of a message, as its fate wants it. */
static void add_content(struct buf *b, enum fate fate)
{
    if (b->len == 0)
        buf_printf(b, "Subject: %u\r\n\r\n", ++model.serial);
    buf_printf(b, "line %u\r\n", ++model.serial);
    if (fate == FATE_NUL)
        buf_add(b, "a\0b\r\n", 5);
    if (fate == FATE_BARE_LF)
        buf_add(b, "a\nb\r\n", 5);
    if (fate == FATE_LARGE || fate == FATE_NO_FILE)
        while (b->len < MEMORY_LIMIT + 512)
            buf_printf(b, "line %u\r\n", ++model.serial);
}

static int expected_code(enum fate fate)
{
    if (fate == FATE_NUL || fate == FATE_BARE_LF)
        return 550;
    return fate == FATE_REFUSED ? 452 : fate == FATE_NO_FILE ? 451 : 250;
}

static void do_data(enum fate fate)
{
    int code = say("DATA\r\n");
    if (!model.open || model.rcpt_count == 0 || model.chunks) {
        must(code == 503 || code == 554, "DATA out of order");
        return;
    }
    must(code == 354, "DATA refused");
    model.fate = fate;
    add_content(&model.content, fate);
    world_send(&world, buf_slice(&model.content));
    must(say(".\r\n") == expected_code(fate), "reply at the end of data");
    forget();
}

static void do_bdat(enum fate fate, bool last)
{
    size_t before = model.content.len;
    bool allowed = model.open && model.rcpt_count;
    model.fate = fate;
    add_content(&model.content, fate);
    struct slice chunk = slice_from(buf_slice(&model.content), before);
    char line[64];
    snprintf(line, sizeof line, "BDAT %zu%s\r\n", chunk.len, last ? " LAST" : "");
    world_send(&world, slice_str(line));
    world_send(&world, chunk);
    world_run(&world);
    check_invariants();
    int code = world_reply(&world), expected = expected_code(fate);
    if (fate == FATE_REFUSED && !last)
        expected = 250;
    if (!allowed)
        must(code == 503 || code == 554, "BDAT out of order");
    else if (fate == FATE_NO_FILE) /* whether a file is asked for depends on earlier chunks */
        must(code == 451 || code == 250, "reply to BDAT");
    else
        must(code == expected, "reply to BDAT");
    model.chunks = true;
    if (!allowed || last || code != 250)
        forget();
}

static void do_op(uint8_t op)
{
    uint8_t detail = op >> 4;
    switch (op & 15) {
    case 0:
    case 1:
    case 2:
        do_mail(detail & 1);
        break;
    case 3:
    case 4:
    case 5:
        do_rcpt(detail != 0);
        break;
    case 6:
        must(say("RSET\r\n") == 250, "RSET");
        forget();
        break;
    case 7:
        must(say("%s client.test\r\n", detail & 1 ? "EHLO" : "HELO") == 250, "EHLO");
        forget();
        break;
    case 8:
    case 9:
        do_data(detail % FATES);
        break;
    case 10:
    case 11:
        do_bdat(detail % FATES, false);
        break;
    case 12:
        do_bdat(detail % FATES, true);
        break;
    case 13:
        must(say("NOOP %u\r\n", op) == 250, "NOOP");
        break;
    case 14:
        must(say("MAIL FROM:<%u\r\n", op) >= 500, "a MAIL that is none");
        break;
    default:
        must(say("X%c\r\n", op) == 500, "an unknown command");
        break;
    }
}

static void run_model(const uint8_t *data, size_t size)
{
    world.frame = frame_checked;
    must(world_reply(&world) == 220, "greeting");
    for (size_t i = 0; i < size && i < OPS_MAX; i++)
        do_op(data[i]);
}

static void run_raw(const uint8_t *data, size_t size)
{
    size_t step = (size_t)data[0] + 1;
    world.frame = frame_unchecked;
    for (size_t at = 1; at < size; at += step) {
        size_t n = size - at < step ? size - at : step;
        world_send(&world, slice_make(data + at, n));
        world_run(&world);
        check_invariants();
    }
}

static void start(void)
{
    static const char config[] = "myhostname = relay.test\n"
                                 "smtpd_hard_error_limit = 1000\n"
                                 "smtpd_soft_error_limit = 1000\n"
                                 "smtpd_junk_command_limit = 100000\n"
                                 "smtpd_error_sleep_time = 0\n"
                                 "message_size_limit = 1m\n"
                                 "message_memory_limit = 4096\n"
                                 "smtpd_authorized_xclient_hosts = 127.0.0.1\n";
    struct buf out = BUF_INIT(4096);
    world_open(&world, config);
    world.frame = frame_checked;
    buf_init(&model.content, 1 << 20);
    ipc_spool_state_encode(
        &out,
        &(struct ipc_spool_state){.state = SPOOL_OK, .commit_credit = 10, .byte_credit = 1 << 20});
    world_answer(&world, &out, -1);
    world_run(&world);
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!world.base)
        start();
    forget();
    world_connect(&world);
    world_run(&world);
    if (size > 2 && data[0] == RAW)
        run_raw(data + 1, size - 1);
    else
        run_model(data, size);
    world_disconnect(&world);
    check_invariants();
    must(world.server.session_count == 0, "a session outlives its connection");
    return 0;
}
