/* What memory.c, which holds what was learned, and memory_save.c, which keeps it in its file,
 * share. */
#ifndef POSTERN_QMGR_MEMORY_INSIDE_H
#define POSTERN_QMGR_MEMORY_INSIDE_H

#include "learned/learned.h"
#include "qmgr/memory.h"
#include "qmgr/memory_file.h"
#include "qmgr/writing.h"

struct remembered {
    struct list all;
    struct learned v;
    char *id, *alias; /* "key source" and "name source" */
};

/* A saving goes over all entries and lanes in slices, a slice in each turn. It remembers the last
 * ones that are in the text; when one of them goes, the one before it takes its place. What is
 * added meanwhile stands at a list's end, so nothing is missed; what moves from one list to
 * the other may be there twice, and then the later one holds. */
struct memory_saving {
    bool under_way;
    struct list *entry, *lane; /* the last that are written, or the list's head */
    size_t entries;
    bool too_long;
};

struct memory {
    struct map by_id, by_alias;
    struct list all; /* of struct remembered */
    size_t older;    /* entries since memory_apply that were older than what is known here */
    struct writing writing;
    struct memory_saving saving;
    int64_t next_save, next_sweep; /* monotonic */
    bool complained;               /* that it is too long */
};

/* Forgets what is too old. */
void memory_sweep(struct memory *m);
/* Takes over an entry of the file, with its strings, unless it is too old. */
void memory_load_entry(struct qmgr *q, struct learned *v);

#endif
