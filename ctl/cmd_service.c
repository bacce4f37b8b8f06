/* start, stop, reload, status. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/mem.h"
#include "ctl/accounts.h"
#include "ctl/check.h"

enum { POLL_MILLISECONDS = 20, START_SECONDS = 60, STOP_MARGIN_SECONDS = 30, FINDING_MAX = 2048 };

static void pause_a_little(void)
{
    const struct timespec t = {0, POLL_MILLISECONDS * 1000000L};
    nanosleep(&t, NULL);
}

static int no_arguments(struct ctl *ctl, const struct ctl_command *self, char **argv)
{
    const struct arg none[] = {{NULL, NULL, NULL}};
    int n = args_parse(ctl, self, none, argv);
    if (n > 0) {
        ctl_usage(self, "'%.80s' is one argument too many", argv[0]);
        return -1;
    }
    return n;
}

static int not_running(const struct ctl *ctl)
{
    return ctl_error(CTL_NOT_RUNNING, "Postern is not running with the configuration in %s",
                     ctl->directory);
}

/* ---- start ---------------------------------------------------------------------- */

static int run_master(struct ctl *ctl, const struct config *c)
{
    char *program = xasprintf("%s/master", c->program_directory);
    int state = 0;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        execl(program, program, "-c", ctl->directory, "-d", (char *)NULL);
        ctl_error(CTL_FAILED, "%s: %s; check program_directory in main.cf", program,
                  strerror(errno));
        _exit(126);
    }
    free(program);
    if (pid < 0)
        return ctl_error(CTL_FAILED, "cannot start a process: %s", strerror(errno));
    while (waitpid(pid, &state, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(state) && WEXITSTATUS(state) == 0)
        return CTL_OK;
    long master = master_pid(ctl);
    if (master)
        return ctl_error(CTL_FAILED,
                         "Postern runs, as process %ld, but not all of its services are ready: "
                         "'postern -c %s status' and the log tell which; 'postern -c %s stop' "
                         "ends it",
                         master, ctl->directory, ctl->directory);
    return ctl_error(CTL_FAILED, "Postern did not start; 'postern -c %s check' may tell more",
                     ctl->directory);
}

int cmd_start(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    (void)argc;
    int n = no_arguments(ctl, self, argv);
    if (n != 0)
        return args_status(n);
    const struct config *c = ctl_config(ctl);
    if (!c)
        return CTL_FAILED;
    long pid = master_pid(ctl);
    if (pid) {
        printf("Postern is running already, as process %ld.\n", pid);
        return CTL_OK;
    }
    int status = run_master(ctl, c);
    if (status != CTL_OK)
        return status;
    int64_t end = clock_mono() + START_SECONDS * CLOCK_SECOND;
    while ((status = client_probe(ctl)) == CTL_NOT_RUNNING && clock_mono() < end)
        pause_a_little();
    pid = master_pid(ctl);
    if (status == CTL_NOT_RUNNING)
        return ctl_error(CTL_FAILED,
                         "Postern was started, but its queue manager does not answer after %d "
                         "seconds; look into the log",
                         START_SECONDS);
    printf("Postern is running, as process %ld.\n", pid);
    return CTL_OK;
}

/* ---- stop and reload ---------------------------------------------------------------- */

static int send_signal(long pid, int number)
{
    if (kill((pid_t)pid, number) == 0)
        return CTL_OK;
    if (errno == EPERM)
        return ctl_error(CTL_DENIED, "you may not control process %ld; become root", pid);
    return ctl_error(CTL_FAILED, "cannot signal process %ld: %s", pid, strerror(errno));
}

int cmd_stop(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    (void)argc;
    int n = no_arguments(ctl, self, argv);
    if (n != 0)
        return args_status(n);
    const struct config *c = ctl_config(ctl);
    if (!c)
        return CTL_FAILED;
    long pid = master_pid(ctl);
    if (!pid)
        return not_running(ctl);
    int status = send_signal(pid, SIGTERM);
    int64_t end = clock_mono() + (c->service_stop_time + STOP_MARGIN_SECONDS) * CLOCK_SECOND;
    while (status == CTL_OK && master_pid(ctl) == pid) {
        if (clock_mono() > end)
            return ctl_error(CTL_FAILED, "process %ld has not stopped yet; look into the log", pid);
        pause_a_little();
    }
    if (status == CTL_OK)
        puts("Postern has stopped.");
    return status;
}

static void on_missing_plan(const char *sentence, void *arg)
{
    (void)arg;
    (void)ctl_error(CTL_FAILED, "%s", sentence);
}

/* The signal is sent in any case: log files are opened anew, whatever main.cf says now. */
static void on_advice(const char *sentence, void *arg)
{
    (void)arg;
    fprintf(stderr, "postern: warning: %s\n", sentence);
}

int cmd_reload(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    char finding[FINDING_MAX];
    (void)argc;
    int n = no_arguments(ctl, self, argv);
    if (n != 0)
        return args_status(n);
    const struct config *c = ctl_config(ctl);
    if (!c)
        return CTL_FAILED;
    long pid = master_pid(ctl);
    if (!pid)
        return not_running(ctl);
    bool good = check_by_master(ctl, c, finding, sizeof finding) == 0;
    int status = send_signal(pid, SIGHUP);
    if (status == CTL_OK && !good)
        return ctl_error(CTL_FAILED, "%s; the old configuration stays in use", finding);
    if (status != CTL_OK)
        return status;
    puts("Postern reads its configuration again; the log tells when it is in effect.");
    plans_advise_check(ctl, c, on_advice, NULL);
    return plans_used_check(ctl, c, on_missing_plan, on_advice, NULL) ? CTL_FAILED : CTL_OK;
}

