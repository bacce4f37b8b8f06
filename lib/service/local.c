#include "service/local.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"

int local_accept(evutil_socket_t listener, struct event *accept, const char *name)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        log_warning("%s cannot accept a client: %s", name, strerror(errno));
        event_del(accept);
    }
    return fd;
}

void local_refuse(int fd, const char *name)
{
    char busy[128];
    int n = snprintf(busy, sizeof busy,
                     "{\"error\":\"Too many clients on %s; try again later.\"}\n", name);
    (void)!send(fd, busy, (size_t)n, MSG_NOSIGNAL);
    close(fd);
}

long local_uid(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 ? (long)peer.uid : -1;
}

static enum local_status failed(void)
{
    return errno == EAGAIN || errno == EINTR ? LOCAL_AGAIN : LOCAL_LOST;
}

enum local_status local_read(int fd, struct buf *in)
{
    ssize_t n = recv(fd, in->data + in->len, in->cap - in->len, 0);
    if (n < 0)
        return failed();
    in->len += (size_t)n;
    return n > 0 ? LOCAL_OK : LOCAL_END;
}

enum local_status local_write(int fd, struct buf *out)
{
    ssize_t n = send(fd, out->data, out->len, MSG_NOSIGNAL);
    if (n < 0)
        return failed();
    buf_consume(out, (size_t)n);
    return n > 0 ? LOCAL_OK : LOCAL_AGAIN;
}
