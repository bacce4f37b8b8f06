/*
 * The protocol of Dovecot's auth clients, version 1.2: lines of fields with tabs
 * between. After VERSION and CPID of the client and the server's VERSION, MECH... and
 * DONE, requests go out under numbers and their answers come in any order:
 *
 *   AUTH 1 PLAIN service=smtp secured rip=192.0.2.1 resp=BASE64
 *   CONT 1 BASE64      (both ways)
 *   OK 1 user=web      FAIL 1 user=web code=temp_fail reason=TEXT
 */
#ifndef POSTERN_SMTP_DOVECOT_AUTH_H
#define POSTERN_SMTP_DOVECOT_AUTH_H

#include "core/buf.h"
#include "smtp/sasl.h"

enum {
    DOVECOT_LINE_MAX = 16 * 1024, /* of the server */
    DOVECOT_TEXT_MAX = 255        /* of a user's name or a reason, unescaped; the rest is cut */
};

enum dovecot_kind {
    DOVECOT_OTHER, /* a line that means nothing to us */
    DOVECOT_VERSION,
    DOVECOT_MECH,
    DOVECOT_DONE,
    DOVECOT_CONT,
    DOVECOT_OK,
    DOVECOT_FAIL
};

/* One line of the server; slices borrow from it. */
struct dovecot_line {
    enum dovecot_kind kind;
    uint64_t number;   /* of VERSION: major; else of the request */
    struct slice name; /* of a mechanism */
    unsigned traits;   /* of a mechanism: enum sasl_trait */
    struct slice data; /* base64, of CONT, or of OK for the client */
    bool temporary;    /* FAIL is no verdict: the password was not checked */
    const char *why;   /* FAIL: what its code means, where it is known and a verdict; or NULL */
    uint8_t user_len, reason_len;
    char user[DOVECOT_TEXT_MAX], reason[DOVECOT_TEXT_MAX]; /* any bytes */
};

/* A line without its end; 0, or -1: it breaks the protocol. */
int dovecot_parse(struct slice line, struct dovecot_line *out);

/* What the client says first. */
int dovecot_hello(unsigned process, struct buf *out);
/* A request; the addresses as text, or empty. `initial`: base64, NULL: none. */
struct dovecot_request {
    uint64_t number;
    struct slice mechanism, client, server;
    bool secured; /* by TLS */
    const struct slice *initial;
};
int dovecot_request(const struct dovecot_request *r, struct buf *out);
int dovecot_continue(uint64_t number, struct slice data, struct buf *out);
int dovecot_cancel(uint64_t number, struct buf *out);

#endif
