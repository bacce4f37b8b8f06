/* The files of a set of rules as one text, in which master passes them to qmgr. */
#ifndef POSTERN_RULES_BUNDLE_H
#define POSTERN_RULES_BUNDLE_H

#include "rules/rules.h"

enum { RULES_BUNDLE_MAX = 4 * 1024 * 1024 };

/* Appends a file; the first one is where reading starts. 0, or -1: out->max. */
int rules_bundle_add(struct buf *out, const char *name, struct slice text);
/* As rules_load, from such a text. */
struct rules *rules_bundle_load(struct slice bundle, struct err *e);

#endif
