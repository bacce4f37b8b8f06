/*
 * relay: delivers to other servers by SMTP and LMTP.
 *
 * User      _postern-relay
 * Chroot    the empty directory
 * Files     3 master, 4 configuration, 5 log, 6 event log (unused); the channel
 *           to qmgr; connections to other servers; read-only descriptors of
 *           large messages under delivery
 * Secrets   none but the messages handed to it
 * Network   connects out; listens nowhere. UNIX sockets of LMTP next hops are out of
 *           its reach: master connects it to those that the operator has named
 *
 * qmgr sends jobs (ipc_deliver), each gets one answer (ipc_result). A job finds
 * an idle session in the pool or makes one (connect.c, hello.c), which carries
 * it through a transaction (transaction.c, content.c).
 */
#include <sys/resource.h>
#include <unistd.h>

#include "core/fault.h"
#include "core/log.h"
#include "core/mem.h"
#include "ipc/absence.h"
#include "relay/connect.h"
#include "relay/session.h"
#include "relay/slots.h"

enum {
    FDS_PER_JOB = 3, /* connection, content of a large message, an idle or ending connection */
    FDS_OTHER = 64,
    CA_BLOCK = 64 * 1024 /* of the authorities' file, read at a time */
};

static struct relay relay;
static struct absence qmgr_absence;

/* ---- jobs ------------------------------------------------------------------ */

void relay_job_done(struct relay *r, struct job *j)
{
    fault_point("relay.result");
    slots_give_up(r, j);
    if (r->qmgr)
        job_encode_result(j, channel_out(r->qmgr));
    r->job_count--;
    job_free(j);
}

static void start_job(struct job *j)
{
    struct session *s = pool_take(&relay.pool, j);
    list_push(&relay.jobs, &j->link);
    relay.job_count++;
    if (s)
        session_assign(s, j);
    else
        connect_next(&relay, j);
}

/* The qmgr that knew of the jobs is gone, and the next one will hand them out
 * again: before the end of data nothing has happened yet, after it the result
 * has nobody to go to. */
static void drop_jobs(void)
{
    list_each_safe(&relay.jobs, n)
    {
        struct job *j = container_of(n, struct job, link);
        if (j->session) {
            j->session->job = NULL;
            session_close(j->session);
        }
        relay.job_count--;
        job_free(j);
    }
}

/* ---- qmgr ------------------------------------------------------------------ */

static int on_frame(struct channel *c, const struct ipc_frame *f, int fd, void *arg, struct err *e)
{
    (void)c;
    (void)arg;
    struct job *j = NULL;
    if (f->number == IPC_NUMBER_ipc_spare && fd < 0)
        return slots_spare(&relay, f->body, e);
    if (f->number == IPC_NUMBER_ipc_deliver)
        j = job_new(f->body, fd, e);
    else
        err_set(e, "%s is not for relay", ipc_name(f->number));
    if (!j) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    start_job(j);
    return 0;
}

static void on_closed(struct channel *c, const char *why, void *arg)
{
    (void)arg;
    log_warning("%s: %s; %u deliveries are dropped and will be made again", channel_name(c), why,
                relay.job_count);
    relay.qmgr = NULL;
    drop_jobs();
    slots_forget(&relay);
    absence_begins(&qmgr_absence);
}

static void without_qmgr(void *arg)
{
    if (!relay.draining)
        log_error("no channel to qmgr for %d seconds: this process ends, a new one takes its place",
                  ABSENCE_SECONDS);
    service_stop(arg);
}

static const struct channel_ops qmgr_ops = {on_frame, on_closed};

/* Sets how many sessions may be open and returns how many jobs may: what is
 * configured, as far as descriptors suffice; each may hold that of its content.
 * The others are for sessions, idle ones too. */
