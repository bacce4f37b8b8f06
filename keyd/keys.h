/* The private keys. They come from master, stay in this process's memory, and
 * leave it in no way: there is no function that returns one. */
#ifndef POSTERN_KEYD_KEYS_H
#define POSTERN_KEYD_KEYS_H

#include "core/err.h"
#include "core/map.h"
#include "ipc/ipc.h"

enum {
    KEYS_MAX = 100000,
    KEY_PEM_MAX = 16 * 1024,
    SIGNATURE_MAX = 1024 /* RSA of 8192 bits */
};

struct keys {
    struct map all; /* by number */
};

void keys_init(struct keys *k);
void keys_free(struct keys *k);
/* Takes the PEM text from the descriptor, which stays the caller's. A key with the
 * same number is replaced. */
int keys_add(struct keys *k, uint32_t number, enum key_purpose purpose, int fd, struct err *e);
void keys_forget(struct keys *k, uint32_t number);
/* Signs `content` with a key for TLS, if it belongs to a server's handshake
 * (handshake.h). Returns the length of the signature, or 0 with the reason. */
size_t keys_sign_handshake(struct keys *k, uint32_t number, uint16_t scheme, struct slice content,
                           unsigned char out[SIGNATURE_MAX], struct err *e);

#endif
