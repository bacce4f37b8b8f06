/*
 * A connection to one server, from connect() to QUIT. It carries one job at a
 * time. Its state names the reply that is awaited; with PIPELINING more than
 * the state's command may have been sent.
 */
#ifndef POSTERN_RELAY_SESSION_H
#define POSTERN_RELAY_SESSION_H

#include "io/net.h"
#include "relay/client_tls.h"
#include "relay/content.h"
#include "relay/relay.h"
#include "relay/wire.h"
#include "smtp/ehlo.h"
#include "smtp/reply.h"

enum session_state {
    SESSION_CONNECT,
    SESSION_GREETING,
    SESSION_EHLO, /* or LHLO */
    SESSION_HELO,
    SESSION_STARTTLS,
    SESSION_HANDSHAKE, /* of TLS; no reply is due */
    SESSION_RSET,      /* from here on a transaction has begun */
    SESSION_MAIL,
    SESSION_RCPT,
    SESSION_DATA,
    SESSION_CONTENT, /* content is being sent; no reply is due */
    SESSION_DOT,     /* all content has been handed to the kernel */
    SESSION_IDLE,
    SESSION_QUIT,
    SESSION_CLOSED,
    SESSION_STATES
};

/* One MAIL transaction. Made afresh by transaction_begin. */
struct transaction {
    unsigned cursor;   /* the recipient whose reply comes next is at or after it */
    unsigned rcpt_due; /* replies to RCPT that are still to come */
    unsigned accepted;
    unsigned commands; /* of the envelope */
    int64_t began;     /* clock_mono: the first of them was sent */
    bool refused;      /* MAIL was refused: the rest is only read */
    bool data_sent;    /* DATA went out with the RCPTs */
    bool empty;        /* 354 though there is no recipient: a lone dot was sent */
    bool utf8;         /* SMTPUTF8 was given */
    struct content content;
};

/* What TLS has come to. */
struct session_tls {
    bool on;            /* all that is said now is encrypted, and the server is accepted */
    bool accepted;      /* its sessions may be resumed */
    bool reported;      /* how it went has been told to qmgr */
    uint8_t peer;       /* enum tls_peer_status */
    uint8_t known;      /* the same, of the session that may be resumed */
    SSL_SESSION *fresh; /* came before the server was accepted; or NULL */
    char *text;         /* "TLSv1.3 with cipher ...", or NULL */
};

struct session {
    struct list link;      /* among the idle, the held, the dead, or those in relay->asking */
    struct list site_link; /* among the idle of its site */
    struct relay *relay;
    struct pool_site *site;
    struct job *job; /* NULL while idle */
    enum session_state state;
    bool lmtp;
    bool slot;    /* qmgr counts it (slots.c) */
    bool left;    /* and knows that it takes no more jobs */
    bool greeted; /* hosts.c counts it */
    bool dropped; /* session_fail: closed before its greeting, though others to the host are open */
    bool goodbye; /* the reply to QUIT is there; the server closes */
    uint64_t lane;
    bool queued;     /* commands wait to be sent: no reply to them can have come */
    bool needs_rset; /* the last transaction may have left something at the server */
    struct wire wire;
    uint64_t asked; /* tag of the socket that master was asked for; 0: none */
    struct deadline deadline;
    struct smtp_reply *partial; /* a reply of which not all has come, or NULL */
    struct ehlo ehlo;
    bool refused; /* session_fail: the server can never take this message */
    bool unfit;   /* session_fail: it is not as the rules about TLS want it */
    struct session_tls tls;
    uint64_t rcpt_limit;   /* learned from a server that has enough of them; 0: none */
    uint32_t transactions; /* begun on this connection */
    uint32_t taken;        /* of these, messages that the server has taken */
    unsigned put_off;      /* jobs in a row that it has put off; those refused at MAIL count more */
    int64_t opened, idle_since;
    char *host;
    char address[NET_TEXT_MAX];
    uint16_t port;
    struct transaction tx;
};

/* ---- session.c: its states and its end ------------------------------------------- */

/* What a session waits for in each state. A state without a handler awaits no
 * reply: one that comes all the same ends the session. */
