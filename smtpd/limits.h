/* Every bound on what a client can make smtpd hold or do that is not a
 * parameter of main.cf. */
#ifndef POSTERN_SMTPD_LIMITS_H
#define POSTERN_SMTPD_LIMITS_H

enum {
    /* one read; content that goes to a file moves in slices of this size */
    INPUT_SLICE = 256 * 1024,
    /* one read of a session that sends commands or a small message */
    INPUT_READ = 64 * 1024,
    /* one read when half of smtpd_memory_limit is in use */
    INPUT_TIGHT = 4096,
    /* the process's input buffer: room for what a session kept of an earlier read
     * (an unfinished command line), then for one read */
    INPUT_AT = 16 * 1024,
    SERVER_INPUT = INPUT_AT + INPUT_SLICE,
    /* a client's name */
    HOST_NAME_LIMIT = 253, /* RFC 1035 section 2.3.4 */
    HOST_LABEL_LIMIT = 63,
    /* replies that a session may gather before it has to send them */
    OUTPUT_HIGH = 16 * 1024,
    OUTPUT_MAX = 64 * 1024,
    PREFIX_MAX = 12 * 1024,   /* the header lines that we add, PREPEND_MAX included */
    RECEIVED_TLS_MAX = 4096,  /* of these, what is said about TLS */
    RCPTS_MAX = 8 << 20,      /* encoded recipients of one message; within qmgr's credit */
    COMMIT_OVERHEAD = 4096,   /* of a COMMIT at most, besides content and recipients */
    COMMIT_RCPTS = 32 * 1024, /* encoded recipients in one frame */
    RCPT_OVERSHOOT = 1000,    /* RCPTs past the limit that are no errors yet */
    ACCEPTS_PER_TURN = 64,    /* then sessions get their turn */
    LINGER_BYTES = 1 << 20,   /* read and dropped so that the last reply arrives */
    LINGER_SECONDS = 5,
    COMMIT_SECONDS = 300, /* without qmgr's answer the client gets 451 */
    PREPEND_MAX = 4096,   /* header lines that policy servers add to one message */
    POLICY_REQUEST_MAX = 16 * 1024,
    POLICY_VALUE_MAX = 1024,     /* of an attribute; longer ones are cut */
    POLICY_CONNECTIONS_MAX = 50, /* to one server; more requests wait */
    POLICY_IDLE_SECONDS = 300,   /* then a connection to a server is closed */
    ACCOUNTS_SECONDS = 30,       /* without quota's answer a login gets 454, mail 451 */
    NAP_MAX = 60000,             /* milliseconds that an answer may be held back */
    AUTH_CHALLENGE_MAX = 4096,   /* bytes of a server's message in AUTH */
    AUTHORS_MAX = 50,            /* addresses in From: and Sender: of a message of an account */
    AUTHORS_TEXT = 16 * 1024,    /* bytes of these fields */
    AUTHORS_BYTES = 32 * 1024,   /* of the addresses in RESERVE */
    OWNER_BYTES = 255,           /* of whom a message is charged to */
    TOKEN_ROOM = 64,             /* bytes by which qmgr knows that it was reserved */
    LISTENERS_WAIT_SECONDS = 3,  /* at a start, for qmgr and resolve */
    ACCEPT_PAUSE_SECONDS = 1,
    RATE_GRACE_SECONDS = 60 /* smtpd_min_data_rate counts from here on */
};

/* A BDAT chunk beyond this is not swallowed but ends the session. */
#define CHUNK_MAX (UINT64_C(1) << 40)

#endif
