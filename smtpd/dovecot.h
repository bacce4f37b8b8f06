/*
 * Dovecot as the one who knows passwords (smtpd_sasl_type = dovecot): one connection,
 * which master makes, for the exchanges of all sessions. While it is not there AUTH
 * gets 454, and EHLO does not say it.
 */
#ifndef POSTERN_SMTPD_DOVECOT_H
#define POSTERN_SMTPD_DOVECOT_H

#include <event2/event.h>

#include "conf/config.h"
#include "conf/sasl.h"
#include "core/map.h"
#include "service/remote.h"

struct session;

enum {
    DOVECOT_MECHANISMS_MAX = 20,
    DOVECOT_OPEN_MAX = 10000,       /* exchanges at a time */
    DOVECOT_OUT_MAX = 4 << 20,      /* bytes that it has not taken yet */
    DOVECOT_HANDSHAKE_SECONDS = 10, /* from the request for a connection on */
    DOVECOT_BACKOFF_MAX = 30        /* seconds between two tries */
};

struct dovecot_mechanism {
    char name[SASL_MECHANISM_MAX + 1];
    unsigned traits;
};

enum dovecot_state {
    DOVECOT_OFF,        /* not configured */
    DOVECOT_DOWN,       /* tried again at `not_before` */
    DOVECOT_CONNECTING, /* asked of master, or on its way */
    DOVECOT_GREETED,    /* its mechanisms come */
    DOVECOT_READY
};

struct dovecot {
    struct remote_network *network;
    char endpoint[SASL_ENDPOINT_MAX + 1];
    enum dovecot_state state;
    uint64_t tag; /* of the connection that was asked for */
    int fd;
    struct event *readable, *writable;
    struct buf in, out;
    struct dovecot_mechanism mechanisms[DOVECOT_MECHANISMS_MAX];
    size_t mechanism_count;
    int64_t since, not_before; /* monotonic */
    int64_t backoff;           /* s */
    uint64_t next_number;
    struct map asked; /* struct dovecot_question by number */
};

/* A session's exchange: part of the session. */
struct dovecot_question {
    uint64_t number; /* 0: none */
};

void dovecot_init(struct dovecot *d, struct remote_network *network, const struct config *config);
void dovecot_free(struct dovecot *d);
/* Each second, and at the start: connects, gives up what takes too long. */
void dovecot_tick(struct dovecot *d, int64_t now);
/* As remote_connecting. */
bool dovecot_connecting(struct dovecot *d, uint64_t tag, int fd, struct slice why);
/* Begins or continues the session's exchange, with base64 that the client sent;
 * `text` NULL: there is none yet. -1: it is not possible now. */
int dovecot_begin(struct session *s, struct slice mechanism, const struct slice *text);
int dovecot_go_on(struct session *s, struct slice text);
/* The answer is not wanted any more; harmless if there is none. */
void dovecot_forget(struct session *s);

#endif
