/* What the files of an import share: requests_transfer.c, import_counts.c. */
#ifndef POSTERN_QUOTA_IMPORT_H
#define POSTERN_QUOTA_IMPORT_H

#include "quota/requests.h"

/* What becomes of counts that the database has itself. */
enum counts { COUNTS_KEEP, COUNTS_REPLACE, COUNTS_NONE };

/* One request. */
struct importing {
    struct quota *q;
    struct client *c;
    struct buf *batch;
    json_t *fresh;        /* accounts of this request, with the one above it: they are not in the
                             database yet */
    json_t *users;        /* login names of this request */
    json_t *certificates; /* fingerprints of this request, with the user's login */
    struct buf index;     /* changes, after all that the batch removes */
    json_t *owned;        /* domains of this request: [account, domain] */
    json_t *owners;       /* whose usage or rates have changed */
    json_t *changes;      /* texts for the audit log */
    enum counts counts;   /* what becomes of those that the database has */
    json_t *kept;         /* of those by their types: how many records were not taken */
    json_t *granted;      /* accounts of this request's grants: how many they have */
    bool charges;         /* it has some */
    bool first;           /* the first import of an empty database: all of the file is taken */
    json_int_t without_scram; /* users who have a password's hash, and no SCRAM keys yet */
};

/* What a record changes, for the audit log: the names of its members, never what they are.
 * `before` is taken; NULL: it is new. */
void import_note(struct importing *i, const char *type, const char *name, json_t *before,
                 json_t *after);
/* In the database, or before in this request. */
bool import_has_account(const struct importing *i, const char *name);

/* Usage, rates, held, charge. */
bool import_is_counted(const char *type);
/* Each takes one record: 0, or -1 and why. */
int import_counts(struct importing *i, const char *type, const json_t *in, struct err *e);
int import_grant(struct importing *i, const json_t *in, struct err *e);
/* Right before the request is applied, with what belongs into its batch. */
void import_counting(const struct importing *i);
/* After it was applied: what memory has of these was counted before. */
void import_counted(const struct importing *i);

#endif
