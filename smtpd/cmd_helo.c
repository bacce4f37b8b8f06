/* EHLO and HELO. */
#include "core/mem.h"
#include "smtpd/auth.h"
#include "smtpd/gate.h"
#include "smtpd/identity.h"
#include "smtpd/limits.h"
#include "smtpd/own_limits.h"
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

/* What not everybody may use, as lines that others follow. */
static void announce_more(const struct session *s, struct buf *out)
{
    if (s->server->secure.announced && !s->tls && !s->local_user)
        buf_addstr(out, "250-STARTTLS\r\n");
    auth_announce(s, out);
    if (s->tls && s->server->requiretls)
        buf_addstr(out, "250-REQUIRETLS\r\n");
    if (s->may_xclient)
        buf_addstr(out, "250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n");
    if (s->may_xforward)
        buf_addstr(out, "250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n");
}

/* It goes behind the first line, which is our name. */
static void announce_all(struct session *s, struct slice all)
{
    struct buf *out = &s->out;
    size_t from = out->len, first = slice_chr(all, '\n') + 1;
    buf_printf(out, "250-%.*s", (int)(first - 4), all.ptr + 4);
    announce_more(s, out);
    buf_adds(out, slice_from(all, first));
    if (first == all.len) { /* smtpd_discard_ehlo_keywords has left nothing else */
        struct slice lines = slice_make(out->data + from, out->len - from - 1);
        size_t at = slice_rchr(lines, '\n');
        out->data[from + (at < lines.len ? at + 1 : 0) + 3] = ' ';
    }
    reply_ready(s, 250, SLICE(""));
}

/* With the limits of the plan of who pays. */
static void announce(struct session *s)
{
    const struct login *l = gate_payer(s);
    struct buf own = BUF_INIT(OUTPUT_MAX);
    if (l && (l->size_limit || l->recipient_limit))
        server_ehlo(s->server->config, l->size_limit, l->recipient_limit, &own);
    announce_all(s, own.len ? buf_slice(&own) : buf_slice(&s->server->ehlo));
    buf_free(&own);
}

static void announce_when_known(struct session *s)
{
    own_limits_ask(s, announce);
}

void cmd_ehlo(struct session *s, struct slice argument)
{
    if (greet(s, argument) < 0)
        return;
    s->esmtp = true;
    identity_ask(s, announce_when_known);
}

static void say_name(struct session *s)
{
    reply(s, 250, "", "%s", s->server->config->myhostname);
}

void cmd_helo(struct session *s, struct slice argument)
{
    if (greet(s, argument) < 0)
        return;
    s->esmtp = false;
    identity_ask(s, say_name);
}
