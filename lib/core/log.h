/*
 * Logging. Lines are gathered and written together at the end of an event loop
 * turn (log_flush), each file write whole, so that processes can share one
 * O_APPEND file. A receiver that takes nothing, for whatever reason, never blocks
 * mail (F43): lines wait for it in a bounded buffer; what does not fit in there is
 * dropped and counted, and the count is logged when it takes lines again.
 *
 * Text from peers must have passed buf_add_escaped or log_esc; the log adds no
 * escaping of its own beyond replacing control bytes with '?'.
 */
#ifndef POSTERN_CORE_LOG_H
#define POSTERN_CORE_LOG_H

#include <stdbool.h>

#include "core/slice.h"

enum log_level {
    LOG_LEVEL_PANIC,
    LOG_LEVEL_FATAL,
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARNING,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG
};

/* How lines are framed for the receiver behind the descriptor. */
enum log_kind {
    LOG_KIND_STDERR, /* "name: text", no time: a person or a service manager reads it */
    LOG_KIND_FILE,   /* "Nov 21 20:29:46 host name[pid]: text": a file, one write per flush */
    LOG_KIND_SYSLOG  /* "<prio>Nov 21 20:29:46 name[pid]: text": one datagram a line to /dev/log */
};

/* Starts logging as `name` (e.g. "postern/smtpd") on fd, which stays the
 * caller's. Before it is called lines go to stderr. hostname is used for
 * LOG_KIND_FILE. */
void log_open(const char *name, const char *hostname, enum log_kind kind, int fd);
/* Replaces the descriptor (log rotation, syslog restart); returns the old one. */
int log_set_fd(int fd);
/* Lines above this level are not logged; default LOG_LEVEL_INFO. */
void log_set_level(enum log_level level);
bool log_wants(enum log_level level);

/* One line each. Levels above INFO put "warning: ", "error: ", "fatal: " or
 * "panic: " before the text, as Postfix does. */
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_fatal(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_panic(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* An information line under another program name ("postern/relay"), for an
 * event of which this process is the writer but not the subject. */
void log_info_as(const char *name, struct slice text);

/* Writes what has been gathered. */
void log_flush(void);
/* Called at a flush when the receiver is broken and not just slow (a restarted
 * syslog, a full disk): the owner may then ask master for a new descriptor. */
void log_on_broken(void (*callback)(void *arg), void *arg);

/* Escaped peer text for a "%s" argument: one of 8 static buffers in turn, so
 * valid until 8 further calls; at most 256 input bytes, then "...". */
const char *log_esc(struct slice s);
/* The same with a limit of up to 1024 input bytes. */
const char *log_esc_n(struct slice s, size_t max);

#endif
