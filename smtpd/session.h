/*
 * One client's connection. What comes in goes through session_pump, which gives
 * it to whoever the mode says: the command reader or the collector of content.
 * Replies gather in `out` and leave together. A session that waits (for qmgr,
 * for its own penalty, for the client to read) takes no input meanwhile.
 *
 * An idle session holds this struct and its HELO name, nothing else.
 */
#ifndef POSTERN_SMTPD_SESSION_H
#define POSTERN_SMTPD_SESSION_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <sys/socket.h>

#include "core/buf.h"
#include "smtp/command.h"
#include "smtp/proxy.h"
#include "smtpd/accounts.h"
#include "smtpd/dovecot.h"
#include "smtpd/keys.h"
#include "smtpd/login.h"
#include "smtpd/names.h"
#include "smtpd/nap.h"
#include "smtpd/server.h"
#include "smtpd/transaction.h"

/* Where in the dialogue it is; with the verb this selects the handler. */
enum session_state {
    STATE_GREETED, /* neither EHLO nor HELO yet */
    STATE_READY,   /* no transaction */
    STATE_MAIL,    /* a sender, no accepted recipient */
    STATE_RCPT,    /* recipients */
    STATE_BDAT,    /* chunks of content, more to come */
    STATES
};

/* What the next bytes are. */
enum input_mode {
    INPUT_PROXY, /* a PROXY header, before anything else */
    INPUT_TLS,   /* a TLS handshake */
    INPUT_COMMAND,
    INPUT_AUTH, /* a line of an AUTH exchange */
    INPUT_DATA, /* content after 354 */
    INPUT_CHUNK /* content of a BDAT chunk */
};

/* Why no input is taken. */
enum session_wait {
    WAIT_NOTHING,
    WAIT_POLICY,   /* for a policy server */
    WAIT_SIGN,     /* for keyd's signature, in a handshake */
    WAIT_NAME,     /* for the client's host name, before the greeting */
    WAIT_LARGE,    /* for the file of a large message */
    WAIT_COMMIT,   /* for COMMITTED */
    WAIT_ACCOUNTS, /* for quota */
    WAIT_NAP,      /* as nap.h has it */
    WAIT_SLEEP,    /* smtpd_error_sleep_time */
    WAIT_OUTPUT    /* for the client to read replies */
};

struct verb_count {
    uint32_t all, good;
};

/* How far its end has come. */
enum session_phase {
    PHASE_OPEN,
    PHASE_ENDING,  /* no further input; the connection is shut when `out` is sent */
    PHASE_BROKEN,  /* the same, and nobody reads replies */
    PHASE_LINGERS, /* shut for writing; what still comes in is dropped */
};

struct session {
    struct server *server;
    struct event event; /* reading, or writing when `wait` is WAIT_OUTPUT */
    struct timeout timeout;
    struct list link; /* in server->sessions */
    int fd;
    uint8_t state; /* enum session_state */
    uint8_t mode;  /* enum input_mode */
    uint8_t wait;  /* enum session_wait */
    uint8_t phase; /* enum session_phase */
    uint8_t verb;  /* enum smtp_verb: the command that replies answer */
    uint8_t address_len;
    bool esmtp, may_relay;
    bool may_xclient, may_xforward;
    bool local_user;       /* of this machine, by a socket in public/; its `uid` */
    bool limited;          /* the limits per client hold */
    bool watched, writing; /* the event is added; is for writing */
    bool penalty;          /* smtpd_error_sleep_time is due before the reply leaves */
    bool goodbye;          /* QUIT: the client closes by itself */
    bool nobody;           /* it belongs to no account: quota has said so */
    bool taken;            /* more than a part of a command has come since the last wait */
    char address[16];      /* address_len bytes, network order; 0: nobody knows it */
    uint32_t uid;
    uint16_t port;               /* the client's; 0: nobody knows it */
    struct proxy_endpoint local; /* what it connected to, if others say so: len 0: they do not */
    char *peer;                  /* "name[address]", for logs */
    char *helo;                  /* or NULL */
    struct login *login;         /* who has authenticated, or NULL */
    struct login *host_login;    /* the account of a client of mynetworks, if it was asked for */
    struct auth *auth;           /* an exchange that is under way, or NULL */
    const char *where;           /* for logs: the last command, or CONNECT */
    struct client_count *client;
    struct name_question name;
    struct account_question question;
    void (*limits_known)(struct session *s); /* what goes on then, see own_limits.h */
    struct dovecot_question dovecot;
    struct nap nap;
    struct tls *tls;                 /* from STARTTLS on, or NULL */
    struct certificate *certificate; /* the client's, or NULL */
    struct key_question key;
    struct line_reader line;
    size_t behind; /* input that has come behind the command being handled */
    struct buf in, out;
    uint32_t errors, junk;
    int64_t started;
    uint64_t lingered; /* bytes */
    struct verb_count counts[VERB_COUNT];
    struct transaction tx;
};

/* A connection was accepted; takes over fd (non-blocking). The session frees
 * itself when the connection is over. */
void session_open(struct server *sv, int fd, const struct sockaddr *from);
/* Goes on after a wait: handles what came in before, sends replies, watches for
 * more. May free the session, as may session_refused and the like. */
void session_resume(struct session *s);
/* A wait is over, and what followed it may have begun another one. */
void session_go_on(struct session *s);
/* After its replies are sent the connection is closed. */
void session_end(struct session *s);
/* Its time in a list of server->timeouts is over. */
void session_expired(struct session *s, enum timeout_kind kind);
/* If it is between transactions and waits for the client: 421, and the end. */
void session_drain(struct session *s);

/* The client's host name, or empty if it has none that can be trusted; called by
 * names.c. */
void session_named(struct session *s, struct slice name);
/* The signature that a handshake waits for, or nothing; called by keys.c. */
void session_signed(struct session *s, struct slice signature);
/* Whether it may relay: by its network or certificate, or because it has logged in. */
static inline bool session_may_relay(const struct session *s)
{
    return s->may_relay || s->login;
}
/* Its address in network order; empty: nobody knows it. */
static inline struct slice session_address(const struct session *s)
{
    return slice_make(s->address, s->address_len);
}
/* Its name, or "unknown". */
struct slice session_client_name(const struct session *s);
/* Its address as text, or "unknown". */
struct slice session_client_address(const struct session *s);
/* A session that has lasted too long, or of a process that ends, is over when it
 * is between messages. */
void session_check_age(struct session *s);

/* ---- qmgr's answers, called by link.c ------------------------------------ */

void session_committed(struct session *s);
/* For a COMMIT or a LARGE_OPEN. */
void session_refused(struct session *s, int code, struct slice enhanced, struct slice text);
/* Takes over fd. */
void session_large_ready(struct session *s, int fd);

#endif
