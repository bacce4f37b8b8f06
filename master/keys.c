#include "master/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/mem.h"
#include "master/master.h"

enum { BUNDLE_MAX = CERTS_TOTAL_MAX + (4 << 20), EXPIRY_WARNING_DAYS = 7, DAY = 86400 };
enum { TOLD_MAX = 50 }; /* files that are named at a time */

/* ---- a service's certificates ------------------------------------------------------------ */

static void warn_of_dates(const struct certs *c)
{
    time_t now = time(NULL);
    for (size_t i = 0; i < c->count; i++) {
        const struct certs_identity *id = &c->identities[i];
        char date[32] = "";
        struct tm tm;
        strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", gmtime_r(&id->not_after, &tm));
        if (id->not_after <= now)
            log_warning("%s: the certificate has expired, on %s; clients will refuse it: renew it",
                        id->path, date);
        else if (id->not_after - now < EXPIRY_WARNING_DAYS * DAY)
            log_warning("%s: the certificate expires on %s; renew it", id->path, date);
        else if (id->not_before > now)
            log_warning("%s: the certificate is not valid yet; is the clock right?", id->path);
    }
}

/* What stands in the way of renewed certificates. At once, and then each day: the old ones
 * come nearer to their end. */
static void tell(struct plan_service *s)
{
    const struct certs *c = &s->tls->certs;
    s->tls->told = clock_mono();
    warn_of_dates(c);
    if (s->tls->error)
        log_error("%s: renewed certificate: %s; all old ones of this service stay in use, and no "
                  "renewed one is taken until this is corrected",
                  s->line->where, s->tls->error);
    for (size_t i = 0; i < c->problem_count && i < TOLD_MAX; i++)
        log_error("%s: renewed certificate: %s; all others are taken", s->line->where,
                  c->problems[i]);
    if (c->problem_count > TOLD_MAX)
        log_error("%s: renewed certificate: %zu more files cannot be used", s->line->where,
                  c->problem_count - TOLD_MAX);
}

struct service_tls *keys_load(const struct config *config, struct err *e)
{
    struct service_tls *t = xcalloc(1, sizeof *t);
    t->bundle = -1;
    if (certs_load(&t->certs, config, e) == 0)
        return t;
    free(t);
    return NULL;
}

void keys_service_free(struct service_tls *t)
{
    if (!t)
        return;
    if (t->bundle >= 0)
        close(t->bundle);
    free(t->error);
    certs_free(&t->certs);
    free(t);
}

/* ---- memory files -------------------------------------------------------------------------- */

/* A sealed file with these bytes, or -1. */
static int memory_file(const char *name, struct slice content, struct err *e)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_sys(e, "memfd_create");
    for (size_t at = 0; at < content.len;) {
        ssize_t n = pwrite(fd, content.ptr + at, content.len - at, (off_t)at);
        if (n < 0 && errno != EINTR) {
            err_sys(e, "cannot write to memory");
            close(fd);
            return -1;
        }
        at += n > 0 ? (size_t)n : 0;
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) == 0)
        return fd;
    err_sys(e, "cannot seal memory");
    close(fd);
    return -1;
}

/* ---- keyd -------------------------------------------------------------------------------------
 */

static struct process *find_keyd(struct master *m)
{
    list_each(&m->processes, n)
    {
        struct process *p = container_of(n, struct process, link);
        if (p->command == command_find(SLICE("keyd")) && p->channel && p->state != PROCESS_DRAINING)
            return p;
    }
    return NULL;
}

static void send_key(struct process *keyd, const struct key *k)
{
    ipc_key_encode(channel_out(keyd->channel),
                   &(struct ipc_key){.number = k->number, .purpose = KEY_TLS});
    channel_attach(keyd->channel, k->fd);
    keyd->master->keys.awaited = k->number;
    keyd->master->keys.pending = true;
}

static struct key *find_key(struct keys *keys, const unsigned char *id)
{
    for (size_t i = 0; i < keys->count; i++)
        if (memcmp(keys->list[i].id, id, CERTS_KEY_ID) == 0)
            return &keys->list[i];
    return NULL;
}

/* The number of a key; one that is new goes to keyd. 0 if that fails. */
static uint32_t adopt_key(struct master *m, const struct certs_key *from)
{
    struct keys *keys = &m->keys;
    struct key *k = find_key(keys, from->id);
    struct err e;
    if (!k) {
        int fd = memory_file("key", slice_str(from->pem), &e);
        if (fd < 0) {
            log_error("a private key cannot be handed to keyd: %s", e.text);
            return 0;
        }
        keys->list = xreallocarray(keys->list, keys->count + 1, sizeof *keys->list);
        k = &keys->list[keys->count++];
        *k = (struct key){.number = ++keys->next_number, .fd = fd};
        memcpy(k->id, from->id, CERTS_KEY_ID);
        struct process *keyd = find_keyd(m);
        if (keyd)
            send_key(keyd, k);
    }
    k->wanted = true;
    return k->number;
}

