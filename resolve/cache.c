#include "resolve/cache.h"

#include "core/mem.h"

static struct slice entry_key(const void *value)
{
    const struct entry *e = value;
    return slice_make(e->key, e->key_len);
}

void cache_init(struct cache *c)
{
    map_init(&c->entries, entry_key);
    list_init(&c->recent);
}

void entry_release(struct entry *e)
{
    if (!e || --e->references)
        return;
    buf_free(&e->result.targets);
    tls_facts_free(e->result.tls);
    free(e->result.site);
    free(e->result.verdict);
    free(e);
}

static void forget(struct cache *c, struct entry *e)
{
    map_remove(&c->entries, entry_key(e));
    list_remove(&e->recent);
    c->bytes -= e->bytes;
    e->cache = NULL;
    entry_release(e);
}

struct entry *cache_find(struct cache *c, struct slice key, int64_t now)
{
    struct entry *e = map_get(&c->entries, key);
    if (!e)
        return NULL;
    if (e->done && e->expires <= now) {
        forget(c, e);
        return NULL;
    }
    list_remove(&e->recent);
    list_push_front(&c->recent, &e->recent);
    return e;
}

/* A pending entry may go too: who waits for it holds it. */
static void forget_oldest(struct cache *c)
{
    forget(c, container_of(c->recent.prev, struct entry, recent));
}

/* Answers differ in size by a factor of a hundred, and who owns a domain chooses. */
static void count_bytes(struct entry *e)
{
    const struct result *r = &e->result;
    struct cache *c = e->cache;
    if (!c)
        return;
    e->bytes = sizeof *e + e->key_len + r->targets.cap + (r->site ? strlen(r->site) : 0) +
               (r->verdict ? sizeof *r->verdict : 0) + tls_facts_bytes(r->tls);
    c->bytes += e->bytes;
    while (c->bytes > CACHE_BYTES_MAX && c->recent.prev != &e->recent)
        forget_oldest(c);
}

struct entry *cache_add(struct cache *c, struct slice key)
{
    while (c->entries.count >= CACHE_ENTRIES_MAX)
        forget_oldest(c);
    struct entry *e = xcalloc(1, sizeof *e + key.len);
    e->cache = c;
    e->references = 2; /* the cache's and the caller's */
    e->key_len = key.len;
    memcpy(e->key, key.ptr, key.len);
    list_init(&e->waiters);
    buf_init(&e->result.targets, TARGETS_BYTES_MAX);
    list_push_front(&c->recent, &e->recent);
    map_put(&c->entries, e);
    return e;
}

void cache_clear(struct cache *c)
{
    while (!list_empty(&c->recent))
        forget(c, container_of(c->recent.next, struct entry, recent));
}

void entry_complete(struct entry *e, int64_t now, int64_t ttl)
{
    e->done = true;
    e->expires = now + ttl;
    count_bytes(e);
    struct list *n;
    while ((n = list_pop(&e->waiters)) != NULL) {
        struct waiter *w = container_of(n, struct waiter, link);
        w->ready(w);
    }
}
