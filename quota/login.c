/*
 * Who is it? What passwords (login_password.c) and SCRAM (login_scram.c) have in
 * common: questions of smtpd's, their answers, and clients that do not log in.
 */
#include "quota/login.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include "core/log.h"
#include "core/mem.h"
#include "quota/prepare.h"
#include "quota/verify.h"

/* ---- questions under way ------------------------------------------------------------ */

struct slice smtpd_question_key(const void *value)
{
    const struct question *x = value;
    return slice_make(&x->tag, sizeof x->tag);
}

static struct slice client_of(const struct question *x)
{
    return slice_make(x->client, x->client_len);
}

void question_free(struct question *x)
{
    if (x->s) {
        map_remove(&x->s->questions, smtpd_question_key(x));
        x->s->count--;
    }
    if (x->is_scram)
        scram_free(&x->scram);
    free(x);
}

struct question *question_new(struct smtpd *s, uint64_t tag, struct slice client, struct err *e)
{
    if (s->count >= QUESTION_CREDIT) {
        err_set(e, "more questions than its credit allows");
        return NULL;
    }
    if (client.len != 0 && client.len != 4 && client.len != 16) {
        err_set(e, "a client's address of %zu bytes", client.len);
        return NULL;
    }
    struct question *x = xcalloc(1, sizeof *x);
    x->tag = tag;
    x->smtpd = s->number;
    x->client_len = client.len;
    if (client.len)
        memcpy(x->client, client.ptr, client.len);
    if (map_get(&s->questions, smtpd_question_key(x))) {
        free(x);
        err_set(e, "a question with a tag that is in use");
        return NULL;
    }
    x->s = s;
    s->count++;
    map_put(&s->questions, x);
    return x;
}

struct question *question_find(struct smtpd *s, uint64_t tag)
{
    return map_get(&s->questions, slice_make(&tag, sizeof tag));
}

int login_abort(struct smtpd *s, struct slice body, struct err *e)
{
    struct ipc_auth_abort in;
    if (ipc_auth_abort_decode(body, &in) < 0)
        return err_set(e, "malformed AUTH_ABORT");
    struct question *x = question_find(s, in.tag);
    if (!x)
        return 0; /* the answer and this crossed on the way */
    if (x->is_scram) {
        question_free(x);
        return 0;
    }
    map_remove(&s->questions, smtpd_question_key(x)); /* its thread comes back to it */
    s->count--;
    x->s = NULL;
    return 0;
}

void login_forget(struct smtpd *s)
{
    size_t cursor = 0;
    for (struct question *x; (x = map_next(&s->questions, &cursor));) {
        x->s = NULL;
        if (x->is_scram)
            question_free(x);
    }
    map_free(&s->questions);
}

/* ---- answers ---------------------------------------------------------------------- */

static void send_result(struct smtpd *s, const struct ipc_auth_result *r)
{
    ipc_auth_result_encode(channel_out(s->channel), r);
}

void login_fail(struct question *x, enum auth_status status, uint32_t delay, const char *reason)
{
    if (x->s)
        send_result(x->s, &(struct ipc_auth_result){.tag = x->tag,
                                                    .status = (uint8_t)status,
                                                    .delay = delay,
                                                    .reason = slice_str(reason),
                                                    .user = slice_str(x->login)});
    question_free(x);
}

static const char database_empty[] =
    "the accounts' database is empty: it waits for 'postern account import' or the first account";

bool login_waits(struct logins *l, struct question *x)
{
    if (x->known_user || !l->q->empty)
        return false;
    login_fail(x, AUTH_TEMPORARY, 0, database_empty);
    return true;
}

bool login_for_another(struct question *x, struct slice authorization)
{
    char name[LOGIN_MAX + 1];
    if (!authorization.len || (prepare_login(authorization, name) == 0 && !strcmp(name, x->login)))
        return false;
    /* it says nothing of the password, and is no guess at one */
    login_fail(x, AUTH_DENIED, 1000, "acting as another user is refused");
    return true;
}

static enum failures_by way_of(const struct question *x)
{
    return x->is_scram ? BY_SCRAM : BY_PASSWORD;
}

void login_wrong(struct logins *l, struct question *x)
{
    uint32_t delay = failures_add(&l->failures, l->q->s->config, x->smtpd, client_of(x),
                                  slice_str(x->login), way_of(x), clock_mono());
    const char *reason = "wrong password";
    if (!x->known_user)
        reason = x->missing ? x->missing : "no such user";
    else if (x->scram.problem)
        reason = x->scram.problem;
    login_fail(x, AUTH_FAILED, delay, reason);
}

