#include "ipc/absence.h"

#include "core/mem.h"

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    const struct absence *a = arg;
    (void)fd;
    (void)what;
    a->too_long(a->arg);
}

void absence_init(struct absence *a, struct event_base *base, void (*too_long)(void *arg),
                  void *arg)
{
    *a = (struct absence){evtimer_new(base, on_timer, a), too_long, arg};
    if (!a->timer)
        panic("cannot make a timer");
}

void absence_begins(struct absence *a)
{
    const struct timeval limit = {ABSENCE_SECONDS, 0};
    event_add(a->timer, &limit);
}

void absence_ends(struct absence *a)
{
    event_del(a->timer);
}
