#include "smtpd/nap.h"

#include "core/mem.h"
#include "smtpd/limits.h"
#include "smtpd/session.h"

void nap_forget(struct session *s)
{
    if (s->nap.timer)
        event_free(s->nap.timer);
    s->nap.timer = NULL;
}

static void on_time(evutil_socket_t fd, short what, void *arg)
{
    struct session *s = arg;
    (void)fd;
    (void)what;
    nap_forget(s);
    s->wait = WAIT_NOTHING;
    s->nap.over(s);
    session_go_on(s);
}

void nap_begin(struct session *s, uint32_t milliseconds, void (*over)(struct session *s))
{
    uint32_t ms = milliseconds < NAP_MAX ? milliseconds : NAP_MAX;
    struct timeval time = {ms / 1000, (suseconds_t)(ms % 1000) * 1000};
    nap_forget(s);
    s->nap.over = over;
    s->nap.timer = event_new(s->server->base, -1, 0, on_time, s);
    if (!s->nap.timer || event_add(s->nap.timer, &time) < 0)
        panic("cannot start a timer");
    s->wait = WAIT_NAP;
}
