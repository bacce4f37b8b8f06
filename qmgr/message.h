/*
 * A queued message in memory. `struct message` is small and exists for every
 * message of the queue; its envelope (recipients, schedule) is there while the
 * message is active and can be dropped and read back from the spool, so that a
 * queue of any length fits into bounded memory.
 */
#ifndef POSTERN_QMGR_MESSAGE_H
#define POSTERN_QMGR_MESSAGE_H

#include "core/heap.h"
#include "core/id.h"
#include "core/list.h"
#include "core/slice.h"
#include "ipc/ipc.h"
#include "qmgr/store.h"

enum {
    ADDRESS_MAX = 1024, /* bytes of an address or ORCPT that qmgr takes */
    ACCOUNT_MAX = 255,
    POOL_NAME_MAX = 64, /* bytes of a source pool's name */
    ENVID_MAX = 512,
    SIGNER_MAX = 255,
    ANSWER_TEXT_MAX = 1000, /* bytes of a reply that are kept */
    ANSWER_HOST_MAX = 255,
    ENHANCED_MAX = 11, /* "5.123.456" and a little more */
    NOTICE_LAST = 50   /* the last of a message's failure notices takes all that remain */
};

/* Beside enum message_flag in message.flags and in SPOOL_RECORD_FLAGS; these never
 * leave qmgr. The operator's word that a message shall be returned now: */
#define MESSAGE_EXPIRED 0x10000u
/* Deleted by the operator, and kept for queue_undelete_time (deleted.c). */
#define MESSAGE_DELETED 0x20000u
/* A letter of quota's to the owner of an account: its file stays until quota has, durably, let
 * go of the letter (charges.c). */
#define MESSAGE_LETTER 0x40000u

/* The last thing that was said about a recipient; shared by all recipients of
 * one job that got the same. */
struct answer {
    uint32_t refs;
    uint16_t code;   /* SMTP code, or 0 */
    uint8_t stage;   /* enum smtp_stage; not kept across restarts */
    bool local;      /* our own words, not the server's */
    bool final;      /* said by an LMTP server: delivered, not relayed on */
    bool greylisted; /* the recipient will be taken later, or so it seems */
    bool suspended;  /* local: nothing was tried, for a suspension */
    bool odd;        /* a temporary refusal of the recipient that no rule knows */
    bool no_source;  /* no source address might send it */
    bool day_over;   /* of these: what may go there today has been sent */
    uint16_t source; /* number of the source it was said to; 0: the default one, or unknown */
    int64_t since;   /* monotonic: the first such refusal in a row; not kept across restarts */
    int64_t when;    /* wall microseconds */
    char enhanced[ENHANCED_MAX + 1];
    uint16_t host_len, address_len, text_len;
    char data[]; /* host, printable address, text: as received, unescaped */
};

/* Copies the texts, cut to the limits above. One reference belongs to the caller. */
struct answer *answer_new(uint16_t code, struct slice enhanced, struct slice text,
                          struct slice host, struct slice address);
struct answer *answer_ref(struct answer *r);
void answer_unref(struct answer *r); /* NULL is fine */
struct slice answer_host(const struct answer *r);
struct slice answer_address(const struct answer *r);
struct slice answer_text(const struct answer *r);
/* The enhanced status code for people and notices: the reply's own if its class
 * fits `class` ('2', '4', '5'), otherwise class.0.0. */
struct slice answer_status(const struct answer *r, char class,
                           char buffer[static ENHANCED_MAX + 1]);
/* Appends the reply as Postfix logs it, escaped: "host h[a] said: 550 5.1.1 no
 * (in reply to RCPT TO command)", or our own words. */
void answer_describe(const struct answer *r, struct buf *out);
/* Appends "550 5.1.1 text" unescaped, at most `max` bytes of text. */
void answer_wire(const struct answer *r, struct buf *out, size_t max);

enum recipient_state {
    RCPT_WAITING,   /* until `due` */
    RCPT_QUEUED,    /* in a job: being routed, queued, or at a relay */
    RCPT_FAILING,   /* its failure record is on its way to the disk */
    RCPT_FAILED,    /* failure durable; its notice is owed */
    RCPT_CONFIRMED, /* delivered and marked; a success notice is owed */
    RCPT_DONE
};

struct recipient {
    struct answer *answer; /* last one, or NULL */
    uint32_t at;           /* of the address in the envelope's strings; ORCPT follows */
    uint32_t due;          /* seconds on qmgr's clock (queue_seconds) */
    uint16_t address_len, orcpt_len;
    uint8_t attempts;   /* stays at 255 */
    uint8_t notice;     /* FAILED: number of the notice that reports it */
    uint8_t state : 7;  /* enum recipient_state */
    uint8_t parked : 1; /* WAITING for want of memory, not for a time (park.c) */
    uint8_t notify;     /* enum dsn_notify bits; 0: not given */
};

/* What it takes of JOB_RECIPIENT_BYTES: four numbers beside the texts. */
static inline uint32_t recipient_job_bytes(const struct recipient *r)
{
    return 16u + r->address_len + r->orcpt_len;
}

/* Content in memory: prefix, then body. For a large message the prefix alone. */
struct body {
    uint32_t prefix_len, body_len;
    char data[];
};

