#include "smtpd/listeners.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "smtpd/limits.h"
#include "smtpd/session.h"

struct listeners {
    struct server *server;
    unsigned count;
    int64_t paused_until; /* 0: accepting */
    bool closed;
    struct event *events[];
};

/* Without descriptors or memory accept would fail at once, again and again. */
static void pause_accepting(struct listeners *ls)
{
    log_warning("cannot accept connections: %m; trying again in %d s", ACCEPT_PAUSE_SECONDS);
    ls->paused_until = clock_mono() + ACCEPT_PAUSE_SECONDS * CLOCK_SECOND;
    for (unsigned i = 0; i < ls->count; i++)
        event_del(ls->events[i]);
}

static void on_connection(evutil_socket_t fd, short what, void *arg)
{
    struct listeners *ls = arg;
    (void)what;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage from = {0};
        socklen_t len = sizeof from;
        int client = accept4(fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client >= 0) {
            session_open(ls->server, client, (struct sockaddr *)&from);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            pause_accepting(ls);
        /* anything else is EAGAIN, or a connection that is gone already */
        if (errno != ECONNABORTED && errno != EINTR)
            return;
    }
}

void listeners_resume(struct listeners *ls)
{
    if (ls->paused_until == 0 || ls->closed)
        return;
    ls->paused_until = 0;
    for (unsigned i = 0; i < ls->count; i++)
        event_add(ls->events[i], NULL);
}

void listeners_tick(struct listeners *ls, int64_t now)
{
    if (now >= ls->paused_until)
        listeners_resume(ls);
}

struct listeners *listeners_new(struct server *sv, const int *sockets, unsigned count)
{
    struct listeners *ls = xcalloc(1, sizeof *ls + count * sizeof ls->events[0]);
    ls->server = sv;
    ls->count = count;
    ls->paused_until = clock_mono() + LISTENERS_WAIT_SECONDS * CLOCK_SECOND;
    for (unsigned i = 0; i < count; i++) {
        int on = 1;
        /* accepted connections inherit it, which saves a call for each */
        setsockopt(sockets[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        evutil_make_socket_nonblocking(sockets[i]);
        ls->events[i] = event_new(sv->base, sockets[i], EV_READ | EV_PERSIST, on_connection, ls);
        if (!ls->events[i])
            panic("cannot watch a listener");
    }
    return ls;
}

void listeners_close(struct listeners *ls)
{
    if (ls->closed)
        return;
    ls->closed = true;
    for (unsigned i = 0; i < ls->count; i++) {
        event_del(ls->events[i]);
        /* the address may not be listened on any more: its clients must not wait
         * in a queue that nobody serves */
        close(event_get_fd(ls->events[i]));
    }
}

void listeners_free(struct listeners *ls)
{
    if (!ls)
        return;
    for (unsigned i = 0; i < ls->count; i++)
        event_free(ls->events[i]);
    free(ls);
}
