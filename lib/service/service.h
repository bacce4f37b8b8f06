/*
 * The skeleton of every service: arguments, configuration, log, open, jail,
 * loop. A service's main.c supplies callbacks and calls service_main.
 *
 * master starts a service as
 *     PROGRAM -n NAME -s SLOT -l LISTENERS
 * with an empty environment and these descriptors:
 *     3  channel to master       5  log (see log_kind parameter)
 *     4  configuration (memfd)   6  event log, or /dev/null
 *     7  and on: the listening sockets
 * It never reads a file or an environment variable for its configuration.
 */
#ifndef POSTERN_SERVICE_SERVICE_H
#define POSTERN_SERVICE_SERVICE_H

#include <event2/event.h>

#include "conf/config.h"
#include "core/err.h"
#include "core/log.h"
#include "ipc/channel.h"

enum service_jail {
    JAIL_EMPTY,   /* chroot into empty_directory */
    JAIL_SPOOL,   /* chroot into queue_directory (or chdir there, unprivileged) */
    JAIL_ACCOUNTS /* the same with accounts_directory */
};

enum { SERVICE_LISTENERS_MAX = 32 };

struct service {
    const struct service_ops *ops;
    const char *name; /* of the service in master.cf */
    unsigned slot;    /* which of its processes, from 0 */
    struct event_base *base;
    const struct config *config; /* replaced on reload, before ops->reload; the old one is freed
                                  * after it returns, so keep no pointers into it */
    struct channel *master;      /* NULL once master is gone (the service is draining then) */
    int listeners[SERVICE_LISTENERS_MAX];
    unsigned listener_count;
    int event_log; /* descriptor; its number stays the same over rotations */
    bool draining, privileged;
    bool replaced; /* draining, but a newer process has taken over: idle sessions may stay */
    bool stopped;  /* set by service_stop; the loop ends after this turn */
    void *state;   /* the service's own */
};

/* Where master puts a service's descriptors. */
enum service_fd {
    SERVICE_FD_MASTER = 3,
    SERVICE_FD_CONFIG,
    SERVICE_FD_LOG,
    SERVICE_FD_EVENT_LOG,
    SERVICE_FD_LISTENERS
};

struct service_ops {
    const char *program; /* "smtpd"; the log name is syslog_name/program */
    const char *user;    /* "_postern-smtpd" */
    enum service_jail jail;
    bool network; /* may it make Internet sockets? (seccomp) */
    bool threads; /* may it make threads after the jail? (seccomp) */
    /* Before the jail, as root: open what later cannot be opened. May be NULL. */
    int (*open)(struct service *s, struct err *e);
    /* In the jail: set up and start watching events. */
    int (*start)(struct service *s, struct err *e);
    /* A channel to a peer; the service takes over fd (channel_new). `peer` is the
     * name of its program ("smtpd", "qmgr"), `slot` is unique among the processes
     * of that program. An older channel to the same (peer, slot) is closed by its
     * own EOF; until then, as after a reload, both live. */
    void (*peer)(struct service *s, struct slice peer, unsigned slot, unsigned pid, int fd);
    /* A lookup table's content; takes over fd. NULL: no tables. */
    void (*table)(struct service *s, struct slice parameter, unsigned position, struct slice spec,
                  int fd);
    /* The table of client counts (service/client_counts.h) and the region of this
     * process; takes over fd. Comes before the first peer. NULL: not for us. */
    void (*client_counts)(struct service *s, unsigned region, int fd);
    /* The answer to an ipc_connect_request: a socket that is connecting, which the
     * service takes over, or -1 and why. NULL: the service asks for none. */
    void (*connecting)(struct service *s, uint64_t tag, int fd, struct slice why);
    /* s->config is the new configuration. May be NULL. */
    void (*reload)(struct service *s);
    /* Take nothing new, finish what is under way, then service_stop(). `seconds`
     * later the service is ended. Called again when s->replaced was set and a stop
     * follows. NULL: stop at once. */
    void (*drain)(struct service *s, unsigned seconds);
    /* After each turn of the loop, before channels and log are flushed. May be NULL. */
    void (*turn)(struct service *s);
    /* Another message from master (ipc_status_reply). May be NULL. */
    int (*message)(struct service *s, const struct ipc_frame *f, struct err *e);
    /* Another message from master that comes with a descriptor, which the service
     * takes over. May be NULL. */
    int (*descriptor)(struct service *s, const struct ipc_frame *f, int fd, struct err *e);
    /* A new event log descriptor replaced the old one in s->event_log. May be NULL. */
    void (*event_log)(struct service *s);
};

/* Runs the service until it is told to stop; returns the exit status. */
int service_main(int argc, char **argv, const struct service_ops *ops);
/* Ends the loop after this turn; what is queued on channels is sent. */
void service_stop(struct service *s);
/* start() works and needs long: sends a heartbeat, at most one a second, so that master's
 * watchdog does not take the process for one that hangs. Call it where work goes on, never
 * from a timer of its own. */
void service_alive(struct service *s);
/* Asks master for a connection to an address that the configuration names; CONNECTING with
 * the same tag answers. False: master is gone. `service` is a struct service (remote.h wants
 * a callback of this shape). */
bool service_ask_connection(void *service, uint64_t tag, struct slice endpoint);
/* The program name in log lines: "postern/smtpd", or with compatible_log_names
 * "postfix/smtp" for relay and so on. Names that are no program of ours
 * ("cleanup") stay. */
void service_log_name(const struct config *c, const char *program, char *out, size_t size);
/* The kind of log that the descriptor is, and that maillog_file asks for. */
enum log_kind service_log_kind(const struct config *c, int fd);

#endif
