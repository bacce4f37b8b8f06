/*
 * Users and addresses that were looked up lately. What the database says is only
 * repeated, never changed here: a batch that touches an account, a user or an address
 * empties all of it, which operators do seldom.
 */
#include <openssl/crypto.h>

#include "core/mem.h"
#include "quota/quota.h"

enum { LOOKUPS_MAX = 4096 /* of each kind; then it starts anew */ };

struct known_user {
    struct user user;
};

struct known_address {
    struct key key;
    int mail_class; /* of classes */
};

static struct slice user_key(const void *value)
{
    return slice_str(((const struct known_user *)value)->user.login);
}

static struct slice address_key(const void *value)
{
    return key_slice(&((const struct known_address *)value)->key);
}

static void user_free(void *value)
{
    OPENSSL_cleanse(value, sizeof(struct known_user)); /* password hashes */
    free(value);
}

static void forget_all(struct lookups *r)
{
    map_clear(&r->users, user_free);
    map_clear(&r->addresses, free);
    map_clear(&r->classes, free);
}

void lookups_init(struct lookups *r)
{
    map_init(&r->users, user_key);
    map_init(&r->addresses, address_key);
    map_init(&r->classes, address_key);
}

void lookups_free(struct lookups *r)
{
    forget_all(r);
    map_free(&r->users);
    map_free(&r->addresses);
    map_free(&r->classes);
}

const struct user *lookups_user(const struct lookups *r, const char *login)
{
    const struct known_user *x = map_get(&r->users, slice_str(login));
    return x ? &x->user : NULL;
}

void lookups_add_user(struct lookups *r, const struct user *u)
{
    if (r->users.count >= LOOKUPS_MAX)
        map_clear(&r->users, user_free);
    struct known_user *x = xmalloc(sizeof *x);
    x->user = *u;
    struct known_user *old = map_put(&r->users, x);
    if (old)
        user_free(old);
}

void lookups_forget_user(struct lookups *r, const char *login)
{
    void *old = map_remove(&r->users, slice_str(login));
    if (old)
        user_free(old);
}

static struct slice owned_key(struct key *k, const char *account, struct slice address)
{
    key_begin(k, slice_str(account));
    key_add(k, address);
    return key_slice(k);
}

bool lookups_own(const struct lookups *r, const char *account, struct slice address)
{
    struct key k;
    return map_get(&r->addresses, owned_key(&k, account, address)) != NULL;
}

void lookups_add_owned(struct lookups *r, const char *account, struct slice address)
{
    if (r->addresses.count >= LOOKUPS_MAX)
        map_clear(&r->addresses, free);
    struct known_address *x = xmalloc(sizeof *x);
    (void)owned_key(&x->key, account, address);
    free(map_put(&r->addresses, x));
}

bool lookups_class(const struct lookups *r, const char *account, struct slice sender, int *out)
{
    struct key k;
    const struct known_address *x = map_get(&r->classes, owned_key(&k, account, sender));
    if (x)
        *out = x->mail_class;
    return x != NULL;
}

void lookups_add_class(struct lookups *r, const char *account, struct slice sender, int mail_class)
{
    if (r->classes.count >= LOOKUPS_MAX)
        map_clear(&r->classes, free);
    struct known_address *x = xmalloc(sizeof *x);
    (void)owned_key(&x->key, account, sender);
    x->mail_class = mail_class;
    free(map_put(&r->classes, x));
}

bool lookups_changed(struct lookups *r, struct slice batch)
{
    unsigned about = 1U << T_ACCOUNT | 1U << T_USER | 1U << T_IDENTITY;
    if (!(kv_tables_of(batch) & about))
        return false;
    forget_all(r);
    return true;
}
