#include "smtpd/wire.h"

#include <errno.h>

#include "core/log.h"
#include "core/mem.h"
#include "smtpd/limits.h"

/* ---- sending --------------------------------------------------------------------------- */

static enum wire_status send_bytes(const struct session *s, struct slice bytes, size_t *sent)
{
    *sent = 0;
    while (*sent < bytes.len) {
        ssize_t n = send(s->fd, bytes.ptr + *sent, bytes.len - *sent, MSG_NOSIGNAL);
        if (n >= 0)
            *sent += (size_t)n;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return WIRE_LATER;
        else if (errno != EINTR)
            return WIRE_LOST;
    }
    return WIRE_DONE;
}

static enum wire_status send_clear(struct session *s)
{
    size_t sent;
    enum wire_status status = send_bytes(s, buf_slice(&s->out), &sent);
    if (status == WIRE_DONE)
        buf_free(&s->out);
    else
        buf_consume(&s->out, sent);
    return status;
}

static enum wire_status send_sealed(struct session *s)
{
    size_t sent;
    enum wire_status status = send_bytes(s, tls_output(s->tls), &sent);
    tls_sent(s->tls, sent);
    return status;
}

enum wire_status wire_flush(struct session *s)
{
    enum wire_status status;
    if (!secure_is_on(s)) {
        status = send_clear(s);
        return status == WIRE_DONE && s->tls ? send_sealed(s) : status;
    }
    do {
        struct slice plain = buf_slice(&s->out);
        size_t before = plain.len;
        if (tls_encrypt(s->tls, &plain) != TLS_OK)
            return WIRE_LOST;
        buf_consume(&s->out, before - plain.len);
        status = send_sealed(s);
    } while (status == WIRE_DONE && s->out.len);
    if (s->out.len == 0)
        buf_free(&s->out);
    return status;
}

/* ---- reading ----------------------------------------------------------------------------- */

static ssize_t receive(const struct session *s, char *at, size_t size)
{
    ssize_t n = recv(s->fd, at, size, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return n > 0 ? n : -1;
}

static char *sealed_input(const struct session *s)
{
    struct secure *sec = &s->server->secure;
    if (!sec->input)
        sec->input = xmalloc(INPUT_SLICE);
    return sec->input;
}

ssize_t wire_decrypt(struct session *s, struct slice in, char *at)
{
    size_t got;
    enum tls_status status = tls_decrypt(s->tls, &in, at, INPUT_SLICE, &got);
    if (status == TLS_BROKEN)
        log_info("TLS error from %s: %s", s->peer, tls_error(s->tls));
    if (got == 0 && (status == TLS_BROKEN || status == TLS_CLOSED))
        return -1;
    return (ssize_t)got;
}

ssize_t wire_read(struct session *s, char *at, size_t size)
{
    if (!s->tls)
        return receive(s, at, size);
    /* with the part of a record that OpenSSL has already it must fit */
    if (size > INPUT_SLICE - TLS_RECORD_MAX)
        size = INPUT_SLICE - TLS_RECORD_MAX;
    char *sealed = sealed_input(s);
    ssize_t n = receive(s, sealed, size);
    return n > 0 ? wire_decrypt(s, slice_make(sealed, (size_t)n), at) : n;
}

ssize_t wire_read_handshake(struct session *s, struct slice *out)
{
    char *sealed = sealed_input(s);
    size_t kept = s->in.len;
    if (kept > INPUT_SLICE)
        panic("%zu bytes kept in a handshake", kept);
    if (kept) {
        memcpy(sealed, s->in.data, kept);
        *out = slice_make(sealed, kept);
        return (ssize_t)kept;
    }
    ssize_t n = receive(s, sealed, INPUT_READ);
    *out = slice_make(sealed, n > 0 ? (size_t)n : 0);
    return n;
}
