/* The messages of the journal, from taking to their end: see store_journal.h. */
#include <errno.h>

#include "core/mem.h"
#include "qmgr/store_internal.h"

struct kept *kept_find(const struct store *s, const struct id *id)
{
    return map_get(&s->disk.journal.kept, id_slice(id));
}

struct kept *kept_add(struct journal *j, const struct id *id, uint64_t at, size_t len)
{
    struct kept *k = xcalloc(1, sizeof *k);
    k->id = *id;
    k->at = at;
    k->len = (uint32_t)len;
    k->fd = -1;
    buf_init(&k->changes, STORE_RECORDS_MAX);
    list_init(&k->pending);
    list_push(&j->order, &k->order);
    list_push(&j->waiting, &k->stage);
    map_put(&j->kept, k);
    return k;
}

void kept_drop_fd(struct store *s, struct kept *k)
{
    if (k->fd < 0)
        return;
    store_fd_close(s, k->fd);
    k->fd = -1;
    s->disk.journal.fd_count--;
}

void kept_free(struct journal *j, struct kept *k)
{
    map_remove(&j->kept, id_slice(&k->id));
    list_remove(&k->order);
    list_remove(&k->stage);
    list_remove(&k->pending);
    buf_free(&k->changes);
    free(k);
}

/* ---- taking -------------------------------------------------------------------------- */

bool journal_commit(struct store *s, const struct id *id, struct slice bytes)
{
    struct journal *j = &s->disk.journal;
    uint64_t at;
    if (j->fd < 0 || j->closed || ring_add(s, JOURNAL_MESSAGE, id, bytes, &at) != 0)
        return false;
    kept_add(j, id, at, bytes.len)->since = s->disk.now;
    return true;
}

bool journal_has(const struct store *s, const struct id *id)
{
    return kept_find(s, id) != NULL;
}

bool journal_is_written(const struct store *s, const struct id *id)
{
    const struct kept *k = kept_find(s, id);
    return k && k->written;
}

bool journal_only(const struct store *s, const struct id *id)
{
    const struct kept *k = kept_find(s, id);
    return k && !k->over && k->state == KEPT_WAITING;
}

void kept_written(struct store *s, uint64_t position)
{
    struct journal *j = &s->disk.journal;
    for (struct list *n = j->order.prev; n != &j->order; n = n->prev) {
        struct kept *k = container_of(n, struct kept, order);
        if (k->written)
            break;
        k->written = true;
        k->block = position;
        k->at += position;
    }
    for (struct list *n; (n = list_pop(&j->noting)) != NULL;) {
        container_of(n, struct kept, stage)->stamp = s->disk.generation;
        list_push(&j->safe, n);
    }
}

/* ---- what is noted of a message ------------------------------------------------------ */

int kept_changed(struct kept *k, struct slice change)
{
    uint32_t len = (uint32_t)change.len;
    size_t before = k->changes.len;
    if (buf_add(&k->changes, &len, sizeof len) == 0 && buf_adds(&k->changes, change) == 0)
        return 0;
    k->changes.len = before;
    return -1;
}

bool kept_next_change(struct slice *rest, struct slice *change)
{
    uint32_t len;
    if (rest->len < sizeof len)
        return false;
    memcpy(&len, rest->ptr, sizeof len);
    *change = slice_first(slice_from(*rest, sizeof len), len);
    *rest = slice_from(*rest, sizeof len + len);
    return true;
}

static int note_changes(struct store *s, struct kept *k)
{
    struct slice rest = slice_from(buf_slice(&k->changes), k->changes_noted), change;
    while (kept_next_change(&rest, &change)) {
        int error = ring_add(s, JOURNAL_CHANGE, &k->id, change, NULL);
        if (error)
            return error;
        k->changes_noted = k->changes.len - rest.len;
    }
    return 0;
}

/* What the ring has not been told yet: that the message is over, or filed, or else
 * what of it changed. Then it may be gone. */
int kept_note(struct store *s, struct kept *k)
{
    struct journal *j = &s->disk.journal;
    int error = 0;
    if (k->over) {
        error = ring_add(s, JOURNAL_OVER, &k->id, SLICE(""), NULL);
        k->noted = error == 0;
    } else if (k->state == KEPT_SAFE && list_empty(&k->stage)) { /* FILED is in no block yet */
        error = ring_add(s, JOURNAL_FILED, &k->id, SLICE(""), NULL);
        if (error == 0)
            list_push(&j->noting, &k->stage);
    } else {
        error = note_changes(s, k);
    }
    if (error) {
        if (list_empty(&k->pending))
            list_push(&j->pending, &k->pending);
        return error;
    }
    list_remove(&k->pending);
    if (k->over && k->state != KEPT_FILED)
        kept_free(j, k);
    return 0;
}

int journal_write(struct store *s)
{
    struct journal *j = &s->disk.journal;
    list_each_safe(&j->pending, n)
    {
        struct kept *k = container_of(n, struct kept, pending);
        /* no start looks at the message's bytes again: there is nothing to be told */
        if (k->written && k->block < j->tail && list_empty(&k->order))
            kept_free(j, k);
        else if (kept_note(s, k) != 0)
            break;
    }
    return ring_write(s);
}

int journal_change(struct store *s, const struct id *id, struct slice bytes, uint64_t at, bool must,
                   bool *ring)
{
    struct journal *j = &s->disk.journal;
    struct kept *k = kept_find(s, id);
    char offset[JOURNAL_OFFSET];
    *ring = false;
    if (k == NULL || k->over)
        return 0;
    if (must && j->lost)
        return EIO;
    size_t before = k->changes.len;
    journal_change_encode(offset, at);
    buf_clear(&j->record);
    if (buf_add(&j->record, offset, sizeof offset) < 0 || buf_adds(&j->record, bytes) < 0 ||
        kept_changed(k, buf_slice(&j->record)) < 0)
        return ENOSPC;
    /* of a message that is safe the end of its time here may be waiting to be noted:
     * its changes may go before that */
    int error = note_changes(s, k);
    if (error && must) {
        k->changes.len = before;
        if (k->changes_noted > before)
            k->changes_noted = before;
        return error;
    }
    if (error && list_empty(&k->pending))
        list_push(&j->pending, &k->pending);
    *ring = error == 0;
    if (k->state == KEPT_WAITING && k->changes.len > STORE_JOURNAL_CHANGES && k->written)
        (void)kept_file(s, k, false); /* if it cannot be: it goes on as it is */
    return 0;
}

bool journal_finish(struct store *s, const struct id *id)
{
    struct journal *j = &s->disk.journal;
    struct kept *k = kept_find(s, id);
    if (k == NULL || k->over)
        return false;
    bool file = k->state != KEPT_WAITING;
    k->over = true;
    kept_drop_fd(s, k);
    list_remove(&k->stage);
    if (k->state == KEPT_FILED) {
        /* The file may come back torn while its way out of new/ is not durable: until
         * then the tail must not pass the words that it is over. */
        k->stamp = s->disk.generation;
        list_push(&j->filed, &k->stage);
    } else {
        list_remove(&k->order);
    }
    (void)kept_note(s, k); /* without room now it is noted later */
    return !file;
}
