/*
 * Who is it? Passwords and SCRAM exchanges of smtpd's clients. What is remembered
 * of a password that was right is a digest under a key of this process, so a copy
 * of its memory is no list of passwords.
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "core/log.h"
#include "core/mem.h"
#include "quota/failures.h"
#include "quota/mac.h"
#include "quota/quota.h"
#include "quota/verify.h"

enum {
    DIGEST = 32,
    MAC_LEN = 16,
    TICKET_VERSION = 1,
    TICKET_SECONDS = 8 * 86400,
    CLIENT_BYTES = 16
};

struct remembered {
    struct list link; /* oldest first */
    unsigned char digest[DIGEST];
    int64_t until; /* monotonic */
};

struct logins {
    struct quota *q;
    struct verify *verify;
    struct failures failures;
    struct map cache;
    struct list ages;
    unsigned char key[DIGEST];      /* of this process */
    char nobody[HASH_TEXT_MAX + 1]; /* what is compared when there is no such user */
};

/* A question under way: a password at the threads, or a SCRAM exchange. */
struct question {
    struct smtpd *s; /* NULL: given up, nobody waits */
    uint64_t tag;
    char login[LOGIN_MAX + 1];
    char client[CLIENT_BYTES];
    size_t client_len;
    bool known_user;
    bool is_scram;
    struct scram scram;
    unsigned char digest[DIGEST];
};

struct slice smtpd_question_key(const void *value)
{
    const struct question *x = value;
    return slice_make(&x->tag, sizeof x->tag);
}

static struct slice remembered_key(const void *value)
{
    const struct remembered *r = value;
    return slice_make(r->digest, sizeof r->digest);
}

static struct slice client_of(const struct question *x)
{
    return slice_make(x->client, x->client_len);
}

static void question_free(struct question *x)
{
    if (x->s) {
        map_remove(&x->s->questions, smtpd_question_key(x));
        x->s->count--;
    }
    if (x->is_scram)
        scram_free(&x->scram);
    free(x);
}

/* ---- tickets ---------------------------------------------------------------------- */

static void ticket_mac(const struct quota *q, struct slice text, unsigned char out[DIGEST])
{
    mac_sha256(q->ticket_key, text, out);
}

static void ticket_make(const struct quota *q, const char *account, const char *user,
                        struct buf *out)
{
    unsigned char mac[DIGEST];
    int64_t now = quota_now();
    buf_addc(out, TICKET_VERSION);
    buf_add(out, &now, sizeof now);
    buf_addc(out, (char)strlen(account));
    buf_addstr(out, account);
    buf_addstr(out, user);
    ticket_mac(q, buf_slice(out), mac);
    buf_add(out, mac, MAC_LEN);
}

int ticket_read(struct quota *q, struct slice ticket, char account[static ACCOUNT_NAME_MAX + 1],
                char user[static LOGIN_MAX + 1])
{
    unsigned char mac[DIGEST];
    int64_t issued;
    enum { HEAD = 1 + sizeof issued + 1 };
    if (ticket.len < HEAD + MAC_LEN || ticket.len > TICKET_MAX)
        return -1;
    struct slice text = slice_first(ticket, ticket.len - MAC_LEN);
    ticket_mac(q, text, mac);
    if (CRYPTO_memcmp(mac, ticket.ptr + text.len, MAC_LEN) != 0 || text.ptr[0] != TICKET_VERSION)
        return -1;
    memcpy(&issued, text.ptr + 1, sizeof issued);
    size_t len = (unsigned char)text.ptr[HEAD - 1];
    text = slice_from(text, HEAD);
    if (len > ACCOUNT_NAME_MAX || len > text.len || text.len - len > LOGIN_MAX ||
        quota_now() - issued > TICKET_SECONDS)
        return -1;
    memcpy(account, text.ptr, len);
    account[len] = '\0';
    memcpy(user, text.ptr + len, text.len - len);
    user[text.len - len] = '\0';
    return 0;
}

/* ---- answers ---------------------------------------------------------------------- */

static void send_result(struct smtpd *s, const struct ipc_auth_result *r)
{
    ipc_auth_result_encode(channel_out(s->channel), r);
}

static void send_failure(struct question *x, enum auth_status status, uint32_t delay,
                         const char *reason)
{
    if (x->s)
        send_result(x->s, &(struct ipc_auth_result){.tag = x->tag,
                                                    .status = (uint8_t)status,
                                                    .delay = delay,
                                                    .reason = slice_str(reason),
                                                    .user = slice_str(x->login)});
    question_free(x);
}

/* A wrong password or user: they look the same outside. */
static void fail(struct logins *l, struct question *x)
{
    uint32_t delay = failures_add(&l->failures, l->q->s->config, client_of(x), slice_str(x->login),
                                  clock_mono());
    send_failure(x, AUTH_FAILED, delay, x->known_user ? "wrong password" : "no such user");
}

