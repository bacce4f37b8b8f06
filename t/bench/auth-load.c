/*
 * Clients that log in for each message: a connection with TLS from the first byte, AUTH
 * PLAIN, one message, QUIT, again and again.
 *
 *   auth-load -u USER:PASSWORD [-s SESSIONS] [-m MESSAGES] [-l SIZE] [-f SENDER]
 *             [-t RECIPIENT] [-F] ADDRESS:PORT
 *
 * SESSIONS are under way at a time. TLS sessions are resumed, unless -F. Prints one
 * line of JSON; fails if a message was not taken.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/mem.h"
#include "io/tls.h"

enum { READ_SIZE = 16 * 1024, SESSIONS_MAX = 1000, LINE_MAX_BYTES = 2048, EVENTS = 64 };

/* What comes is looked at line by line; each reply leads to the next step. */
enum step { GREETING, EHLO, AUTH, MAIL, RCPT, DATA, TAKEN, QUIT, STEPS };
static const int wanted[STEPS] = {220, 250, 235, 250, 250, 354, 250, 221};
static struct buf say[STEPS]; /* what is sent when that reply has come */

struct session {
    int fd;
    struct tls *tls;
    enum step step;
    char line[LINE_MAX_BYTES];
    size_t line_len;
};

static struct tls_context *context;
static SSL_SESSION *resumable; /* or NULL */
static struct sockaddr_in server = {.sin_family = AF_INET};
static unsigned long begun, taken, full, resumed, failed, messages = 1000;
static bool resume = true;

static void send_out(struct session *s)
{
    struct slice out = tls_output(s->tls);
    if (out.len == 0)
        return;
    ssize_t n = send(s->fd, out.ptr, out.len, MSG_NOSIGNAL);
    if (n > 0) /* what does not fit goes with the next: a message is small */
        tls_sent(s->tls, (size_t)n);
}

static void begin(struct session *s, int epoll)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
    struct slice nothing = SLICE("");
    int on = 1;
    begun++;
    s->step = GREETING;
    s->line_len = 0;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0 || connect(s->fd, (struct sockaddr *)&server, sizeof server) < 0)
        panic("cannot connect: %s", strerror(errno));
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(s->fd, F_SETFL, O_NONBLOCK);
    s->tls = tls_new(context, SLICE(""));
    if (resumable)
        SSL_set_session(tls_native(s->tls), resumable);
    tls_handshake(s->tls, &nothing);
    send_out(s);
    epoll_ctl(epoll, EPOLL_CTL_ADD, s->fd, &event);
}

static void count_handshake(struct session *s)
{
    struct tls_facts facts;
    tls_facts(s->tls, &facts);
    if (facts.resumed)
        resumed++;
    else
        full++;
}

/* With a reset, which leaves no port behind. */
static void end(struct session *s)
{
    struct linger reset = {1, 0};
    if (resume && !resumable && s->step > GREETING)
        resumable = SSL_get1_session(tls_native(s->tls));
    SSL_set_shutdown(tls_native(s->tls), SSL_SENT_SHUTDOWN); /* or the session is given up */
    setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(s->fd);
    tls_free(s->tls);
    s->tls = NULL;
}

/* A whole line; true if the session is over. */
static bool take_line(struct session *s)
{
    s->line[s->line_len] = '\0';
    if (s->line_len > 3 && s->line[3] == '-')
        return false;
    if (atoi(s->line) != wanted[s->step]) {
        if (failed++ == 0)
            fprintf(stderr, "auth-load: step %d: %s\n", (int)s->step, s->line);
        return true;
    }
    if (s->step == GREETING)
        count_handshake(s);
    if (s->step == TAKEN)
        taken++;
    struct slice text = buf_slice(&say[s->step]);
    if (text.len && tls_encrypt(s->tls, &text) != TLS_OK)
        return true;
    send_out(s);
    return s->step++ == QUIT;
}

static bool take_text(struct session *s, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] != '\n') {
            if (s->line_len < sizeof s->line - 1)
                s->line[s->line_len++] = text[i];
            continue;
        }
        if (take_line(s))
            return true;
        s->line_len = 0;
    }
    return false;
}