/* `u`: NULL for clients of mynetworks, and for users that only others know. */
static void grant(struct quota *q, struct smtpd *s, uint64_t tag, struct account *a,
                  const struct user *u, struct slice message)
{
    struct buf ticket = BUF_INIT(TICKET_MAX);
    struct ticket t = {.epoch = ticket_epoch(q, a, u)};
    const char *user = u ? u->login : "";
    struct account *chain[CHARGE_LEVELS_MAX];
    struct message_limits most = account_message_limits(chain, account_chain(q, a, chain));
    snprintf(t.account, sizeof t.account, "%s", a->name);
    snprintf(t.user, sizeof t.user, "%s", user);
    ticket_make(q, &t, &ticket);
    struct ipc_auth_result r = {
        .tag = tag,
        .status = AUTH_OK,
        .message = message,
        .ticket = buf_slice(&ticket),
        .account = slice_str(a->name),
        .user = slice_str(user),
        .permissions = a->any_sender ? PERMIT_ANY_SENDER : 0,
        .size_limit = most.size,
        .recipient_limit = most.recipients < UINT32_MAX ? (uint32_t)most.recipients : UINT32_MAX,
    };
    s->told++;
    send_result(s, &r);
    buf_free(&ticket);
}

void login_right(struct logins *l, struct question *x, struct slice message)
{
    struct quota *q = l->q;
    struct user u;
    const char *why = "the user was deleted";
    bool found = x->s && user_find(q, slice_str(x->login), &u) == 1;
    struct account *a = found ? account_find(q, slice_str(u.account)) : NULL;
    failures_known(&l->failures, client_of(x), slice_str(x->login), clock_mono());
    if (found && x->epoch != u.epoch) { /* what was verified is what it was a moment ago */
        login_fail(x, AUTH_TEMPORARY, 0, "the user was changed meanwhile");
        return;
    }
    if (found && u.suspended)
        why = "the user is suspended";
    else if (found && !a)
        why = "the user's account does not exist";
    if (!a || u.suspended || !account_usable(q, a, &why)) {
        login_fail(x, AUTH_DENIED, 1000, why);
        return;
    }
    grant(q, x->s, x->tag, a, &u, message);
    question_free(x);
}

bool login_turned_away(struct logins *l, struct question *x)
{
    const char *why;
    if (failures_allow(&l->failures, l->q->s->config, x->smtpd, client_of(x), slice_str(x->login),
                       way_of(x), clock_mono(), &why))
        return false;
    login_fail(x, AUTH_TOO_MANY, FAILURES_DELAY_MAX, why);
    return true;
}

/* ---- clients whose password we do not see ------------------------------------------------ */

static void grant_account(struct smtpd *s, uint64_t tag, struct account *a, const struct user *u)
{
    const char *why = NULL;
    if (account_usable(s->q, a, &why))
        grant(s->q, s, tag, a, u, SLICE(""));
    else
        send_result(s, &(struct ipc_auth_result){
                           .tag = tag, .status = AUTH_DENIED, .reason = slice_str(why)});
}

/* The account that a parameter names, for all clients that are nobody else's. */
static void grant_common(struct smtpd *s, uint64_t tag, const char *wanted, const char *parameter)
{
    char name[ACCOUNT_NAME_MAX + 1], reason[120];
    struct account *a = NULL;
    if (name_account(slice_str(wanted), name) == 0)
        a = account_find(s->q, slice_str(name));
    if (a) {
        grant_account(s, tag, a, NULL);
        return;
    }
    snprintf(reason, sizeof reason, "the account of %s does not exist", parameter);
    send_result(s, &(struct ipc_auth_result){
                       .tag = tag, .status = AUTH_TEMPORARY, .reason = slice_str(reason)});
}

void login_good_outside(struct logins *l, struct question *x)
{
    failures_known(&l->failures, client_of(x), slice_str(x->login), clock_mono());
    send_result(x->s, &(struct ipc_auth_result){.tag = x->tag, .status = AUTH_NONE});
    question_free(x);
}

/* Whoever controls an smtpd can name any user here: nobody is believed unless the
 * operator has others who verify users. */
bool login_believes_others(const struct config *c)
{
    return strcmp(c->smtpd_sasl_type, "dovecot") == 0 || *c->smtpd_authorized_xclient_hosts;
}

