/* The parts of postconf: what was asked for, and who answers it. */
#ifndef POSTERN_CTL_COMPAT_POSTCONF_H
#define POSTERN_CTL_COMPAT_POSTCONF_H

#include "ctl/compat.h"

struct postconf {
    struct ctl *ctl;
    char mode;    /* of "denX#", or 0: only shown */
    char names;   /* 'h' values only, 'H' names only, or 0 */
    char master;  /* 'M', 'F' or 'P': of master.cf; 0: main.cf */
    bool fold;    /* -f */
    bool expand;  /* -x */
    char **words; /* the names, or name=value; ends with NULL */
    char **overrides;
    size_t override_count; /* -o */
};

/* Directory and name of a configuration file; the caller frees. */
char *postconf_path(const struct postconf *pc, const char *file);
/* "name = value", or the half of it that is wanted. */
void postconf_print(const struct postconf *pc, const char *name, const char *value);

/* -e, -X, -#: changes main.cf as one step; an exit status. */
int postconf_edit(const struct postconf *pc);
/* -M, -F, -P: shows master.cf. */
int postconf_master(const struct postconf *pc);

#endif