static uint32_t set_limits(void)
{
    uint64_t limit = (uint64_t)relay.service->config->relay_job_limit;
    struct rlimit files;
    relay.session_limit = 0;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur == RLIM_INFINITY)
        return (uint32_t)limit;
    uint64_t left =
        files.rlim_cur > FDS_OTHER + FDS_PER_JOB ? files.rlim_cur - FDS_OTHER : FDS_PER_JOB;
    if (limit > left / FDS_PER_JOB)
        limit = left / FDS_PER_JOB;
    uint64_t sessions = left - limit;
    relay.session_limit = sessions < UINT32_MAX ? (unsigned)sessions : 0;
    return (uint32_t)limit;
}

/* 0 jobs: no more of them. */
static void say_ready(void)
{
    struct ipc_relay_ready m = {.jobs = relay.draining ? 0 : set_limits()};
    if (relay.qmgr)
        ipc_relay_ready_encode(channel_out(relay.qmgr), &m);
}

/* ---- the service ----------------------------------------------------------- */

static int start(struct service *s, struct err *e)
{
    (void)e;
    relay.service = s;
    s->state = &relay;
    list_init(&relay.jobs);
    list_init(&relay.held);
    list_init(&relay.asking);
    list_init(&relay.dead);
    pool_init(&relay.pool);
    absence_init(&qmgr_absence, s->base, without_qmgr, s);
    timers_init(&relay.timers, s->base, session_expired);
    client_tls_init(&relay.client_tls);
    return 0;
}

static void peer(struct service *s, struct slice name, unsigned slot, unsigned pid, int fd)
{
    (void)slot;
    (void)pid;
    if (!slice_eq(name, SLICE("qmgr"))) {
        close(fd);
        return;
    }
    if (relay.qmgr) {
        drop_jobs();
        slots_forget(&relay);
        channel_free(relay.qmgr);
    }
    absence_ends(&qmgr_absence);
    relay.qmgr = channel_new(s->base, fd, "qmgr", &qmgr_ops, NULL);
    say_ready();
}

/* The certificate authorities, at the start and whenever they change. */
static void table(struct service *s, struct slice parameter, unsigned position, struct slice spec,
                  int fd)
{
    struct buf pem = BUF_INIT(TLS_AUTHORITIES_MAX);
    (void)s;
    (void)position;
    ssize_t n = 1;
    while (slice_eq(parameter, SLICE("smtp_tls_CAfile")) && n > 0) {
        if (buf_reserve(&pem, CA_BLOCK) < 0) {
            log_error("smtp_tls_CAfile: %s: is longer than %d bytes; the old authorities stay",
                      log_esc(spec), TLS_AUTHORITIES_MAX);
            break;
        }
        n = read(fd, pem.data + pem.len, CA_BLOCK);
        pem.len += n > 0 ? (size_t)n : 0;
    }
    if (n == 0)
        client_tls_authorities(&relay.client_tls, &pem);
    buf_free(&pem);
    close(fd);
}

static void connecting(struct service *s, uint64_t tag, int fd, struct slice why)
{
    (void)s;
    connect_answered(&relay, tag, fd, why);
}

static void reload(struct service *s)
{
    (void)s;
    say_ready();
}

/* What is under way ends; qmgr is told to send nothing more, and what it has
 * sent meanwhile is still delivered. */
static void drain(struct service *s, unsigned seconds)
{
    struct session *idle;
    (void)s;
    (void)seconds;
    relay.draining = true;
    say_ready();
    while ((idle = pool_oldest(&relay.pool)))
        session_quit(idle);
}

static void turn(struct service *s)
{
    struct list *n;
    session_release_held(&relay);
    while ((n = list_pop(&relay.dead)))
        session_free(container_of(n, struct session, link));
    if (relay.draining && relay.job_count == 0 && relay.session_count == 0)
        service_stop(s);
}

int main(int argc, char **argv)
{
    static const struct service_ops ops = {
        .program = "relay",
        .user = "_postern-relay",
        .jail = JAIL_EMPTY,
        .network = true,
        .start = start,
        .peer = peer,
        .table = table,
        .connecting = connecting,
        .reload = reload,
        .drain = drain,
        .turn = turn,
    };
    return service_main(argc, argv, &ops);
}
