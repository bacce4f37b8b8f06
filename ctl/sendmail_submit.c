/* SMTP with smtpd over public/submit. All recipients are taken or none: what the
 * exit status says holds for the whole message. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/mem.h"
#include "ctl/sendmail.h"

enum {
    AT_ONCE = 50, /* RCPT commands before their replies are read */
    PIECE = 64 * 1024
};

struct dialogue {
    struct sendmail *s;
    int fd;
    struct buf in;    /* what has come */
    struct buf reply; /* the last reply's lines, without CRLF between */
    int code;
};

/* Open, or -1 after telling what is wrong. */
static int open_submit(const struct config *c, int *status)
{
    int fd = client_connect(c, "submit");
    if (fd >= 0)
        return fd;
    if (fd == -ENOENT || fd == -ECONNREFUSED)
        *status = compat_fatal(EX_TEMPFAIL,
                               "Postern is not running, or master.cf has no line 'submit unix n - "
                               "y - 1 smtpd'; the message was not sent, try again later");
    else
        *status = compat_fatal(EX_TEMPFAIL,
                               "%s/public/submit: cannot connect: %s; the message was "
                               "not sent, try again later",
                               c->queue_directory, strerror(-fd));
    return -1;
}

/* ---- bytes ------------------------------------------------------------------------ */

static int lost(void)
{
    return compat_fatal(EX_TEMPFAIL, "Postern ended the connection or did not answer in time; "
                                     "whether it has the message is not known, its log tells");
}

