/* Passwords: those that clients send, and new ones. Threads hash them. */
#include <openssl/crypto.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "quota/control.h"
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

/* Whether the record is still what the password was compared with. */
static bool is_unchanged(const json_t *record, const struct question *x, const struct verify_job *j)
{
    return json_integer_value(json_object_get(record, RECORD_EPOCH)) == x->epoch &&
           strcmp(json_text(record, "password"), j->hash) == 0 && !*json_text(record, "scram");
}

/* The first good login of a user whose hash comes from elsewhere: with the keys that were made
 * of its password SCRAM works from now on. Nothing that was told or remembered of the user is
 * another for it, so its sessions go on. The login does not wait for the disk: what a power cut
 * takes is made again at the next one. */
static void keep_keys(struct quota *q, const struct question *x, const struct verify_job *j)
{
    static const char text[] = "SCRAM keys were made at a login with the right password";
    char what[LOGIN_MAX + 16];
    json_t *record =
        *j->scram && !q->disk_full ? quota_get_json(q, T_USER, slice_str(x->login)) : NULL;
    if (record && is_unchanged(record, x, j)) {
        struct buf batch = BUF_INIT(KV_BATCH_MAX);
        json_object_set_new(record, "scram", json_string(j->scram));
        quota_put_json(&batch, T_USER, slice_str(x->login), record);
        snprintf(what, sizeof what, "user %s", x->login);
        audit_add(q, &batch, (long)getuid(), what, slice_str(text));
        lookups_forget_user(&q->lookups, x->login);
        sync_apply_unseen(q, buf_slice(&batch));
        log_info("%s: %s", what, text);
        buf_free(&batch);
    }
    json_decref(record);
}

static void verified(struct logins *l, struct question *x, const struct verify_job *j)
{
    if (j->verdict == HASH_UNUSABLE && x->known_user)
        log_error("user %s: the password hash in the database is not usable; set the password "
                  "again",
                  log_esc(slice_str(x->login)));
    if (login_turned_away(l, x)) /* by those that were queued before it */
        return;
    if (j->verdict != HASH_MATCH || !x->known_user) {
        if (!login_waits(l, x))
            login_wrong(l, x);
        return;
    }
    remember(l, x);
    keep_keys(l->q, x, j);
    login_right(l, x, SLICE(""));
}

static void on_verified(struct verify_job *j, void *arg)
{
    struct question *x = arg;
    if (x->s)
        verified(x->s->q->logins, x, j);
    else
        question_free(x); /* given up meanwhile */
    OPENSSL_cleanse(j, sizeof *j);
    free(j);
}

/* Keys are made if the password matches. Their salt is the one that SCRAM shows already, so
 * that nobody can watch from outside whether and when the user has logged in. */
static void want_keys(struct verify_job *j, const struct quota *q, const char *login)
{
    struct scram_keys shown;
    j->scram_iterations = (uint32_t)q->s->config->scram_iterations;
    j->salted = true;
    login_invented_keys(q, login, &shown);
    memcpy(j->scram_salt, shown.salt, sizeof j->scram_salt);
}

static void verify(struct logins *l, struct question *x, const char *hash, bool has_keys,
                   struct slice password)
{
    struct verify_job *j = xcalloc(1, sizeof *j);
    list_init(&j->link);
    if (!has_keys)
        want_keys(j, l->q, x->login);
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
        verify(l, x,
               !x->known_user ? l->nobody
               : *u.hash      ? u.hash
                              : u.scram,
               x->known_user && *u.scram, password);
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
        if (!login_for_another(x, in.authorization))
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
