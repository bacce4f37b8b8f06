#include "core/heap.h"

#include "core/mem.h"

static void place(struct heap *h, struct heap_node *n, uint32_t i)
{
    h->nodes[i] = n;
    n->at = i + 1;
}

static void sift_up(struct heap *h, uint32_t i)
{
    struct heap_node *n = h->nodes[i];
    while (i > 0 && h->nodes[(i - 1) / 2]->key > n->key) {
        place(h, h->nodes[(i - 1) / 2], i);
        i = (i - 1) / 2;
    }
    place(h, n, i);
}

static void sift_down(struct heap *h, uint32_t i)
{
    struct heap_node *n = h->nodes[i];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= h->count)
            break;
        if (child + 1 < h->count && h->nodes[child + 1]->key < h->nodes[child]->key)
            child++;
        if (h->nodes[child]->key >= n->key)
            break;
        place(h, h->nodes[child], i);
        i = child;
    }
    place(h, n, i);
}

void heap_free(struct heap *h)
{
    xfree(&h->nodes);
    h->count = h->capacity = 0;
}

void heap_set(struct heap *h, struct heap_node *n, int64_t key)
{
    n->key = key;
    if (n->at == 0) {
        if (h->count == h->capacity) {
            h->capacity = h->capacity ? h->capacity * 2 : 64;
            h->nodes = xreallocarray(h->nodes, h->capacity, sizeof *h->nodes);
        }
        place(h, n, h->count++);
    }
    sift_up(h, n->at - 1);
    sift_down(h, n->at - 1);
}

void heap_remove(struct heap *h, struct heap_node *n)
{
    if (n->at == 0)
        return;
    uint32_t i = n->at - 1;
    struct heap_node *last = h->nodes[--h->count];
    n->at = 0;
    if (last == n)
        return;
    place(h, last, i);
    sift_up(h, i);
    sift_down(h, last->at - 1);
}
