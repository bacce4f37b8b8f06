/*
 * The messages of messages.def as C structs, with their encoders and decoders.
 *
 * A frame is a header {u32 body length, u16 number, u16 flags} and the body;
 * numbers are little-endian, `bytes` and `list` have a u32 length before them.
 * A packet (one SOCK_SEQPACKET datagram) holds whole frames one after another.
 *
 * For each IPC_MESSAGE(x, ...): struct x; void x_encode(struct buf *, const
 * struct x *); int x_decode(struct slice body, struct x *). Decoded `bytes` and
 * `list` borrow from the packet. A decoder fails if anything is missing or left
 * over. For each IPC_RECORD(r, ...): struct r; void r_add(struct buf *list,
 * const struct r *); bool r_next(struct ipc_cursor *list, struct r *).
 */
#ifndef POSTERN_IPC_IPC_H
#define POSTERN_IPC_IPC_H

#include "core/buf.h"
#include "core/dsn.h" /* enum dsn_notify, enum dsn_ret */

enum {
    IPC_FRAME_MAX = 128 * 1024, /* header included: fits the default socket buffer */
    IPC_HEADER = 8,
    IPC_FLAG_FD = 1 /* this frame comes with the packet's descriptor */
};

/* Kinds of ipc_tls_identity. */
enum tls_record { TLS_RECORD_IDENTITY, TLS_RECORD_AUTHORITIES };
/* What a private key may be used for, so that it can never be used for the other. */
enum key_purpose { KEY_TLS = 1, KEY_DKIM };

enum ipc_fd_rule { NO_FD, WITH_FD, MAYBE_FD };

/* Reading position with a sticky error: check `failed` once at the end. */
struct ipc_cursor {
    struct slice rest;
    bool failed;
};

typedef uint8_t ipc_u8;
typedef uint16_t ipc_u16;
typedef uint32_t ipc_u32;
typedef uint64_t ipc_u64;
typedef int64_t ipc_i64;
typedef struct slice ipc_bytes;
typedef struct slice ipc_list; /* encoded records; see x_next */

enum ipc_number {
#define FIELD(type, name)
#define IPC_RECORD(name, fields)
#define IPC_MESSAGE(name, number, fd, fields) IPC_NUMBER_##name = number,
#include "ipc/messages.def"
#undef FIELD
#undef IPC_RECORD
#undef IPC_MESSAGE
};

#define FIELD(type, name) ipc_##type name;
#define IPC_RECORD(name, fields)                                                                   \
    struct name {                                                                                  \
        fields                                                                                     \
    };                                                                                             \
    void name##_add(struct buf *list, const struct name *r);                                       \
    bool name##_next(struct ipc_cursor *list, struct name *r);
#define IPC_MESSAGE(name, number, fd, fields)                                                      \
    struct name {                                                                                  \
        fields                                                                                     \
    };                                                                                             \
    void name##_encode(struct buf *b, const struct name *m);                                       \
    int name##_decode(struct slice body, struct name *m);
#include "ipc/messages.def"
#undef FIELD
#undef IPC_RECORD
#undef IPC_MESSAGE

/* A cursor over a decoded list. After the loop check !cursor.failed. */
static inline struct ipc_cursor ipc_list_cursor(struct slice list)
{
    return (struct ipc_cursor){list, false};
}

struct ipc_frame {
    uint16_t number;
    bool has_fd;
    struct slice body;
};

/* Takes the next frame off a packet. 1: *f is set; 0: at the end; -1: malformed. */
int ipc_frame_next(struct slice *packet, struct ipc_frame *f);
/* Whether the number is declared, and its descriptor rule. */
bool ipc_known(uint16_t number, enum ipc_fd_rule *rule);
/* "ipc_commit", or "unknown". */
const char *ipc_name(uint16_t number);
/* A frame in readable form (names and values, bytes escaped and cut). */
void ipc_print(struct buf *b, const struct ipc_frame *f);

/* ---- values that travel in messages -------------------------------------- */

enum message_flag {
    MESSAGE_8BIT = 1,          /* BODY=8BITMIME, or 8-bit bytes in the content */
    MESSAGE_SMTPUTF8 = 2,      /* SMTPUTF8 was given */
    MESSAGE_NOTICE = 4,        /* a notice that qmgr itself submitted */
    MESSAGE_BINARY = 8,        /* BODY=BINARYMIME; reserved */
    MESSAGE_REQUIRETLS = 16,   /* REQUIRETLS was given (RFC 8689) */
    MESSAGE_HOLD = 32,         /* held by the operator or by policy */
    MESSAGE_TLS_OPTIONAL = 64, /* header field "TLS-Required: No" (RFC 8689 section 5) */
    MESSAGE_HOLD_RATE = 128    /* held until its account's rate lets it go (rate_action = queue) */
};
#define MESSAGE_FLAGS_ALL 255u
/* Held for whatever reason. */
#define MESSAGE_HELD ((uint32_t)(MESSAGE_HOLD | MESSAGE_HOLD_RATE))