struct envelope {
    struct list jobs;        /* of this message: struct job */
    struct list waiting;     /* for quota: over, but it does not have all charges yet
                              * (charges.c); or it has not told the source pool (pools.c) */
    struct message *message; /* set while it waits so */
    struct body *body;
    int64_t activated;                           /* monotonic: when it was scheduled last */
    uint32_t left;                               /* recipients that are not DONE */
    uint32_t queued, failing, failed, confirmed; /* recipients in that state */
    uint32_t next_due;     /* seconds: when the first that waits is due; UINT32_MAX: none */
    uint32_t held;         /* seconds from its arrival to its last release: no part of its life */
    uint32_t notice_bytes; /* what that notice takes so far */
    uint16_t account_len, sender_len, envid_len;
    uint8_t signer_len;
    uint8_t ret, mail_class;
    uint8_t notice_next; /* number of the next failure notice */
    uint8_t lost;        /* relay processes that died with a job of it */
    bool active_logged, delay_sent, delay_due, expiry_logged;
    bool more;         /* recipients are due that did not fit into the active ones */
    bool noticing;     /* a notice about it is being made */
    bool forced;       /* flushed by the operator: defer_transports does not hold it up */
    bool discarded;    /* its file is quarantined: only what relay has is waited for */
    bool purge;        /* deleted, and its time was over while it was in use */
    bool removed;      /* the log says that it left the queue: it was deleted */
    bool peeked;       /* read back for walks only: goes to the disk again at peek_due's time */
    int64_t flags_at;  /* wall microseconds; of the last record of its flags, when it came from the
                        * spool; 0: none */
    int64_t peek_due;  /* monotonic; INT64_MAX: nothing planned */
    int64_t notice_at; /* monotonic: a notice failed, not again before this */
    struct recipient recipients[];
    /* the strings follow: account, sender, envid, signer, then addresses and ORCPTs */
};

enum message_phase {
    PHASE_COMMITTING, /* not durable yet: exists only so that its ID is taken */
    PHASE_STUB,       /* envelope on disk only */
    PHASE_LOADING,
    PHASE_LOADED,
    PHASE_GONE /* finished; memory is freed when nothing refers to it */
};

struct message {
    struct list all;      /* in qmgr.all, or qmgr.deleted */
    struct list parked;   /* at a queue that has enough in memory */
    struct heap_node due; /* microseconds, monotonic: next thing to do for it */
    struct store_ref ref;
    struct envelope *env; /* NULL unless LOADED */
    int64_t arrival;      /* wall microseconds */
    int64_t born;         /* the same on the monotonic clock, for age (F30) */
    uint32_t flags;       /* enum message_flag, and those above */
    uint32_t recipient_count;
    uint32_t charge; /* batch that has to be acknowledged before its file may go */
    struct id id;
    uint8_t phase;
    bool charged;     /* quota was told of it */
    bool refunded;    /* and that all who are left are not delivered to: it is going for good */
    bool held;        /* is in the count of held messages */
    bool kept;        /* is among the deleted ones: in their list, heap and counts */
    bool quarantined; /* its file was damaged and is in corrupt/ now: no more store calls */
    bool unreadable;  /* the last attempt to read its envelope failed */
    bool suspended;   /* a stub with recipients whose answer says so */
    bool flushed;     /* a stub that is to be tried whatever its records say */
    bool forced;      /* with it: also what defer_transports holds up */
    bool hurried;     /* while it is read for walks: wanted in the schedule, too */
    uint16_t pins;    /* store calls with a callback and other users */
    uint16_t viewers; /* walks that have it in view */
};

/* Held or deleted: not tried, and that time is not part of its lifetime. */
static inline bool message_stopped(uint32_t flags)
{
    return (flags & (MESSAGE_HELD | MESSAGE_DELETED)) != 0;
}

/* Room for an envelope with that many recipients and bytes of strings. */
struct envelope *envelope_new(uint32_t recipients, size_t string_bytes);
void envelope_free(struct envelope *e, uint32_t recipient_count);
static inline char *envelope_strings(const struct message *m)
{
    return (char *)&m->env->recipients[m->recipient_count];
}
/* "account/user", "account", or empty. */
static inline struct slice message_owner(const struct message *m)
{
    return slice_make(envelope_strings(m), m->env->account_len);
}
static inline struct slice message_account(const struct message *m)
{
    struct slice owner = message_owner(m);
    return slice_first(owner, slice_chr(owner, '/'));
}
static inline struct slice message_sender(const struct message *m)
{
    return slice_make(envelope_strings(m) + m->env->account_len, m->env->sender_len);
}
static inline struct slice message_envid(const struct message *m)
{
    return slice_make(envelope_strings(m) + m->env->account_len + m->env->sender_len,
                      m->env->envid_len);
}
/* The domain that answers for it: of its DKIM signature, else of From; or empty. */
static inline struct slice message_signer(const struct message *m)
{
    return slice_make(message_envid(m).ptr + m->env->envid_len, m->env->signer_len);
}
static inline struct slice recipient_address(const struct message *m, uint32_t i)
{
    const struct recipient *r = &m->env->recipients[i];
    return slice_make(envelope_strings(m) + r->at, r->address_len);
}
static inline struct slice recipient_orcpt(const struct message *m, uint32_t i)
{
    const struct recipient *r = &m->env->recipients[i];
    return slice_make(envelope_strings(m) + r->at + r->address_len, r->orcpt_len);
}
/* Bytes of the content: prefix and body. */
static inline uint64_t message_size(const struct message *m)
{
    return m->ref.prefix_len + m->ref.body_len;
}

/* Builds m->env from what the spool holds, applying status bytes and records.
 * `second_of(wall)` turns a planned wall time into qmgr's clock. 0, or -1 if the
 * envelope breaks a limit of this header (then it is not ours). */
int message_build(struct message *m, const struct store_found *found,
                  uint32_t (*second_of)(int64_t wall, void *arg), void *arg);

#endif
