/*
 * Connections by what they are good for: sessions with the same key (transport,
 * lane, site, source address, HELO name, rules about TLS) may carry each other's
 * messages.
 * Idle ones wait here; the one used last is used first, so that the others can
 * grow old.
 */
#ifndef POSTERN_RELAY_POOL_H
#define POSTERN_RELAY_POOL_H

#include "core/list.h"
#include "core/map.h"

struct job;
struct session;

struct pool_site {
    struct list idle;
    unsigned sessions; /* all of this key, busy ones too; freed with the last */
    size_t key_len;
    char key[];
};

struct pool {
    struct map sites;
    struct list idle;    /* all, the longest idle first */
    struct list leaving; /* those that wait for the reply to QUIT, in order */
};

void pool_init(struct pool *p);
void pool_free(struct pool *p);
/* Counts a new session in under the key of its job. */
void pool_join(struct pool *p, struct session *s, const struct job *j);
/* Counts it out, at its end. */
void pool_leave(struct pool *p, struct session *s);
/* An idle session for this job that is not used up, taken out; or NULL. */
struct session *pool_take(struct pool *p, const struct job *j);
/* Makes a session idle. */
void pool_put(struct pool *p, struct session *s);
/* The session that has been idle longest, taken out; or NULL. */
struct session *pool_oldest(struct pool *p);
/* A session has said QUIT. */
void pool_leaving(struct pool *p, struct session *s);
/* The session that is missed least, taken out: one that is leaving or else the
 * one that has been idle longest; or NULL. */
struct session *pool_spare(struct pool *p);
/* Takes an idle or leaving session out; harmless if it is neither. */
void pool_remove(struct session *s);

#endif
