/* Master's whole state, and what its parts offer each other. */
#ifndef POSTERN_MASTER_MASTER_H
#define POSTERN_MASTER_MASTER_H

#include <event2/event.h>
#include <sys/types.h>

#include "core/list.h"
#include "ipc/channel.h"
#include "master/listen.h"
#include "master/logs.h"
#include "master/plan.h"
#include "master/prepare.h"
#include "master/tables.h"

enum process_state { PROCESS_STARTING, PROCESS_READY, PROCESS_DRAINING };

/* One running process of a service. */
struct process {
    struct list link;
    struct master *master;
    struct member *member; /* whose place it fills or filled; NULL: the service is gone */
    const struct command *command;
    char *name;  /* of the service */
    char *label; /* for the log: "relay", "smtpd 127.0.0.1:2525" */
    unsigned slot;
    pid_t pid;
    struct channel *channel; /* NULL after it was closed */
    enum process_state state;
    bool replaced;       /* draining because a newer process has its place */
    bool connected;      /* sent ipc_ready, so it has its peers */
    bool broke_rules;    /* it sent what it may not: its channel is closed for that */
    bool asks_keys;      /* smtpd with TLS */
    bool asks_names;     /* smtpd with smtpd_peername_lookup */
    bool owners_only;    /* smtpd whose mail is all of accounts */
    char *endpoints;     /* it may be connected to, one a line; NULL: it asks for none */
    uint32_t generation; /* of the configuration it was started with */
    int region;          /* of the table of client counts, or -1 */
    int signalled;       /* the signal that the watchdog sent, or 0 */
    int64_t started;     /* microseconds, wall clock */
    int64_t born;        /* the same, monotonic */
    int64_t heard;       /* monotonic: of its last message */
    int64_t deadline;    /* monotonic: when a draining process is ended; 0: none */
};

/* A place for one process: service and number. It outlives its processes. */
struct member {
    struct list link;
    struct master *master;
    char *name;
    unsigned index; /* in the service */
    unsigned slot;  /* among all processes of the program */
    const struct command *command;
    const struct plan_service *service; /* in the current plan */
    struct process *process;            /* the newest, or NULL while it is down */
    unsigned restarts;                  /* since master started */
    int64_t delay;                      /* seconds before the next restart; grows in a crash loop */
    struct event *restart;
    bool kept; /* during a reload: still in the configuration */
};

enum stop_phase { NOT_STOPPING, STOP_EDGES, STOP_REST };

struct master {
    struct event_base *base;
    const char *config_directory; /* absolute */
    bool privileged;
    struct plan *plan;
    struct logs logs;
    struct tables tables;
    struct keys keys;
    struct list listeners; /* struct listener */
    int control;           /* listening socket for `postern` */
    int showq;             /* the same for mailq */
    int accounts;          /* the same for `postern account` and its kin, quota's */
    int client_counts;     /* the table that smtpd processes share */
    struct pid_file pid_file;
    struct list members, processes;
    uint32_t generation;
    unsigned reloads;
    bool ready; /* all services were ready once */
    int64_t started, last_tick, stop_deadline;
    enum stop_phase stopping;
    bool stop_at_once;
    int ready_pipe; /* to the waiting starter of a daemon, or -1 */
};

/* ---- spawn.c ---- */
/* Starts a process for the member. 0, or -1 with the reason. */
int spawn(struct member *member, struct err *e);
/* A descriptor with the configuration of a service, or -1. */
int spawn_config(const struct config *config, struct err *e);

/* ---- supervise.c ---- */
/* Makes the members what the plan says, starting and draining processes. */
void supervise_apply(struct master *m);
/* SIGCHLD: buries dead processes and plans their restart. */
void supervise_reap(struct master *m);
/* Once a second: watchdog and deadlines. */
void supervise_tick(struct master *m);
/* Asks a process to finish within `seconds`; without hurry if it was replaced. */
void supervise_drain(struct process *p, int64_t seconds, bool replaced);
/* A fresh process for a member beside the running one, which is drained when
 * the new one is ready. */
void supervise_replace(struct member *member);
/* The process's channel is open: its messages. */
extern const struct channel_ops supervise_channel_ops;

/* ---- broker.c ---- */
/* Gives a process that has become ready its peers. */
void broker_connect(struct process *p);
/* After a reload: where mynetworks_account is empty now, no process that there is has owners only.
 */
void broker_forget_owners(struct master *m);
/* Sends a process all lookup tables, if it takes any. */
void broker_tables(struct process *p);
/* Gives an smtpd process its region of the table of client counts. */
void broker_client_counts(struct process *p);
/* A process is gone: what it counted is no more. */
void broker_clear_counts(struct process *p);
/* Sends the log descriptors to one process. */
void broker_logs(struct process *p);

/* ---- connect.c ---- */
/* Lets a process be connected to what this configuration, which is its own, names
 * for its kind of service. */
void connect_permit(struct process *p, const struct config *config);
/* A process asks for a connection. */
void connect_request(struct process *p, const struct ipc_connect_request *m);

/* ---- life.c ---- */
void life_reload(struct master *m);
/* `again`: the operator is in a hurry. */
void life_stop(struct master *m, bool again);
/* Something ended: the next phase of the stop, or its end. */
void life_stop_next(struct master *m);
void life_ready(struct master *m);

/* ---- status.c ---- */
void status_reply(struct process *asking, uint64_t tag);

#endif
