/*
 * qmgr: the queue. Owns the spool, decides what is delivered when.
 *
 * User      _postern-queue
 * Chroot    the spool (queue_directory)
 * Files     3 master, 4 configuration, 5 log, 6 event log; channels to smtpd,
 *           relay, resolve and bounce; the spool's files; listener 0 is the
 *           control socket, listener 1 the showq socket
 * Secrets   the mail itself; the key of tokens
 * Network   none
 *
 * smtpd commits messages (intake.c, commit.c) to the spool (store.h); queue.c
 * keeps them all, sites.c learns where they go, dispatch.c decides who is next,
 * relays.c hands them out, outcome.c and retry.c deal with what came of it,
 * notices.c tells senders, events.c writes it all down.
 */
#include <openssl/crypto.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/log.h"
#include "qmgr/alerts.h"
#include "qmgr/brakes.h"
#include "qmgr/control.h"
#include "qmgr/halts.h"
#include "qmgr/memory.h"
#include "qmgr/qmgr.h"
#include "qmgr/showq.h"
#include "qmgr/sources.h"
#include "rules/bundle.h"

static struct qmgr qmgr;
static struct control *control;
static struct showq *showq;

/* Finished files beyond qmgr_free_files_limit that may wait for their removal: a start looks at
 * each (about 3 us). */
enum { SURPLUS_FILES = 256 * 1024 };

/* ---- the spool ------------------------------------------------------------------------ */

static void on_store_state(int state, const char *why, void *arg)
{
    struct qmgr *q = arg;
    (void)why;
    q->store_state = state;
    intake_state(q);
}

static int open_spool(struct qmgr *q, struct err *e)
{
    static const struct store_ops ops = {queue_found, queue_scanned, on_store_state,
                                         queue_quarantined};
    const struct config *c = q->s->config;
    struct store_config sc = {
        .sync_threads = (unsigned)c->qmgr_sync_threads,
        .batch_max = (unsigned)c->qmgr_commit_batch_limit,
        .journal_size = (uint64_t)c->queue_journal_size,
        .free_max = (unsigned)c->qmgr_free_files_limit,
        .surplus_max = c->qmgr_free_files_limit ? SURPLUS_FILES : 0,
        .spare_files = (unsigned)c->qmgr_free_files_limit / 4,
        .open_max = (unsigned)c->qmgr_open_files_limit,
        .reserve_bytes = (uint64_t)c->queue_minfree,
        .reserve_inodes = (uint64_t)c->queue_minfree_inodes,
    };
    if (store_open(q->s->base, &sc, &ops, q, &q->store, e) < 0)
        return -1;
    q->store_state = store_state(q->store);
    store_scan(q->store);
    return 0;
}

/* ---- callbacks of the skeleton -------------------------------------------------------- */

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct qmgr *q = arg;
    (void)fd;
    (void)what;
    q->timer_at = 0; /* the turn that follows does the work */
}

/* OpenSSL, for tokens: its configuration file is out of reach later. */
static int before_jail(struct service *s, struct err *e)
{
    (void)s, (void)e;
    OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, NULL);
    return 0;
}

static int start(struct service *s, struct err *e)
{
    struct qmgr *q = &qmgr;
    s->state = q;
    qmgr_init(q, s);
    q->timer = evtimer_new(s->base, on_timer, q);
    if (!q->timer)
        return err_set(e, "cannot make a timer");
    if (open_spool(q, e) < 0)
        return -1;
    queue_tick(q);
    sources_load(q);
    memory_load(q);
    brakes_load(q);
    halts_load(q);
    control = control_new(s, q);
    showq = showq_new(s, 1, q);
    return 0;
}

static void peer(struct service *s, struct slice name, unsigned slot, unsigned pid, int fd)
{
    struct qmgr *q = s->state;
    if (slice_eq(name, SLICE("smtpd")))
        intake_peer(q, slot, pid, fd);
    else if (slice_eq(name, SLICE("relay")))
        relays_peer(q, slot, pid, fd);
    else if (slice_eq(name, SLICE("resolve")))
        sites_peer(q, fd);
    else if (slice_eq(name, SLICE("bounce")))
        notices_peer(q, fd);
    else if (slice_eq(name, SLICE("quota")))
        charges_peer(q, fd);
    else
        close(fd);
}

static void reload(struct service *s)
{
    struct qmgr *q = s->state;
    queue_tick(q);
    intake_reload(q);
    events_reload(q);
    groups_reload(q);
    dispatch_reload(q);
    deleted_reload(q);
    sites_renew(q);
    if (sites_reload(q))
        queue_wake_all(q, false);
    intake_state(q);
}

static int read_whole(int fd, struct buf *text)
{
    ssize_t n = lseek(fd, 0, SEEK_SET) == 0 ? 1 : -1;
    while (n > 0 && buf_reserve(text, 4096) == 0) {
        n = read(fd, text->data + text->len, text->cap - text->len);
        text->len += n > 0 ? (size_t)n : 0;
    }
    return n == 0 ? 0 : -1;
}

