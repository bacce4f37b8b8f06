/*
 * main.cf as a C struct. params.def declares every parameter once; the struct,
 * the parser's table, `postern config` and the manual page come from it.
 *
 * Times are in seconds, sizes in bytes, lists stay text (walk them with
 * config_list_next). Strings are never NULL; an unset one is "".
 */
#ifndef POSTERN_CONF_CONFIG_H
#define POSTERN_CONF_CONFIG_H

#include <stdbool.h>
#include <stdio.h>

#include "core/buf.h"
#include "core/err.h"

struct config {
#define PARAM_STR(name, fallback, doc) const char *name;
#define PARAM_LIST(name, fallback, doc) const char *name;
#define PARAM_INT(name, fallback, min, max, doc) int64_t name;
#define PARAM_SIZE(name, fallback, min, max, doc) int64_t name;
#define PARAM_TIME(name, fallback, min, max, doc) int64_t name;
#define PARAM_BOOL(name, fallback, doc) bool name;
#define PARAM_ENUM(name, fallback, choices, doc) const char *name;
#include "conf/params.def"
#undef PARAM_STR
#undef PARAM_LIST
#undef PARAM_INT
#undef PARAM_SIZE
#undef PARAM_TIME
#undef PARAM_BOOL
#undef PARAM_ENUM
    struct config_private *private_; /* raw texts and where they came from */
};

/* Reads main.cf: defaults, the file, $name expansion, checks. The error names
 * file and line. The caller frees with config_free. */
struct config *config_load(const char *path, struct err *e);
/* The same from memory: `file` ("main.cf") goes into errors, relative paths
 * start from `directory`. */
struct config *config_parse(struct slice text, const char *file, const char *directory,
                            struct err *e);
/* A copy with `-o name=value` overrides of a master.cf line applied; `where`
 * ("master.cf:12") goes into errors. */
struct config *config_override(const struct config *c, const char *const *overrides, size_t count,
                               const char *where, struct err *e);
void config_free(struct config *c);

/* Writes all parameters to fd as text, and reads them back (in a service). */
int config_write(const struct config *c, int fd, struct err *e);
struct config *config_read(int fd, struct err *e);

/* For `postern config`: the i-th parameter (false past the end), in
 * alphabetical order. value is the expanded text, raw the one that was written or else the
 * fallback; set: given in main.cf. */
struct config_entry {
    const char *name, *value, *raw, *fallback, *doc, *type;
    bool set;
    const char *where; /* "main.cf:7" or "" */
};
bool config_entry(const struct config *c, size_t i, struct config_entry *out);

/* Where a parameter is set ("main.cf:7", "master.cf:12"), or "" if it has its default. */
const char *config_where(const struct config *c, const char *name);

/* The next element of a list: separated by commas and white space, which do not
 * separate inside { }. */
bool config_list_next(struct slice *list, struct slice *element);

#endif
