/* Inside of lib/sources: a section of the file with the lines of its options. */
#ifndef POSTERN_SOURCES_READ_H
#define POSTERN_SOURCES_READ_H

#include <confuse.h>

#include "sources/sources.h"

/* An option that the file gives, and where. */
struct met {
    const cfg_opt_t *opt;
    int line;
};

/* One file is read at a time: libconfuse's callbacks have no argument of ours. */
struct reading {
    const char *file;
    struct err *e;
    bool failed; /* *e is set */
    struct met *met;
    size_t count, hint;
};
extern struct reading *sources_reading;

/* The options of the file, for cfg_init. */
cfg_opt_t *sources_options(void);
/* For cfg_set_error_function. */
void sources_on_error(cfg_t *cfg, const char *format, va_list args);
/* The option's value, or NULL if it is not given. */
const char *sources_text(cfg_t *section, const char *option);
/* The line of the option, or of the section if the option is not given. */
int sources_line(cfg_t *section, const char *option);
/* Sets the error: "file:line: source out1: what"; -1. */
int sources_bad(cfg_t *section, const char *option, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* values.c: each 0, or -1 if the text is none. */
int sources_parse_count(const char *text, uint64_t max, uint64_t *out);
int sources_parse_time(const char *text, int64_t *microseconds);
int sources_parse_date(const char *text, int64_t *seconds);
/* "linear:30d" or "table:50,100,200". */
int sources_parse_warmup(const char *text, struct source_ramp *out);
bool sources_is_name(const char *text);
bool sources_is_host(const char *text);

#endif
