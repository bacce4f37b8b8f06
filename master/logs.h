/* The log and the event log, opened by master for everybody. */
#ifndef POSTERN_MASTER_LOGS_H
#define POSTERN_MASTER_LOGS_H

#include "conf/config.h"

struct logs {
    int log;       /* file, /dev/log or standard error */
    int event_log; /* file, or /dev/null */
    bool degraded; /* the system log was not there: standard error instead */
};

/* Opens both into *l (which is not closed first). On an error nothing is open. */
int logs_open(struct logs *l, const struct config *config, struct err *e);
/* Whether logs_open will find its files, or can make them. Makes none. */
int logs_check(const struct config *config, struct err *e);
void logs_close(struct logs *l);
/* Makes master itself log there. */
void logs_use(const struct logs *l, const struct config *config);
/* Connects to the system log again; 0 if l->log is a new connection. */
int logs_reconnect(struct logs *l);

#endif
