/*
 * quota: accounts, passwords, plans, usage.
 *
 *   user      _postern-quota
 *   chroot    accounts_directory
 *   fds       3 master, 4 configuration, 5 log, 6 event log; channels to smtpd and
 *             qmgr; the database's files; listener 0 is the accounts' socket
 *   secrets   password hashes and SCRAM keys, the key of tickets; clients' passwords
 *             while they are verified
 *   network   none
 *
 * quota.h tells what is where. One thread runs the loop and owns all data; others
 * fsync, hash and make snapshots.
 */
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "quota/missing.h"
#include "quota/owners.h"
#include "quota/plan_changes.h"
#include "quota/pools.h"
#include "quota/quota.h"
#include "quota/zones.h"
#include "sources/sources.h"

static struct quota quota;

/* ---- the database ------------------------------------------------------------------ */

static void on_alive(void *arg)
{
    service_alive(arg);
}

static int open_database(struct quota *q, struct err *e)
{
    enum kv_condition condition;
    struct kv_config c = {.directory = ".",
                          .tables = table_names,
                          .table_count = T_COUNT,
                          .unlisted_tables = TABLES_UNLISTED,
                          .cache_bytes = (uint64_t)q->s->config->accounts_cache_size,
                          .alive = on_alive,
                          .arg = q->s};
    q->kv = kv_open(&c, &condition, e);
    if (!q->kv)
        return err_prefix(e, "%s: ", q->s->config->accounts_directory);
    if (condition == KV_REBUILT)
        log_error("%s: %s", q->s->config->accounts_directory, e->text);
    if (book_restored(q, e) < 0)
        return err_prefix(e, "%s: ", q->s->config->accounts_directory);
    if (condition == KV_CREATED)
        log_info("%s: a new database for accounts", q->s->config->accounts_directory);
    return 0;
}

/* Tickets outlive a restart: their key is in the database. */
static int load_ticket_key(struct quota *q, struct err *e)
{
    struct buf batch = BUF_INIT(4096);
    if (quota_get(q, T_META, SLICE("ticket key")) && q->value.len == sizeof q->ticket_key) {
        memcpy(q->ticket_key, q->value.data, sizeof q->ticket_key);
        return 0;
    }
    if (RAND_bytes(q->ticket_key, sizeof q->ticket_key) != 1)
        return err_set(e, "no random numbers");
    kv_put(&batch, T_META, SLICE("ticket key"), slice_make(q->ticket_key, sizeof q->ticket_key));
    int rc = kv_apply(q->kv, buf_slice(&batch), e);
    if (rc == 0)
        rc = kv_sync(q->kv, e);
    buf_free(&batch);
    return rc;
}

/* ---- callbacks of the skeleton -------------------------------------------------------- */

static int before_jail(struct service *s, struct err *e)
{
    (void)e;
    s->state = &quota;
    quota.zones = zones_load();
    tzset();
    OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, NULL);
    return 0;
}

static void check_disk(struct quota *q)
{
    struct statvfs v;
    if (statvfs(".", &v) < 0)
        return;
    bool full = (uint64_t)v.f_bavail * v.f_frsize < (uint64_t)q->s->config->accounts_minfree;
    if (full && !q->disk_full)
        log_error("%s: less than accounts_minfree (%lld bytes) is free: no mail of accounts is "
                  "taken until there is room",
                  q->s->config->accounts_directory, (long long)q->s->config->accounts_minfree);
    if (!full && q->disk_full)
        log_info("%s: there is room again", q->s->config->accounts_directory);
    q->disk_full = full;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct quota *q = arg;
    (void)fd, (void)what;
    check_disk(q);
    sync_tick(q);
    gate_tick(q);
    letters_tick(q);
    book_tick(q);
    missing_tick(q);
    accounts_trim(q);
    if (kv_failed(q->kv)) {
        log_error("the accounts' database has failed; quota ends and starts anew");
        service_stop(q->s);
    }
}

static int start(struct service *s, struct err *e)
{
    static const struct timeval second = {1, 0};
    struct quota *q = &quota;
    q->s = s;
    buf_init(&q->value, KV_VALUE_MAX);
    list_init(&q->reserved);
    list_init(&q->frozen);
    lookups_init(&q->lookups);
    if (open_database(q, e) < 0)
        return -1;
    accounts_reload(q);
    q->empty = true; /* until a look at it says otherwise */
    q->sync = sync_new(q, e);
    if (!q->sync || load_ticket_key(q, e) < 0 || owners_begin(q, e) < 0)
        return -1;
    q->logins = logins_new(q, e);
    if (!q->logins)
        return -1;
    gate_tick(q);
    book_tick(q);
    letters_connected(q);
    check_disk(q);
    q->control = control_new(q);
    q->tick = event_new(s->base, -1, EV_PERSIST, on_tick, q);
    return q->tick && event_add(q->tick, &second) == 0 ? 0 : err_set(e, "cannot make a timer");
}

/* ---- smtpd ------------------------------------------------------------------------------ */

