/*
 * What is known about destinations. An entry is there while its lookup is under
 * way, so equal questions share one (F32), then as long as its answer holds.
 */
#ifndef POSTERN_RESOLVE_CACHE_H
#define POSTERN_RESOLVE_CACHE_H

#include "core/buf.h"
#include "core/list.h"
#include "core/map.h"
#include "resolve/limits.h"
#include "resolve/tls_facts.h"
#include "resolve/verdict.h"

enum { TARGETS_BYTES_MAX = 100 * 1024 }; /* leaves room for the reply's other fields */

struct result {
    uint8_t status;          /* enum resolve_status */
    struct verdict *verdict; /* unless status is ok */
    char *site;         /* of a client's address: its name (names.h), status is enum name_status */
    struct buf targets; /* encoded ipc_target records */
    struct tls_facts *tls; /* or NULL */
};

struct entry {
    struct list recent;  /* in cache.recent, the one used last at the front */
    struct list waiters; /* of waiter.link, until done */
    struct cache *cache; /* NULL: forgotten, for its holders only */
    size_t bytes;        /* of cache->bytes */
    unsigned references;
    bool done;
    int64_t expires; /* clock_mono */
    struct result result;
    size_t key_len;
    char key[];
};

struct waiter {
    struct list link;
    void (*ready)(struct waiter *w); /* w is out of the list */
};

struct cache {
    struct map entries;
    size_t bytes; /* of all answers */
    struct list recent;
};

void cache_init(struct cache *c);
/* The entry under key if it is pending or still holds at `now`, or NULL. */
struct entry *cache_find(struct cache *c, struct slice key, int64_t now);
/* A new, pending entry; the caller gets a reference of its own. */
struct entry *cache_add(struct cache *c, struct slice key);
/* Forgets all entries. Those that are held go on to exist for their holders. */
void cache_clear(struct cache *c);

static inline void entry_hold(struct entry *e)
{
    e->references++;
}
/* May be NULL. */
void entry_release(struct entry *e);
/* The result is set: wakes all who wait. ttl in microseconds. */
void entry_complete(struct entry *e, int64_t now, int64_t ttl);

#endif