static void grant(struct quota *q, struct smtpd *s, uint64_t tag, struct account *a,
                  const char *user, struct slice message)
{
    struct buf ticket = BUF_INIT(TICKET_MAX);
    ticket_make(q, a->name, user, &ticket);
    struct ipc_auth_result r = {
        .tag = tag,
        .status = AUTH_OK,
        .message = message,
        .ticket = buf_slice(&ticket),
        .account = slice_str(a->name),
        .user = slice_str(user),
        .permissions = a->any_sender ? PERMIT_ANY_SENDER : 0,
        .size_limit = a->plan->size_limit,
        .recipient_limit = (uint32_t)a->plan->recipient_limit,
    };
    send_result(s, &r);
    buf_free(&ticket);
}

/* The password was right; is the user still welcome? */
static void succeed(struct logins *l, struct question *x, struct slice message)
{
    struct quota *q = l->q;
    struct user u;
    const char *why = "the user was deleted";
    bool found = x->s && user_find(q, slice_str(x->login), &u) == 1;
    struct account *a = found ? account_find(q, slice_str(u.account)) : NULL;
    failures_known(&l->failures, client_of(x), slice_str(x->login), clock_mono());
    if (found && u.suspended)
        why = "the user is suspended";
    else if (found && !a)
        why = "the user's account does not exist";
    if (!a || u.suspended || !account_usable(q, a, &why)) {
        send_failure(x, AUTH_DENIED, 1000, why);
        return;
    }
    grant(q, x->s, x->tag, a, x->login, message);
    question_free(x);
}

/* ---- what is remembered -------------------------------------------------------------- */

static void digest_of(const struct logins *l, const char *login, struct slice password,
                      unsigned char out[DIGEST])
{
    struct buf text = BUF_INIT(LOGIN_MAX + PASSWORD_MAX + 2);
    buf_addstr(&text, login);
    buf_addc(&text, '\0');
    buf_adds(&text, password);
    mac_sha256(l->key, buf_slice(&text), out);
    OPENSSL_cleanse(text.data, text.len);
    buf_free(&text);
}

static void forget(struct logins *l, struct remembered *r)
{
    map_remove(&l->cache, remembered_key(r));
    list_remove(&r->link);
    free(r);
}

static void forget_old(struct logins *l, int64_t now)
{
    size_t max = (size_t)l->q->s->config->auth_cache_limit;
    while (!list_empty(&l->ages)) {
        struct remembered *r = container_of(l->ages.next, struct remembered, link);
        if (r->until > now && l->cache.count <= max)
            break;
        forget(l, r);
    }
}

static bool is_remembered(struct logins *l, const unsigned char digest[DIGEST])
{
    forget_old(l, clock_mono());
    return map_get(&l->cache, slice_make(digest, DIGEST)) != NULL;
}

static void remember(struct logins *l, const unsigned char digest[DIGEST])
{
    int64_t time = l->q->s->config->auth_cache_time * CLOCK_SECOND;
    if (time == 0 || map_get(&l->cache, slice_make(digest, DIGEST)))
        return;
    struct remembered *r = xcalloc(1, sizeof *r);
    memcpy(r->digest, digest, DIGEST);
    r->until = clock_mono() + time;
    map_put(&l->cache, r);
    list_push(&l->ages, &r->link);
    forget_old(l, clock_mono());
}

void login_changed(struct quota *q)
{
    struct logins *l = q->logins;
    while (!list_empty(&l->ages))
        forget(l, container_of(l->ages.next, struct remembered, link));
}

/* ---- passwords ------------------------------------------------------------------------- */

static struct question *question_new(struct smtpd *s, uint64_t tag, struct slice client,
                                     struct err *e)
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
    if (verdict != HASH_MATCH || !x->known_user) {
        fail(l, x);
        return;
    }
    remember(l, x->digest);
    succeed(l, x, SLICE(""));
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
    if (verify_add(l->verify, j, (size_t)l->q->s->config->auth_queue_limit))
        return;
    OPENSSL_cleanse(j->password, sizeof j->password);
    free(j);
    send_failure(x, AUTH_TEMPORARY, 0, "too many logins at the same time (auth_queue_limit)");
}

/* Limits on failures: true if the question was answered. */
static bool turned_away(struct logins *l, struct question *x)
{
    const char *why;
    if (failures_allow(&l->failures, l->q->s->config, client_of(x), slice_str(x->login),
                       clock_mono(), &why))
        return false;
    send_failure(x, AUTH_TOO_MANY, FAILURES_DELAY_MAX, why);
    return true;
}

int login_password(struct smtpd *s, struct slice body, struct err *e)
{
    struct quota *q = s->q;
    struct logins *l = q->logins;
    struct ipc_auth_password in;
    struct user u;
    if (ipc_auth_password_decode(body, &in) < 0)
        return err_set(e, "malformed AUTH_PASSWORD");
    struct question *x = question_new(s, in.tag, in.client, e);
    if (!x)
        return -1;
    if (name_login(in.user, x->login) < 0)
        x->login[0] = '\0';
    if (in.password.len > PASSWORD_MAX)
        in.password = SLICE(""); /* no hash fits; it takes as long as another */
    x->known_user = *x->login && user_find(q, slice_str(x->login), &u) == 1 && *u.hash;
    digest_of(l, x->login, in.password, x->digest);
    if (x->known_user && is_remembered(l, x->digest))
        succeed(l, x, SLICE(""));
    else if (!turned_away(l, x))
        verify(l, x, x->known_user ? u.hash : l->nobody, in.password);
    return 0;
}