/* Whether the session is over. */
static bool advance(struct session *s)
{
    char sealed[READ_SIZE], plain[READ_SIZE];
    ssize_t n = recv(s->fd, sealed, sizeof sealed, 0);
    if (n < 0 && errno == EAGAIN)
        return false;
    struct slice in = slice_make(sealed, n > 0 ? (size_t)n : 0);
    enum tls_status status = n > 0 ? TLS_OK : TLS_BROKEN;
    if (n > 0 && !tls_established(s->tls)) {
        status = tls_handshake(s->tls, &in);
        send_out(s);
    }
    while (status == TLS_OK && tls_established(s->tls)) {
        size_t got = 0;
        status = tls_decrypt(s->tls, &in, plain, sizeof plain, &got);
        if (got && take_text(s, plain, got))
            return true;
        if (got == 0)
            break;
    }
    if (status != TLS_BROKEN && status != TLS_CLOSED)
        return false;
    if (s->step < QUIT && failed++ == 0)
        fprintf(stderr, "auth-load: step %d: the connection was lost: %s\n", (int)s->step,
                tls_error(s->tls));
    return true;
}

static void prepare(const char *login, const char *sender, const char *recipient, size_t size)
{
    unsigned char plain[512], text[1024];
    const char *colon = strchr(login, ':');
    if (!colon || strlen(login) > sizeof plain - 2)
        panic("-u USER:PASSWORD");
    size_t user = (size_t)(colon - login), len = 0;
    plain[len++] = 0;
    memcpy(plain + len, login, user);
    len += user;
    plain[len++] = 0;
    memcpy(plain + len, colon + 1, strlen(colon + 1));
    len += strlen(colon + 1);
    EVP_EncodeBlock(text, plain, (int)len);
    for (int i = 0; i < STEPS; i++)
        buf_init(&say[i], size + LINE_MAX_BYTES);
    buf_addstr(&say[GREETING], "EHLO client.bench.test\r\n");
    (void)buf_printf(&say[EHLO], "AUTH PLAIN %s\r\n", (char *)text);
    (void)buf_printf(&say[AUTH], "MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nDATA\r\n", sender, recipient);
    (void)buf_printf(&say[DATA], "From: <%s>\r\nTo: <%s>\r\nSubject: load\r\n\r\n", sender,
                     recipient);
    while (say[DATA].len + 80 < size)
        buf_addstr(&say[DATA], "A line of the kind that mail has, as long as lines of mail are, "
                               "0123456789\r\n");
    buf_addstr(&say[DATA], ".\r\nQUIT\r\n");
}

static void run(struct session *all, size_t count)
{
    struct epoll_event events[EVENTS];
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    size_t open = 0;
    for (; open < count && begun < messages; open++)
        begin(&all[open], epoll);
    while (open) {
        int n = epoll_wait(epoll, events, EVENTS, 60000);
        if (n == 0)
            panic("nothing has come for a minute");
        for (int i = 0; i < n; i++) {
            struct session *s = events[i].data.ptr;
            if (!advance(s))
                continue;
            end(s);
            if (begun < messages && failed < 100)
                begin(s, epoll);
            else
                open--;
        }
    }
    close(epoll);
}

static void set_server(char *where)
{
    char *colon = strrchr(where, ':');
    if (!colon)
        panic("ADDRESS:PORT");
    *colon = '\0';
    server.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, where, &server.sin_addr) != 1)
        panic("%s is no address", where);
}

int main(int argc, char **argv)
{
    const char *login = "", *sender = "a@src.bench.test", *recipient = "b@dst.bench.test";
    size_t sessions = 20, size = 4096;
    struct err e = {0, ""};
    for (int c; (c = getopt(argc, argv, "u:s:m:l:f:t:F")) != -1;)
        switch (c) {
        case 'u':
            login = optarg;
            break;
        case 's':
            sessions = (size_t)atoi(optarg);
            break;
        case 'm':
            messages = (unsigned long)atol(optarg);
            break;
        case 'l':
            size = (size_t)atol(optarg);
            break;
        case 'f':
            sender = optarg;
            break;
        case 't':
            recipient = optarg;
            break;
        case 'F':
            resume = false;
            break;
        default:
            return 2;
        }
    if (optind != argc - 1 || sessions < 1 || sessions > SESSIONS_MAX)
        return 2;
    set_server(argv[optind]);
    prepare(login, sender, recipient, size);
    context = tls_context_new(&(struct tls_settings){.security_level = 1}, &e);
    if (!context)
        panic("%s", e.text);
    struct session *all = xcalloc(sessions, sizeof *all);
    int64_t start = clock_mono();
    run(all, sessions);
    double seconds = (double)(clock_mono() - start) / CLOCK_SECOND;
    printf("{\"taken\": %lu, \"full\": %lu, \"resumed\": %lu, \"failed\": %lu, \"taken_per_s\": "
           "%.1f}\n",
           taken, full, resumed, failed, (double)taken / seconds);
    return taken == messages ? 0 : 1;
}
