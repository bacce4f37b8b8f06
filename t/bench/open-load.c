/*
 * open-load: messages at a fixed rate through a relay, whether or not it keeps up
 * (open loop), and the time that each takes from the moment it was due to the last
 * byte of its content at the server that receives it.
 *
 *   open-load HOST:PORT SINK-PORT RATE COUNT WARM CONNECTIONS SIZE TIMEOUT
 *
 * Client and server are this one process, so that both ends use one clock. The
 * first WARM messages are not measured. Prints one JSON object.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFER = 256 * 1024, /* a message at the sink must fit */
    EVENTS = 256,
    SINK_BACKLOG = 1024,
    SECOND = 1000000 /* microseconds */
};

enum role { CLIENT, LISTENER, SERVER, TIMER };
enum state { GREETING, HELLO, IDLE, ENVELOPE, CONTENT, COMMANDS, DATA };

struct end {
    enum role role;
    enum state state;
    int fd;
    unsigned replies; /* CLIENT: still to come before the next step */
    long message;     /* CLIENT: that it sends */
    struct end *next_idle;
    size_t used;
    char buffer[BUFFER];
};

static struct {
    int epoll, timer;
    struct sockaddr_in relay;
    double rate;
    long count, warm, started, accepted, delivered, failed;
    int64_t begin;
    int64_t *out, *in; /* by message: when it was at the sink, when it was acknowledged */
    int64_t *late;     /* by message: how much after its time it was begun */
    struct end *idle;
    char *content;
    size_t content_len, number_at;
} w;

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "open-load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * SECOND + t.tv_nsec / 1000;
}

static int64_t due(long message)
{
    return w.begin + (int64_t)((double)message * SECOND / w.rate);
}

/* ---- sockets ------------------------------------------------------------------- */

static struct end *add_end(int fd, enum role role, enum state state)
{
    struct end *e = malloc(sizeof *e);
    int on = 1;
    if (!e)
        die("memory");
    e->role = role;
    e->state = state;
    e->fd = fd;
    e->used = 0;
    e->replies = 1;
    e->message = -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = e}};
    if (epoll_ctl(w.epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
    return e;
}

/* What is sent fits into the socket's buffer; waiting for it to empty would
 * change what is measured. */
static void put(const struct end *e, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(e->fd, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            die("send");
        data += n;
        len -= (size_t)n;
    }
}

static void open_client(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&w.relay, sizeof w.relay) < 0)
        die("connect to the relay");
    add_end(fd, CLIENT, GREETING);
}

/* ---- the client ------------------------------------------------------------------ */

static void begin_message(struct end *e, long message)
{
    static const char envelope[] = "MAIL FROM:<sender@src.bench.test>\r\n"
                                   "RCPT TO:<rcpt@dst.bench.test>\r\nDATA\r\n";
    e->message = message;
    e->state = ENVELOPE;
    e->replies = 3;
    w.late[message] = now() - due(message);
    put(e, envelope, sizeof envelope - 1);
}

static void start_due(void)
{
    int64_t t = now();
    while (w.idle && w.started < w.count && due(w.started) <= t) {
        struct end *e = w.idle;
        w.idle = e->next_idle;
        begin_message(e, w.started++);
    }
}