static int on_frame(struct channel *c, const struct ipc_frame *f, int fd, void *arg, struct err *e)
{
    struct smtpd *s = arg;
    (void)c, (void)fd; /* no message of smtpd's has one */
    switch (f->number) {
    case IPC_NUMBER_ipc_auth_password:
        return login_password(s, f->body, e);
    case IPC_NUMBER_ipc_auth_scram:
        return login_scram(s, f->body, e);
    case IPC_NUMBER_ipc_auth_response:
        return login_response(s, f->body, e);
    case IPC_NUMBER_ipc_auth_abort:
        return login_abort(s, f->body, e);
    case IPC_NUMBER_ipc_client_account:
        return login_client(s, f->body, e);
    case IPC_NUMBER_ipc_client_certificate:
        return login_certificate(s, f->body, e);
    case IPC_NUMBER_ipc_auth_outside:
        return login_outside(s, f->body, e);
    case IPC_NUMBER_ipc_mail_request:
        return gate_mail(s, f->body, e);
    case IPC_NUMBER_ipc_limits_request:
        return gate_limits(s, f->body, e);
    case IPC_NUMBER_ipc_reserve:
        return gate_reserve(s, f->body, e);
    case IPC_NUMBER_ipc_release:
        return gate_release(s, f->body, e);
    default:
        return err_set(e, "%s is not for quota", ipc_name(f->number));
    }
}

static void on_closed(struct channel *c, const char *why, void *arg)
{
    struct smtpd *s = arg;
    struct quota *q = s->q;
    log_debug("the channel to %s is gone: %s", channel_name(c), why);
    login_forget(s);
    gate_forget(s);
    for (unsigned i = 0; i < q->smtpd_count; i++)
        if (q->smtpds[i] == s)
            q->smtpds[i] = q->smtpds[--q->smtpd_count];
    free(s);
}

static void smtpd_peer(struct quota *q, unsigned slot, unsigned pid, int fd)
{
    static const struct channel_ops ops = {on_frame, on_closed};
    char name[64];
    if (q->smtpd_count == SMTPDS_MAX) {
        log_error("more than %d smtpd processes: one stays without accounts", SMTPDS_MAX);
        close(fd);
        return;
    }
    snprintf(name, sizeof name, "smtpd %u (process %u)", slot, pid);
    struct smtpd *s = xcalloc(1, sizeof *s);
    s->q = q;
    s->number = slot + 1;
    map_init(&s->questions, smtpd_question_key);
    s->channel = channel_new(q->s->base, fd, name, &ops, s);
    q->smtpds[q->smtpd_count++] = s;
    ipc_quota_state_encode(channel_out(s->channel),
                           &(struct ipc_quota_state){.credit = QUESTION_CREDIT});
}

static void peer(struct service *s, struct slice name, unsigned slot, unsigned pid, int fd)
{
    struct quota *q = s->state;
    if (slice_eq(name, SLICE("smtpd")))
        smtpd_peer(q, slot, pid, fd);
    else if (slice_eq(name, SLICE("qmgr")))
        book_peer(q, fd);
    else
        close(fd);
}

/* ---- plans -------------------------------------------------------------------------------- */

static int read_all(int fd, struct buf *out, struct err *e)
{
    for (;;) {
        if (buf_reserve(out, 65536) < 0)
            return err_set(e, "is larger than %zu bytes", out->max);
        ssize_t n = read(fd, out->data + out->len, out->cap - out->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "cannot be read");
        if (n == 0)
            return 0;
        out->len += (size_t)n;
    }
}

static void take_plans(struct quota *q, struct slice text, const char *path)
{
    struct plans fresh;
    struct err e;
    if (plans_parse(text, path, zones_lookup, q->zones, &fresh, &e) < 0) {
        log_error("plans_file: %s; the plans before it stay in use", e.text);
        return;
    }
    struct plans old = q->plans;
    q->plans = fresh;
    missing_keep(q, &old);
    gate_changed(q);
    plans_free(&old);
    book_pools_changed(q);
    book_plans_read(q);
    log_info("%zu plans read from %s", q->plans.count, path);
    missing_count(q, true);
    plan_changes_note(q, path);
    if (q->sources || !*q->s->config->source_config_file)
        pools_check_plans(q);
}

/* plans.conf and sources.conf, which master has checked. */
static void table(struct service *s, struct slice parameter, unsigned position, struct slice spec,
                  int fd)
{
    struct quota *q = s->state;
    bool sources = slice_eq(parameter, SLICE("source_config_file"));
    const size_t most = sources ? SOURCES_FILE_MAX : PLANS_FILE_MAX;
    struct buf text = BUF_INIT(most + 131072);
    struct err e = {0, ""};
    char *path = slice_dup(spec);
    (void)position;
    if (read_all(fd, &text, &e) < 0)
        log_error("%s: %s; what is in use stays", path, e.text);
    else if (sources)
        pools_read(q, buf_slice(&text), path);
    else if (slice_eq(parameter, SLICE("plans_file")))
        take_plans(q, buf_slice(&text), path);
    free(path);
    buf_free(&text);
    close(fd);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void turn(struct service *s)
{
    struct quota *q = s->state;
    book_turn(q);
    /* smtpd and relay are gone by then; qmgr has told what it knew when its channel ends */
    if (s->draining && !q->book.channel && book_is_idle(q))
        service_stop(s);
}

static void drain(struct service *s, unsigned seconds)
{
    (void)s, (void)seconds; /* turn() stops when qmgr is gone */
}

static const struct service_ops ops = {
    .program = "quota",
    .user = "_postern-quota",
    .jail = JAIL_ACCOUNTS,
    .threads = true,
    .open = before_jail,
    .start = start,
    .peer = peer,
    .table = table,
    .drain = drain,
    .turn = turn,
};

int main(int argc, char **argv)
{
    int status = service_main(argc, argv, &ops);
    struct quota *q = &quota;
    if (q->book.interval)
        event_free(q->book.interval);
    if (q->book.release_soon)
        event_free(q->book.release_soon);
    control_free(q->control);
    logins_free(q->logins);
    if (q->kv && q->sync && !kv_failed(q->kv))
        book_apply(q);
    sync_free(q->sync);
    kv_close(q->kv);
    lookups_free(&q->lookups);
    sources_conf_free(q->sources);
    missing_free(q);
    return status;
}
