/* AUTH (RFC 4954). */
#include "core/log.h"
#include "smtpd/auth.h"
#include "smtpd/reply.h"
#include "smtpd/verbs.h"

/* Why it may not be said now; code 0: it may. */
static struct refusal is_out_of_place(const struct session *s)
{
    const struct auth_setup *a = &s->server->auth;
    if (!a->enabled || s->local_user)
        return (struct refusal){503, "5.5.1", "Error: authentication not enabled"};
    if (a->tls_only && !secure_is_on(s))
        return (struct refusal){538, "5.7.11", "Encryption required for authentication"};
    if (!s->esmtp)
        return (struct refusal){503, "5.5.1", "Error: send EHLO first"};
    if (s->state != STATE_READY)
        return (struct refusal){503, "5.5.1", "Error: MAIL transaction in progress"};
    if (s->login && !s->login->implied)
        return (struct refusal){503, "5.5.1", "Error: already authenticated"};
    return (struct refusal){0, "", ""};
}

void cmd_auth(struct session *s, struct slice argument)
{
    struct refusal no = is_out_of_place(s);
    struct slice rest = argument, name = slice_cut(&rest, ' '), initial = slice_trim(rest);
    if (no.code) {
        reply_refusal(s, &no);
        return;
    }
    if (!name.len || slice_chr(initial, ' ') < initial.len) {
        reply(s, 501, "5.5.4", "Syntax: AUTH mechanism [initial-response]");
        return;
    }
    bool given = initial.len > 0;
    if (slice_eq(initial, SLICE("=")))
        initial = SLICE(""); /* an empty one (RFC 4954 section 4) */
    auth_begin(s, name, given ? &initial : NULL);
}
