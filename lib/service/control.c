#include "service/control.h"

#include <fcntl.h>
#include <unistd.h>

#include "core/mem.h"

static int take_peer(struct service *s, const struct ipc_frame *f, int fd, struct err *e)
{
    struct ipc_peer m;
    if (ipc_peer_decode(f->body, &m) < 0 || !s->ops->peer) {
        close(fd);
        return err_set(e, "an unexpected peer");
    }
    s->ops->peer(s, m.service, m.slot, m.pid, fd);
    return 0;
}

static int take_table(struct service *s, const struct ipc_frame *f, int fd, struct err *e)
{
    struct ipc_table m;
    if (ipc_table_decode(f->body, &m) < 0 || !s->ops->table) {
        close(fd);
        return err_set(e, "an unexpected table");
    }
    s->ops->table(s, m.parameter, m.position, m.spec, fd);
    return 0;
}

static int take_client_counts(struct service *s, const struct ipc_frame *f, int fd, struct err *e)
{
    struct ipc_client_counts m;
    if (ipc_client_counts_decode(f->body, &m) < 0 || !s->ops->client_counts) {
        close(fd);
        return err_set(e, "an unexpected table of client counts");
    }
    s->ops->client_counts(s, m.region, fd);
    return 0;
}

static int take_connection(struct service *s, const struct ipc_frame *f, int fd, struct err *e)
{
    struct ipc_connecting m;
    if (ipc_connecting_decode(f->body, &m) < 0 || !s->ops->connecting) {
        close(fd);
        return err_set(e, "an unexpected connection");
    }
    s->ops->connecting(s, m.tag, fd, SLICE(""));
    return 0;
}

static int take_no_connection(struct service *s, const struct ipc_frame *f, struct err *e)
{
    struct ipc_connect_failed m;
    if (ipc_connect_failed_decode(f->body, &m) < 0 || !s->ops->connecting)
        return err_set(e, "an unexpected answer about a connection");
    s->ops->connecting(s, m.tag, -1, m.text);
    return 0;
}

static int take_config(struct service *s, const struct ipc_frame *f, int fd, struct err *e)
{
    struct ipc_config m;
    struct config *fresh = ipc_config_decode(f->body, &m) < 0 ? NULL : config_read(fd, e);
    close(fd);
    if (!fresh)
        return err_prefix(e, "new configuration");
    struct config *old = (struct config *)(uintptr_t)s->config;
    s->config = fresh;
    service_open_log(s);
    if (s->ops->reload)
        s->ops->reload(s);
    config_free(old);
    return 0;
}

/* The new descriptor takes the old one's number, so that nobody (a thread
 * included) holds a stale one. */
static int take_log_fd(struct service *s, const struct ipc_frame *f, int fd, struct err *e)
{
    struct ipc_log_fd m;
    int rc = ipc_log_fd_decode(f->body, &m);
    if (rc == 0 && m.which == 0) {
        log_flush();
        rc = dup3(fd, SERVICE_FD_LOG, O_CLOEXEC);
        service_open_log(s);
    } else if (rc == 0 && m.which == 1) {
        rc = dup3(fd, s->event_log, O_CLOEXEC);
        if (s->ops->event_log)
            s->ops->event_log(s);
    }
    close(fd);
    return rc < 0 ? err_set(e, "a new log descriptor was not usable") : 0;
}

static int take_drain(struct service *s, const struct ipc_frame *f, struct err *e)
{
    struct ipc_drain m;
    if (ipc_drain_decode(f->body, &m) < 0)
        return err_set(e, "malformed ipc_drain");
    service_drain(s, m.seconds, m.replaced == 1);
    return 0;
}

static int on_frame(struct channel *c, const struct ipc_frame *f, int fd, void *arg, struct err *e)
{
    struct service *s = arg;
    (void)c;
    switch (f->number) {
    case IPC_NUMBER_ipc_peer:
        return take_peer(s, f, fd, e);
    case IPC_NUMBER_ipc_table:
        return take_table(s, f, fd, e);
    case IPC_NUMBER_ipc_client_counts:
        return take_client_counts(s, f, fd, e);
    case IPC_NUMBER_ipc_connecting:
        return take_connection(s, f, fd, e);
    case IPC_NUMBER_ipc_connect_failed:
        return take_no_connection(s, f, e);
    case IPC_NUMBER_ipc_config:
        return take_config(s, f, fd, e);
    case IPC_NUMBER_ipc_log_fd:
        return take_log_fd(s, f, fd, e);
    case IPC_NUMBER_ipc_drain:
        return take_drain(s, f, e);
    default:
        break;
    }
    if (fd >= 0 && s->ops->descriptor)
        return s->ops->descriptor(s, f, fd, e);
    if (fd >= 0) {
        close(fd);
        return err_set(e, "unexpected %s", ipc_name(f->number));
    }
    if (!s->ops->message)
        return err_set(e, "unexpected %s", ipc_name(f->number));
    return s->ops->message(s, f, e);
}

/* F17: without master nobody restarts or watches us: finish and end. */
static void on_closed(struct channel *c, const char *why, void *arg)
{
    struct service *s = arg;
    (void)c;
    s->master = NULL;
    log_warning("master is gone (%s); finishing what is under way", why);
    service_drain(s, (unsigned)s->config->service_stop_time, false);
}

void service_control_open(struct service *s)
{
    static const struct channel_ops ops = {on_frame, on_closed};
    s->master = channel_new(s->base, SERVICE_FD_MASTER, "master", &ops, s);
}