/* ---- status ------------------------------------------------------------------------ */

static long long integer(const json_t *o, const char *name)
{
    return (long long)json_integer_value(json_object_get(o, name));
}

static void print_counters(const json_t *line, const char *label, const char *name)
{
    const json_t *k = json_object_get(line, name);
    printf("%-12s %lld accepted, %lld delivered, %lld deferred, %lld bounced\n", label,
           integer(k, "accepted"), integer(k, "delivered"), integer(k, "deferred"),
           integer(k, "bounced"));
}

static void print_queue(const json_t *line)
{
    char size[32];
    /* not "active": what is in memory is no matter of the operator's, and in lists the
     * word means something else */
    printf("%-12s %lld message%s, %lld held%s\n", "queue:", integer(line, "messages"),
           plural(integer(line, "messages")), integer(line, "held"),
           json_is_true(json_object_get(line, "scanning")) ? "; still reading the spool" : "");
    if (integer(line, "deleted") == 0)
        return;
    print_amount(size, sizeof size, (double)integer(line, "deleted_bytes"));
    printf("%-12s %lld message%s, %s; 'postern queue undelete' brings them back\n",
           "deleted:", integer(line, "deleted"), plural(integer(line, "deleted")), size);
}

static void print_figures(struct ctl *ctl, const json_t *line)
{
    const char *spool = json_string_value(json_object_get(line, "spool"));
    bool good = spool && strcmp(spool, "ok") == 0;
    char since[64], free_space[32];
    print_time(since, sizeof since, json_number_value(json_object_get(line, "started")));
    print_size(free_space, sizeof free_space, (double)integer(line, "disk_bytes_free"));
    printf("%sPostern %s is running%s, process %ld; queue manager since %s\n",
           colour(ctl, COLOUR_GREEN), json_string_value(json_object_get(line, "version")),
           colour(ctl, COLOUR_OFF), master_pid(ctl), since);
    print_queue(line);
    printf("%-12s %lld under way, %lld waiting for their turn, %lld destinations\n",
           "deliveries:", integer(line, "jobs_in_flight"), integer(line, "jobs_queued"),
           integer(line, "sites"));
    printf("%-12s %s%s%s, %s free\n", "spool:", colour(ctl, good ? COLOUR_GREEN : COLOUR_RED),
           spool ? spool : "?", colour(ctl, COLOUR_OFF), free_space);
    if (integer(line, "sources_listed") > 0)
        printf("%-12s %s%lld on block lists%s: 'postern source list'\n",
               "sources:", colour(ctl, COLOUR_RED), integer(line, "sources_listed"),
               colour(ctl, COLOUR_OFF));
    print_counters(line, "last minute:", "last_minute");
    print_counters(line, "since start:", "total");
}

static void print_services(struct ctl *ctl, const json_t *services)
{
    static const char *const titles[] = {"SERVICE", "PROGRAM",   ">PID",       "STATE",
                                         "STARTED", ">RESTARTS", "LISTENS ON", NULL};
    struct table *t = table_new(ctl, titles);
    size_t i, k;
    json_t *p, *listener;
    json_array_foreach(services, i, p)
    {
        char pid[24], started[64] = "", restarts[24], listeners[512] = "";
        snprintf(pid, sizeof pid, "%lld", integer(p, "pid"));
        snprintf(restarts, sizeof restarts, "%lld", integer(p, "restarts"));
        if (integer(p, "started"))
            print_time(started, sizeof started, (double)integer(p, "started"));
        json_array_foreach(json_object_get(p, "listeners"), k, listener)
        {
            size_t used = strlen(listeners);
            snprintf(listeners + used, sizeof listeners - used, "%s%s", used ? " " : "",
                     json_string_value(listener));
        }
        table_row(t, (const char *[]){json_string_value(json_object_get(p, "name")),
                                      json_string_value(json_object_get(p, "program")), pid,
                                      json_string_value(json_object_get(p, "state")), started,
                                      restarts, listeners});
    }
    table_end(t);
}

static int status_line(json_t *line, void *arg)
{
    struct ctl *ctl = arg;
    const json_t *services = json_object_get(line, "services");
    if (ctl->json)
        print_json_line(line);
    else if (services)
        print_services(ctl, services);
    else
        print_figures(ctl, line);
    return 0;
}

/* What keeps accounts from sending at all. */
static void print_accounts(struct ctl *ctl)
{
    json_t *last = NULL;
    if (accounts_ask(ctl, json_pack("{s:s}", "request", "status"), status_line, ctl, &last) ==
            CTL_OK &&
        integer(last, "accounts_without_plan"))
        printf("%-12s %s%lld with a plan that is not in plans_file: their mail gets 451%s; "
               "'postern account list' marks them\n",
               "accounts:", colour(ctl, COLOUR_RED), integer(last, "accounts_without_plan"),
               colour(ctl, COLOUR_OFF));
    json_decref(last);
}

int cmd_status(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    (void)argc;
    int n = no_arguments(ctl, self, argv);
    if (n != 0)
        return args_status(n);
    int status = client_ask(ctl, json_pack("{s:s}", "request", "status"), status_line, ctl, NULL);
    if (status == CTL_OK && !ctl->json && ctl_config(ctl)->accounts_enable)
        print_accounts(ctl);
    return status;
}
