/* Logins that others verify: their failures count as our own (B16). */
#include "quota/login.h"
#include "quota/prepare.h"

int login_outside(struct smtpd *s, struct slice body, struct err *e)
{
    struct logins *l = s->q->logins;
    struct ipc_auth_outside in;
    if (ipc_auth_outside_decode(body, &in) < 0 || in.good > 1)
        return err_set(e, "malformed AUTH_OUTSIDE");
    struct question *x = question_new(s, in.tag, in.client, e);
    if (!x)
        return -1;
    if (prepare_login(in.user, x->login) < 0)
        x->login[0] = '\0';
    if (!login_believes_others(s->q->s->config))
        login_fail(x, AUTH_TEMPORARY, 0,
                   "smtpd_sasl_type = dovecot is not in quota's configuration: set it in main.cf, "
                   "or for quota in master.cf");
    else if (login_turned_away(l, x))
        return 0;
    else if (in.good)
        login_good_outside(l, x);
    else
        login_wrong(l, x);
    return 0;
}
