/*
 * Message content as it comes in after DATA (354) or in BDAT chunks, made
 * canonical: every line ends in CRLF, dots are not stuffed. Only CRLF.CRLF ends
 * DATA (RFC 5321 4.1.1.4; a server that takes LF.LF for the end lets a sender
 * smuggle a second message). The result does not depend on how the stream is
 * split. Reads and appends in long runs; state is a few words, so content of
 * any length takes constant memory.
 *
 * Content that will be refused is not collected: `discard` is set, nothing more
 * is appended, and the owner may drop what it has. The end is still found.
 */
#ifndef POSTERN_SMTP_DATA_H
#define POSTERN_SMTP_DATA_H

#include "core/buf.h"
#include "core/refusal.h"

enum data_framing {
    DATA_DOTS, /* DATA: dots are stuffed, CRLF.CRLF ends */
    DATA_BDAT  /* chunks (RFC 3030): the caller counts bytes and knows the end */
};

/* What to do about LF without CR and CR without LF (B01, B02). */
enum data_mode {
    DATA_REJECT,   /* read to the true end, refuse there */
    DATA_NORMALIZE /* each becomes CRLF, for old devices */
};

/* What was seen; bits of data_machine.flags. */
enum data_flag {
    DATA_BARE_LF = 1,
    DATA_BARE_CR = 2,
    DATA_NUL = 4,
    DATA_8BIT = 8,       /* no cause for refusal by itself */
    DATA_LONG_LINE = 16, /* a line over the line limit */
    DATA_TOO_BIG = 32    /* more than the size limit */
};

enum data_status {
    DATA_MORE, /* all input taken, the end has not come */
    DATA_FULL, /* out has less than DATA_ROOM_MIN bytes left below its max: drain it */
    DATA_END   /* the end; what follows `consumed` are commands */
};

enum {
    DATA_ROOM_MIN = 64,       /* room in `out` with which data_feed always gets on */
    DATA_LINE_MAX = 64 * 1024 /* usual line limit, without CRLF (B08) */
};

struct data_machine {
    uint64_t size;       /* bytes of canonical content so far, discarded ones included */
    uint64_t sent;       /* the same as the client counts them (RFC 1870 section 3): stuffed dots
                          * and the end left out, line ends as they came */
    uint64_t size_limit; /* of these */
    uint64_t line;       /* bytes of the current line */
    uint64_t longest;    /* bytes of the longest line, without CRLF */
    uint64_t line_limit;
    uint8_t flags; /* enum data_flag */
    uint8_t state; /* private */
    uint8_t mode, framing;
    bool discard;
};

/* Begins a message. size_limit: of what the client sends; 0: none. */
void data_init(struct data_machine *m, enum data_framing framing, enum data_mode mode,
               uint64_t size_limit, uint64_t line_limit);
/* Takes bytes from the front of `in`, appends canonical content to `out`;
 * *consumed says how many. Stops only at the end or when `out` is full. For
 * BDAT, `in` must hold bytes of the chunk only, and DATA_END never comes. */
enum data_status data_feed(struct data_machine *m, struct slice in, size_t *consumed,
                           struct buf *out);
/* After the last BDAT chunk: completes a last line without CRLF. `out` must
 * have DATA_ROOM_MIN bytes of room. Harmless after DATA_END. */
void data_finish(struct data_machine *m, struct buf *out);
/* Why the content cannot be taken, for the reply at the end of data; or NULL. */
const struct refusal *data_refusal(const struct data_machine *m);

#endif
