#include "core/map.h"

#include <sys/random.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/mem.h"

enum { FIRST_CAPACITY = 16 };

static uint64_t seed(void)
{
    static uint64_t value;
    while (value == 0)
        if (getrandom(&value, sizeof value, 0) != sizeof value)
            panic("getrandom failed");
    return value;
}

uint64_t map_hash(struct slice key)
{
    return XXH3_64bits_withSeed(key.ptr ? key.ptr : "", key.len, seed());
}

void map_init(struct map *m, struct slice (*key)(const void *value))
{
    *m = (struct map){.key = key};
}

void map_free(struct map *m)
{
    xfree(&m->slots);
    m->count = m->capacity = 0;
}

/* The slot that holds the key, or the free one where it would go. */
static size_t find(const struct map *m, struct slice key, uint64_t hash)
{
    size_t i = hash & (m->capacity - 1);
    while (m->slots[i].value &&
           !(m->slots[i].hash == hash && slice_eq(m->key(m->slots[i].value), key)))
        i = (i + 1) & (m->capacity - 1);
    return i;
}

static void resize(struct map *m, size_t capacity)
{
    struct map_slot *old = m->slots;
    size_t old_capacity = m->capacity;
    m->slots = xcalloc(capacity, sizeof *m->slots);
    m->capacity = capacity;
    for (size_t k = 0; k < old_capacity; k++) {
        if (!old[k].value)
            continue;
        size_t i = old[k].hash & (capacity - 1);
        while (m->slots[i].value)
            i = (i + 1) & (capacity - 1);
        m->slots[i] = old[k];
    }
    free(old);
}

void *map_get(const struct map *m, struct slice key)
{
    return m->count ? m->slots[find(m, key, map_hash(key))].value : NULL;
}

void *map_put(struct map *m, void *value)
{
    if (m->capacity == 0)
        resize(m, FIRST_CAPACITY);
    else if (m->count >= m->capacity - m->capacity / 4)
        resize(m, m->capacity * 2);
    struct slice key = m->key(value);
    uint64_t hash = map_hash(key);
    struct map_slot *slot = &m->slots[find(m, key, hash)];
    void *old = slot->value;
    *slot = (struct map_slot){hash, value};
    m->count += old == NULL;
    return old;
}

/* Linear probing: closes the gap so that no search ends too early. */
static void close_gap(struct map *m, size_t gap)
{
    size_t mask = m->capacity - 1;
    for (size_t i = (gap + 1) & mask; m->slots[i].value; i = (i + 1) & mask) {
        size_t home = m->slots[i].hash & mask;
        if (((i - home) & mask) >= ((i - gap) & mask)) {
            m->slots[gap] = m->slots[i];
            gap = i;
        }
    }
    m->slots[gap].value = NULL;
}

void *map_remove(struct map *m, struct slice key)
{
    if (m->count == 0)
        return NULL;
    size_t i = find(m, key, map_hash(key));
    void *value = m->slots[i].value;
    if (!value)
        return NULL;
    m->count--;
    close_gap(m, i);
    if (m->capacity > 4096 && m->count < m->capacity / 8)
        resize(m, m->capacity / 2);
    return value;
}

void *map_next(const struct map *m, size_t *cursor)
{
    while (*cursor < m->capacity) {
        void *value = m->slots[(*cursor)++].value;
        if (value)
            return value;
    }
    return NULL;
}

void map_clear(struct map *m, void (*drop)(void *value))
{
    for (size_t i = 0; i < m->capacity && drop; i++)
        if (m->slots[i].value)
            drop(m->slots[i].value);
    map_free(m);
}