/* ---- SCRAM ---------------------------------------------------------------------------- */

int login_scram(struct smtpd *s, struct slice body, struct err *e)
{
    struct quota *q = s->q;
    struct logins *l = q->logins;
    struct ipc_auth_scram in;
    struct user u;
    struct scram_keys keys;
    if (ipc_auth_scram_decode(body, &in) < 0)
        return err_set(e, "malformed AUTH_SCRAM");
    struct question *x = question_new(s, in.tag, in.client, e);
    if (!x)
        return -1;
    x->is_scram = true;
    scram_init(&x->scram);
    if (scram_first(&x->scram, in.message) < 0) {
        send_failure(x, AUTH_FAILED, 1000, "malformed SCRAM message");
        return 0;
    }
    if (name_login(slice_str(x->scram.user), x->login) < 0)
        x->login[0] = '\0';
    if (turned_away(l, x))
        return 0;
    x->known_user = *x->login && user_find(q, slice_str(x->login), &u) == 1 &&
                    scram_parse(slice_str(u.scram), &keys) == 0;
    uint32_t iterations = (uint32_t)q->s->config->scram_iterations;
    if (!x->known_user) /* the same for as long as the ticket key lives */
        scram_fake(slice_make(q->ticket_key, sizeof q->ticket_key), slice_str(x->login),
                   iterations ? iterations : 4096, &keys);
    if (scram_challenge(&x->scram, &keys, NULL) < 0) {
        send_failure(x, AUTH_TEMPORARY, 0, "no random numbers");
        return 0;
    }
    OPENSSL_cleanse(&keys, sizeof keys);
    ipc_auth_challenge_encode(
        channel_out(s->channel),
        &(struct ipc_auth_challenge){.tag = x->tag, .message = buf_slice(&x->scram.challenge)});
    return 0;
}

static struct question *find(struct smtpd *s, uint64_t tag)
{
    return map_get(&s->questions, slice_make(&tag, sizeof tag));
}

int login_response(struct smtpd *s, struct slice body, struct err *e)
{
    struct ipc_auth_response in;
    struct buf out = BUF_INIT(SCRAM_MESSAGE_MAX);
    if (ipc_auth_response_decode(body, &in) < 0)
        return err_set(e, "malformed AUTH_RESPONSE");
    struct question *x = find(s, in.tag);
    if (!x || !x->is_scram || x->scram.challenge.len == 0)
        return err_set(e, "AUTH_RESPONSE without a challenge");
    bool good = scram_final(&x->scram, in.message, &out) == 0 && x->known_user;
    if (good)
        succeed(s->q->logins, x, buf_slice(&out));
    else
        fail(s->q->logins, x);
    buf_free(&out);
    return 0;
}

int login_abort(struct smtpd *s, struct slice body, struct err *e)
{
    struct ipc_auth_abort in;
    if (ipc_auth_abort_decode(body, &in) < 0)
        return err_set(e, "malformed AUTH_ABORT");
    struct question *x = find(s, in.tag);
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

/* ---- clients that do not log in ---------------------------------------------------------- */

int login_client(struct smtpd *s, struct slice body, struct err *e)
{
    struct quota *q = s->q;
    struct ipc_client_account in;
    char name[ACCOUNT_NAME_MAX + 1];
    const char *wanted = q->s->config->mynetworks_account, *why = NULL;
    if (ipc_client_account_decode(body, &in) < 0)
        return err_set(e, "malformed CLIENT_ACCOUNT");
    struct ipc_auth_result r = {.tag = in.tag, .status = AUTH_NONE};
    struct account *a = NULL;
    if (*wanted && name_account(slice_str(wanted), name) == 0)
        a = account_find(q, slice_str(name));
    if (*wanted && !a) {
        r.status = AUTH_TEMPORARY;
        r.reason = SLICE("the account of mynetworks_account does not exist");
    } else if (a && !account_usable(q, a, &why)) {
        r.status = AUTH_DENIED;
        r.reason = slice_str(why);
    } else if (a) {
        grant(q, s, in.tag, a, "", SLICE(""));
        return 0;
    }
    send_result(s, &r);
    return 0;
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

/* ---- beginning and end ----------------------------------------------------------------------- */

struct logins *logins_new(struct quota *q, struct err *e)
{
    struct logins *l = xcalloc(1, sizeof *l);
    unsigned char password[18];
    char text[40];
    l->q = q;
    failures_init(&l->failures);
    map_init(&l->cache, remembered_key);
    list_init(&l->ages);
    if (RAND_bytes(l->key, sizeof l->key) != 1 || RAND_bytes(password, sizeof password) != 1) {
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
    while (!list_empty(&l->ages))
        forget(l, container_of(l->ages.next, struct remembered, link));
    map_free(&l->cache);
    OPENSSL_cleanse(l->key, sizeof l->key);
    free(l);
}