static void arm_timer(void)
{
    if (w.started >= w.count)
        return;
    int64_t at = due(w.started);
    struct itimerspec when = {.it_value = {at / SECOND, at % SECOND * 1000}};
    timerfd_settime(w.timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void send_content(struct end *e)
{
    char number[16];
    snprintf(number, sizeof number, "%010ld", e->message);
    memcpy(w.content + w.number_at, number, 10);
    put(e, w.content, w.content_len);
    e->state = CONTENT;
    e->replies = 1;
}

/* All replies to what was sent last have come; `code` is that of the last. */
static void step(struct end *e, int code)
{
    static const char hello[] = "EHLO client.bench.test\r\n";
    switch (e->state) {
    case GREETING:
        put(e, hello, sizeof hello - 1);
        e->state = HELLO;
        e->replies = 1;
        return;
    case ENVELOPE:
        if (code == 354) {
            send_content(e);
            return;
        }
        w.failed++;
        break;
    case CONTENT:
        if (code == 250) {
            w.in[e->message] = now();
            w.accepted++;
        } else {
            w.failed++;
        }
        break;
    default:
        break;
    }
    e->state = IDLE;
    e->next_idle = w.idle;
    w.idle = e;
}

static void take_replies(struct end *e)
{
    size_t at = 0;
    for (;;) {
        char *line = e->buffer + at, *end = memchr(line, '\n', e->used - at);
        if (!end)
            break;
        at = (size_t)(end + 1 - e->buffer);
        if (end - line < 4 || line[3] == '-')
            continue;
        int code = atoi(line);
        bool refused = code >= 400 && e->state == ENVELOPE;
        if (refused)
            fprintf(stderr, "open-load: %.*s\n", (int)(end - line), line);
        if (e->replies > 0 && --e->replies == 0)
            step(e, code);
    }
    memmove(e->buffer, e->buffer + at, e->used - at);
    e->used -= at;
}

/* ---- the server that receives ---------------------------------------------------- */

static void take_message(const char *data, size_t len)
{
    static const char field[] = "X-Bench: ";
    const char *at = memmem(data, len, field, sizeof field - 1);
    long message = at ? strtol(at + sizeof field - 1, NULL, 10) : -1;
    if (message < 0 || message >= w.count || w.out[message])
        return; /* of another run, or a duplicate */
    w.out[message] = now();
    w.delivered++;
}

static const char *reply_to(const char *line, enum state *state)
{
    if (strncasecmp(line, "EHLO", 4) == 0)
        return "250-sink\r\n250-PIPELINING\r\n250-SIZE\r\n250 8BITMIME\r\n";
    if (strncasecmp(line, "DATA", 4) == 0) {
        *state = DATA;
        return "354 go on\r\n";
    }
    return strncasecmp(line, "QUIT", 4) == 0 ? "221 bye\r\n" : "250 ok\r\n";
}

static void serve(struct end *e)
{
    static const char end_of_data[] = "\r\n.\r\n";
    char out[8192];
    size_t at = 0, len = 0;
    for (;;) {
        char *from = e->buffer + at;
        size_t left = e->used - at;
        const char *end =
            e->state == DATA ? memmem(from, left, end_of_data, 5) : memchr(from, '\n', left);
        if (!end || len + 256 > sizeof out)
            break;
        const char *reply = "250 2.0.0 ok\r\n";
        if (e->state == DATA) {
            take_message(from, (size_t)(end - from));
            e->state = COMMANDS;
            at = (size_t)(end + 5 - e->buffer);
        } else {
            reply = reply_to(from, &e->state);
            at = (size_t)(end + 1 - e->buffer);
        }
        memcpy(out + len, reply, strlen(reply));
        len += strlen(reply);
    }
    if (len)
        put(e, out, len);
    memmove(e->buffer, e->buffer + at, e->used - at);
    e->used -= at;
}

/* ---- the loop --------------------------------------------------------------------- */

static void on_readable(struct end *e)
{
    ssize_t n = recv(e->fd, e->buffer + e->used, sizeof e->buffer - e->used - 1, 0);
    if (n < 0 && errno == EINTR)
        return;
    if (n <= 0 && e->role == CLIENT) {
        if (e->state == ENVELOPE || e->state == CONTENT)
            w.failed++;
        errno = n < 0 ? errno : ECONNRESET;
        die("the relay closed a connection");
    }
    if (n <= 0) {
        close(e->fd);
        free(e);
        return;
    }
    e->used += (size_t)n;
    e->buffer[e->used] = '\0';
    if (e->role == CLIENT)
        take_replies(e);
    else
        serve(e);
    if (e->used + 1 == sizeof e->buffer)
        die("too much at a time");
}

static void handle(struct end *e)
{
    uint64_t ticks;
    if (e->role == TIMER) {
        if (read(e->fd, &ticks, sizeof ticks) < 0 && errno != EAGAIN)
            die("timer");
    } else if (e->role == LISTENER) {
        int fd = accept(e->fd, NULL, NULL);
        if (fd >= 0)
            put(add_end(fd, SERVER, COMMANDS), "220 sink ESMTP\r\n", 16);
    } else {
        on_readable(e);
    }
}

static void turn(int milliseconds)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(w.epoll, events, EVENTS, milliseconds);
    for (int i = 0; i < n; i++)
        handle(events[i].data.ptr);
}

/* ---- set-up and result ------------------------------------------------------------- */

static void make_content(size_t size)
{
    static const char head[] = "Subject: open loop\r\nX-Bench: 0000000000\r\n\r\n";
    w.content = malloc(size + sizeof head + 128);
    if (!w.content)
        die("memory");
    memcpy(w.content, head, sizeof head - 1);
    w.content_len = sizeof head - 1;
    w.number_at = (size_t)(strstr(head, "0000000000") - head);
    while (w.content_len < size) {
        memset(w.content + w.content_len, 'x', 70);
        memcpy(w.content + w.content_len + 70, "\r\n", 2);
        w.content_len += 72;
    }
    memcpy(w.content + w.content_len, ".\r\n", 3);
    w.content_len += 3;
}

static void listen_on(unsigned port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, SINK_BACKLOG) < 0)
        die("the sink's port");
    add_end(fd, LISTENER, COMMANDS);
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Percentiles of `times` from the moment that each was due, in milliseconds. */
static void print_times(const char *name, const int64_t *times, bool absolute)
{
    static const struct {
        const char *label;
        double part;
    } parts[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1}};
    int64_t *sorted = calloc((size_t)w.count, sizeof *sorted);
    size_t n = 0;
    for (long i = w.warm; i < w.count; i++)
        if (!absolute || times[i])
            sorted[n++] = absolute ? times[i] - due(i) : times[i];
    qsort(sorted, n, sizeof *sorted, by_value);
    for (size_t i = 0; n && i < sizeof parts / sizeof *parts; i++)
        printf(", \"%s%s_ms\": %.3f", name, parts[i].label,
               (double)sorted[(size_t)((double)(n - 1) * parts[i].part)] / 1000);
    free(sorted);
}

