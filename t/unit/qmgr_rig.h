/*
 * A queue manager without processes around it, with a clock that is set by hand and the spool
 * in memory: qmgr's own code, and sockets where smtpd, resolve and relay would be.
 */
#ifndef POSTERN_T_UNIT_QMGR_RIG_H
#define POSTERN_T_UNIT_QMGR_RIG_H

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"
#include "qmgr/relays.h"
#include "rules/bundle.h"
#include "t/fuzz/fake_store.h"
#include "unit.h"

enum { TURNS = 8, JOBS_MAX = 64 };

/* Each test has its own. */
static struct rig {
    struct event_base *base;
    struct service service;
    struct qmgr q;
    int smtpd, resolve, relay;
    uint64_t jobs[JOBS_MAX];
    unsigned job_count;
} rigs[8], *rig;

/* ---- the other processes ---------------------------------------------------------------- */

static int attach(void (*give)(int fd))
{
    int ends[2];
    struct err e;
    assert_int_equal(channel_pair(ends, &e), 0);
    give(ends[1]);
    return ends[0];
}

static void give_smtpd(int fd)
{
    intake_peer(&rig->q, 0, 1, fd);
}
static void give_resolve(int fd)
{
    sites_peer(&rig->q, fd);
}
static void give_relay(int fd)
{
    relays_peer(&rig->q, 0, 1, fd);
}

static void send_frame(int fd, struct buf *frame)
{
    assert_true(send(fd, frame->data, frame->len, MSG_NOSIGNAL) > 0);
    buf_free(frame);
}

/* d1.test is at mx1.big.test, and so on up to d9.test. */
static void answer_route(const struct ipc_resolve_request *ask)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX), targets = BUF_INIT(1024);
    char name[] = "mx1.big.test", address[] = {127, 0, 0, 1};
    size_t dot = slice_rchr(ask->recipient, '.');
    char digit = ask->recipient.ptr[dot - 1];
    struct slice host = slice_make(name, sizeof name - 1);
    name[2] = digit;
    address[3] = (char)(digit - '0');
    ipc_target_add(&targets, &(struct ipc_target){.host = host,
                                                  .address = slice_make(address, sizeof address),
                                                  .port = 25});
    ipc_resolve_reply_encode(&frame, &(struct ipc_resolve_reply){.tag = ask->tag,
                                                                 .status = RESOLVE_OK,
                                                                 .ttl = 1000000,
                                                                 .nexthop = host,
                                                                 .site = host,
                                                                 .targets = buf_slice(&targets)});
    send_frame(rig->resolve, &frame);
    buf_free(&targets);
}

static void take(const struct ipc_frame *f)
{
    struct ipc_resolve_request r;
    struct ipc_deliver d;
    if (f->number == IPC_NUMBER_ipc_resolve_request && ipc_resolve_request_decode(f->body, &r) == 0)
        answer_route(&r);
    else if (f->number == IPC_NUMBER_ipc_deliver && ipc_deliver_decode(f->body, &d) == 0 &&
             rig->job_count < JOBS_MAX)
        rig->jobs[rig->job_count++] = d.job;
}

static void hear(int fd)
{
    static char packet[1 << 18];
    ssize_t n;
    while ((n = recv(fd, packet, sizeof packet, MSG_DONTWAIT)) > 0) {
        struct slice rest = slice_make(packet, (size_t)n);
        struct ipc_frame f;
        while (ipc_frame_next(&rest, &f) == 1)
            take(&f);
    }
}

static void turns(void)
{
    for (int i = 0; i < TURNS; i++) {
        event_base_loop(rig->base, EVLOOP_NONBLOCK);
        store_turn();
        qmgr_turn(&rig->q); /* with the counters checked, in test builds */
        hear(rig->smtpd);
        hear(rig->resolve);
        hear(rig->relay);
    }
}

