/* STARTTLS (RFC 3207). */
#include "core/log.h"
#include "smtpd/reply.h"
#include "smtpd/verbs.h"

void cmd_starttls(struct session *s, struct slice argument)
{
    const struct secure *sec = &s->server->secure;
    if (s->tls)
        reply(s, 503, "5.5.1", "Error: TLS is active already");
    else if (!sec->offered || s->local_user)
        reply(s, 502, "5.5.1", "Error: command not implemented");
    else if (argument.len)
        reply(s, 501, "5.5.4", "Syntax: STARTTLS");
    else if (s->state != STATE_GREETED && s->state != STATE_READY)
        reply(s, 503, "5.5.1", "Error: MAIL transaction in progress");
    else if (s->behind) {
        /* whoever put commands behind it wants them taken for encrypted ones (B10) */
        log_warning("improper command pipelining after STARTTLS from %s: connection closed",
                    s->peer);
        reply(s, 501, "5.5.1", "Error: nothing may follow STARTTLS before its reply");
        session_end(s);
    } else if (!secure_ready(s)) {
        reply(s, 454, "4.7.0", "TLS not available due to local problem");
    } else {
        reply_ready(s, 220, SLICE("220 2.0.0 Ready to start TLS\r\n"));
        secure_begin(s);
    }
}
