/* RSET, NOOP, VRFY, HELP, QUIT, and what is not SMTP at all. */
#include "core/log.h"
#include "smtpd/reply.h"
#include "smtpd/verbs.h"

void cmd_rset(struct session *s, struct slice argument)
{
    if (argument.len) {
        reply(s, 501, "5.5.4", "Syntax: RSET");
        return;
    }
    tx_reset(s);
    if (!reply_to_flood(s))
        reply_ready(s, 250, SLICE("250 2.0.0 Ok\r\n"));
}

void cmd_noop(struct session *s, struct slice argument)
{
    (void)argument; /* RFC 5321 section 4.1.1.9: ignored */
    if (!reply_to_flood(s))
        reply_ready(s, 250, SLICE("250 2.0.0 Ok\r\n"));
}

void cmd_vrfy(struct session *s, struct slice argument)
{
    if (reply_to_flood(s))
        return;
    if (argument.len == 0)
        reply(s, 501, "5.5.4", "Syntax: VRFY address");
    else
        reply(s, 252, "2.0.0", "Cannot verify addresses; send the message and see");
}

void cmd_help(struct session *s, struct slice argument)
{
    (void)argument;
    if (!reply_to_flood(s))
        reply(s, 214, "2.0.0", "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY QUIT; see RFC 5321");
}

void cmd_quit(struct session *s, struct slice argument)
{
    (void)argument;
    s->goodbye = true;
    reply_ready(s, 221, SLICE("221 2.0.0 Bye\r\n"));
    session_end(s);
}

/* A browser or script that was made to talk to us on behalf of someone else:
 * whatever it sends next is not to be taken for mail (B36). */
void cmd_http(struct session *s, struct slice argument)
{
    log_warning("non-SMTP command from %s: %s", s->peer, log_esc(argument));
    reply(s, 554, "5.5.1", "Error: this is a mail server");
    session_end(s);
}
