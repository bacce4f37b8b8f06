/*
 * A channel to another of our processes: frames over AF_UNIX SOCK_SEQPACKET.
 *
 * What is sent in one turn of the event loop leaves in as few system calls as
 * fit (channel_flush_all, called by the service skeleton after each turn):
 * several frames share a packet. A frame with a descriptor has a packet of its
 * own. A malformed or undeclared frame, or a descriptor where none is declared,
 * closes this channel and nothing else (B89, B90).
 */
#ifndef POSTERN_IPC_CHANNEL_H
#define POSTERN_IPC_CHANNEL_H

#include <event2/event.h>

#include "core/err.h"
#include "ipc/ipc.h"

struct channel;

struct channel_ops {
    /* One frame. `fd` is the descriptor that came with it, or -1; the callee
     * owns it from here on. Returns 0, or -1 with *e set to close the channel.
     * The frame's bytes are valid until the callback returns. */
    int (*frame)(struct channel *c, const struct ipc_frame *f, int fd, void *arg, struct err *e);
    /* The peer is gone, or the channel was closed for an error (`why`). Called
     * once; the channel is freed after it returns. Not called by channel_free. */
    void (*closed)(struct channel *c, const char *why, void *arg);
};

/* Takes over fd, a SOCK_SEQPACKET socket. `name` (copied) is for the log. */
struct channel *channel_new(struct event_base *base, int fd, const char *name,
                            const struct channel_ops *ops, void *arg);
/* Closes at once; what has not been flushed is lost. Safe inside callbacks. */
void channel_free(struct channel *c);
/* Where to encode frames: ipc_x_encode(channel_out(c), &m). They are sent at the
 * end of the turn. Encode whole frames only. Never NULL, also when the channel
 * is closing (then the frames go nowhere). */
struct buf *channel_out(struct channel *c);
/* Says that the frame encoded last has a secret in it: once it is sent, its bytes
 * here are overwritten. */
void channel_secret(struct channel *c);
/* Says that the frame encoded last goes with `fd`, which is duplicated. If there
 * are no descriptors left the channel is closed at the end of the turn, for what
 * hangs on the frame must not wait for ever. */
void channel_attach(struct channel *c, int fd);
/* Bytes that the peer has not taken yet. */
size_t channel_pending(const struct channel *c);
const char *channel_name(const struct channel *c);
/* Sends what can be sent now, on all channels; never blocks. Within a turn a
 * service may call it early for latency; the `closed` of a channel that fails
 * then comes at once, or after its `frame` callback if we are inside it. */
void channel_flush_all(void);

/* A connected pair with room for large frames; 0 or -1. Both ends are
 * close-on-exec and non-blocking. */
int channel_pair(int fds[2], struct err *e);

/* For code without a loop yet, tests and master's children: one frame, with fd
 * or -1, blocking. 0 or -1. */
int channel_send_now(int socket, struct slice frame, int fd);

#endif
