#include "relay/pool.h"

#include "core/buf.h"
#include "core/mem.h"
#include "relay/session.h"

static struct slice site_key(const void *value)
{
    const struct pool_site *site = value;
    return slice_make(site->key, site->key_len);
}

void pool_init(struct pool *p)
{
    map_init(&p->sites, site_key);
    list_init(&p->idle);
    list_init(&p->leaving);
}

void pool_free(struct pool *p)
{
    map_clear(&p->sites, free);
    map_free(&p->sites);
}

static void add_part(struct buf *b, struct slice part)
{
    uint32_t len = (uint32_t)part.len;
    if (buf_add(b, &len, sizeof len) < 0 || buf_adds(b, part) < 0)
        panic("a key longer than its frame");
}

/* Valid until the next call. Each part has its length before it, so that no
 * two lists of parts give the same key. */
static struct slice job_key(const struct job *j)
{
    static struct buf b = BUF_INIT(2 * IPC_FRAME_MAX);
    buf_clear(&b);
    add_part(&b, slice_make(&j->m.transport, sizeof j->m.transport));
    add_part(&b, slice_make(&j->tls_wish, sizeof j->tls_wish));
    add_part(&b, slice_make(&j->m.lane, sizeof j->m.lane));
    add_part(&b, j->m.tls);
    add_part(&b, j->m.site);
    add_part(&b, j->m.source);
    add_part(&b, j->m.source6);
    add_part(&b, j->m.helo);
    return buf_slice(&b);
}

void pool_join(struct pool *p, struct session *s, const struct job *j)
{
    struct slice key = job_key(j);
    struct pool_site *site = map_get(&p->sites, key);
    if (!site) {
        site = xmalloc(sizeof *site + key.len);
        *site = (struct pool_site){.key_len = key.len};
        list_init(&site->idle);
        memcpy(site->key, key.ptr, key.len);
        map_put(&p->sites, site);
    }
    site->sessions++;
    s->site = site;
}

void pool_leave(struct pool *p, struct session *s)
{
    struct pool_site *site = s->site;
    pool_remove(s);
    if (!site)
        return;
    s->site = NULL;
    if (--site->sessions > 0)
        return;
    map_remove(&p->sites, site_key(site));
    free(site);
}

void pool_remove(struct session *s)
{
    list_remove(&s->site_link);
    list_remove(&s->link);
}

struct session *pool_take(struct pool *p, const struct job *j)
{
    struct pool_site *site = map_get(&p->sites, job_key(j));
    if (!site)
        return NULL;
    /* those that are used up go: the other side counts them too */
    for (struct list *n; (n = list_empty(&site->idle) ? NULL : site->idle.next);) {
        struct session *s = container_of(n, struct session, site_link);
        bool last = site->idle.next == site->idle.prev;
        pool_remove(s);
        if (session_usable(s, j))
            return s;
        session_quit(s);
        if (last) /* the site may be gone with it */
            return NULL;
    }
    return NULL;
}

void pool_put(struct pool *p, struct session *s)
{
    list_push_front(&s->site->idle, &s->site_link);
    list_push(&p->idle, &s->link);
}

struct session *pool_oldest(struct pool *p)
{
    if (list_empty(&p->idle))
        return NULL;
    struct session *s = container_of(p->idle.next, struct session, link);
    pool_remove(s);
    return s;
}

void pool_leaving(struct pool *p, struct session *s)
{
    list_push(&p->leaving, &s->link);
}

struct session *pool_spare(struct pool *p)
{
    struct list *n = list_pop(&p->leaving);
    return n ? container_of(n, struct session, link) : pool_oldest(p);
}
