#include "quota/recent.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "core/buf.h"
#include "core/mem.h"
#include "quota/hash.h"
#include "quota/records.h"
#include "token/mac.h"

struct remembered {
    struct list link;
    int64_t until;
    unsigned char digest[RECENT_DIGEST];
    char login[];
};

static struct slice login_key(const void *value)
{
    return slice_str(((const struct remembered *)value)->login);
}

int recent_init(struct recent *r)
{
    map_init(&r->users, login_key);
    list_init(&r->ages);
    r->changes = 0;
    return RAND_bytes(r->key, sizeof r->key) == 1 ? 0 : -1;
}

static void drop(struct recent *r, struct remembered *m)
{
    map_remove(&r->users, login_key(m));
    list_remove(&m->link);
    free(m);
}

void recent_free(struct recent *r)
{
    list_each_safe(&r->ages, n) drop(r, container_of(n, struct remembered, link));
    map_free(&r->users);
    OPENSSL_cleanse(r->key, sizeof r->key);
}

void recent_digest(const struct recent *r, const char *login, struct slice password,
                   unsigned char out[static RECENT_DIGEST])
{
    struct buf text = BUF_INIT(LOGIN_MAX + PASSWORD_MAX + 2);
    buf_addstr(&text, login);
    buf_addc(&text, '\0');
    buf_adds(&text, password);
    mac_sha256(r->key, buf_slice(&text), out);
    OPENSSL_cleanse(text.data, text.len);
    buf_free(&text);
}

/* Those that are too old, and the oldest of too many. */
static void forget_old(struct recent *r, int64_t now, size_t limit)
{
    while (!list_empty(&r->ages)) {
        struct remembered *m = container_of(r->ages.next, struct remembered, link);
        if (m->until > now && r->users.count <= limit)
            break;
        drop(r, m);
    }
}

bool recent_knows(struct recent *r, const char *login,
                  const unsigned char digest[static RECENT_DIGEST], int64_t now)
{
    forget_old(r, now, SIZE_MAX);
    const struct remembered *m = map_get(&r->users, slice_str(login));
    return m && CRYPTO_memcmp(m->digest, digest, RECENT_DIGEST) == 0;
}

void recent_add(struct recent *r, const char *login,
                const unsigned char digest[static RECENT_DIGEST], uint64_t changes, int64_t until,
                size_t limit)
{
    struct remembered *m = map_get(&r->users, slice_str(login));
    if (changes != r->changes)
        return;
    if (m)
        drop(r, m);
    size_t len = strlen(login) + 1;
    m = xmalloc(sizeof *m + len);
    m->until = until;
    memcpy(m->digest, digest, RECENT_DIGEST);
    memcpy(m->login, login, len);
    map_put(&r->users, m);
    list_push(&r->ages, &m->link);
    forget_old(r, INT64_MIN, limit);
}

void recent_forget(struct recent *r, const char *login)
{
    struct remembered *m = map_get(&r->users, slice_str(login));
    r->changes++;
    if (m)
        drop(r, m);
}