/* A user whom Dovecot or a proxy vouches for. */
static void grant_external(struct smtpd *s, uint64_t tag, struct slice name)
{
    const struct config *c = s->q->s->config;
    struct ipc_auth_result no = {.tag = tag, .status = AUTH_DENIED};
    char login[LOGIN_MAX + 1] = "";
    struct user u;
    if (!login_believes_others(c)) {
        no.status = AUTH_TEMPORARY;
        no.reason = SLICE("neither smtpd_sasl_type = dovecot nor smtpd_authorized_xclient_hosts is "
                          "in quota's configuration: set it in main.cf, or for quota in master.cf");
        send_result(s, &no);
        return;
    }
    bool known = prepare_login(name, login) == 0 && user_find(s->q, slice_str(login), &u) == 1;
    struct account *a = known ? account_find(s->q, slice_str(u.account)) : NULL;
    if (!known && s->q->empty) {
        no.status = AUTH_TEMPORARY;
        no.reason = slice_str(database_empty);
        send_result(s, &no);
    } else if (!known && *c->external_login_account) {
        grant_common(s, tag, c->external_login_account, "external_login_account");
    } else if (a && !u.suspended) {
        grant_account(s, tag, a, &u);
    } else {
        no.reason = !known ? SLICE("the user belongs to no account")
                    : a    ? SLICE("the user is suspended")
                           : SLICE("the user's account does not exist");
        send_result(s, &no);
    }
}

int login_client(struct smtpd *s, struct slice body, struct err *e)
{
    struct ipc_client_account in;
    const char *common = s->q->s->config->mynetworks_account;
    if (ipc_client_account_decode(body, &in) < 0)
        return err_set(e, "malformed CLIENT_ACCOUNT");
    if (in.user.len)
        grant_external(s, in.tag, in.user);
    else if (*common)
        grant_common(s, in.tag, common, "mynetworks_account");
    else
        send_result(s, &(struct ipc_auth_result){.tag = in.tag, .status = AUTH_NONE});
    return 0;
}

/* ---- clients who have shown a certificate -------------------------------------------------- */

/* 1: the user's login; 0: the certificate is nobody's; -1: it is no fingerprint. */
static int certificate_user(struct quota *q, struct slice text, char login[static LOGIN_MAX + 1])
{
    char fingerprint[FINGERPRINT_MAX + 1];
    if (name_fingerprint(text, fingerprint) < 0)
        return -1;
    if (!quota_get(q, T_CERTIFICATE, slice_str(fingerprint)))
        return 0;
    return name_login(buf_slice(&q->value), login) == 0;
}

static void grant_certificate(struct smtpd *s, uint64_t tag, const char *login)
{
    struct ipc_auth_result no = {.tag = tag, .status = AUTH_DENIED, .user = slice_str(login)};
    const char *why = "the user was deleted";
    struct user u;
    bool found = user_find(s->q, slice_str(login), &u) == 1;
    struct account *a = found ? account_find(s->q, slice_str(u.account)) : NULL;
    if (found && u.suspended)
        why = "the user is suspended";
    else if (found && !a)
        why = "the user's account does not exist";
    else if (a && account_usable(s->q, a, &why)) {
        grant(s->q, s, tag, a, &u, SLICE(""));
        return;
    }
    no.reason = slice_str(why);
    send_result(s, &no);
}

int login_certificate(struct smtpd *s, struct slice body, struct err *e)
{
    struct ipc_client_certificate in;
    char login[LOGIN_MAX + 1];
    if (ipc_client_certificate_decode(body, &in) < 0)
        return err_set(e, "malformed CLIENT_CERTIFICATE");
    int found = certificate_user(s->q, in.certificate, login);
    if (found == 0)
        found = certificate_user(s->q, in.key, login);
    if (found < 0)
        return err_set(e, "a fingerprint of %zu and one of %zu bytes", in.certificate.len,
                       in.key.len);
    if (found)
        grant_certificate(s, in.tag, login);
    else if (s->q->empty)
        send_result(s, &(struct ipc_auth_result){.tag = in.tag,
                                                 .status = AUTH_TEMPORARY,
                                                 .reason = slice_str(database_empty)});
    else
        send_result(s, &(struct ipc_auth_result){.tag = in.tag, .status = AUTH_NONE});
    return 0;
}

/* ---- beginning and end ----------------------------------------------------------------------- */

struct logins *logins_new(struct quota *q, struct err *e)
{
    struct logins *l = xcalloc(1, sizeof *l);
    unsigned char password[18];
    char text[40];
    l->q = q;
    failures_init(&l->failures);
    if (recent_init(&l->recent) < 0 || RAND_bytes(password, sizeof password) != 1) {
        err_set(e, "no random numbers");
        return NULL;
    }
    EVP_EncodeBlock((unsigned char *)text, password, sizeof password);
    if (hash_make(slice_str(text), l->nobody) < 0) {
        err_set(e, "crypt(3) makes no yescrypt hashes");
        return NULL;
    }
    l->verify = verify_new(q->s->base, (unsigned)q->s->config->auth_threads, e);
    return l->verify ? l : NULL;
}

void logins_free(struct logins *l)
{
    if (!l)
        return;
    verify_free(l->verify);
    failures_free(&l->failures);
    recent_free(&l->recent);
    free(l);
}
