#include "relay/outcome.h"

#include <stdarg.h>

#include "core/log.h"

static struct buf words = BUF_INIT(4 * JOB_TEXT_MAX);

struct verdict verdict_of_reply(enum smtp_stage stage, const struct smtp_reply *r)
{
    buf_clear(&words);
    reply_text(r, &words, JOB_TEXT_MAX);
    return (struct verdict){.stage = stage,
                            .code = r->code,
                            .enhanced = slice_str(r->enhanced),
                            .text = buf_slice(&words)};
}

struct verdict verdict_local(enum smtp_stage stage, const char *enhanced, const char *format, ...)
{
    va_list args;
    buf_clear(&words);
    va_start(args, format);
    buf_vprintf(&words, format, args);
    va_end(args);
    return (struct verdict){
        .stage = stage, .local = true, .enhanced = slice_str(enhanced), .text = buf_slice(&words)};
}

struct verdict connect_verdict(const char *host, const char *address, uint16_t port,
                               const char *why)
{
    if (port == 0)
        return verdict_local(STAGE_CONNECT, "4.4.1", "connect to %s[%s]: %s", host, address, why);
    return verdict_local(STAGE_CONNECT, "4.4.1", "connect to %s[%s]:%u: %s", host, address, port,
                         why);
}

void outcome_log_unreadable(const struct job *j)
{
    log_error("%s: the content cannot be read from its spool file; the delivery is deferred",
              log_esc(j->m.id));
}

enum rcpt_outcome outcome_of_code(uint16_t code)
{
    return code < 300 ? OUTCOME_SENT : code < 500 ? OUTCOME_DEFERRED : OUTCOME_FAILED;
}

/* Some say it with another enhanced code. */
static bool says_too_many(struct slice text)
{
    enum { LOOKED_AT_MAX = 512 };
    text = slice_first(text, LOOKED_AT_MAX);
    for (; text.len; text = slice_from(text, 1))
        if (slice_casestarts(text, SLICE("too many recipients")))
            return true;
    return false;
}

bool reply_too_many(const struct smtp_reply *r)
{
    if (r->code != 452 && r->code != 552)
        return false;
    struct slice enhanced = slice_str(r->enhanced);
    return enhanced.len == 0 || slice_eq(slice_from(enhanced, 1), SLICE(".5.3")) ||
           says_too_many(buf_slice(&r->text));
}