/* A message of the account's, to so many recipients. */
static inline void commit_to(const char *recipient, unsigned recipients, const char *account,
                             enum mail_class mail_class)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX), list = BUF_INIT(65536);
    struct id id = id_new();
    for (unsigned i = 0; i < recipients; i++)
        ipc_rcpt_add(&list, &(struct ipc_rcpt){.address = slice_str(recipient)});
    ipc_commit_encode(&frame, &(struct ipc_commit){.tag = 1,
                                                   .id = id_slice(&id),
                                                   .arrival = clock_wall(),
                                                   .sender = SLICE("s@src.test"),
                                                   .account = slice_str(account),
                                                   .mail_class = (uint8_t)mail_class,
                                                   .recipient_count = recipients,
                                                   .recipients = buf_slice(&list),
                                                   .body = SLICE("Subject: x\r\n\r\n")});
    send_frame(rig->smtpd, &frame);
    buf_free(&list);
    turns();
}

static inline void commit(const char *recipient, const char *account)
{
    now += CLOCK_SECOND; /* nothing waits for a pace */
    commit_to(recipient, 1, account, CLASS_NORMAL);
}

static struct job *job_at(unsigned n)
{
    return relays_find(&rig->q.relays, rig->jobs[n]);
}

/* The n-th job that relay has is taken, and leaves it. */
static inline void taken(unsigned n)
{
    struct buf frame = BUF_INIT(IPC_FRAME_MAX), list = BUF_INIT(65536);
    const struct job *j = job_at(n);
    assert_non_null(j);
    for (uint32_t i = 0; i < j->count; i++)
        ipc_outcome_add(&list, &(struct ipc_outcome){.index = j->rcpts[i],
                                                     .status = OUTCOME_SENT,
                                                     .stage = STAGE_DOT,
                                                     .code = 250});
    ipc_result_encode(&frame, &(struct ipc_result){.job = rig->jobs[n],
                                                   .host = SLICE("mx"),
                                                   .use_count = 1,
                                                   .outcomes = buf_slice(&list)});
    rig->jobs[n] = rig->jobs[--rig->job_count];
    send_frame(rig->relay, &frame);
    buf_free(&list);
    turns();
}

/* Another rig, with such a providers.conf. */
static int rig_start(const char *rules_text)
{
    struct err e;
    struct buf bundle = BUF_INIT(RULES_BUNDLE_MAX), ready = BUF_INIT(IPC_FRAME_MAX);
    rig = rig ? rig + 1 : rigs;
    assert_true(rig < rigs + sizeof rigs / sizeof *rigs);
    log_set_level(LOG_LEVEL_PANIC);
    list_init(&calls);
    rig->base = event_base_new();
    rig->service.base = rig->base;
    rig->service.event_log = -1;
    rig->service.config = config_parse(SLICE("myhostname = relay.test\nqueue_directory = /tmp\n"
                                             "delay_warning_time = 4h\n"),
                                       "main.cf", "/tmp", &e);
    assert_non_null(rig->service.config);
    rig->q.store_state = SPOOL_OK;
    qmgr_init(&rig->q, &rig->service);
    rig->q.scanned = true;
    queue_tick(&rig->q);
    assert_int_equal(rules_bundle_add(&bundle, "providers.conf", slice_str(rules_text)), 0);
    struct rules *rules = rules_bundle_load(buf_slice(&bundle), &e);
    if (!rules)
        fail_msg("%s", e.text);
    groups_set_rules(&rig->q, rules);
    buf_free(&bundle);
    rig->smtpd = attach(give_smtpd);
    rig->resolve = attach(give_resolve);
    rig->relay = attach(give_relay);
    ipc_relay_ready_encode(&ready, &(struct ipc_relay_ready){.jobs = JOBS_MAX});
    send_frame(rig->relay, &ready);
    turns();
    return 0;
}

static inline struct lane *lane_of(const char *group)
{
    list_each(&rig->q.dispatch.lanes, n)
    {
        struct lane *l = container_of(n, struct lane, all);
        if (strcmp(l->group->name, group) == 0)
            return l;
    }
    fail_msg("no lane %s", group);
    return NULL;
}

static inline unsigned under_way(const char *group)
{
    return lane_of(group)->in_flight;
}

#endif