static int put(struct dialogue *d, struct slice bytes)
{
    while (bytes.len) {
        ssize_t n = send(d->fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return -1;
        bytes = slice_from(bytes, n > 0 ? (size_t)n : 0);
    }
    return 0;
}

static int get_line(struct dialogue *d, struct slice *line)
{
    size_t end;
    while ((end = slice_chr(buf_slice(&d->in), '\n')) == d->in.len) {
        if (buf_reserve(&d->in, 4096) < 0)
            return -1;
        ssize_t n = recv(d->fd, d->in.data + d->in.len, 4096, 0);
        if (n == 0 || (n < 0 && errno != EINTR))
            return -1;
        d->in.len += n > 0 ? (size_t)n : 0;
    }
    *line = slice_first(buf_slice(&d->in), end);
    return 0;
}

/* The next reply into d->code and d->reply. */
static int get_reply(struct dialogue *d)
{
    struct slice line;
    uint64_t code;
    bool more = true;
    buf_clear(&d->reply);
    while (more) {
        if (get_line(d, &line) < 0 || line.len < 3 || slice_u64(slice_first(line, 3), &code) < 0)
            return -1;
        more = line.len > 3 && line.ptr[3] == '-';
        d->code = (int)code;
        if (d->s->verbose)
            fprintf(stderr, "%.*s\n", SLICE_ARG(slice_trim(line)));
        if (d->reply.len)
            buf_addc(&d->reply, ' ');
        buf_add_escaped(&d->reply, slice_trim(line), SENDMAIL_REPLY_MAX / 8);
        buf_consume(&d->in, slice_chr(buf_slice(&d->in), '\n') + 1);
    }
    return 0;
}

/* ---- commands --------------------------------------------------------------------- */

/* What a refusal means for the caller; `permanent` is the status for 5xx. */
static int refused(const struct dialogue *d, const char *what, int permanent)
{
    int status = d->code >= 500 ? permanent : EX_TEMPFAIL;
    return compat_fatal(status, "%s: %.*s; the message was not sent%s", what,
                        SLICE_ARG(buf_slice(&d->reply)),
                        status == EX_TEMPFAIL ? ", try again later" : "");
}

/* Sends one command and wants a reply of that class. */
static int command(struct dialogue *d, const char *text, int class, int permanent)
{
    struct buf line = BUF_INIT(8192);
    int rc = buf_printf(&line, "%s\r\n", text);
    if (rc == 0)
        rc = put(d, buf_slice(&line));
    buf_free(&line);
    if (rc < 0 || get_reply(d) < 0)
        return lost();
    return d->code / 100 == class ? EX_OK : refused(d, text, permanent);
}

/* RFC 3461 section 4: what + and = would be mistaken for. */
static void add_xtext(struct buf *out, const char *text)
{
    for (; *text; text++)
        if (*text == '+' || *text == '=' || *text <= ' ' || *text > '~')
            buf_printf(out, "+%02X", (unsigned char)*text);
        else
            buf_addc(out, *text);
}

static int send_sender(struct dialogue *d)
{
    const struct sendmail *s = d->s;
    struct buf text = BUF_INIT(4096);
    bool eight = s->body ? strcmp(s->body, "8BITMIME") == 0 : has_8bit(buf_slice(&s->message));
    buf_printf(&text, "MAIL FROM:<%s>", s->sender.text);
    if (eight)
        buf_addstr(&text, " BODY=8BITMIME");
    if (s->utf8)
        buf_addstr(&text, " SMTPUTF8");
    if (s->ret)
        buf_printf(&text, " RET=%s", s->ret);
    if (s->envid) {
        buf_addstr(&text, " ENVID=");
        add_xtext(&text, s->envid);
    }
    buf_addc(&text, '\0');
    int status = command(d, text.data, 2, EX_UNAVAILABLE);
    buf_free(&text);
    return status;
}

static int send_recipient(struct dialogue *d, const char *recipient)
{
    struct buf text = BUF_INIT(4096);
    buf_printf(&text, "RCPT TO:<%s>", recipient);
    if (d->s->notify)
        buf_printf(&text, " NOTIFY=%s", d->s->notify);
    buf_addstr(&text, "\r\n");
    int rc = put(d, buf_slice(&text));
    buf_free(&text);
    return rc;
}

/* The recipients from `from` up to `to`: some commands at a time, then their
 * replies. With -bv all are tried. */
static int send_recipients(struct dialogue *d, size_t from, size_t to)
{
    char **all = d->s->recipients;
    int status = EX_OK;
    for (size_t end; from < to; from = end) {
        end = to - from > AT_ONCE ? from + AT_ONCE : to;
        for (size_t i = from; i < end; i++)
            if (send_recipient(d, all[i]) < 0)
                return lost();
        for (size_t i = from; i < end; i++) {
            if (get_reply(d) < 0)
                return lost();
            if (d->s->verify)
                printf("%s: %.*s\n", all[i], SLICE_ARG(buf_slice(&d->reply)));
            if (d->code / 100 != 2 && !d->s->verify && status == EX_OK)
                status = refused(d, all[i], EX_NOUSER);
            else if (d->code / 100 != 2 && status == EX_OK)
                status = d->code >= 500 ? EX_NOUSER : EX_TEMPFAIL;
        }
        if (status != EX_OK && !d->s->verify)
            return status;
    }
    return status;
}

static int send_content(struct dialogue *d)
{
    struct slice rest = buf_slice(&d->s->message);
    struct buf out = BUF_INIT(2 * PIECE + 16);
    int status = command(d, "DATA", 3, EX_UNAVAILABLE), rc = 0;
    if (status != EX_OK)
        return status;
    while (rc == 0 && rest.len) {
        size_t end = slice_chr(rest, '\n');
        struct slice line = slice_first(rest, end + 1);
        if (*line.ptr == '.')
            buf_addc(&out, '.');
        for (struct slice left = line; rc == 0 && left.len; left = slice_from(left, PIECE)) {
            buf_adds(&out, slice_first(left, PIECE));
            if (out.len >= PIECE) {
                rc = put(d, buf_slice(&out));
                buf_clear(&out);
            }
        }
        rest = slice_from(rest, line.len);
    }
    buf_addstr(&out, ".\r\n");
    if (rc == 0)
        rc = put(d, buf_slice(&out));
    buf_free(&out);
    if (rc < 0 || get_reply(d) < 0)
        return lost();
    return d->code / 100 == 2 ? EX_OK : refused(d, "end of the message", EX_UNAVAILABLE);
}

/* One transaction for as many recipients as smtpd takes at a time. */
static int transaction(struct dialogue *d, size_t from, size_t to)
{
    int status = send_sender(d);
    if (status == EX_OK)
        status = send_recipients(d, from, to);
    if (status == EX_OK && !d->s->verify)
        status = send_content(d);
    return status;
}

static int dialogue(struct dialogue *d)
{
    const struct config *c = d->s->ctl->config;
    size_t limit = (size_t)c->smtpd_recipient_limit;
    int status = EX_OK;
    if (get_reply(d) < 0)
        return lost();
    if (d->code != 220)
        return refused(d, "greeting", EX_UNAVAILABLE);
    status = command(d, "EHLO localhost", 2, EX_UNAVAILABLE);
    for (size_t i = 0; status == EX_OK && i < d->s->count; i += limit)
        status = transaction(d, i, d->s->count - i > limit ? i + limit : d->s->count);
    put(d, SLICE("QUIT\r\n"));
    return status;
}

int sendmail_submit(struct sendmail *s)
{
    const struct timeval patience = {SENDMAIL_REPLY_SECONDS, 0};
    struct dialogue d = {.s = s};
    int status = EX_TEMPFAIL;
    d.fd = open_submit(s->ctl->config, &status);
    if (d.fd < 0)
        return status;
    setsockopt(d.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(d.fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    buf_init(&d.in, SENDMAIL_REPLY_MAX);
    buf_init(&d.reply, SENDMAIL_REPLY_MAX);
    status = dialogue(&d);
    buf_free(&d.in);
    buf_free(&d.reply);
    close(d.fd);
    return status;
}

/* ---- -bs -------------------------------------------------------------------------- */

/* Moves what there is; 0 at the end, -1 on an error. */
static int pass(int from, int to)
{
    char bytes[16 * 1024];
    ssize_t n = read(from, bytes, sizeof bytes);
    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? 1 : -1;
    for (ssize_t at = 0; at < n;) {
        ssize_t written = write(to, bytes + at, (size_t)(n - at));
        if (written < 0 && errno != EINTR)
            return -1;
        at += written > 0 ? written : 0;
    }
    return n > 0;
}

int sendmail_session(struct ctl *ctl)
{
    int status = EX_TEMPFAIL;
    int fd = open_submit(ctl->config, &status);
    if (fd < 0)
        return status;
    struct pollfd p[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    int rc = 1;
    while (rc > 0) {
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            break;
        if (p[0].fd >= 0 && (p[0].revents & (POLLIN | POLLHUP | POLLERR)) &&
            pass(STDIN_FILENO, fd) <= 0) {
            shutdown(fd, SHUT_WR);
            p[0].fd = -1;
        }
        if (p[1].revents & (POLLIN | POLLHUP | POLLERR))
            rc = pass(fd, STDOUT_FILENO);
    }
    close(fd);
    return rc == 0 ? EX_OK : EX_TEMPFAIL;
}
