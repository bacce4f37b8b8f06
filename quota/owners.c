#include "quota/owners.h"

#include "core/mem.h"

enum {
    LOOKS_MAX = 50,       /* others that are looked at */
    BUILD_BYTES = 8 << 20 /* of changes at a time, when the index is made */
};
static const char done[] = "owners";

/* Domain NUL local part, empty for the whole domain; then NUL and the account. */
static void owner_key(struct key *k, const char *identity, const char *account)
{
    struct slice whole = slice_str(identity);
    size_t at = slice_rchr(whole, '@');
    bool address = at < whole.len;
    key_begin(k, address ? slice_from(whole, at + 1) : whole);
    key_add(k, address ? slice_first(whole, at) : SLICE(""));
    key_add(k, SLICE("\0"));
    key_add(k, slice_str(account));
}

void owners_put(struct buf *batch, const char *account, const char *identity)
{
    struct key k;
    owner_key(&k, identity, account);
    if (kv_put(batch, T_OWNER, key_slice(&k), SLICE("")) < 0)
        panic("a batch that is full");
}

void owners_remove(struct buf *batch, const char *account, const char *identity)
{
    struct key k;
    owner_key(&k, identity, account);
    if (kv_remove(batch, T_OWNER, key_slice(&k)) < 0)
        panic("a batch that is full");
}

/* ---- others ------------------------------------------------------------------------- */

struct search {
    struct slice prefix;
    const char *account;
    char found[LOOKS_MAX][ACCOUNT_NAME_MAX + 1], local[LOOKS_MAX][ADDRESS_TEXT_MAX + 1];
    unsigned count;
};

static bool on_owner(struct slice key, struct slice value, void *arg)
{
    struct search *s = arg;
    struct slice account = key;
    (void)value;
    if (!slice_starts(key, s->prefix) || s->count == LOOKS_MAX)
        return false;
    (void)slice_cut(&account, '\0');
    struct slice local = slice_cut(&account, '\0');
    if (slice_eq(account, slice_str(s->account)) || account.len > ACCOUNT_NAME_MAX ||
        local.len > ADDRESS_TEXT_MAX)
        return true;
    snprintf(s->found[s->count], sizeof s->found[0], "%.*s", SLICE_ARG(account));
    snprintf(s->local[s->count++], sizeof s->local[0], "%.*s", SLICE_ARG(local));
    return true;
}

static bool is_above(struct quota *q, const char *upper, const char *lower)
{
    struct account *chain[CHARGE_LEVELS_MAX];
    unsigned n = account_chain(q, account_find(q, slice_str(lower)), chain);
    for (unsigned i = 0; i < n; i++)
        if (strcmp(chain[i]->name, upper) == 0)
            return true;
    return false;
}

/* True if the sentence is there. */
static bool look(struct quota *q, const char *account, const char *identity, struct slice prefix,
                 struct slice domain, struct buf *out)
{
    struct search *s = xcalloc(1, sizeof *s);
    struct err e;
    *s = (struct search){.prefix = prefix, .account = account};
    if (kv_walk(q->kv, T_OWNER, prefix, on_owner, s, &e) < 0)
        panic("%s", e.text);
    for (unsigned i = 0; i < s->count && out->len == 0; i++) {
        if (is_above(q, s->found[i], account) || is_above(q, account, s->found[i]))
            continue;
        bool same = slice_eq(slice_str(identity), domain) == (*s->local[i] == '\0');
        (void)buf_printf(out, "%s of account %s: account %s owns %s%s%.*s%s", identity, account,
                         s->found[i], s->local[i], *s->local[i] ? "@" : "", SLICE_ARG(domain),
                         same ? ", too: each may send as the other" : "");
    }
    free(s);
    return out->len > 0;
}

void owners_others(struct quota *q, const char *account, const char *identity, struct buf *out)
{
    struct slice whole = slice_str(identity), domain = whole;
    size_t at = slice_rchr(whole, '@');
    struct key k;
    buf_clear(out);
    if (at >= whole.len) { /* it or an address in it */
        key_begin(&k, whole);
        (void)look(q, account, identity, key_slice(&k), whole, out);
        return;
    }
    domain = slice_from(whole, at + 1);
    owner_key(&k, identity, "");
    if (look(q, account, identity, key_slice(&k), domain, out))
        return;
    key_begin(&k, domain);
    key_add(&k, SLICE("\0"));
    (void)look(q, account, identity, key_slice(&k), domain, out);
}

/* ---- the first time ----------------------------------------------------------------- */

struct building {
    struct quota *q;
    struct buf batch;
    struct key next;
    bool end;
};

static bool on_identity(struct slice key, struct slice value, void *arg)
{
    struct building *b = arg;
    struct slice identity = key, account = slice_cut(&identity, '\0');
    char name[ACCOUNT_NAME_MAX + 1], text[ADDRESS_TEXT_MAX + 1];
    (void)value;
    if (b->batch.len > BUILD_BYTES) {
        b->next.len = 0;
        key_add(&b->next, key);
        b->end = false;
        return false;
    }
    if (account.len > ACCOUNT_NAME_MAX || identity.len > ADDRESS_TEXT_MAX)
        return true;
    snprintf(name, sizeof name, "%.*s", SLICE_ARG(account));
    snprintf(text, sizeof text, "%.*s", SLICE_ARG(identity));
    owners_put(&b->batch, name, text);
    return true;
}

int owners_begin(struct quota *q, struct err *e)
{
    struct building b = {.q = q, .batch = BUF_INIT(KV_BATCH_MAX)};
    int rc = 0;
    if (quota_get(q, T_META, slice_str(done)))
        return 0;
    while (rc == 0 && !b.end) {
        struct key from = b.next;
        b.end = true;
        buf_clear(&b.batch);
        rc = kv_walk(q->kv, T_IDENTITY, key_slice(&from), on_identity, &b, e);
        if (rc == 0 && b.end)
            rc = kv_put(&b.batch, T_META, slice_str(done), SLICE("1"));
        if (rc == 0)
            rc = kv_apply(q->kv, buf_slice(&b.batch), e);
        service_alive(q->s);
    }
    buf_free(&b.batch);
    return rc == 0 ? kv_sync(q->kv, e) : -1;
}
