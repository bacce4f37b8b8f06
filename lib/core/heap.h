/* An intrusive binary min-heap on a 64-bit key (a due time): O(log n) insert,
 * change and removal, no allocation per node. */
#ifndef POSTERN_CORE_HEAP_H
#define POSTERN_CORE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
    int64_t key;
    uint32_t at; /* position + 1; 0: not in a heap */
};

struct heap {
    struct heap_node **nodes;
    uint32_t count, capacity;
};

void heap_free(struct heap *h); /* the array only */
/* Inserts n under key, or moves it there if it is in the heap already. */
void heap_set(struct heap *h, struct heap_node *n, int64_t key);
void heap_remove(struct heap *h, struct heap_node *n); /* harmless if not in */
/* The node with the smallest key, or NULL. */
static inline struct heap_node *heap_min(const struct heap *h)
{
    return h->count ? h->nodes[0] : NULL;
}
static inline bool heap_has(const struct heap_node *n)
{
    return n->at != 0;
}

#endif
