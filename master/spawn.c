/* fork, descriptors to their numbers, exec. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/mem.h"
#include "master/master.h"

enum {
    FDS_MAX = 4 + SERVICE_LISTENERS_MAX,
    FD_PARKED = 256 /* above all final numbers */
};

struct start {
    char *path, name[64], slot[16], listeners[16];
    int fds[FDS_MAX]; /* in the order of their numbers from SERVICE_FD_MASTER on */
    unsigned count;
};

int spawn_config(const struct config *config, struct err *e)
{
    int fd = memfd_create("main.cf", MFD_CLOEXEC);
    if (fd < 0)
        return err_sys(e, "memfd_create");
    if (config_write(config, fd, e) == 0)
        return fd;
    close(fd);
    return -1;
}

extern char **environ;

/* The environment is empty, except for what test builds are steered by. */
static bool keeps_variable(const char *variable)
{
#ifdef POSTERN_FAULTS
    if (strncmp(variable, "POSTERN_FAULT", strlen("POSTERN_FAULT")) == 0)
        return true;
#endif
#ifdef __SANITIZE_ADDRESS__
    const char *equals = strchr(variable, '=');
    struct slice name = slice_make(variable, equals ? (size_t)(equals - variable) : 0);
    if (slice_ends(name, SLICE("SAN_OPTIONS")))
        return true;
#endif
    (void)variable;
    return false;
}

/* In the child, until exec: no allocation, no event loop. */
_Noreturn static void become(const struct start *s)
{
    char *const argv[] = {s->path,
                          (char *)(uintptr_t) "-n",
                          (char *)(uintptr_t)s->name,
                          (char *)(uintptr_t) "-s",
                          (char *)(uintptr_t)s->slot,
                          (char *)(uintptr_t) "-l",
                          (char *)(uintptr_t)s->listeners,
                          NULL};
    char *kept[16];
    size_t n = 0;
    int parked[FDS_MAX], null = open("/dev/null", O_RDWR | O_CLOEXEC);
    bool good = null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(null, STDOUT_FILENO) >= 0;
    for (unsigned i = 0; good && i < s->count; i++)
        good = (parked[i] = fcntl(s->fds[i], F_DUPFD_CLOEXEC, FD_PARKED)) >= 0;
    for (unsigned i = 0; good && i < s->count; i++)
        good = dup2(parked[i], SERVICE_FD_MASTER + (int)i) >= 0;
    if (good && close_range(SERVICE_FD_MASTER + s->count, ~0U, 0) < 0)
        good = false;
    for (char **v = environ; *v && n < sizeof kept / sizeof kept[0] - 1; v++)
        if (keeps_variable(*v))
            kept[n++] = *v;
    kept[n] = NULL;
    if (good)
        execve(s->path, argv, kept);
    dprintf(STDERR_FILENO, "postern/master: fatal: %s: cannot be started: %s\n", s->path,
            strerror(errno));
    _exit(127);
}

static int gather(struct start *s, const struct member *member, int channel, int config,
                  struct err *e)
{
    const struct master *m = member->master;
    const struct plan_service *service = member->service;
    unsigned listeners = 0;
    s->fds[s->count++] = channel;
    s->fds[s->count++] = config;
    s->fds[s->count++] = m->logs.log;
    s->fds[s->count++] = m->logs.event_log;
    if (member->command == command_find(SLICE("qmgr"))) {
        s->fds[s->count++] = m->control;
        s->fds[s->count++] = m->showq;
        listeners += 2;
    }
    if (member->command == command_find(SLICE("quota"))) {
        s->fds[s->count++] = m->accounts;
        listeners++;
    }
    for (unsigned i = 0; i < service->address_count; i++) {
        int fd = listen_find(&m->listeners, service->addresses[i].text);
        if (fd < 0)
            continue; /* its address family is missing */
        s->fds[s->count++] = fd;
        listeners++;
    }
    if (service->address_count && !listeners)
        return err_set(e, "%s: none of its addresses can be listened on", service->line->where);
    snprintf(s->name, sizeof s->name, "%s", member->name);
    snprintf(s->slot, sizeof s->slot, "%u", member->slot);
    snprintf(s->listeners, sizeof s->listeners, "%u", listeners);
    return 0;
}

/* Nobody may relay there without a login or mynetworks_account. quota knows the one of main.cf
 * only. */
static bool owners_only(const struct member *smtpd)
{
    const struct config *own = smtpd->service->config, *all = smtpd->master->plan->config;
    return smtpd->command == command_find(SLICE("smtpd")) && own->accounts_enable &&
           *own->mynetworks_account && *all->mynetworks_account;
}

static void add_process(struct member *member, pid_t pid, int channel)
{
    struct master *m = member->master;
    struct process *p = xcalloc(1, sizeof *p);
    p->master = m;
    p->member = member;
    p->command = member->command;
    p->name = xstrdup(member->name);
    p->label = strcmp(member->name, member->command->name) == 0
                   ? xstrdup(member->name)
                   : xasprintf("%s %s", member->command->name, member->name);
    p->slot = member->slot;
    p->region = -1;
    p->asks_keys = member->service->tls != NULL;
    p->asks_names = p->command == command_find(SLICE("smtpd")) &&
                    member->service->config->smtpd_peername_lookup;
    p->owners_only = owners_only(member);
    connect_permit(p, member->service->config);
    p->generation = m->generation;
    p->pid = pid;
    p->started = clock_wall();
    p->born = p->heard = clock_mono();
    p->channel = channel_new(m->base, channel, p->label, &supervise_channel_ops, p);
    member->process = p;
    list_push(&m->processes, &p->link);
}

/* No signal may run the event loop's handler in the child; the service unblocks
 * them (service_main). */
static pid_t fork_blocked(void)
{
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid != 0) {
        int number = errno;
        sigprocmask(SIG_SETMASK, &before, NULL);
        errno = number;
    }
    return pid;
}

int spawn(struct member *member, struct err *e)
{
    struct master *m = member->master;
    struct start s = {.count = 0};
    int pair[2] = {-1, -1};
    int config = spawn_config(member->service->config, e);
    if (config < 0)
        return -1;
    if (channel_pair(pair, e) < 0 || gather(&s, member, pair[1], config, e) < 0)
        goto failed;
    s.path = xasprintf("%s/%s", m->plan->config->program_directory, member->command->name);
    channel_flush_all();
    log_flush();
    pid_t pid = fork_blocked();
    if (pid == 0)
        become(&s);
    free(s.path);
    if (pid < 0) {
        err_sys(e, "fork");
        goto failed;
    }
    close(config);
    close(pair[1]);
    add_process(member, pid, pair[0]);
    broker_tables(member->process);
    broker_client_counts(member->process);
    keys_send(member->process);
    return 0;
failed:
    close(config);
    if (pair[0] >= 0) {
        close(pair[0]);
        close(pair[1]);
    }
    return -1;
}
