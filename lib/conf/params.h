/* The table of parameters, made from params.def; inside lib/conf only. */
#ifndef POSTERN_CONF_PARAMS_H
#define POSTERN_CONF_PARAMS_H

#include "conf/config.h"

enum param_type {
    PARAM_TYPE_STR,
    PARAM_TYPE_LIST,
    PARAM_TYPE_INT,
    PARAM_TYPE_SIZE,
    PARAM_TYPE_TIME,
    PARAM_TYPE_BOOL,
    PARAM_TYPE_ENUM
};

struct param {
    const char *name;
    enum param_type type;
    const char *fallback;
    int64_t min, max;
    const char *choices; /* of an enum, by spaces */
    const char *doc;
    size_t offset; /* in struct config */
};

enum {
#define PARAM_STR(name, fallback, doc) PARAM_INDEX_##name,
#define PARAM_LIST(name, fallback, doc) PARAM_INDEX_##name,
#define PARAM_INT(name, fallback, min, max, doc) PARAM_INDEX_##name,
#define PARAM_SIZE(name, fallback, min, max, doc) PARAM_INDEX_##name,
#define PARAM_TIME(name, fallback, min, max, doc) PARAM_INDEX_##name,
#define PARAM_BOOL(name, fallback, doc) PARAM_INDEX_##name,
#define PARAM_ENUM(name, fallback, choices, doc) PARAM_INDEX_##name,
#include "conf/params.def"
#undef PARAM_STR
#undef PARAM_LIST
#undef PARAM_INT
#undef PARAM_SIZE
#undef PARAM_TIME
#undef PARAM_BOOL
#undef PARAM_ENUM
    PARAM_COUNT
};

extern const struct param params[PARAM_COUNT];

struct config_private {
    char *raw[PARAM_COUNT];   /* as written; NULL: the default holds */
    char *where[PARAM_COUNT]; /* "main.cf:7", or NULL */
    char *value[PARAM_COUNT]; /* expanded and checked */
    char *directory;          /* of main.cf: what relative paths start from; NULL in a service */
    char *file;               /* "main.cf" */
};

/* The index of a parameter, or -1. */
int param_find(struct slice name);
/* The parameter with the most similar name, or NULL if none is similar. */
const char *param_similar(struct slice name);
/* What to do about a parameter that Postfix has and that is not here, for the person who moves a
 * main.cf; NULL: not known. */
const char *param_of_postfix(struct slice name);
/* Whether this is a path that relative to main.cf's directory is made absolute,
 * or otherwise has to be the same for all services. */
bool param_is_path(int index);
/* Parses `text` by the parameter's type and puts it into *c (a string is
 * borrowed from text). The error has no position. */
int param_set(struct config *c, int index, const char *text, struct err *e);
/* Checks what a type cannot say: addresses, names, networks. */
int param_check(int index, const char *text, struct err *e);
/* The text of a parameter with all $names replaced, appended to out. The error
 * names file and line. */
int param_expand(const struct config_private *p, int index, struct buf *out, struct err *e);

#endif
