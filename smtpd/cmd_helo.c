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

/* What not everybody may use goes behind the first line, which is our name. */
static void announce(struct session *s)
{
    struct slice all = buf_slice(&s->server->ehlo);
    size_t first = slice_chr(all, '\n') + 1;
    bool starttls = s->server->secure.announced && !s->tls && !s->local_user;
    if (first == all.len && starttls) { /* smtpd_discard_ehlo_keywords has left nothing else */
        buf_printf(&s->out, "250-%.*s", (int)(first - 4), all.ptr + 4);
        reply_ready(s, 250, SLICE("250 STARTTLS\r\n"));
        return;
    }
    buf_adds(&s->out, slice_first(all, first));
    if (first == all.len) { /* smtpd_discard_ehlo_keywords has left nothing */
        reply_ready(s, 250, SLICE(""));
        return;
    }
    if (starttls)
        buf_addstr(&s->out, "250-STARTTLS\r\n");
    if (s->tls && s->server->requiretls)
        buf_addstr(&s->out, "250-REQUIRETLS\r\n");
    if (s->may_xclient)
        buf_addstr(&s->out, "250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n");
    if (s->may_xforward)
        buf_addstr(&s->out, "250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n");
    reply_ready(s, 250, slice_from(all, first));
}

void cmd_ehlo(struct session *s, struct slice argument)
{
    if (greet(s, argument) < 0)
        return;
    s->esmtp = true;
    announce(s);
}

void cmd_helo(struct session *s, struct slice argument)
{
    if (greet(s, argument) < 0)
        return;
    s->esmtp = false;
    reply(s, 250, "", "%s", s->server->config->myhostname);
}
