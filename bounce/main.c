/*
 * bounce: composes the notices that qmgr asks for.
 *
 *   user     _postern-bounce
 *   chroot   empty_directory
 *   fds      3 master, 4 configuration, 5 log, 6 event log; a channel to qmgr
 *   secrets  the part of one message that its notice returns
 *   network  none
 *
 * It keeps nothing: when it dies, qmgr asks again, and the same request gives
 * a notice of the same ID (F14).
 */
#include <unistd.h>

#include "bounce/notice.h"
#include "core/clock.h"
#include "core/fault.h"
#include "core/log.h"
#include "ipc/absence.h"
#include "service/service.h"

static struct channel *qmgr;
static struct absence qmgr_absence;

static struct notice_identity identity(const struct config *c)
{
    return (struct notice_identity){.hostname = slice_str(c->myhostname),
                                    .from = slice_str(c->notice_from),
                                    .contact = slice_str(c->notice_contact)};
}

static int answer(struct service *s, struct channel *asker, struct slice body, struct err *e)
{
    struct ipc_notice_request request;
    if (ipc_notice_request_decode(body, &request) < 0)
        return err_set(e, "a notice request cannot be decoded");

    const struct notice_identity who = identity(s->config);
    struct buf content = BUF_INIT(NOTICE_CONTENT_MAX);
    struct ipc_notice reply = {.tag = request.tag};
    int rc = notice_compose(&request, &who, clock_wall(), &content, &reply.flags, e);
    if (rc == 0) {
        fault_point("bounce.notice");
        reply.content = buf_slice(&content);
        ipc_notice_encode(channel_out(asker), &reply);
    }
    buf_free(&content);
    return rc;
}

static int frame(struct channel *c, const struct ipc_frame *f, int fd, void *arg, struct err *e)
{
    (void)fd; /* no frame that we know carries one: the channel has seen to that */
    if (f->number != IPC_NUMBER_ipc_notice_request)
        return err_set(e, "unexpected %s", ipc_name(f->number));
    return answer(arg, c, f->body, e);
}

static void closed(struct channel *c, const char *why, void *arg)
{
    (void)arg;
    log_warning("channel to %s closed: %s", channel_name(c), why);
    if (c != qmgr)
        return; /* a newer one has replaced it */
    qmgr = NULL;
    absence_begins(&qmgr_absence);
}

static const struct channel_ops qmgr_ops = {.frame = frame, .closed = closed};

static void peer(struct service *s, struct slice name, unsigned slot, unsigned pid, int fd)
{
    (void)slot, (void)pid;
    if (!slice_eq(name, SLICE("qmgr"))) {
        log_warning("master sent a channel to %s, of which bounce has no need", log_esc(name));
        close(fd);
        return;
    }
    absence_ends(&qmgr_absence);
    qmgr = channel_new(s->base, fd, "qmgr", &qmgr_ops, s);
}

static void without_qmgr(void *arg)
{
    log_error("no channel to qmgr for %d seconds: this process ends, a new one takes its place",
              ABSENCE_SECONDS);
    service_stop(arg);
}

/* Every request is answered within its turn of the loop: there is nothing to
 * finish. */
static int start(struct service *s, struct err *e)
{
    (void)e;
    absence_init(&qmgr_absence, s->base, without_qmgr, s);
    return 0;
}

static const struct service_ops ops = {
    .program = "bounce",
    .user = "_postern-bounce",
    .jail = JAIL_EMPTY,
    .start = start,
    .peer = peer,
};

int main(int argc, char **argv)
{
    return service_main(argc, argv, &ops);
}
