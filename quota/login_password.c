/* Passwords: those that clients send, and new ones. Threads hash them. */
#include <openssl/crypto.h>

#include "core/log.h"
#include "core/mem.h"
#include "quota/login.h"
#include "quota/prepare.h"
#include "quota/verify.h"

static void remember(struct logins *l, const struct question *x)
{
    const struct config *c = l->q->s->config;
    if (c->auth_cache_time > 0)
        recent_add(&l->recent, x->login, x->digest, x->changes,
                   clock_mono() + c->auth_cache_time * CLOCK_SECOND, (size_t)c->auth_cache_limit);
}

static void on_verified(struct verify_job *j, void *arg)
{
    struct question *x = arg;
    struct logins *l = x->s ? x->s->q->logins : NULL;
    enum hash_verdict verdict = j->verdict;
    free(j);
    if (!l) {
        question_free(x);
        return;
    }
    if (verdict == HASH_UNUSABLE && x->known_user)
        log_error("user %s: the password hash in the database is not usable; set the password "
                  "again",
                  log_esc(slice_str(x->login)));
    if (login_turned_away(l, x)) /* by those that were queued before it */
        return;
    if (verdict != HASH_MATCH || !x->known_user) {
        if (!login_waits(l, x))
            login_wrong(l, x);
        return;
    }
    remember(l, x);
    login_right(l, x, SLICE(""));
}

static void verify(struct logins *l, struct question *x, const char *hash, struct slice password)
{
    struct verify_job *j = xcalloc(1, sizeof *j);
    list_init(&j->link);
    snprintf(j->hash, sizeof j->hash, "%s", hash);
    memcpy(j->password, password.ptr ? password.ptr : "", password.len);
    j->password_len = password.len;
    j->done = on_verified;
    j->arg = x;
    x->changes = l->recent.changes;
    if (verify_add(l->verify, j, (size_t)l->q->s->config->auth_queue_limit))
        return;
    OPENSSL_cleanse(j->password, sizeof j->password);
    free(j);
    login_fail(x, AUTH_TEMPORARY, 0, "too many logins at the same time (auth_queue_limit)");
}

static void compare(struct logins *l, struct question *x, struct slice password)
{
    struct quota *q = l->q;
    struct user u;
    x->known_user =
        *x->login && user_find(q, slice_str(x->login), &u) == 1 && (*u.hash || *u.scram);
    x->epoch = x->known_user ? u.epoch : 0;
    recent_digest(&l->recent, x->login, password, x->digest);
    /* first: who has guessed too often must not learn that a remembered password is right */
    if (login_turned_away(l, x))
        return;
    if (x->known_user && recent_knows(&l->recent, x->login, x->digest, clock_mono()))
        login_right(l, x, SLICE(""));
    else
        verify(l, x, !x->known_user ? l->nobody : *u.hash ? u.hash : u.scram, password);
}

int login_password(struct smtpd *s, struct slice body, struct err *e)
{
    struct ipc_auth_password in;
    if (ipc_auth_password_decode(body, &in) < 0)
        return err_set(e, "malformed AUTH_PASSWORD");
    struct question *x = question_new(s, in.tag, in.client, e);
    if (x) {
        if (prepare_login(in.user, x->login) < 0)
            x->login[0] = '\0';
        /* no hash fits one that is too long; it takes as long as another */
        compare(s->q->logins, x, in.password.len > PASSWORD_MAX ? SLICE("") : in.password);
    }
    /* the frame stays in the channel's buffer until others have filled it */
    OPENSSL_cleanse((char *)(uintptr_t)body.ptr, body.len);
    return x ? 0 : -1;
}

void login_changed(struct quota *q, const char *login)
{
    recent_forget(&q->logins->recent, login);
}

/* ---- new passwords ------------------------------------------------------------------------ */

struct making {
    void (*done)(const char *hash, const char *scram, void *arg);
    void *arg;
};

static void on_made(struct verify_job *j, void *arg)
{
    struct making *m = arg;
    m->done(j->verdict == HASH_MATCH ? j->hash : NULL, j->scram, m->arg);
    OPENSSL_cleanse(j, sizeof *j);
    free(j);
    free(m);
}

void login_hash(struct quota *q, struct slice password,
                void (*done)(const char *hash, const char *scram, void *arg), void *arg)
{
    struct verify_job *j = xcalloc(1, sizeof *j);
    struct making *m = xmalloc(sizeof *m);
    *m = (struct making){done, arg};
    list_init(&j->link);
    if (password.len > PASSWORD_MAX)
        panic("a password of %zu bytes", password.len);
    memcpy(j->password, password.ptr, password.len);
    j->password_len = password.len;
    j->make = true;
    j->scram_iterations = (uint32_t)q->s->config->scram_iterations;
    j->done = on_made;
    j->arg = m;
    (void)verify_add(q->logins->verify, j, SIZE_MAX); /* the control socket limits these */
}