/* ---- bundles ------------------------------------------------------------------------------------
 */

/* A certificate that is kept has its key here, where it was handed over. The caller wipes
 * and frees; NULL: unknown. */
static char *known_pem(struct keys *keys, const unsigned char *id)
{
    const struct key *k = find_key(keys, id);
    struct stat st;
    if (!k || fstat(k->fd, &st) < 0)
        return NULL;
    char *pem = xcalloc(1, (size_t)st.st_size + 1);
    if (pread(k->fd, pem, (size_t)st.st_size, 0) == st.st_size)
        return pem;
    free(pem);
    return NULL;
}

static void know_kept_keys(struct keys *keys, struct certs *c)
{
    for (size_t i = 0; i < c->key_count; i++)
        if (!c->keys[i].pem)
            c->keys[i].pem = known_pem(keys, c->keys[i].id);
}

static void make_bundle(struct master *m, struct plan_service *s)
{
    struct buf list = BUF_INIT(BUNDLE_MAX);
    struct service_tls *t = s->tls;
    struct certs *c = &t->certs;
    bool local = strcmp(s->config->smtpd_tls_key_process, "smtpd") == 0;
    struct err e = {0, ""};
    if (c->authorities)
        ipc_tls_identity_add(&list, &(struct ipc_tls_identity){.kind = TLS_RECORD_AUTHORITIES,
                                                               .chain = slice_str(c->authorities)});
    for (size_t i = 0; i < c->count; i++) {
        const struct certs_identity *id = &c->identities[i];
        uint32_t number = adopt_key(m, &c->keys[id->key]);
        if (number)
            ipc_tls_identity_add(&list,
                                 &(struct ipc_tls_identity){
                                     .kind = TLS_RECORD_IDENTITY,
                                     .name = slice_str(id->name),
                                     .key = number,

                                     .chain = slice_str(id->chain),
                                     .secret = slice_str(local ? c->keys[id->key].pem : NULL)});
    }
    t->bundle = memory_file("certificates", buf_slice(&list), &e);
    if (t->bundle < 0)
        log_error("certificates cannot be handed to smtpd: %s", e.text);
    if (list.data)
        OPENSSL_cleanse(list.data, list.cap);
    buf_free(&list);
    certs_forget_keys(c);
    tell(s);
}

static void send_bundle(struct process *p)
{
    const struct service_tls *t = p->member ? p->member->service->tls : NULL;
    if (!t || t->bundle < 0 || !p->channel)
        return;
    ipc_tls_encode(channel_out(p->channel),
                   &(struct ipc_tls){.generation = p->master->keys.generation});
    channel_attach(p->channel, t->bundle);
}

/* Once keyd has all keys: a certificate must not be shown before. */
static void send_bundles(struct master *m)
{
    list_each(&m->processes, n)
    {
        struct process *p = container_of(n, struct process, link);
        if (p->asks_keys && p->generation == m->generation)
            send_bundle(p);
    }
}

void keys_taken(struct master *m, uint32_t number, struct slice error)
{
    if (error.len)
        log_error("keyd cannot use private key %u: %s", number, log_esc(error));
    if (!m->keys.pending || number != m->keys.awaited)
        return;
    m->keys.pending = false;
    send_bundles(m);
}

void keys_adopt(struct master *m, struct plan *plan)
{
    struct keys *keys = &m->keys;
    keys->generation++;
    for (size_t i = 0; i < plan->count; i++)
        if (plan->services[i].tls)
            make_bundle(m, &plan->services[i]);
}

/* ---- tickets
 * --------------------------------------------------------------------------------------- */

static struct ticket_keys *tickets_of(struct keys *keys, const char *service)
{
    for (size_t i = 0; i < keys->ticket_count; i++)
        if (strcmp(keys->tickets[i].service, service) == 0)
            return &keys->tickets[i];
    keys->tickets = xreallocarray(keys->tickets, keys->ticket_count + 1, sizeof *keys->tickets);
    struct ticket_keys *t = &keys->tickets[keys->ticket_count++];
    *t = (struct ticket_keys){.service = xstrdup(service)};
    return t;
}

/* A new key to encrypt with; the one before still decrypts, so that a ticket is good
 * for its whole time. */
static bool rotate(struct ticket_keys *t, int64_t lifetime)
{
    enum { KEPT = 3 };
    int64_t now = clock_mono();
    if (t->count && now - t->made < lifetime * CLOCK_SECOND)
        return false;
    memmove(&t->list[1], &t->list[0], (KEPT - 1) * sizeof t->list[0]);
    if (RAND_bytes((unsigned char *)&t->list[0], sizeof t->list[0]) != 1)
        panic("no random bytes");
    t->count = t->count < KEPT ? t->count + 1 : KEPT;
    t->made = now;
    return true;
}

