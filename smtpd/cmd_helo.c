/* EHLO and HELO. */
#include "core/mem.h"
#include "smtpd/limits.h"
#include "smtpd/reply.h"
#include "smtpd/verbs.h"

static int greet(struct session *s, struct slice name)
{
    if (name.len > HELO_MAX || !command_helo_valid(name)) {
        reply(s, 501, "5.5.4", "Syntax: %s hostname", s->where);
        return -1;
    }
    bool again = s->helo != NULL;
    free(s->helo);
    s->helo = slice_dup(name);
    tx_reset(s);
    return again && reply_to_flood(s) ? -1 : 0;
}

void cmd_ehlo(struct session *s, struct slice argument)
{
    if (greet(s, argument) < 0)
        return;
    s->esmtp = true;
    reply_ready(s, 250, buf_slice(&s->server->ehlo));
}

void cmd_helo(struct session *s, struct slice argument)
{
    if (greet(s, argument) < 0)
        return;
    s->esmtp = false;
    reply(s, 250, "", "%s", s->server->config->myhostname);
}
