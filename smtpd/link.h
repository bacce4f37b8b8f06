/*
 * The link to qmgr: one channel, on which every open message of every session
 * has a tag. It keeps to the credits that qmgr gives: what exceeds them waits
 * here in order. When the channel goes, whatever was at qmgr is answered with
 * 451; master brings a new channel.
 */
#ifndef POSTERN_SMTPD_LINK_H
#define POSTERN_SMTPD_LINK_H

#include <event2/event.h>

#include "core/list.h"
#include "core/map.h"
#include "core/refusal.h"
#include "ipc/channel.h"

struct session;

struct link {
    struct channel *channel; /* NULL: qmgr is not there */
    struct event_base *base;
    bool known; /* the first ipc_spool_state has come */
    uint8_t state;
    uint32_t commit_credit, commits; /* allowed; at qmgr, without an answer */
    uint32_t larges;                 /* files of large messages that are not committed yet */
    uint64_t byte_credit, bytes;
    uint64_t next_tag;
    struct map messages; /* struct link_message by tag */
    struct list waiting; /* for credit: struct link_message */
};

/* One session's message as the link sees it: part of the transaction. */
struct link_message {
    struct list waiting;
    uint64_t tag; /* 0: qmgr knows nothing of it */
    uint64_t bytes;
    bool large;      /* LARGE_OPEN was sent */
    bool committing; /* COMMIT was sent */
};

void link_init(struct link *l, struct event_base *base);
void link_free(struct link *l);
/* A new channel to qmgr; takes over fd. The older one, if it is still there, is
 * closed and its messages are answered. */
void link_attach(struct link *l, int fd);
/* NULL when a message may begin, otherwise the reply to MAIL. */
const struct refusal *link_refuses(const struct link *l);
/* Asks for a file for the session's message; session_large_ready or
 * session_refused is called with the answer. NULL, or why it cannot be asked. */
const struct refusal *link_open_large(struct link *l, struct session *s);
/* Hands the session's message over, now or when there is credit;
 * session_committed or session_refused is called with the answer. false: qmgr is
 * gone. */
bool link_commit(struct link *l, struct session *s);
/* The message is given up; no answer will come. Harmless if qmgr has none. */
void link_abort(struct link *l, struct session *s);

#endif
