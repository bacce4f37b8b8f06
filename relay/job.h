/*
 * A job: one message for some recipients of one site, from ipc_deliver to
 * ipc_result. Its memory is one block that holds the frame as it came; all
 * slices point into it.
 */
#ifndef POSTERN_RELAY_JOB_H
#define POSTERN_RELAY_JOB_H

#include "core/buf.h"
#include "core/err.h"
#include "core/list.h"
#include "ipc/ipc.h"

enum {
    JOB_RECIPIENTS_MAX = 1000, /* destination_recipient_limit's upper end */
    JOB_TARGETS_MAX = 1000,
    JOB_TEXT_MAX = 1024,         /* bytes of a reply's text that go into a result */
    JOB_RESULT_TEXT = 80 * 1024, /* of all texts in a result, which is one IPC frame */
    JOB_ENHANCED_MAX = 11        /* "5.123.123" and room */
};

enum recipient_state {
    RECIPIENT_PENDING,  /* waits for a transaction */
    RECIPIENT_CHOSEN,   /* in the transaction under way */
    RECIPIENT_ACCEPTED, /* RCPT was answered 2xx */
    RECIPIENT_DONE      /* has its outcome */
};

struct recipient {
    struct slice address, orcpt;
    uint32_t index;
    uint32_t text_at; /* in job->texts */
    uint16_t text_len, code;
    uint8_t notify, state, status, stage, local;
    uint8_t enhanced_len;
    char enhanced[JOB_ENHANCED_MAX];
};

/* What an attempt came to: a reply, or our own words for what went wrong. */
struct verdict {
    enum smtp_stage stage;
    bool local;
    uint16_t code; /* SMTP code, or 0 */
    struct slice enhanced, text;
};

/* What the message's sender wants of TLS (RFC 8689). */
enum tls_wish {
    TLS_WISH_NONE,
    TLS_WISH_REQUIRED, /* REQUIRETLS */
    TLS_WISH_OFFERED,  /* REQUIRETLS where the server offers it: a notice without any content of a
                        * message that required it (RFC 8689 section 5) */
    TLS_WISH_OPTIONAL  /* TLS-Required: No: rather in clear text than not at all */
};

struct session;

struct job {
    struct list link; /* relay->jobs */
    struct session *session;
    struct ipc_deliver m;
    uint8_t tls_wish; /* enum tls_wish: what the message itself says about TLS */
    struct ipc_target *targets;
    struct recipient *recipients;
    unsigned target_count, recipient_count, undecided;
    int fd; /* body of a large message, or -1 */
    struct buf texts;
    uint32_t last_text_at; /* equal texts in a row are kept once */
    uint16_t last_text_len;
    /* the walk over the targets */
    unsigned next_target, addresses_tried, sessions_tried;
    bool retried;    /* a reused connection was dead: a fresh one was made for it */
    bool clear_text; /* TLS with the target under way failed: once more without */
    /* the last failure of a connection, for when none is left to try */
    enum smtp_stage failed_stage;
    bool failed_local;
    bool failed_for_good;    /* a server can never take this message */
    bool failed_temporarily; /* a server failed for a reason that may pass */
    bool failed_site;        /* and that has nothing to do with the rules about TLS */
    bool foreign_source;     /* the source is not an address of this machine */
    uint16_t failed_code;
    char *failed_enhanced, *failed_text;
    /* for the result */
    enum failure_scope scope;
    bool after_dot, dsn;
    char *host, *address, *tls;
    uint8_t tls_peer; /* enum tls_peer_status */
    uint16_t port;
    uint32_t use_count, taken_count;
    uint32_t mail_max;    /* of the server's LIMITS; 0: not said */
    uint32_t connections; /* begun for it */
    bool slot;            /* a counted connection was closed for it: its next one takes the place */
    bool opened, leaving; /* as in the result */
    int64_t greeting;     /* microseconds from the beginning of the last one to its 220 */
    int64_t reply;        /* microseconds that the server took for a command of the envelope */
    int64_t received, connecting, connected, deadline; /* clock_mono */
};

/* Copies a decoded frame body; NULL with *e set if it is malformed. Takes over
 * fd only on success. */
struct job *job_new(struct slice body, int fd, struct err *e);
void job_free(struct job *j);
/* Bytes of the whole content. */
uint64_t job_size(const struct job *j);
/* Gives a recipient its outcome. A failure's enhanced code is made to fit: a
 * 5.x.x that we treat as temporary is reported as 4.x.x. */
void job_decide(struct job *j, struct recipient *r, enum rcpt_outcome status,
                const struct verdict *v);
/* Gives the same outcome to all recipients that have none and are in `state`
 * or, with RECIPIENT_DONE, in any state. */
void job_decide_all(struct job *j, enum recipient_state state, enum rcpt_outcome status,
                    const struct verdict *v);
/* Keeps a connection's failure, for job_give_up. */
void job_note_failure(struct job *j, const struct verdict *v);
/* The same for a server that is not as the rules about TLS want it: other mail may
 * well go there, so it says nothing about the site. */
void job_note_unfit(struct job *j, const struct verdict *v);
/* The same for a server that can never take this message. */
void job_note_refusal(struct job *j, const struct verdict *v);
/* Nothing was tried: no connection is open, and none may be made for it. */
void job_not_tried(struct job *j);
/* Defers all that is undecided with the failure noted last; fails it if all there
 * were are refusals. */
void job_give_up(struct job *j);
void job_widen(struct job *j, enum failure_scope scope);
/* Which host the result speaks of. */
void job_set_host(struct job *j, const char *host, const char *address, uint16_t port);
/* How the connection is protected: `text` may be NULL. */
void job_set_tls(struct job *j, const char *text, uint8_t peer);
/* Appends the ipc_result. Every recipient has its outcome. */
void job_encode_result(struct job *j, struct buf *out);

#endif
