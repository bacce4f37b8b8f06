/*
 * A message's content on its way out: prefix, then body, from memory or from a
 * file. With DATA dots are stuffed and the end is marked; with BDAT the bytes
 * go as they are, in one chunk, a file's by sendfile.
 */
#ifndef POSTERN_RELAY_CONTENT_H
#define POSTERN_RELAY_CONTENT_H

#include "core/slice.h"
#include "smtp/stuff.h"

struct job;
struct wire;

enum {
    CONTENT_IOV = 64,
    CONTENT_BLOCK = 128 * 1024,       /* read from a file at a time */
    CONTENT_TAIL = 2 * CONTENT_BLOCK, /* of the content is held back until `announced` */
    CONTENT_BURST = 4 * 1024 * 1024,  /* sent before other sessions get their turn */
    CONTENT_HEAD_MAX = 40             /* "BDAT 18446744073709551615 LAST" and CRLF */
};

struct content {
    const struct job *job;
    bool bdat;
    bool told;      /* qmgr has been sent the word that the end is coming, */
    bool announced; /* and the kernel has taken it */
    bool gathered;  /* all of it, the end mark included, is sent or in wire.out */
    uint8_t head_len;
    uint64_t at; /* bytes of prefix and body that are gathered */
    struct stuffer stuffer;
    char head[CONTENT_HEAD_MAX];
};

enum content_status {
    CONTENT_SENT,      /* the last byte has been handed to the kernel */
    CONTENT_HELD,      /* the tail is next, and not announced yet; call again when it is */
    CONTENT_AGAIN,     /* the rest waits for the socket */
    CONTENT_LOST,      /* the connection is gone; errno as in wire.h */
    CONTENT_UNREADABLE /* the file cannot be read, or is shorter than it should be */
};

void content_init(struct content *c, const struct job *j, bool bdat);
/* Sends what the socket takes. The wire's writable callback is the time to call
 * it again. */
enum content_status content_send(struct content *c, struct wire *w);

/* Whether bytes outside ASCII are in the content, or in its header only.
 * 1 or 0; -1: the file cannot be read. Blocks while it reads a file. */
int content_has_8bit(const struct job *j, bool header_only);

#endif
