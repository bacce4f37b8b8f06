#include "quota/frozen.h"

#include "core/mem.h"

/* A record as it was, by table and key. */
struct kept {
    struct list link;
    bool there;
    size_t key_len, value_len;
    char data[]; /* a byte for the table's place, the key, the value */
};

struct frozen {
    struct list link;
    struct quota *q;
    enum table tables[FROZEN_TABLES_MAX];
    unsigned count, place; /* of the table that is read */
    struct key at;         /* the next key of it to be read; empty: the first */
    bool end;              /* of it: what is left was deleted since */
    struct map kept;
    struct list of[FROZEN_TABLES_MAX]; /* the same for each table */
    size_t bytes;
    bool full; /* it has kept too much, and forgotten all */
};

static struct slice kept_key(const void *value)
{
    const struct kept *k = value;
    return slice_make(k->data, k->key_len + 1);
}

static struct slice value_of(const struct kept *k)
{
    return slice_make(k->data + 1 + k->key_len, k->value_len);
}

static void drop(struct frozen *f, struct kept *k)
{
    f->bytes -= sizeof *k + 1 + k->key_len + k->value_len;
    map_remove(&f->kept, kept_key(k));
    list_remove(&k->link);
    free(k);
}

static struct kept *find(const struct frozen *f, unsigned place, struct slice key)
{
    struct key k = {.len = 0};
    const char byte = (char)place;
    key_add(&k, slice_make(&byte, 1));
    key_add(&k, key);
    return map_get(&f->kept, key_slice(&k));
}

struct frozen *frozen_new(struct quota *q, const enum table *tables, unsigned count)
{
    unsigned others = 0;
    list_each(&q->frozen, n) others++;
    if (others >= FROZEN_MAX)
        return NULL;
    struct frozen *f = xcalloc(1, sizeof *f);
    f->q = q;
    f->count = count;
    map_init(&f->kept, kept_key);
    for (unsigned i = 0; i < count; i++) {
        f->tables[i] = tables[i];
        list_init(&f->of[i]);
    }
    list_push(&q->frozen, &f->link);
    return f;
}

static void forget(struct frozen *f)
{
    struct list *n;
    for (unsigned i = 0; i < f->count; i++)
        while ((n = list_pop(&f->of[i])))
            free(container_of(n, struct kept, link));
    map_free(&f->kept);
    map_init(&f->kept, kept_key);
    f->bytes = 0;
}

void frozen_free(struct frozen *f)
{
    if (!f)
        return;
    forget(f);
    map_free(&f->kept);
    list_remove(&f->link);
    free(f);
}

/* ---- before changes ------------------------------------------------------------- */

static bool was_read(const struct frozen *f, unsigned place, struct slice key)
{
    return place < f->place ||
           (place == f->place && (f->end || slice_cmp(key, key_slice(&f->at)) < 0));
}

static void keep(struct frozen *f, unsigned place, struct slice key)
{
    struct quota *q = f->q;
    if (was_read(f, place, key) || find(f, place, key))
        return;
    bool there = quota_get(q, f->tables[place], key);
    size_t value_len = there ? q->value.len : 0;
    struct kept *k = xmalloc(sizeof *k + 1 + key.len + value_len);
    *k = (struct kept){.there = there, .key_len = key.len, .value_len = value_len};
    k->data[0] = (char)place;
    memcpy(k->data + 1, key.ptr, key.len);
    if (value_len)
        memcpy(k->data + 1 + key.len, q->value.data, value_len);
    list_init(&k->link);
    list_push(&f->of[place], &k->link);
    map_put(&f->kept, k);
    f->bytes += sizeof *k + 1 + key.len + value_len;
    if (f->bytes > FROZEN_BYTES_MAX) {
        forget(f);
        f->full = true;
    }
}

static void note_change(struct frozen *f, const struct kv_change *c)
{
    for (unsigned i = f->place; i < f->count && !f->full; i++)
        if (f->tables[i] == c->table)
            keep(f, i, c->key);
}

void frozen_note(struct quota *q, struct slice batch)
{
    struct kv_change c;
    if (list_empty(&q->frozen))
        return;
    struct buf value = q->value; /* the caller may have encoded what it writes there */
    q->value = BUF_INIT(KV_VALUE_MAX);
    while (kv_next_change(&batch, &c))
        list_each(&q->frozen, n) note_change(container_of(n, struct frozen, link), &c);
    buf_free(&q->value);
    q->value = value;
}

/* ---- reading -------------------------------------------------------------------- */

struct reading {
    struct frozen *f;
    void (*each)(unsigned place, struct slice key, struct slice value, void *arg);
    void *arg;
    unsigned count, max;
};

static bool on_record(struct slice key, struct slice value, void *arg)
{
    struct reading *r = arg;
    struct frozen *f = r->f;
    if (r->count++ == r->max)
        return false;
    f->at.len = 0;
    key_add(&f->at, key);
    key_add(&f->at, SLICE("\0")); /* there is no key between the two */
    struct kept *k = find(f, f->place, key);
    if (!k)
        r->each(f->place, key, value, r->arg);
    else if (k->there)
        r->each(f->place, key, value_of(k), r->arg);
    if (k)
        drop(f, k);
    return true;
}

/* Those that the walk did not meet: they are not there any more. */
static void read_deleted(struct reading *r)
{
    struct list *of = &r->f->of[r->f->place];
    for (; r->count < r->max && !list_empty(of); r->count++) {
        struct kept *k = container_of(of->next, struct kept, link);
        if (k->there)
            r->each(r->f->place, slice_from(kept_key(k), 1), value_of(k), r->arg);
        drop(r->f, k);
    }
}

int frozen_read(struct frozen *f, unsigned max,
                void (*each)(unsigned place, struct slice key, struct slice value, void *arg),
                void *arg, struct err *e)
{
    struct reading r = {f, each, arg, 0, max};
    if (f->full)
        return err_set(e,
                       "More than %d MB changed while the tables were read, which took too long: "
                       "read faster (into a file), or when less mail is sent.",
                       FROZEN_BYTES_MAX / (1024 * 1024));
    if (!f->end) {
        struct key from = f->at;
        if (kv_walk(f->q->kv, f->tables[f->place], key_slice(&from), on_record, &r, e) < 0)
            return -1;
        if (r.count > max)
            return 1;
        f->end = true;
    }
    read_deleted(&r);
    if (!list_empty(&f->of[f->place]))
        return 1;
    f->place++;
    f->at.len = 0;
    f->end = false;
    return f->place < f->count;
}

bool frozen_get(struct frozen *f, unsigned place, struct slice key, struct buf *value)
{
    const struct kept *k = find(f, place, key);
    buf_clear(value);
    if (k)
        return k->there && buf_adds(value, value_of(k)) == 0;
    if (was_read(f, place, key) || !quota_get(f->q, f->tables[place], key))
        return false;
    return buf_adds(value, buf_slice(&f->q->value)) == 0;
}
