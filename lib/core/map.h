/*
 * A hash table from byte strings to pointers. Keys are not copied: they live in
 * the value for as long as it is in the table. The hash is keyed at random, so
 * that a peer cannot aim at one bucket.
 */
#ifndef POSTERN_CORE_MAP_H
#define POSTERN_CORE_MAP_H

#include "core/slice.h"

struct map_slot {
    uint64_t hash;
    void *value; /* NULL: free */
};

struct map {
    struct map_slot *slots;
    size_t count, capacity; /* capacity is 0 or a power of two */
    struct slice (*key)(const void *value);
};

/* `key` returns the key that is stored in a value. */
void map_init(struct map *m, struct slice (*key)(const void *value));
/* Frees the table, not the values. */
void map_free(struct map *m);
void *map_get(const struct map *m, struct slice key);
/* Adds value under its key; returns the value it replaced, or NULL. */
void *map_put(struct map *m, void *value);
/* Takes the value of this key out and returns it, or NULL. */
void *map_remove(struct map *m, struct slice key);
/* Iteration in table order: start with *cursor = 0; NULL at the end. The table
 * must not change meanwhile. */
void *map_next(const struct map *m, size_t *cursor);
/* Empties the table, calling `drop` (may be NULL) for each value. */
void map_clear(struct map *m, void (*drop)(void *value));
/* The keyed hash that the table uses. */
uint64_t map_hash(struct slice key);

#endif
