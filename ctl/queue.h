/* What the commands on the queue share: cmd_queue.c lists, cmd_action.c acts. */
#ifndef POSTERN_CTL_QUEUE_H
#define POSTERN_CTL_QUEUE_H

#include "ctl/ctl.h"

/* Asks once for each of the selections (select_build) with `request`, which is taken
 * over; `line` and `raw` as for client_ask_raw. The counts of the last lines are
 * added up in `sums`. A status. */
int queue_ask(struct ctl *ctl, json_t *selections, json_t *request, int (*line)(json_t *, void *),
              void (*raw)(struct slice, void *), void *arg, json_t *sums);
/* Prints the messages that `request` (taken over) answers with. A status. */
int queue_print(struct ctl *ctl, json_t *selections, bool deleted, json_t *request, json_t *sums);
/* Says that an ID is not there; `deleted`: not among the deleted ones. */
int queue_missing(const char *id, bool deleted);

#endif