static void print_result(int64_t ended)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    double cpu = (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
                 (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / SECOND;
    printf("{\"rate\": %.0f, \"count\": %ld, \"delivered\": %ld, \"refused\": %ld", w.rate, w.count,
           w.delivered, w.failed);
    printf(", \"took_s\": %.2f, \"load_cpu_s\": %.2f", (double)(ended - w.begin) / SECOND, cpu);
    print_times("", w.out, true);
    print_times("accept_", w.in, true);
    print_times("late_", w.late, false);
    printf("}\n");
}

int main(int argc, char **argv)
{
    char *colon = argc == 9 ? strrchr(argv[1], ':') : NULL;
    if (!colon) {
        fprintf(stderr, "usage: open-load HOST:PORT SINK-PORT RATE COUNT WARM CONNECTIONS SIZE "
                        "TIMEOUT\n");
        return 2;
    }
    *colon = '\0';
    w.relay =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    inet_pton(AF_INET, argv[1], &w.relay.sin_addr);
    w.rate = atof(argv[3]);
    w.count = atol(argv[4]);
    w.warm = atol(argv[5]);
    long connections = atol(argv[6]);
    int64_t limit = (int64_t)(atof(argv[8]) * SECOND);
    w.out = calloc((size_t)w.count, sizeof *w.out);
    w.in = calloc((size_t)w.count, sizeof *w.in);
    w.late = calloc((size_t)w.count, sizeof *w.late);
    w.epoll = epoll_create1(0);
    w.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (w.rate <= 0 || w.count <= w.warm || !w.out || !w.in || !w.late || w.epoll < 0)
        die("arguments or memory");
    make_content((size_t)atol(argv[7]));
    listen_on((unsigned)atoi(argv[2]));
    add_end(w.timer, TIMER, COMMANDS);
    for (long i = 0; i < connections; i++)
        open_client();
    long ready = 0;
    for (int64_t give_up = now() + 30 * SECOND; ready < connections && now() < give_up;) {
        turn(100);
        ready = 0;
        for (const struct end *e = w.idle; e; e = e->next_idle)
            ready++;
    }
    if (ready < connections)
        die("the relay greets too few connections");
    w.begin = now() + SECOND / 10;
    while (w.delivered + w.failed < w.count && now() < w.begin + limit) {
        arm_timer();
        turn(100);
        start_due();
    }
    print_result(now());
    return w.delivered == w.count ? 0 : 1;
}
