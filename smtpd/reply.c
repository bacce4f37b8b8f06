#include "smtpd/reply.h"

#include <stdio.h>

#include "core/log.h"

enum { REPLY_TEXT_MAX = 1024 }; /* an address, escaped, fits */

static void count(struct session *s, int code)
{
    if (code >= 400) {
        s->errors++;
        if (s->errors > s->server->config->smtpd_soft_error_limit)
            s->penalty = true;
    } else if (code < 300) { /* 354 is no success yet */
        s->counts[s->verb].good++;
    }
}

static void add(struct session *s, int code, const char *enhanced, const char *text)
{
    buf_addu64(&s->out, (uint64_t)code);
    buf_addc(&s->out, ' ');
    if (enhanced[0]) {
        buf_addstr(&s->out, enhanced);
        buf_addc(&s->out, ' ');
    }
    buf_addstr(&s->out, text);
    buf_add(&s->out, "\r\n", 2);
    count(s, code);
}

void reply_ready(struct session *s, int code, struct slice text)
{
    buf_adds(&s->out, text);
    count(s, code);
}

void reply(struct session *s, int code, const char *enhanced, const char *format, ...)
{
    char text[REPLY_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    add(s, code, enhanced, text);
}

void reply_refusal(struct session *s, const struct refusal *r)
{
    add(s, r->code, r->enhanced, r->text);
}

static void log_reject(struct session *s, struct slice to, int code, const char *enhanced,
                       const char *text)
{
    struct transaction *tx = &s->tx;
    char envelope[2 * 1024 * 4];
    struct buf b = {envelope, 0, sizeof envelope, sizeof envelope - 1};
    if (tx->id.text[0])
        buf_printf(&b, " from=<%s>", log_esc_n(buf_slice(&tx->sender), ADDRESS_MAX));
    if (to.len)
        buf_printf(&b, " to=<%s>", log_esc_n(to, ADDRESS_MAX));
    envelope[b.len] = '\0';
    log_info("%s: reject: %s from %s: %d %s %s;%s proto=%s helo=<%s>",
             tx->rcpt_count ? tx->id.text : "NOQUEUE", s->where, s->peer, code, enhanced, text,
             envelope, s->esmtp ? "ESMTP" : "SMTP", s->helo ? log_esc(slice_str(s->helo)) : "");
}

void reject(struct session *s, struct slice to, const struct refusal *r)
{
    add(s, r->code, r->enhanced, r->text);
    log_reject(s, to, r->code, r->enhanced, r->text);
}

void reject_text(struct session *s, struct slice to, int code, const char *enhanced,
                 const char *format, ...)
{
    char text[REPLY_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    add(s, code, enhanced, text);
    log_reject(s, to, code, enhanced, text);
}

bool reply_to_flood(struct session *s)
{
    if (++s->junk <= s->server->config->smtpd_junk_command_limit)
        return false;
    log_info("too many %s commands from %s", s->where, s->peer);
    reply_goodbye(s, "4.7.0", "Error: too many commands without a message");
    return true;
}

void reply_goodbye(struct session *s, const char *enhanced, const char *text)
{
    buf_printf(&s->out, "421 %s %s %s\r\n", enhanced, s->server->config->myhostname, text);
    session_end(s);
}