struct session_awaits {
    const char *doing; /* "while ..." */
    enum smtp_stage stage;
    size_t timeout; /* offset of the limit in struct config, or 0 */
    void (*reply)(struct session *s, const struct smtp_reply *r);
};
const struct session_awaits *session_awaits(const struct session *s);
/* Enters a state: its time limit begins. */
void session_enter(struct session *s, enum session_state state);
/* Where commands go; they are sent when the input at hand has been dealt with. */
struct buf *session_queue(struct session *s);
/* Whether one more transaction, for this job, may go over the connection. */
bool session_usable(const struct session *s, const struct job *j);
/* The job is over: reports it, and the session becomes idle or ends. */
void session_finish_job(struct session *s);
/* The connection has failed its job: the job tries elsewhere if nothing had
 * begun, else what is undecided is deferred with this verdict. `answered`: the
 * server said so itself, so nothing is in doubt (F13). Ends the session. */
void session_fail(struct session *s, const struct verdict *v, bool answered);
/* The server does not keep to the protocol: session_fail with words for it. */
void session_protocol_error(struct session *s, const char *what);
/* The connection was lost, with this errno; 0: the server has closed it. Ends the session. */
void session_lost(struct session *s, int error);
/* QUIT, and end without waiting for long. */
void session_quit(struct session *s);
/* The same without waiting for the reply: another connection is opened in its place. */
void session_leave(struct session *s);
/* Ends at once; freed at the end of the turn. */
void session_close(struct session *s);
void session_free(struct session *s);
/* For struct timers. */
void session_expired(struct deadline *d);

/* ---- session_io.c: reading, writing, beginning --------------------------------------- */

/* Starts on a connected or connecting socket, for s->job; -1: session_connecting
 * brings it. */
void session_open(struct session *s, int fd, bool connected);
/* The socket that a session waits for; or -1 and why there is none. */
void session_connecting(struct session *s, int fd, struct slice why);
/* Gives an idle session a job and starts on it. */
void session_assign(struct session *s, struct job *j);
/* Sends what is queued, then content. Ends the session if that fails. */
void session_flush(struct session *s);
/* Tells qmgr which messages are about to be completed, and completes them (F12,
 * F13). Once a turn, for all sessions together: one system call. */
void session_release_held(struct relay *relay);
/* Forgets the beginning of a reply. */
void session_drop_partial(struct session *s);

/* ---- handlers of replies, by state ----------------------------------------- */

void hello_on_greeting(struct session *s, const struct smtp_reply *r);
void hello_on_ehlo(struct session *s, const struct smtp_reply *r);
void hello_on_helo(struct session *s, const struct smtp_reply *r);
void transaction_on_rset(struct session *s, const struct smtp_reply *r);
void transaction_on_mail(struct session *s, const struct smtp_reply *r);
void transaction_on_rcpt(struct session *s, const struct smtp_reply *r);
void transaction_on_data(struct session *s, const struct smtp_reply *r);
void transaction_on_content(struct session *s, const struct smtp_reply *r);
void transaction_on_dot(struct session *s, const struct smtp_reply *r);

/* After TLS: EHLO anew, for what the server said before counts no more (RFC 3207). */
void hello_again(struct session *s);

/* ---- starttls.c ------------------------------------------------------------ */

enum starttls_next {
    STARTTLS_GO_ON, /* mail may go over the connection as it is */
    STARTTLS_BEGIN, /* call starttls_begin */
    STARTTLS_ENDED  /* it may not: the session has failed */
};
/* After the reply to EHLO or HELO. */
enum starttls_next starttls_wanted(struct session *s);
void starttls_begin(struct session *s);
void starttls_on_reply(struct session *s, const struct smtp_reply *r);
/* The socket is readable or writable in the handshake. */
void starttls_go_on(struct session *s);
/* The connection or the time was over before TLS stood. */
void starttls_lost(struct session *s, const char *why);
/* Whether the server offers what a message with REQUIRETLS needs; else the session
 * has failed. */
bool starttls_suffices(struct session *s);

/* Starts the job's first or next transaction. */
void transaction_begin(struct session *s);
/* Checks what the server offers against what the message needs; recipients
 * that cannot be served are decided (5.3.4, 5.6.3, 5.6.7). */
void needs_check(struct session *s);
/* Appends MAIL and RCPT with their parameters. */
void commands_mail(struct session *s, struct buf *out);
void commands_rcpt(struct session *s, const struct recipient *r, struct buf *out);

#endif
