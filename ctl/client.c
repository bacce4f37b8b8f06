/* The other end of qmgr/control.c: doc/control-protocol.md. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/slice.h"
#include "ctl/ctl.h"

enum { ANSWER_SECONDS = 120, HINT_MILLISECONDS = 5000, READ_BUFFER = 64 * 1024 };

long master_pid(struct ctl *ctl)
{
    const struct config *c = ctl_config(ctl);
    if (!c)
        return 0;
    char *path = xasprintf("%s/master.pid", c->pid_directory);
    char text[32] = "";
    long pid = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    free(path);
    if (fd < 0)
        return 0;
    /* the running master holds a lock; a file that was left behind has none */
    if (flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK &&
        read(fd, text, sizeof text - 1) > 0)
        pid = strtol(text, NULL, 10);
    close(fd);
    return pid > 1 ? pid : 0;
}

/* A connected socket, or -errno. */
static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    const struct timeval limit = {ANSWER_SECONDS, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    int number = errno;
    close(fd);
    return -number;
}

/* A path that is longer than an address of a socket: by way of its directory. */
static int connect_by_directory(const char *directory, const char *name)
{
    int at = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (at < 0)
        return -errno;
    char *path = xasprintf("/proc/self/fd/%d/%s", at, name);
    int fd = connect_to(path);
    free(path);
    close(at);
    return fd;
}

static int tell_no_connection(struct ctl *ctl, const char *name, int number)
{
    switch (number) {
    case ENOENT:
    case ECONNREFUSED:
        return ctl_error(CTL_NOT_RUNNING,
                         "Postern is not running with the configuration in %s; start it with "
                         "'postern -c %s start'",
                         ctl->directory, ctl->directory);
    case EACCES:
    case EPERM:
        return ctl_error(CTL_DENIED,
                         "you may not use the %s socket; become root or a member of the "
                         "group %s",
                         name, ctl->config->control_group);
    default:
        return ctl_error(CTL_FAILED, "%s/public/%s: cannot connect: %s",
                         ctl->config->queue_directory, name, strerror(number));
    }
}

int client_connect(const struct config *c, const char *name)
{
    char *directory = xasprintf("%s/public", c->queue_directory);
    char *path = xasprintf("%s/%s", directory, name);
    int fd = connect_to(path);
    if (fd == -ENAMETOOLONG)
        fd = connect_by_directory(directory, name);
    free(path);
    free(directory);
    return fd;
}

/* A connected socket, or -1 and *status. */
static int open_socket(struct ctl *ctl, const char *name, bool quiet, int *status)
{
    const struct config *c = ctl_config(ctl);
    if (!c) {
        *status = CTL_FAILED;
        return -1;
    }
    int fd = client_connect(c, name);
    if (fd >= 0)
        return fd;
    bool denied = fd == -EACCES || fd == -EPERM;
    *status = quiet ? (denied ? CTL_DENIED : CTL_NOT_RUNNING) : tell_no_connection(ctl, name, -fd);
    return -1;
}

