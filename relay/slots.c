#include "relay/slots.h"

#include "core/clock.h"
#include "relay/session.h"

/* Others wait for the place: a server that does not answer QUIT is left after this time. */
static const int64_t QUIT_WAIT = 5 * CLOCK_SECOND;

static void tell(struct relay *relay, uint64_t lane, enum connection_change change)
{
    if (relay->qmgr)
        ipc_connection_encode(channel_out(relay->qmgr),
                              &(struct ipc_connection){.lane = lane, .change = (uint8_t)change});
}

void slots_result(struct session *s, struct job *j, bool keep)
{
    j->opened = !s->slot;
    j->leaving = !keep;
    s->slot = true;
    s->left = !keep;
}

void slots_hand_on(struct session *s, struct job *j)
{
    if (!s->slot || s->left || !j->m.reuse_only) /* else it has a place of its own */
        return;
    s->slot = false;
    j->slot = true;
}

void slots_take(struct session *s, struct job *j)
{
    s->lane = j->m.lane;
    s->slot = j->slot;
    j->slot = false;
}

void slots_give_up(struct relay *relay, struct job *j)
{
    if (j->slot)
        tell(relay, j->m.lane, CONNECTION_LOST);
    j->slot = false;
}

void slots_leave(struct session *s)
{
    if (s->slot && !s->left)
        tell(s->relay, s->lane, CONNECTION_LEAVES);
    s->left = true;
}

void slots_close(struct session *s)
{
    if (s->slot)
        tell(s->relay, s->lane, s->left ? CONNECTION_LEFT : CONNECTION_LOST);
    s->slot = false;
}

int slots_spare(struct relay *relay, struct slice body, struct err *e)
{
    struct ipc_spare in;
    if (ipc_spare_decode(body, &in) < 0)
        return err_set(e, "malformed SPARE");
    list_each(&relay->pool.idle, n)
    {
        struct session *s = container_of(n, struct session, link);
        if (!s->slot || s->lane != in.lane)
            continue;
        tell(relay, in.lane, CONNECTION_SPARED);
        s->left = true;
        session_quit(s);
        if (s->state == SESSION_QUIT)
            deadline_set(&relay->timers, &s->deadline, clock_mono() + QUIT_WAIT);
        return 0;
    }
    tell(relay, in.lane, CONNECTION_NOT_SPARED);
    return 0;
}

void slots_forget(struct relay *relay)
{
    struct session *idle;
    list_each(&relay->pool.leaving, n) container_of(n, struct session, link)->slot = false;
    while ((idle = pool_oldest(&relay->pool))) {
        idle->slot = false;
        session_quit(idle);
    }
}
