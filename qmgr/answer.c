#include "core/clock.h"
#include "core/mem.h"
#include "qmgr/message.h"

struct answer *answer_new(uint16_t code, struct slice enhanced, struct slice text,
                          struct slice host, struct slice address)
{
    enhanced = slice_first(enhanced, ENHANCED_MAX);
    text = slice_first(text, ANSWER_TEXT_MAX);
    host = slice_first(host, ANSWER_HOST_MAX);
    address = slice_first(address, ANSWER_HOST_MAX);
    struct answer *a = xmalloc(sizeof *a + host.len + address.len + text.len);
    *a = (struct answer){.refs = 1,
                         .code = code,
                         .when = clock_wall(),
                         .host_len = (uint16_t)host.len,
                         .address_len = (uint16_t)address.len,
                         .text_len = (uint16_t)text.len};
    if (enhanced.len)
        memcpy(a->enhanced, enhanced.ptr, enhanced.len);
    char *p = a->data;
    struct slice parts[] = {host, address, text};
    for (size_t i = 0; i < 3; i++) {
        if (parts[i].len)
            memcpy(p, parts[i].ptr, parts[i].len);
        p += parts[i].len;
    }
    return a;
}

struct answer *answer_ref(struct answer *a)
{
    if (a)
        a->refs++;
    return a;
}

void answer_unref(struct answer *a)
{
    if (a && --a->refs == 0)
        free(a);
}

struct slice answer_host(const struct answer *a)
{
    return slice_make(a->data, a->host_len);
}

struct slice answer_address(const struct answer *a)
{
    return slice_make(a->data + a->host_len, a->address_len);
}

struct slice answer_text(const struct answer *a)
{
    return slice_make(a->data + a->host_len + a->address_len, a->text_len);
}

/* RFC 3463: class "." subject "." detail, the latter of one to three digits. */
static bool well_formed(const char *s, char class)
{
    if (s[0] != class || s[1] != '.')
        return false;
    int parts = 0;
    for (s += 2;; s++) {
        int digits = 0;
        for (; *s >= '0' && *s <= '9'; s++)
            digits++;
        if (digits < 1 || digits > 3)
            return false;
        parts++;
        if (*s != '.')
            break;
    }
    return parts == 2 && *s == '\0';
}

struct slice answer_status(const struct answer *a, char class, char buffer[static ENHANCED_MAX + 1])
{
    if (a && well_formed(a->enhanced, class))
        return slice_str(a->enhanced);
    memcpy(buffer, "x.0.0", 6);
    buffer[0] = class;
    return slice_make(buffer, 5);
}

static const char *command_of(uint8_t stage)
{
    static const char *const names[] = {
        [STAGE_EHLO] = "EHLO command",       [STAGE_STARTTLS] = "STARTTLS command",
        [STAGE_AUTH] = "AUTH command",       [STAGE_MAIL] = "MAIL FROM command",
        [STAGE_RCPT] = "RCPT TO command",    [STAGE_DATA] = "DATA command",
        [STAGE_DOT] = "end of DATA command", [STAGE_QUIT] = "QUIT command",
    };
    return stage < sizeof names / sizeof names[0] ? names[stage] : NULL;
}

/* Code, enhanced code unless the text has it already, text. */
static void add_wire(const struct answer *a, struct buf *out, size_t max, bool escape)
{
    struct slice text = answer_text(a), enhanced = slice_str(a->enhanced);
    if (a->code) {
        buf_addu64(out, a->code);
        if (enhanced.len && !slice_starts(text, enhanced)) {
            buf_addc(out, ' ');
            buf_add_escaped(out, enhanced, ENHANCED_MAX);
        }
        if (text.len)
            buf_addc(out, ' ');
    }
    if (escape)
        buf_add_escaped(out, text, max);
    else
        buf_adds(out, slice_first(text, max));
}

void answer_wire(const struct answer *a, struct buf *out, size_t max)
{
    add_wire(a, out, max, false);
}

void answer_describe(const struct answer *a, struct buf *out)
{
    enum { LOGGED_TEXT_MAX = 700 };
    bool success = a->code >= 200 && a->code < 300;
    if (a->local || a->code == 0) {
        buf_add_escaped(out, answer_text(a), LOGGED_TEXT_MAX);
        return;
    }
    if (success || a->host_len == 0) {
        add_wire(a, out, LOGGED_TEXT_MAX, true);
        return;
    }
    buf_addstr(out, "host ");
    buf_add_escaped(out, answer_host(a), ANSWER_HOST_MAX);
    if (a->address_len) {
        buf_addc(out, '[');
        buf_add_escaped(out, answer_address(a), ANSWER_HOST_MAX);
        buf_addc(out, ']');
    }
    bool greeting = a->stage == STAGE_CONNECT || a->stage == STAGE_GREETING;
    buf_addstr(out, greeting ? " refused to talk to me: " : " said: ");
    add_wire(a, out, LOGGED_TEXT_MAX, true);
    const char *command = command_of(a->stage);
    if (command) {
        buf_addstr(out, " (in reply to ");
        buf_addstr(out, command);
        buf_addc(out, ')');
    }
}
