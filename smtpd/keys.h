/*
 * Signatures of keyd's for TLS handshakes. A session waits for its own while the
 * others go on; without keyd there is none.
 */
#ifndef POSTERN_SMTPD_KEYS_H
#define POSTERN_SMTPD_KEYS_H

#include <event2/event.h>

#include "core/map.h"
#include "io/tls.h"
#include "ipc/channel.h"

struct session;

struct keys {
    struct channel *channel; /* NULL: keyd is not there */
    struct event_base *base;
    uint64_t next_tag;
    struct map asked; /* struct key_question by tag */
};

/* A session's question: part of the session. */
struct key_question {
    uint64_t tag; /* 0: none is open */
};

void keys_init(struct keys *k, struct event_base *base);
void keys_free(struct keys *k);
/* A new channel to keyd; takes over fd. What the older one was asked is refused. */
void keys_attach(struct keys *k, int fd);
/* Asks for a signature; session_signed is called with it, later. false: there is
 * nobody to ask. */
bool keys_ask(struct keys *k, struct session *s, const struct tls_signing *wanted);
/* The answer is not wanted any more; harmless if none is due. */
void keys_forget(struct keys *k, struct key_question *q);

#endif
