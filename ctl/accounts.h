/* What the commands on accounts share. */
#ifndef POSTERN_CTL_ACCOUNTS_H
#define POSTERN_CTL_ACCOUNTS_H

#include "ctl/ctl.h"

/* Asks quota, after a look whether accounts are on; as client_ask. */
int accounts_ask(struct ctl *ctl, json_t *request, int (*line)(json_t *result, void *arg),
                 void *arg, json_t **last);
/* The same without results; what quota refuses is not printed, but *last's "error". */
int accounts_ask_quietly(struct ctl *ctl, json_t *request, json_t **last);

/* ---- accounts_print.c ------------------------------------------------------------------ */

/* The results of one request. */
struct accounts_output {
    struct ctl *ctl;
    const char *request;
    struct table *table; /* NULL: no line yet, or no list */
    unsigned count;
    json_int_t without_scram; /* users of a list who have a password and no SCRAM keys */
};
/* A result, for accounts_ask; `output` is a struct accounts_output. */
int accounts_print_line(json_t *result, void *output);
/* After the last one. */
void accounts_print_end(struct accounts_output *o);
/* What was done and is mostly a mistake. */
void accounts_print_warnings(const json_t *warnings);
/* Of users who came as hashes; nothing if SCRAM is not offered. */
void accounts_print_without_scram(struct ctl *ctl, json_int_t users);

/* ---- others ------------------------------------------------------------------------------ */

/* Asks quota which plans accounts have: a sentence for each that plans_file, as it stands, does
 * not have, and for mynetworks_account if there is no such account. Their number; 0 as well where
 * accounts are off or the file is wrong. And for each source pool of accounts that
 * source_config_file does not have. */
int plans_used_check(struct ctl *ctl, const struct config *c,
                     void (*found)(const char *sentence, void *arg),
                     void (*no_pool)(const char *sentence, void *arg), void *arg);
/* A sentence for each setting in plans_file that has no effect, or names a source pool that is
 * none; none where accounts are off or the file is wrong. */
void plans_advise_check(struct ctl *ctl, const struct config *c,
                        void (*found)(const char *sentence, void *arg), void *arg);
/* A secret: from the terminal without echo, asked twice, or the first line of
 * standard input. Wiped and freed by secret_free. NULL after telling what is wrong. */
char *secret_read(const char *what);
void secret_free(char *secret);

#endif
