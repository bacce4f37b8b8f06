/* Inside of a set of rules: for the files of lib/rules alone. */
#ifndef POSTERN_RULES_SET_H
#define POSTERN_RULES_SET_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "rules/rules.h"

struct sample {
    char *text;
    bool must_match;
};

struct rule_inside {
    struct rule rule; /* first: a struct rule * is one of these */
    char *name;
    char *provider_name;
    pcre2_code *code, *enhanced, *text; /* NULL: any */
    struct sample *samples;
    size_t sample_count;
};

struct source_limits {
    char *address;
    struct rules_limits limits;
};

/* default, provider, site and domain sections are alike. */
enum section_kind { SECTION_DEFAULT, SECTION_PROVIDER, SECTION_SITE, SECTION_DOMAIN };
struct section {
    char *name; /* of default: "" */
    enum section_kind kind;
    const char *file;
    int line;
    char **mx, **hosts, **domains; /* NULL-terminated; a provider's ways to be recognised */
    struct rules_limits limits;
    struct source_limits *sources;
    size_t source_count;
};

struct section_list {
    struct section *list;
    size_t count;
};

struct includer {
    const char *file; /* NULL: the first file */
    int line;
};

struct rules {
    char *files[RULES_FILES_MAX];
    struct includer includers[RULES_FILES_MAX];
    size_t file_count, files_read;
    struct section everyone;
    struct section_list providers, sites, domains;
    struct section_list overrides; /* with override = true, as they were read */
    char **told;                   /* what each has changed, for people */
    size_t told_count;
    struct rule_inside *list;
    size_t count;
    pcre2_match_context *context;
    pcre2_match_data *match;
    void (*costly)(const struct rule *rule, void *arg);
    void *costly_arg;
};

/* Reads one file's text into the set; appends its includes to r->files. */
int rules_read_text(struct rules *r, const char *file, struct slice text, struct err *e);
/* When all files are read: changes the sections that others override. -1 with *e. */
int rules_apply_overrides(struct rules *r, struct err *e);
/* fields.c: the limits that sections have, in the order of the guide. */
enum { RULES_FIELDS = 18 };
const char *rules_field_name(unsigned i);
/* 0: not said. */
double rules_field_value(const struct rules_limits *l, unsigned i);
/* Appends a value as people write it: "100/s", "60s", "encrypt"; "nothing" for 0. */
void rules_field_tell(unsigned i, double value, struct buf *out);
const char *section_kind_name(enum section_kind kind);
/* marks.c: refuses that two providers are recognised by the same mx, host or domain. -1 with *e. */
int rules_check_marks(const struct rules *r, struct err *e);
/* Says where one name is in the lists of two providers in different ways. */
void rules_warn_marks(const struct rules *r, void (*say)(const char *text, bool error, void *arg),
                      void *arg);
/* What *from says goes before what *to says. */
void rules_inherit(struct rules_limits *to, const struct rules_limits *from);
/* Whether all patterns of a rule match the reply, whose text is from rules_subject. */
bool rule_matches(struct rules *r, const struct rule_inside *rule, const struct rules_reply *reply);
/* The same, whatever the stage. */
bool rule_matches_text(struct rules *r, const struct rule_inside *rule,
                       const struct rules_reply *reply);
/* Of two rules of one rank that match, whether a holds: by action, scope, what it asks for
 * (factor, value or time), outcome, retry_after. Where none of these tells, the first one does. */
bool rule_goes_before(const struct rule *a, const struct rule *b);

/* A decimal number such as 5 or 0.25, nothing after it; 0 or -1. */
int rules_parse_number(const char *text, double *out);
/* "90s", "5m", "1h", "30d", "500ms" into microseconds; 0 or -1. */
int rules_parse_time(const char *text, int64_t *out);

#endif
