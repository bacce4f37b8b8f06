/* What the commands on accounts share. */
#ifndef POSTERN_CTL_ACCOUNTS_H
#define POSTERN_CTL_ACCOUNTS_H

#include "ctl/ctl.h"

/* Asks quota, after a look whether accounts are on; as client_ask. */
int accounts_ask(struct ctl *ctl, json_t *request, int (*line)(json_t *result, void *arg),
                 void *arg, json_t **last);
/* Asks quota which plans accounts have: a sentence for each that plans_file, as it stands, does
 * not have. Their number; 0 as well where accounts are off or the file is wrong. */
int plans_used_check(struct ctl *ctl, const struct config *c,
                     void (*found)(const char *sentence, void *arg), void *arg);
/* A secret: from the terminal without echo, asked twice, or the first line of
 * standard input. Wiped and freed by secret_free. NULL after telling what is wrong. */
char *secret_read(const char *what);
void secret_free(char *secret);

#endif
