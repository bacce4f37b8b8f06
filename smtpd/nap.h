/* A session that waits for a time of its own before its client hears more: a failed
 * login, an account that sends far more than it used to. It holds a timer, no thread. */
#ifndef POSTERN_SMTPD_NAP_H
#define POSTERN_SMTPD_NAP_H

#include <event2/event.h>
#include <stdint.h>

struct session;

struct nap {
    struct event *timer; /* NULL: none */
    void (*over)(struct session *s);
};

/* The session waits (WAIT_NAP); then `over` is called, with no wait, and the session
 * goes on. At most NAP_MAX milliseconds. */
void nap_begin(struct session *s, uint32_t milliseconds, void (*over)(struct session *s));
/* The session ends; harmless if it does not nap. */
void nap_forget(struct session *s);

#endif
