#include "smtpd/identity.h"

#include <stdio.h>

#include "core/log.h"
#include "core/mem.h"

bool identity_is_open(const struct session *s)
{
    return s->certificate && s->certificate->standing == CERTIFICATE_OPEN && !s->login &&
           s->server->config->accounts_enable;
}

void identity_ask(struct session *s, void (*done)(struct session *s))
{
    struct certificate *c = s->certificate;
    struct buf *out = identity_is_open(s) ? accounts_ask(s, ABOUT_CERTIFICATE) : NULL;
    if (!out) {
        done(s);
        return;
    }
    c->then = done;
    ipc_client_certificate_encode(
        out, &(struct ipc_client_certificate){.tag = s->question.tag,
                                              .client = slice_make(s->address, s->address_len),
                                              .certificate = slice_str(c->fingerprint),
                                              .key = slice_str(c->key_fingerprint)});
    s->wait = WAIT_ACCOUNTS;
}

bool identity_refuses(const struct session *s, struct refusal *no)
{
    static char text[300];
    const struct certificate *c = s->certificate;
    if (identity_is_open(s)) {
        *no = (struct refusal){451, "4.3.0", "Error: the accounts are not available, try later"};
        return true;
    }
    if (!c || s->login || c->standing != CERTIFICATE_REFUSED)
        return false;
    snprintf(text, sizeof text, "Error: %s", c->refused);
    *no = (struct refusal){550, "5.7.1", text};
    return true;
}

/* ---- answers --------------------------------------------------------------------------- */

static void go_on(struct session *s)
{
    s->wait = WAIT_NOTHING;
    s->certificate->then(s);
    session_go_on(s);
}

void identity_lost(struct session *s)
{
    go_on(s);
}

static void take_login(struct session *s, const struct ipc_auth_result *r)
{
    s->login = login_of_account("EXTERNAL", r, s->server->accounts.changes);
    if (!s->login) {
        log_error("quota has sent a login that makes no sense");
        return;
    }
    s->login->implied = true;
    s->certificate->standing = CERTIFICATE_USERS;
    s->nobody = false;
    login_free(&s->host_login);
}

void identity_result(struct session *s, const struct ipc_auth_result *r)
{
    struct certificate *c = s->certificate;
    switch (r->status) {
    case AUTH_OK:
        take_login(s, r);
        break;
    case AUTH_NONE:
        c->standing = CERTIFICATE_NOBODYS;
        break;
    case AUTH_DENIED:
        c->standing = CERTIFICATE_REFUSED;
        free(c->refused);
        c->refused = xstrdup(log_esc_n(r->reason, 40));
        log_warning("%s: its certificate is that of user %s, whose mail is not taken: %s", s->peer,
                    log_esc_n(r->user, SASL_USER_MAX), c->refused);
        break;
    default:
        break; /* open: MAIL gets 451 */
    }
    go_on(s);
}
