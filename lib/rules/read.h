/* Reading a providers.conf: what its files share. Functions return 0, or -1 with *e. */
#ifndef POSTERN_RULES_READ_H
#define POSTERN_RULES_READ_H

#include <confuse.h>

#include "rules/set.h"

/* The file that is read, one at a time: libconfuse reports errors through a function without an
 * argument. */
struct rules_reading {
    const char *file; /* lives as long as the set */
    const char *text; /* of it */
    struct err *e;
    bool failed; /* *e is set */
};
extern struct rules_reading rules_reading;

/* options.c: what may stand in a file, for cfg_init. */
cfg_opt_t *rules_options(void);

/* Sets the error "file:line: rule NAME "value": what"; -1. */
int rules_bad(const cfg_t *section, struct err *e, const char *what, const char *value);
/* The same of a setting's value, with its own line: "file:line: provider x: mx "": what"; -1. */
int rules_bad_value(const cfg_t *section, const char *setting, const char *value, const char *what,
                    struct err *e);
/* The setting's value; NULL: it is not given. */
const char *rules_given(cfg_t *s, const char *name);
/* Each leaves *out as it is where the setting is not given. */
int rules_take_count(cfg_t *s, const char *name, uint32_t *out, struct err *e);
int rules_take_rate(cfg_t *s, const char *name, double *out, struct err *e);
int rules_take_time(cfg_t *s, const char *name, int64_t *out, struct err *e);
/* The position of `word` in a NULL-terminated list, or -1. */
int rules_word_in(const char *const *words, const char *word);
/* In lower case; the caller frees it. */
char *rules_lower(const char *text);

/* read_names.c: by what destinations are recognised. */
/* A host or domain in lower case, without a final dot; NULL with *why: there is no such name.
 * `suffix`: as mx has it, with a dot before it for all names below. The caller frees it. */
char *rules_name(const char *text, bool suffix, const char **why);
/* A list of them, NULL-terminated. What was taken is in *out in any case. */
int rules_take_names(cfg_t *s, const char *setting, bool suffix, char ***out, struct err *e);

/* read_rule.c: a rule section. */
int rules_add_rule(struct rules *r, cfg_t *s, struct err *e);

#endif