int client_probe(struct ctl *ctl)
{
    int status = CTL_OK, fd = open_socket(ctl, "control", true, &status);
    if (fd < 0)
        return status;
    /* the socket belongs to master: only an answer proves that qmgr serves it */
    static const char ask[] = "{\"request\":\"ping\"}\n";
    char answer[64];
    const struct timeval limit = {2, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (send(fd, ask, sizeof ask - 1, MSG_NOSIGNAL) < 0 || recv(fd, answer, sizeof answer, 0) <= 0)
        status = CTL_NOT_RUNNING;
    close(fd);
    return status;
}

/* A server that has no room for us says so and closes at once: what cannot be
 * sent is no reason to miss its words, nor to die of SIGPIPE. */
static void send_request(int fd, json_t *request)
{
    char *text = json_dumps(request, JSON_COMPACT);
    if (!text)
        panic("a request that is no JSON");
    struct slice rest = slice_str(text);
    text[rest.len] = '\n'; /* in place of the NUL */
    rest.len++;
    while (rest.len) {
        ssize_t n = send(fd, rest.ptr, rest.len, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            break;
        rest = slice_from(rest, n > 0 ? (size_t)n : 0);
    }
    free(text);
}

/* What the service says of a request that it refuses. */
static int refused(const char *error, bool quiet)
{
    int status = strncmp(error, "There is no ", 12) ? CTL_FAILED : CTL_NOT_FOUND;
    return quiet ? status : ctl_error(status, "%s", error);
}

/* Handles one line. 1: go on; otherwise the request is over with *status. */
static int take_line(const char *text, size_t len, int (*line)(json_t *, void *), void *arg,
                     json_t **last, bool quiet, int *status)
{
    json_t *value = json_loadb(text, len, 0, NULL);
    const char *error = json_string_value(json_object_get(value, "error"));
    int more = 0;
    if (!json_is_object(value))
        *status = ctl_error(CTL_FAILED, "the service's answer is not understood; the "
                                        "command and the service may be of different versions");
    else if (error) {
        *status = refused(error, quiet);
        if (quiet)
            *last = json_incref(value);
    } else if (json_is_true(json_object_get(value, "done"))) {
        *status = CTL_OK;
        if (last)
            *last = json_incref(value);
    } else {
        more = 1;
        if (line && (*status = line(value, arg)) != 0)
            more = 0;
    }
    json_decref(value);
    return more;
}

/* What a program may read, and a terminal show, as it is. */
static bool is_plain_message(const char *text, size_t len)
{
    static const char begins[] = "{\"id\":";
    if (len < sizeof begins || memcmp(text, begins, sizeof begins - 1) != 0)
        return false;
    unsigned bad = 0;
    for (size_t i = 0; i + 1 < len; i++)
        bad |= (unsigned)((unsigned char)text[i] - 0x20u > 0x5eu);
    return !bad && text[len - 1] == '\n';
}

/* The socket is master's: it can be connected to without a quota that serves it. */
static void hint_at_silence(int fd)
{
    struct pollfd answer = {.fd = fd, .events = POLLIN};
    if (poll(&answer, 1, HINT_MILLISECONDS) == 0)
        ctl_error(CTL_OK, "no answer from quota yet; 'postern status' shows whether it runs (if "
                          "accounts_enable was set just now: 'postern reload')");
}

static int ask(struct ctl *ctl, const char *name, json_t *request, int (*line)(json_t *, void *),
               void (*raw)(struct slice, void *), void *arg, json_t **last, bool quiet)
{
    int status = CTL_FAILED, fd = open_socket(ctl, name, false, &status);
    if (last)
        *last = NULL;
    if (fd < 0) {
        json_decref(request);
        return status;
    }
    FILE *in = fdopen(fd, "r");
    char *text = NULL;
    size_t size = 0;
    ssize_t len = -1;
    if (!in)
        panic("no memory for a stream");
    setvbuf(in, NULL, _IOFBF, READ_BUFFER);
    send_request(fd, request);
    if (strcmp(name, "accounts") == 0)
        hint_at_silence(fd);
    while ((len = getline(&text, &size, in)) > 0)
        if (raw && is_plain_message(text, (size_t)len))
            raw(slice_make(text, (size_t)len), arg);
        else if (!take_line(text, (size_t)len, line, arg, last, quiet, &status))
            break;
    if (len <= 0)
        status = ctl_error(CTL_FAILED, "the service ended the connection or did not answer "
                                       "in time; look into the log for the reason");
    free(text);
    fclose(in);
    json_decref(request);
    return status;
}

int client_ask(struct ctl *ctl, json_t *request, int (*line)(json_t *, void *), void *arg,
               json_t **last)
{
    return client_ask_raw(ctl, request, line, NULL, arg, last);
}

int client_ask_at(struct ctl *ctl, const char *name, json_t *request, int (*line)(json_t *, void *),
                  void *arg, json_t **last)
{
    return ask(ctl, name, request, line, NULL, arg, last, false);
}

int client_ask_quietly(struct ctl *ctl, const char *name, json_t *request, json_t **last)
{
    return ask(ctl, name, request, NULL, NULL, NULL, last, true);
}

int client_ask_raw(struct ctl *ctl, json_t *request, int (*line)(json_t *, void *),
                   void (*raw)(struct slice, void *), void *arg, json_t **last)
{
    return ask(ctl, "control", request, line, raw, arg, last, false);
}
