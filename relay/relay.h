/* The process: what all sessions and jobs share. */
#ifndef POSTERN_RELAY_RELAY_H
#define POSTERN_RELAY_RELAY_H

#include "relay/client_tls.h"
#include "relay/job.h"
#include "relay/pool.h"
#include "relay/timers.h"
#include "service/service.h"

struct relay {
    struct service *service;
    struct channel *qmgr; /* NULL: none, there are no jobs then */
    struct list jobs;
    struct list held;   /* sessions whose end of data is to be announced to qmgr */
    struct list asking; /* sessions whose socket master was asked for */
    uint64_t next_tag;
    struct list dead; /* sessions closed in this turn, freed at its end */
    unsigned job_count, session_count;
    unsigned session_limit; /* above it spare sessions give way to new ones; 0: none */
    struct pool pool;
    struct timers timers;
    struct client_tls client_tls;
    bool draining;
    int64_t complained; /* when the lack of descriptors was last logged */
};

/* Sends the result of a job whose recipients are all decided, and frees it. */
void relay_job_done(struct relay *relay, struct job *j);

#endif
