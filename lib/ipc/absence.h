/*
 * The absence of a peer that a service cannot work without. When the peer's
 * process died, master brings a new one within moments. When only the channel
 * was closed, for a frame that breaks the rules, both processes live and nobody
 * brings them together again: then the service ends, and master starts it anew
 * with channels to all its peers (B89).
 */
#ifndef POSTERN_IPC_ABSENCE_H
#define POSTERN_IPC_ABSENCE_H

#include <event2/event.h>

enum { ABSENCE_SECONDS = 15 };

struct absence {
    struct event *timer;
    void (*too_long)(void *arg);
    void *arg;
};

/* `too_long` is called ABSENCE_SECONDS after absence_begins unless absence_ends
 * comes before. */
void absence_init(struct absence *a, struct event_base *base, void (*too_long)(void *arg),
                  void *arg);
void absence_begins(struct absence *a);
void absence_ends(struct absence *a);

#endif