static void send_tickets(struct process *p, const struct ticket_keys *t)
{
    ipc_tls_tickets_encode(
        channel_out(p->channel),
        &(struct ipc_tls_tickets){.keys = slice_make(t->list, t->count * sizeof t->list[0])});
}

static void rotate_all(struct master *m)
{
    for (size_t i = 0; i < m->plan->count; i++) {
        const struct plan_service *s = &m->plan->services[i];
        int64_t lifetime = s->config->smtpd_tls_session_cache_timeout;
        if (!s->tls || lifetime == 0)
            continue;
        struct ticket_keys *t = tickets_of(&m->keys, s->line->name);
        if (!rotate(t, lifetime))
            continue;
        list_each(&m->processes, n)
        {
            struct process *p = container_of(n, struct process, link);
            if (p->asks_keys && p->channel && strcmp(p->name, s->line->name) == 0)
                send_tickets(p, t);
        }
    }
}

/* ---- processes
 * --------------------------------------------------------------------------------------- */

void keys_send(struct process *p)
{
    struct keys *keys = &p->master->keys;
    if (p->command == command_find(SLICE("keyd")))
        for (size_t i = 0; i < keys->count; i++)
            send_key(p, &keys->list[i]);
    if (!p->asks_keys)
        return;
    struct ticket_keys *t = tickets_of(keys, p->name);
    int64_t lifetime = p->member->service->config->smtpd_tls_session_cache_timeout;
    if (lifetime) {
        rotate(t, lifetime);
        send_tickets(p, t);
    }
    send_bundle(p);
}

/* ---- changes
 * -------------------------------------------------------------------------------------------- */

/* A renewed certificate is taken when its files have kept still for a look: key and
 * certificate are seldom written at the same moment. */
static bool has_settled(struct service_tls *t)
{
    bool changed = certs_changed(&t->certs), settled = changed && t->changing;
    t->changing = changed;
    return settled;
}

static void renew(struct master *m, struct plan_service *s)
{
    struct err e;
    struct certs fresh;
    struct service_tls *t = s->tls;
    xfree(&t->error);
    if (certs_renew(&fresh, s->config, &t->certs, &e) < 0) {
        /* told again when the files change again, and each day */
        for (size_t i = 0; i < t->certs.file_count; i++)
            stat(t->certs.files[i].path, &t->certs.files[i].seen);
        t->error = xstrdup(e.text);
        tell(s);
        return;
    }
    know_kept_keys(&m->keys, &fresh);
    certs_free(&t->certs);
    if (t->bundle >= 0)
        close(t->bundle);
    t->certs = fresh;
    t->bundle = -1;
    m->keys.generation++;
    make_bundle(m, s);
    log_info("%s: certificates were read again", s->line->where);
}

/* What is wrong stays wrong, and certificates that nobody renews end. */
static void tell_daily(struct master *m)
{
    for (size_t i = 0; i < m->plan->count; i++) {
        struct plan_service *s = &m->plan->services[i];
        if (s->tls && clock_mono() - s->tls->told >= DAY * CLOCK_SECOND)
            tell(s);
    }
}

static void watch_files(struct master *m)
{
    bool any = false;
    for (size_t i = 0; i < m->plan->count; i++) {
        struct plan_service *s = &m->plan->services[i];
        if (!s->tls || !has_settled(s->tls))
            continue;
        renew(m, s);
        any = true;
    }
    if (any && !m->keys.pending)
        send_bundles(m);
}

static bool is_used(const struct plan *plan, const struct key *k)
{
    for (size_t i = 0; i < plan->count; i++)
        for (size_t j = 0; plan->services[i].tls && j < plan->services[i].tls->certs.key_count; j++)
            if (memcmp(plan->services[i].tls->certs.keys[j].id, k->id, CERTS_KEY_ID) == 0)
                return true;
    return false;
}

/* Sessions of older processes may need a key that no certificate has any more. */
static void drop_keys(struct master *m)
{
    struct keys *keys = &m->keys;
    int64_t now = clock_mono();
    for (size_t i = 0; i < keys->count; i++) {
        struct key *k = &keys->list[i];
        k->wanted = is_used(m->plan, k);
        if (k->wanted || !k->dropped)
            k->dropped = k->wanted ? 0 : now;
        if (k->wanted || now - k->dropped < m->plan->config->service_drain_time * CLOCK_SECOND)
            continue;
        struct process *keyd = find_keyd(m);
        if (keyd)
            ipc_key_forget_encode(channel_out(keyd->channel),
                                  &(struct ipc_key_forget){.number = k->number});
        close(k->fd);
        *k = keys->list[--keys->count];
        i--;
    }
}

void keys_tick(struct master *m)
{
    static unsigned ticks;
    if (m->stopping)
        return;
    rotate_all(m);
    if (++ticks % 2)
        return;
    watch_files(m);
    tell_daily(m);
    drop_keys(m);
}
