#include "io/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

union any_address {
    struct sockaddr any;
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;
    struct sockaddr_un path;
};

enum { IPV4_BYTES = 4, IPV6_BYTES = 16 };

static bool is_path(struct slice address, uint16_t port)
{
    return port == 0 && address.len > 0 && address.ptr[0] == '/';
}

/* 0 and *len, or -1 with errno. */
static int fill(union any_address *a, struct slice address, uint16_t port, socklen_t *len)
{
    memset(a, 0, sizeof *a);
    if (is_path(address, port)) {
        if (address.len >= sizeof a->path.sun_path) {
            errno = ENAMETOOLONG;
            return -1;
        }
        a->path.sun_family = AF_UNIX;
        memcpy(a->path.sun_path, address.ptr, address.len);
        *len = sizeof a->path;
    } else if (address.len == IPV4_BYTES) {
        a->in4.sin_family = AF_INET;
        a->in4.sin_port = htons(port);
        memcpy(&a->in4.sin_addr, address.ptr, IPV4_BYTES);
        *len = sizeof a->in4;
    } else if (address.len == IPV6_BYTES) {
        a->in6.sin6_family = AF_INET6;
        a->in6.sin6_port = htons(port);
        memcpy(&a->in6.sin6_addr, address.ptr, IPV6_BYTES);
        *len = sizeof a->in6;
    } else {
        errno = EAFNOSUPPORT;
        return -1;
    }
    return 0;
}

static int bind_source(int fd, sa_family_t family, struct slice source)
{
    union any_address a;
    socklen_t len;
    int on = 1;
    if (fill(&a, source, 0, &len) < 0)
        return -1;
    if (a.any.sa_family != family) {
        errno = EAFNOSUPPORT;
        return -1;
    }
    /* the port is chosen when the destination is known: one source address has
     * then 64k ports for each destination instead of for all together */
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    return bind(fd, &a.any, len);
}

int net_connect(struct slice address, uint16_t port, struct slice source, bool *connected)
{
    union any_address a;
    socklen_t len;
    int on = 1;
    *connected = false;
    if (fill(&a, address, port, &len) < 0)
        return -1;
    int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (a.any.sa_family != AF_UNIX) {
        /* commands and the end of data must not wait for an ACK */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (source.len > 0 && bind_source(fd, a.any.sa_family, source) < 0)
            goto fail;
    }
    if (connect(fd, &a.any, len) == 0)
        *connected = true;
    else if (errno != EINPROGRESS)
        goto fail;
    return fd;
fail:
    on = errno;
    close(fd);
    errno = on;
    return -1;
}

bool net_is_ours(struct slice address)
{
    sa_family_t family = address.len == IPV4_BYTES ? AF_INET : AF_INET6;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ours = fd >= 0 && bind_source(fd, family, address) == 0;
    if (fd >= 0)
        close(fd);
    return ours;
}

bool net_text_is_ours(const char *text)
{
    char bytes[IPV6_BYTES];
    if (inet_pton(AF_INET, text, bytes) == 1)
        return net_is_ours(slice_make(bytes, IPV4_BYTES));
    return inet_pton(AF_INET6, text, bytes) == 1 && net_is_ours(slice_make(bytes, IPV6_BYTES));
}

int net_error(int fd)
{
    int error = 0;
    socklen_t len = sizeof error;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 ? errno : error;
}

void net_text(struct slice address, uint16_t port, char out[NET_TEXT_MAX])
{
    if (is_path(address, port))
        snprintf(out, NET_TEXT_MAX, "%.*s", (int)address.len, address.ptr);
    else if (address.len == IPV4_BYTES)
        inet_ntop(AF_INET, address.ptr, out, NET_TEXT_MAX);
    else if (address.len == IPV6_BYTES)
        inet_ntop(AF_INET6, address.ptr, out, NET_TEXT_MAX);
    else
        snprintf(out, NET_TEXT_MAX, "unknown");
}