enum dsn_action {
    ACTION_FAILED,
    ACTION_DELAYED,
    ACTION_DELIVERED,
    ACTION_RELAYED,
    ACTION_EXPANDED
};
enum notice_kind { NOTICE_FAILURE, NOTICE_DELAY, NOTICE_SUCCESS, NOTICE_DOUBLE };
/* What becomes of a connection that is open after its job (ipc_connection). */
enum connection_change {
    CONNECTION_LEAVES,     /* it takes no more jobs, and closes */
    CONNECTION_LEFT,       /* one that left is closed */
    CONNECTION_LOST,       /* one that might have taken jobs is closed */
    CONNECTION_SPARED,     /* SPARE: as LEAVES */
    CONNECTION_NOT_SPARED, /* SPARE: none is unused */
    CONNECTION_CHANGES
};
enum mail_class { CLASS_NORMAL, CLASS_TRANSACTIONAL, CLASS_BULK };
enum transport {
    TRANSPORT_SMTP,
    TRANSPORT_LMTP,
    TRANSPORT_ERROR,
    TRANSPORT_RETRY,
    TRANSPORT_DISCARD
};
enum spool_state {
    SPOOL_OK,
    SPOOL_FULL, /* below the reserve: 452 at MAIL */
    SPOOL_BAD,  /* a failed fsync, read-only: 451 */
    SPOOL_BUSY  /* over a limit: 452 until work is done */
};
enum rcpt_outcome { OUTCOME_SENT, OUTCOME_DEFERRED, OUTCOME_FAILED };
enum smtp_stage {
    STAGE_NONE,
    STAGE_CONNECT,
    STAGE_GREETING,
    STAGE_EHLO,
    STAGE_STARTTLS,
    STAGE_AUTH,
    STAGE_MAIL,
    STAGE_RCPT,
    STAGE_DATA,
    STAGE_DOT,
    STAGE_QUIT
};
/* What a failed job tells about. */
enum failure_scope {
    SCOPE_RECIPIENT,    /* replies to RCPT: nothing about the site */
    SCOPE_MESSAGE,      /* replies to MAIL, DATA, the dot */
    SCOPE_SITE,         /* connect, greeting, EHLO, lost connection: the whole site */
    SCOPE_SOURCE,       /* our own address cannot be used: nothing about the site */
    SCOPE_NO_CONNECTION /* not tried: no connection was open, and none might be made */
};
enum {
    TLS_RULES_BYTES = 8 * 1024, /* of all rules of one destination */
    TLS_RULES_MAX = 300,        /* more do not fit into these bytes */
    TLS_REPORT_DOMAIN_MAX = 253
};
enum tls_rule_flag {
    TLS_RULE_AUTHENTIC = 1, /* the host's name was configured, or validated by DNSSEC or MTA-STS */
    TLS_RULE_TESTING = 2    /* an MTA-STS policy in testing mode: a failure is only reported */
};
/* What is known about the server at the other end of a connection. */
enum tls_peer_status {
    TLS_PEER_NONE,      /* clear text */
    TLS_PEER_UNTRUSTED, /* encrypted */
    TLS_PEER_TRUSTED,   /* its certificate is vouched for; its name was not asked */
    TLS_PEER_VERIFIED   /* it is the server that it should be */
};
/* What is known about a client's name. */
enum name_status {
    NAME_FOUND,    /* the address has the name, and the name has the address */
    NAME_NONE,     /* no PTR record, or none with a host name */
    NAME_MISMATCH, /* the names that it has do not have the address */
    NAME_TEMPORARY /* no answer in time, SERVFAIL, too many questions */
};
/* What a block list says of an address. */
enum listing_status {
    LISTING_NONE,
    LISTING_LISTED,
    LISTING_REFUSED, /* it does not talk to our name servers */
    LISTING_UNKNOWN, /* no answer */
    LISTING_WRONG    /* one that makes no sense: the list may be no more */
};
enum resolve_status { RESOLVE_OK, RESOLVE_TEMPORARY, RESOLVE_PERMANENT };
enum auth_flag {
    AUTH_TLS = 1,     /* the session is encrypted */
    AUTH_OFFERED = 2, /* channel binding was: SCRAM-SHA-256-PLUS is in EHLO's reply */
    AUTH_PLUS = 4     /* ... and is what the client has chosen */
};
enum auth_status {
    AUTH_OK,
    AUTH_FAILED,    /* wrong user or password: 535 5.7.8 */
    AUTH_DENIED,    /* the user or account is suspended or its plan has ended: 535 5.7.8 too */
    AUTH_TOO_MANY,  /* too many failures: 421 4.7.0 after `delay`, then close */
    AUTH_TEMPORARY, /* cannot be told now: 454 4.7.0 */
    AUTH_NONE       /* CLIENT_ACCOUNT: there is no account for this client; it is nobody's.
                     * AUTH_OUTSIDE: nothing stands against what Dovecot said */
};
/* What an account or user may do; bits. */
enum account_permission {
    PERMIT_ANY_SENDER = 1, /* MAIL FROM and From: are not checked */
    PERMIT_XCLIENT = 2     /* reserved */
};
/* What has become of one recipient of a charged message. */
enum charge_state {
    CHARGE_RESERVED,
    CHARGE_DELIVERED,
    CHARGE_REFUNDED /* bounced, refused, expired, deleted */
};
/* What qmgr says of a charged message. */
enum charge_flag {
    CHARGE_FRESH = 1,     /* committed since qmgr's start, not found in the spool */
    CHARGE_HELD_RATE = 2, /* MESSAGE_HOLD_RATE: it waits for CHARGES_RELEASE */
    CHARGE_HELD = 4,      /* MESSAGE_HOLD */
    CHARGE_LETTER = 8     /* nobody's: quota's own letter is in the spool, and is not asked for
                           * again (ACCOUNT_NOTICE) */
};

#endif
