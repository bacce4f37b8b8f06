/* A session's bytes on the socket, encrypted or not. */
#ifndef POSTERN_SMTPD_WIRE_H
#define POSTERN_SMTPD_WIRE_H

#include "smtpd/session.h"

enum wire_status {
    WIRE_DONE,
    WIRE_LATER, /* the client does not take it all now */
    WIRE_LOST
};

/* Sends the replies, and what TLS itself has to say. */
enum wire_status wire_flush(struct session *s);
/* Reads up to `size` bytes to `at`, where INPUT_SLICE bytes are room. Returns their
 * number; 0: nothing has come that is for us; -1: the connection is over. */
ssize_t wire_read(struct session *s, char *at, size_t size);
/* Reads bytes of a handshake into the buffer for them; as wire_read. */
ssize_t wire_read_handshake(struct session *s, struct slice *out);
/* Decrypts; as wire_read. */
ssize_t wire_decrypt(struct session *s, struct slice in, char *at);

#endif
