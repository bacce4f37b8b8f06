#include "master/logs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/mem.h"
#include "service/service.h"

static int open_syslog(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    close(fd);
    return -1;
}

static int open_file(const char *parameter, const char *path, struct err *e)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
    if (fd < 0)
        return err_sys(e, "%s = %s: cannot open", parameter, path);
    return fd;
}

/* Whether open_file will succeed, without making a file. */
static int check_file(const char *parameter, const char *path, struct err *e)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd >= 0) {
        close(fd);
        return 0;
    }
    bool missing = errno == ENOENT;
    err_sys(e, "%s = %s: cannot open", parameter, path);
    const char *slash = missing ? strrchr(path, '/') : NULL;
    if (!slash)
        return -1;
    char *directory = slice_dup(slice_make(path, (size_t)(slash - path) + 1));
    int rc = access(directory, W_OK | X_OK);
    if (rc < 0)
        err_sys(e, "%s = %s: no file can be made there; create the directory %s", parameter, path,
                directory);
    free(directory);
    return rc;
}

int logs_check(const struct config *config, struct err *e)
{
    const char *log = config->maillog_file, *events = config->event_log_file;
    if (*log && strcmp(log, "stderr") != 0 && check_file("maillog_file", log, e) < 0)
        return -1;
    return *events ? check_file("event_log_file", events, e) : 0;
}

/* A pipe or terminal whose reader stalls must not hold anybody up (F43). Its own
 * O_NONBLOCK belongs to whoever started us too; opened anew it has ours. */
static int open_stderr(struct err *e)
{
    struct stat st;
    int fd = -1;
    if (fstat(STDERR_FILENO, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)))
        fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
    return fd < 0 ? err_sys(e, "standard error, for the log") : fd;
}

static int open_log(struct logs *l, const struct config *config, struct err *e)
{
    l->degraded = false;
    if (*config->maillog_file && strcmp(config->maillog_file, "stderr") != 0)
        return open_file("maillog_file", config->maillog_file, e);
    int fd = *config->maillog_file ? -1 : open_syslog();
    if (fd >= 0)
        return fd;
    l->degraded = !*config->maillog_file;
    return open_stderr(e);
}

int logs_open(struct logs *l, const struct config *config, struct err *e)
{
    bool events = *config->event_log_file != '\0';
    l->log = open_log(l, config, e);
    if (l->log < 0)
        return -1;
    l->event_log = events ? open_file("event_log_file", config->event_log_file, e)
                          : open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (l->event_log >= 0)
        return 0;
    if (!events)
        err_sys(e, "/dev/null");
    close(l->log);
    return -1;
}

void logs_close(struct logs *l)
{
    close(l->log);
    close(l->event_log);
}

void logs_use(const struct logs *l, const struct config *config)
{
    char name[64];
    log_flush();
    service_log_name(config, "master", name, sizeof name);
    log_open(name, config->myhostname, service_log_kind(config, l->log), l->log);
    if (l->degraded)
        log_warning("there is no system log (/dev/log); logging to standard error until there is");
}

int logs_reconnect(struct logs *l)
{
    int fd = open_syslog();
    if (fd < 0)
        return -1;
    close(l->log);
    l->log = fd;
    l->degraded = false;
    return 0;
}
