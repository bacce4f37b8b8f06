/* An event log, line by line: as it is written, or as gzip has rotated it away. */
#ifndef POSTERN_CTL_EVENT_LOG_H
#define POSTERN_CTL_EVENT_LOG_H

#include <zlib.h>

#include "core/buf.h"
#include "core/err.h"

enum {
    EVENT_LINE_MAX = 1024 * 1024, /* bytes; what is longer is no event */
    EVENT_PIECE = 64 * 1024       /* read at a time */
};

struct event_log {
    const char *path; /* for errors; borrowed */
    gzFile file;
    char piece[EVENT_PIECE]; /* that was read last */
    size_t at, len;          /* of it: what is left begins there */
    struct buf line;
    unsigned long lines;
};

/* "-" is the standard input. 0, or -1 with *e. */
int event_log_open(struct event_log *log, const char *path, struct err *e);
/* The next line without its end, NUL-terminated, valid until the next call (NUL bytes
 * in it end it early: then it is no event): 1; 0: at the end; -1
 * with *e: it cannot be read on, as where a compressed file ends too early. */
int event_log_next(struct event_log *log, const char **line, struct err *e);
void event_log_close(struct event_log *log);
/* The program that unpacks what begins with this line ("xzcat"), or NULL. */
const char *event_log_unpacker(const char *first_line);

#endif
