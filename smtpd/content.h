/*
 * Collecting a message's content, from DATA or from BDAT chunks: in memory up
 * to message_memory_limit, beyond it in a file that qmgr opened for us. What
 * will be refused is read to its end but not kept.
 */
#ifndef POSTERN_SMTPD_CONTENT_H
#define POSTERN_SMTPD_CONTENT_H

#include "mail/header.h"
#include "smtp/data.h"
#include "smtpd/session.h"

struct XXH3_state_s;

struct content {
    struct data_machine data;
    struct header_scan header;
    struct buf body;   /* what is in memory */
    size_t counted;    /* of server->memory */
    int64_t began;     /* monotonic microseconds */
    uint64_t received; /* bytes as they came in */
    uint64_t chunk_left;
    bool last_chunk;
    bool made_message_id;     /* header.message_id is ours, see prefix.h */
    struct buf authors;       /* values of From: and Sender:, of an account's message */
    struct refusal too_large; /* the plan's limit, if it is below ours; code 0 */
    char too_large_text[64];
    bool dropped;                  /* no content is kept any more */
    const struct refusal *refusal; /* a cause that is not in the content; or NULL */
    int large;                     /* descriptor of the large message's file, or -1 */
    uint64_t large_len;
    struct XXH3_state_s *large_sum; /* of what was written */
};

/* Said at MAIL (SIZE), at BDAT, or at the end. */
extern const struct refusal content_too_large;

/* Starts collecting in the session's transaction. */
void content_begin(struct session *s, enum data_framing framing);
/* Takes input in the modes INPUT_DATA and INPUT_CHUNK; returns how much. At the
 * end of the message it is handed to qmgr or refused. */
size_t content_take(struct session *s, struct slice in);
/* A BDAT chunk begins (or, with size 0, is there at once). */
void content_chunk(struct session *s, uint64_t size, bool last);
/* qmgr's answer to LARGE_OPEN. content_large_ready takes over fd. */
void content_large_ready(struct session *s, int fd);
void content_large_refused(struct session *s, int code);
/* Large messages lie in a file; XXH3-64 of it. */
uint64_t content_large_sum(const struct content *c);
/* Bytes of the message as it is kept, without our prefix; data.sent of them came from the
 * client. */
uint64_t content_length(const struct content *c);
/* Forgets what is in memory: it is on its way to qmgr, or not wanted. */
void content_drop_memory(struct session *s);
void content_free(struct session *s);

#endif
