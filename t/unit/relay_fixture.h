/* A relay without a service around it: sessions on one end of a socket pair. */
#ifndef POSTERN_UNIT_RELAY_FIXTURE_H
#define POSTERN_UNIT_RELAY_FIXTURE_H

#include <sys/socket.h>
#include <unistd.h>

#include "core/mem.h"
#include "relay/relay.h"
#include "relay/session.h"

static struct relay rig;
static struct config rig_config;
static struct service rig_service;
static unsigned rig_results; /* jobs that are over */
static struct buf rig_result = BUF_INIT(IPC_FRAME_MAX);

void relay_job_done(struct relay *r, struct job *j)
{
    buf_clear(&rig_result);
    job_encode_result(j, &rig_result);
    r->job_count--;
    rig_results++;
    job_free(j);
}

static inline void rig_start(void)
{
    rig_config = (struct config){0};
#define PARAM_STR(name, fallback, doc) rig_config.name = "";
#define PARAM_LIST(name, fallback, doc) rig_config.name = "";
#define PARAM_INT(name, fallback, min, max, doc) rig_config.name = (min) + 100;
#define PARAM_SIZE(name, fallback, min, max, doc) rig_config.name = (min) + 100;
#define PARAM_TIME(name, fallback, min, max, doc) rig_config.name = 60;
#define PARAM_BOOL(name, fallback, doc) rig_config.name = false;
#define PARAM_ENUM(name, fallback, choices, doc) rig_config.name = fallback;
#include "conf/params.def"
#undef PARAM_STR
#undef PARAM_LIST
#undef PARAM_INT
#undef PARAM_SIZE
#undef PARAM_TIME
#undef PARAM_BOOL
#undef PARAM_ENUM
    rig_service = (struct service){.base = event_base_new(), .config = &rig_config};
    rig = (struct relay){.service = &rig_service};
    list_init(&rig.jobs);
    list_init(&rig.held);
    list_init(&rig.asking);
    list_init(&rig.dead);
    pool_init(&rig.pool);
    timers_init(&rig.timers, rig_service.base, session_expired);
    client_tls_init(&rig.client_tls);
}

static inline void rig_bury(void)
{
    struct list *n;
    while ((n = list_pop(&rig.dead)))
        session_free(container_of(n, struct session, link));
}

static inline void rig_stop(void)
{
    rig_bury();
    timers_free(&rig.timers);
    client_tls_free(&rig.client_tls);
    pool_free(&rig.pool);
    buf_free(&rig_result);
    event_base_free(rig_service.base);
}

/* A job with `count` recipients r0@dst.test and so on, and no target. */
static inline struct job *rig_job(unsigned count, enum transport transport, struct slice content,
                                  int fd, uint64_t body_len)
{
    struct buf list = BUF_INIT(IPC_FRAME_MAX), frame = BUF_INIT(IPC_FRAME_MAX);
    char address[32];
    for (unsigned i = 0; i < count; i++) {
        snprintf(address, sizeof address, "r%u@dst.test", i);
        struct ipc_job_rcpt r = {.index = i, .address = slice_str(address)};
        ipc_job_rcpt_add(&list, &r);
    }
    struct ipc_deliver m = {.job = 7,
                            .id = SLICE("0000000000zABCD"),
                            .site = SLICE("dst.test"),
                            .transport = (uint8_t)transport,
                            .helo = SLICE("relay.test"),
                            .sender = SLICE("s@src.test"),
                            .recipients = buf_slice(&list),
                            .body = fd < 0 ? content : SLICE(""),
                            .prefix = fd < 0 ? SLICE("") : content,
                            .body_len = body_len};
    ipc_deliver_encode(&frame, &m);
    struct job *j = job_new(slice_from(buf_slice(&frame), IPC_HEADER), fd, NULL);
    buf_free(&list);
    buf_free(&frame);
    if (!j)
        panic("the job was refused");
    list_push(&rig.jobs, &j->link);
    rig.job_count++;
    return j;
}

/* Starts the job on a session; returns the server's end, non-blocking. */
static inline int rig_session(struct job *j, struct session **out)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) < 0)
        panic("socketpair");
    struct session *s = xcalloc(1, sizeof *s);
    s->relay = &rig;
    s->job = j;
    s->lmtp = j->m.transport == TRANSPORT_LMTP;
    s->host = xstrdup("mx.test");
    j->session = s;
    j->connecting = clock_mono();
    job_set_host(j, "mx.test", "127.0.0.1", 25);
    pool_join(&rig.pool, s, j);
    session_open(s, fds[0], true);
    if (out)
        *out = s;
    return fds[1];
}

/* Handles what is there to be handled. */
static inline void rig_turn(void)
{
    event_base_loop(rig_service.base, EVLOOP_NONBLOCK);
    session_release_held(&rig);
    rig_bury();
}

#endif
