/*
 * How many TLS handshakes a server makes: connects to a port with TLS from the
 * first byte, until the greeting has come, again and again.
 *
 *   tls-load PORT CONNECTIONS SECONDS [full|resumed]
 *
 * CONNECTIONS are under way at a time. Prints one line: handshakes a second, and how
 * many were full, resumed, failed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/mem.h"
#include "io/tls.h"

enum { READ_SIZE = 16 * 1024, CONNECTIONS_MAX = 1000 };

struct connection {
    int fd;
    struct tls *tls;
};

static struct tls_context *context;
static SSL_SESSION *session; /* that is resumed, or NULL */
static struct sockaddr_in server = {.sin_family = AF_INET};
static unsigned long full, resumed, failed;

static void begin(struct connection *c, int epoll)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    struct slice nothing = SLICE("");
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0)
        panic("cannot connect: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->tls = tls_new(context, SLICE(""));
    if (session)
        SSL_set_session(tls_native(c->tls), session);
    tls_handshake(c->tls, &nothing);
    struct slice out = tls_output(c->tls);
    if (send(c->fd, out.ptr, out.len, MSG_NOSIGNAL) != (ssize_t)out.len)
        panic("cannot send");
    tls_sent(c->tls, out.len);
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
}

/* Ends with a reset, which leaves no port behind. */
static void end(struct connection *c)
{
    struct linger reset = {1, 0};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(c->fd);
    tls_free(c->tls);
}

static void count(const struct connection *c, bool keep)
{
    struct tls_facts facts;
    tls_facts(c->tls, &facts);
    if (facts.resumed)
        resumed++;
    else
        full++;
    if (keep && !session)
        session = SSL_get1_session(tls_native(c->tls));
    SSL_set_shutdown(tls_native(c->tls), SSL_SENT_SHUTDOWN); /* or the session is given up */
}

/* Whether the connection is over: the greeting has come, or it failed. */
static bool advance(struct connection *c, bool keep)
{
    char sealed[READ_SIZE], plain[READ_SIZE];
    ssize_t n = recv(c->fd, sealed, sizeof sealed, 0);
    if (n < 0 && errno == EAGAIN)
        return false;
    struct slice in = slice_make(sealed, n > 0 ? (size_t)n : 0);
    size_t got = 0;
    enum tls_status status = n > 0 ? tls_handshake(c->tls, &in) : TLS_BROKEN;
    struct slice out = tls_output(c->tls);
    if (out.len && send(c->fd, out.ptr, out.len, MSG_NOSIGNAL) == (ssize_t)out.len)
        tls_sent(c->tls, out.len);
    if (status == TLS_OK)
        status = tls_decrypt(c->tls, &in, plain, sizeof plain, &got);
    if (got >= 3 && memcmp(plain, "220", 3) == 0) {
        count(c, keep);
        return true;
    }
    if (status != TLS_BROKEN && status != TLS_CLOSED)
        return false;
    failed++;
    return true;
}

int main(int argc, char **argv)
{
    struct err e = {0, ""};
    struct epoll_event events[64];
    if (argc < 4) {
        fprintf(stderr, "usage: tls-load PORT CONNECTIONS SECONDS [full|resumed]\n");
        return 1;
    }
    bool resume = argc > 4 && strcmp(argv[4], "resumed") == 0;
    int many = atoi(argv[2]), epoll = epoll_create1(EPOLL_CLOEXEC);
    if (many < 1 || many > CONNECTIONS_MAX)
        return 1;
    struct connection *all = xcalloc((size_t)many, sizeof *all);
    server.sin_port = htons((uint16_t)atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    context = tls_context_new(&(struct tls_settings){.security_level = 1}, &e);
    if (!context)
        panic("%s", e.text);
    for (int i = 0; i < many; i++)
        begin(&all[i], epoll);
    int64_t start = clock_mono(), stop = start + atoi(argv[3]) * CLOCK_SECOND;
    while (clock_mono() < stop) {
        int n = epoll_wait(epoll, events, 64, 100);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (!advance(c, resume))
                continue;
            end(c);
            begin(c, epoll);
        }
    }
    double seconds = (double)(clock_mono() - start) / CLOCK_SECOND;
    printf("%.0f handshakes/s (%lu full, %lu resumed, %lu failed)\n",
           (double)(full + resumed) / seconds, full, resumed, failed);
    return failed ? 1 : 0;
}
