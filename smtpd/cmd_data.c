/* DATA. */
#include "core/log.h"
#include "smtpd/content.h"
#include "smtpd/reply.h"
#include "smtpd/verbs.h"

/* RFC 2920 section 3.1: nothing may be sent behind DATA before its reply. Who
 * does it expects no reply, and what comes may be read as commands or as a
 * message: the dialogue is over (B21). */
static bool is_out_of_step(struct session *s)
{
    if (s->behind == 0)
        return false;
    log_info("improper command pipelining after DATA from %s", s->peer);
    reply(s, 554, "5.5.0", "Error: content sent before the reply to DATA");
    session_end(s);
    return true;
}

static void begin(struct session *s)
{
    content_begin(s, DATA_DOTS);
    s->mode = INPUT_DATA;
    reply_ready(s, 354, SLICE("354 End data with <CR><LF>.<CR><LF>\r\n"));
}

/* The restrictions have been checked, after a wait. What has come meanwhile is out
 * of step as well; it was not known before the reply was due. */
static void decided(struct session *s, enum check_result result)
{
    char byte;
    s->behind = s->in.len;
    if (recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
        s->behind++;
    if (is_out_of_step(s))
        return;
    if (result == CHECK_REFUSED)
        restrictions_refuse(s, tx_single_recipient(&s->tx));
    else
        begin(s);
}

void cmd_data(struct session *s, struct slice argument)
{
    if (is_out_of_step(s))
        return;
    if (argument.len) {
        reply(s, 501, "5.5.4", "Syntax: DATA");
        return;
    }
    enum check_result result = restrictions_check_message(s, CHECK_DATA, decided);
    if (result == CHECK_REFUSED)
        restrictions_refuse(s, tx_single_recipient(&s->tx));
    else if (result == CHECK_PASSED)
        begin(s);
}

void cmd_data_without_recipient(struct session *s, struct slice argument)
{
    (void)argument;
    if (is_out_of_step(s))
        return;
    if (s->tx.refused)
        reply(s, 554, "5.5.1", "Error: no valid recipients");
    else
        reply(s, 503, "5.5.1", "Error: need RCPT command");
}
