/* A server with one client and a qmgr, all in one process and one thread, over
 * real sockets: for unit tests and the fuzz target. */
#ifndef POSTERN_T_SMTPD_WORLD_H
#define POSTERN_T_SMTPD_WORLD_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "smtpd/content.h"
#include "smtpd/limits.h"
#include "smtpd/server.h"
#include "smtpd/session.h"

struct world {
    struct event_base *base;
    struct config *config;
    struct server server;
    int qmgr, client;   /* our ends; -1: none */
    struct buf replies; /* what the client has received */
    /* A frame from smtpd. */
    void (*frame)(struct world *w, const struct ipc_frame *f);
    void *arg;
};

static inline struct config *world_config(const char *text)
{
    char path[] = "/tmp/postern-smtpd-XXXXXX";
    struct err e = {0, ""};
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, text, strlen(text)) < 0 || close(fd) < 0)
        panic("cannot write %s", path);
    struct config *c = config_load(path, &e);
    unlink(path);
    if (!c)
        panic("%s", e.text);
    return c;
}

static inline void world_open(struct world *w, const char *config)
{
    struct err e = {0, ""};
    int ends[2];
    *w = (struct world){.qmgr = -1, .client = -1};
    log_set_level(LOG_LEVEL_FATAL);
    buf_init(&w->replies, 1 << 24);
    w->base = event_base_new();
    w->config = world_config(config);
    if (server_init(&w->server, w->base, w->config, &e) < 0 || channel_pair(ends, &e) < 0)
        panic("%s", e.text);
    w->qmgr = ends[0];
    link_attach(&w->server.link, ends[1]);
}

static inline void world_connect(struct world *w)
{
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        panic("socketpair: %m");
    w->client = ends[0];
    session_open(&w->server, ends[1], (struct sockaddr *)&from);
}

/* The only session, or NULL. */
static inline struct session *world_session(const struct world *w)
{
    const struct list *l = &w->server.sessions;
    return list_empty(l) ? NULL : container_of(l->next, struct session, link);
}

static inline void world_answer(const struct world *w, const struct buf *frame, int fd)
{
    if (channel_send_now(w->qmgr, buf_slice(frame), fd) < 0)
        panic("cannot answer: %m");
}

/* Reads what has come to our ends; whether anything has. */
static inline bool world_receive(struct world *w)
{
    static char packet[IPC_FRAME_MAX];
    ssize_t n = recv(w->qmgr, packet, sizeof packet, MSG_DONTWAIT);
    bool any = n > 0;
    struct slice rest = slice_make(packet, n > 0 ? (size_t)n : 0);
    struct ipc_frame f;
    while (ipc_frame_next(&rest, &f) == 1)
        w->frame(w, &f);
    while (w->client >= 0 && buf_reserve(&w->replies, 4096) == 0 &&
           (n = recv(w->client, w->replies.data + w->replies.len, 4096, MSG_DONTWAIT)) > 0) {
        w->replies.len += (size_t)n;
        any = true;
    }
    return any;
}

/* Lets everything happen that can happen without further input. */
static inline void world_run(struct world *w)
{
    do {
        event_base_loop(w->base, EVLOOP_NONBLOCK);
        channel_flush_all();
        log_flush();
    } while (world_receive(w));
}

static inline void world_send(struct world *w, struct slice bytes)
{
    while (bytes.len) {
        ssize_t n = send(w->client, bytes.ptr, bytes.len, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            return; /* the session is over */
        if (n > 0)
            bytes = slice_from(bytes, (size_t)n);
        world_run(w);
    }
}

/* The code of the next reply that the client has received; 0 if there is none. */
static inline int world_reply(struct world *w)
{
    for (size_t at = 0; at < w->replies.len;) {
        struct slice rest = slice_from(buf_slice(&w->replies), at);
        size_t len = slice_chr(rest, '\n') + 1;
        if (len > rest.len || rest.len < 4)
            break;
        at += len;
        if (rest.ptr[3] == '-')
            continue;
        int code = atoi(rest.ptr);
        buf_consume(&w->replies, at);
        return code;
    }
    return 0;
}

static inline void world_disconnect(struct world *w)
{
    if (w->client >= 0)
        close(w->client);
    w->client = -1;
    world_run(w);
    buf_clear(&w->replies);
}

static inline void world_close(struct world *w)
{
    world_disconnect(w);
    server_free(&w->server);
    config_free(w->config);
    event_base_free(w->base);
    close(w->qmgr);
    buf_free(&w->replies);
}

#endif
