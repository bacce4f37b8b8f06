/*
 * What clients are called, asked of resolve when they connect. A session waits
 * for the answer no longer than smtpd_peername_timeout, and without resolve not
 * at all: its client is "unknown" then.
 */
#ifndef POSTERN_SMTPD_NAMES_H
#define POSTERN_SMTPD_NAMES_H

#include <event2/event.h>

#include "core/map.h"
#include "ipc/channel.h"

struct session;

struct names {
    struct channel *channel; /* NULL: resolve is not there */
    struct event_base *base;
    uint64_t next_tag;
    struct map asked; /* struct name_question by tag */
};

/* A session's question: part of the session. */
struct name_question {
    uint64_t tag; /* 0: none is open */
};

void names_init(struct names *n, struct event_base *base);
void names_free(struct names *n);
/* A new channel to resolve; takes over fd. What the older one was asked is
 * unknown. */
void names_attach(struct names *n, int fd);
/* Asks for the name of the session's client; session_named is called with it,
 * later. false: there is nobody to ask. */
bool names_ask(struct names *n, struct session *s);
/* The answer is not wanted any more; harmless if none is due. */
void names_forget(struct names *n, struct name_question *q);
/* Whether it may go into log lines and header fields: the grammar of host names. */
bool names_is_host(struct slice name);

#endif
