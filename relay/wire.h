/*
 * A connection's bytes: what is written goes out at once, what the kernel does
 * not take waits here. The one place that touches the socket; once wire_start_tls
 * was called all bytes go through TLS.
 */
#ifndef POSTERN_RELAY_WIRE_H
#define POSTERN_RELAY_WIRE_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "core/buf.h"
#include "io/tls.h"

enum {
    WIRE_READ_SIZE = 64 * 1024,     /* the read buffer that all connections share */
    WIRE_OUT_MAX = 2 * 1024 * 1024, /* commands that wait: one transaction's at most */
};

struct wire {
    int fd;       /* -1: closed */
    bool blocked; /* the writable event is waiting */
    bool ended;   /* TLS: the other side has said that nothing more comes */
    struct event readable, writable;
    struct buf out;  /* plaintext; what TLS has encrypted waits in there */
    struct tls *tls; /* NULL: clear text */
};

/* What a call on the socket came to. */
enum wire_status {
    WIRE_OK,
    WIRE_AGAIN, /* the rest waits for the socket */
    WIRE_LOST,  /* errno says why; 0: the other side closed */
    WIRE_BROKEN /* TLS failed, wire_trouble says why; of wire_handshake only: elsewhere it is
                 * WIRE_LOST with EPROTO */
};

/* Takes over a non-blocking socket. `on_readable` may be called from now on;
 * on_writable after wire_wait, once. */
void wire_open(struct wire *w, struct event_base *base, int fd, event_callback_fn on_readable,
               event_callback_fn on_writable, void *arg);
void wire_close(struct wire *w);
/* Where to append commands; wire_flush sends them. Never NULL. */
struct buf *wire_out(struct wire *w);
enum wire_status wire_flush(struct wire *w);
/* Writes what it can; *written may be less than all with WIRE_AGAIN. */
enum wire_status wire_writev(struct wire *w, const struct iovec *iov, int count, bool more,
                             size_t *written);
/* Sends `len` bytes of a file from offset `at`. *written 0 with WIRE_OK: the
 * file is shorter. A read error of the file sets *file_error to its errno. */
enum wire_status wire_sendfile(struct wire *w, int file, uint64_t at, size_t len, size_t *written,
                               int *file_error);
/* Calls on_writable when the socket takes bytes again; it clears w->blocked. */
void wire_wait(struct wire *w);
/* Reads into the shared buffer: *got is valid until the next call. It may be empty. */
enum wire_status wire_read(struct wire *w, struct slice *got);

/* Takes over a client's connection that is to begin its handshake. */
void wire_start_tls(struct wire *w, struct tls *tls);
/* Goes on with the handshake; call it at the start and when the socket is readable
 * or writable. WIRE_AGAIN: not done yet. */
enum wire_status wire_handshake(struct wire *w);
/* Why TLS failed, in words without peer text. */
const char *wire_trouble(const struct wire *w);

#endif
