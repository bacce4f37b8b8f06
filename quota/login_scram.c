/* SCRAM: the exchange's two steps; scram.c knows what they mean. */
#include <openssl/crypto.h>

#include "core/log.h"
#include "quota/login.h"
#include "quota/prepare.h"

void login_invented_keys(const struct quota *q, const char *login, struct scram_keys *out)
{
    uint32_t iterations = (uint32_t)q->s->config->scram_iterations;
    scram_fake(slice_make(q->ticket_key, sizeof q->ticket_key), slice_str(login),
               iterations ? iterations : 4096, out);
}

/* The keys of the question's user; without any, what an unknown user has: outside the two look
 * the same, and no proof fits. */
static void find_keys(struct question *x, struct quota *q, struct scram_keys *keys)
{
    struct user u;
    bool there = *x->login && user_find(q, slice_str(x->login), &u) == 1;
    x->known_user = there && scram_parse(slice_str(u.scram), keys) == 0;
    x->epoch = x->known_user ? u.epoch : 0;
    if (x->known_user)
        return;
    if (there)
        x->missing = *u.hash ? "the user has no SCRAM keys; they are made at its next login by "
                               "PLAIN or LOGIN"
                             : "the user has no password";
    login_invented_keys(q, x->login, keys);
}

int login_scram(struct smtpd *s, struct slice body, struct err *e)
{
    struct quota *q = s->q;
    struct logins *l = q->logins;
    struct ipc_auth_scram in;
    struct scram_keys keys;
    if (ipc_auth_scram_decode(body, &in) < 0)
        return err_set(e, "malformed AUTH_SCRAM");
    struct question *x = question_new(s, in.tag, in.client, e);
    if (!x)
        return -1;
    x->is_scram = true;
    scram_init(&x->scram);
    struct scram_binding binding = {.offered = (in.flags & AUTH_OFFERED) != 0,
                                    .plus = (in.flags & AUTH_PLUS) != 0,
                                    .exporter = in.exporter,
                                    .endpoint = in.endpoint};
    if (scram_first(&x->scram, in.message, &binding) < 0) {
        login_fail(x, AUTH_FAILED, 1000, x->scram.problem);
        return 0;
    }
    if (prepare_login(slice_str(x->scram.user), x->login) < 0)
        x->login[0] = '\0';
    if (login_for_another(x, slice_str(x->scram.authorization)) || login_turned_away(l, x))
        return 0;
    find_keys(x, q, &keys);
    if (login_waits(l, x))
        return 0;
    if (scram_challenge(&x->scram, &keys, NULL) < 0) {
        login_fail(x, AUTH_TEMPORARY, 0, "no random numbers");
        return 0;
    }
    OPENSSL_cleanse(&keys, sizeof keys);
    ipc_auth_challenge_encode(
        channel_out(s->channel),
        &(struct ipc_auth_challenge){.tag = x->tag, .message = buf_slice(&x->scram.challenge)});
    return 0;
}

int login_response(struct smtpd *s, struct slice body, struct err *e)
{
    struct ipc_auth_response in;
    struct buf out = BUF_INIT(SCRAM_MESSAGE_MAX);
    if (ipc_auth_response_decode(body, &in) < 0)
        return err_set(e, "malformed AUTH_RESPONSE");
    struct question *x = question_find(s, in.tag);
    if (!x || !x->is_scram || x->scram.challenge.len == 0)
        return err_set(e, "AUTH_RESPONSE without a challenge");
    /* challenges of a moment ago are no way around the limits */
    if (login_turned_away(s->q->logins, x))
        return 0;
    bool good = scram_final(&x->scram, in.message, &out) == 0 && x->known_user;
    if (good)
        login_right(s->q->logins, x, buf_slice(&out));
    else
        login_wrong(s->q->logins, x);
    buf_free(&out);
    return 0;
}
