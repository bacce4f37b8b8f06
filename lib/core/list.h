/* An intrusive doubly linked list: the node lives in its owner, insertion and
 * removal are O(1) and allocate nothing. */
#ifndef POSTERN_CORE_LIST_H
#define POSTERN_CORE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next, *prev;
};

/* The owner of node `n`, which is its member `member`. */
#define container_of(n, type, member) ((type *)((char *)(n)-offsetof(type, member)))

static inline void list_init(struct list *head)
{
    head->next = head->prev = head;
}
static inline bool list_empty(const struct list *head)
{
    return head->next == head;
}
static inline void list_insert_after(struct list *at, struct list *n)
{
    n->next = at->next;
    n->prev = at;
    at->next->prev = n;
    at->next = n;
}
static inline void list_push(struct list *head, struct list *n) /* at the end */
{
    list_insert_after(head->prev, n);
}
static inline void list_push_front(struct list *head, struct list *n)
{
    list_insert_after(head, n);
}
/* Takes n out and leaves it an empty list, so removing twice is harmless. */
static inline void list_remove(struct list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->next = n->prev = n;
}
/* The first node taken out, or NULL. */
static inline struct list *list_pop(struct list *head)
{
    struct list *n = head->next;
    if (n == head)
        return NULL;
    list_remove(n);
    return n;
}

/* Moves all nodes of `from` to the end of head; from is empty afterwards. */
static inline void list_splice(struct list *head, struct list *from)
{
    if (list_empty(from))
        return;
    from->next->prev = head->prev;
    head->prev->next = from->next;
    from->prev->next = head;
    head->prev = from->prev;
    list_init(from);
}

#define list_each(head, n) for (struct list *n = (head)->next; n != (head); n = n->next)
/* As list_each; n may be removed or freed inside. */
#define list_each_safe(head, n)                                                                    \
    for (struct list *n = (head)->next, *n##_next = n->next; n != (head);                          \
         n = n##_next, n##_next = n->next)

#endif