static void set_providers(struct qmgr *q, struct slice text, struct slice spec)
{
    struct err e = {0, ""};
    struct rules *rules = rules_bundle_load(text, &e);
    if (!rules) {
        log_error("%s: the rules stay as they are: %s", log_esc(spec), e.text);
        return;
    }
    groups_set_rules(q, rules);
    log_info("providers.conf: %u providers, %u rules", rules_providers(rules), rules_count(rules));
}

static void set_sources(struct qmgr *q, struct slice text, struct slice spec)
{
    struct err e = {0, ""};
    char *name = slice_dup(spec);
    struct sources_conf *c = sources_conf_parse(text, name, &e);
    free(name);
    if (!c) {
        log_error("%s: the sources stay as they are: %s", log_esc(spec), e.text);
        return;
    }
    log_info("sources.conf: %zu sources, %zu pools, %zu block lists", c->count, c->pool_count,
             c->list_count);
    sources_set(q, c);
}

/* providers.conf and sources.conf, which master has checked; they are checked again here,
 * and the set that is in use stays if there is anything wrong with this one. */
static void table(struct service *s, struct slice parameter, unsigned position, struct slice spec,
                  int fd)
{
    struct qmgr *q = s->state;
    struct buf text = BUF_INIT(RULES_BUNDLE_MAX + 4096);
    (void)position;
    queue_tick(q);
    if (read_whole(fd, &text) < 0)
        log_error("%s: cannot be read, and stays as it is", log_esc(spec));
    else if (slice_eq(parameter, SLICE("provider_config_file")))
        set_providers(q, buf_slice(&text), spec);
    else if (slice_eq(parameter, SLICE("source_config_file")))
        set_sources(q, buf_slice(&text), spec);
    close(fd);
    buf_free(&text);
}

/* No new work; what is under way ends, or stays in the spool. Master lets smtpd finish
 * before it asks this of us; if it is gone, nobody does. */
static void drain(struct service *s, unsigned seconds)
{
    struct qmgr *q = s->state;
    (void)seconds;
    q->draining = true;
    q->orphaned = !s->master;
    intake_state(q);
}

static void arm_timer(struct qmgr *q)
{
    const int64_t all[] = {
        queue_next_due(q),
        dispatch_next_due(q),
        sources_next_due(q),
        pools_next_due(q),
        alerts_next_due(q),
        brakes_next_due(q),
        memory_due(q),
        kept_file_due(&q->from->file, q),
        kept_file_due(&q->brakes->file, q),
        kept_file_due(&q->halts->file, q),
        q->next_sweep,
        walks_ready(q) ? q->now : INT64_MAX,
    };
    int64_t due = INT64_MAX;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        due = all[i] < due ? all[i] : due;
    if (q->timer_at && q->timer_at <= due)
        return;
    int64_t wait = due > q->now ? due - q->now : 0;
    struct timeval tv = {wait / CLOCK_SECOND, wait % CLOCK_SECOND};
    q->timer_at = due > q->now ? due : q->now;
    evtimer_add(q->timer, &tv);
}

static void turn(struct service *s)
{
    struct qmgr *q = s->state;
    qmgr_turn(q);
    memory_turn(q);
    kept_file_turn(&q->from->file, q);
    kept_file_turn(&q->brakes->file, q);
    kept_file_turn(&q->halts->file, q);
    events_flush(q);
    arm_timer(q);
    if (q->draining && q->open_commits == 0 && q->open_records == 0 && q->dispatch.in_flight == 0 &&
        (!q->orphaned || q->smtpd_count == 0))
        service_stop(s);
}

static int message(struct service *s, const struct ipc_frame *f, struct err *e)
{
    struct ipc_status_reply reply;
    struct ipc_owners_only owners;
    struct qmgr *q = s->state;
    if (f->number == IPC_NUMBER_ipc_owners_only && ipc_owners_only_decode(f->body, &owners) == 0) {
        q->owners_only = owners.pid;
        return 0;
    }
    if (f->number != IPC_NUMBER_ipc_status_reply || ipc_status_reply_decode(f->body, &reply) < 0)
        return err_set(e, "%s is not for qmgr", ipc_name(f->number));
    control_status_reply(control, &reply);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct service_ops ops = {
        .program = "qmgr",
        .user = "_postern-queue",
        .jail = JAIL_SPOOL,
        .threads = true,
        .open = before_jail,
        .start = start,
        .peer = peer,
        .table = table,
        .reload = reload,
        .drain = drain,
        .turn = turn,
        .message = message,
    };
    int status = service_main(argc, argv, &ops);
    showq_free(showq);
    control_free(control);
    if (qmgr.store) { /* else the spool was not ours */
        memory_stop(&qmgr);
        kept_file_stop(&qmgr.from->file, &qmgr);
        kept_file_stop(&qmgr.brakes->file, &qmgr);
        kept_file_stop(&qmgr.halts->file, &qmgr);
        store_close(qmgr.store); /* completes what is on its way to the disk */
    }
    return status;
}
