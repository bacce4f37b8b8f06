/*
 * How many free files there are. Making a file and its blocks is what costs most of
 * a commit; while there is nothing else to do, some are made for the next burst: the
 * spool is new, or the next hop is down and nothing comes back to free/.
 *
 * Removing a file costs more than a rename, and where the file system discards
 * blocks as they are freed, several times more. So a long queue that is delivered
 * leaves its files in free/ first, and they are removed when there is time.
 */
#include <unistd.h>

#include "core/mem.h"
#include "ipc/ipc.h"
#include "qmgr/store_internal.h"

bool files_want_spares(const struct store *s)
{
    const struct disk *d = &s->disk;
    uint32_t target = s->config.spare_files;
    uint64_t bytes = (uint64_t)target * STORE_SPARE_BYTES;
    /* not where others keep the disk busy: see disk_sync_whole */
    return d->state == SPOOL_OK && disk_may_syncfs(s) && !flight_sweeps(s) && !d->no_spares &&
           d->free_count < target && d->now - d->last_commit > STORE_SPARE_IDLE_US &&
           s->stat_bytes > s->config.reserve_bytes + bytes * STORE_SPARE_ROOM &&
           s->stat_inodes > s->config.reserve_inodes + (uint64_t)target * STORE_SPARE_ROOM;
}

static bool make_spare(struct store *s)
{
    static const char zeros[STORE_SPARE_BYTES];
    struct free_file *f = xcalloc(1, sizeof *f);
    list_init(&f->link);
    if (file_make(s, f) < 0) {
        free(f);
        return false;
    }
    store_fd_opened(s);
    bool written = write_all(f->fd, slice_make(zeros, sizeof zeros), 0) == 0;
    store_fd_close(s, f->fd); /* opened again when it is needed: descriptors are for messages */
    f->fd = -1;
    return file_give_back(s, f) && written;
}

void files_make_spares(struct store *s)
{
    for (int i = 0; i < STORE_SPARE_FILES && !s->disk.no_spares && files_want_spares(s); i++)
        s->disk.no_spares = !make_spare(s);
    /* now, so that the next message's sync does not have to write them */
    (void)disk_sync_whole(s);
}

static uint32_t surplus(const struct store *s)
{
    const struct disk *d = &s->disk;
    return d->free_count > s->config.free_max ? d->free_count - s->config.free_max : 0;
}

bool files_surplus(const struct store *s)
{
    const struct disk *d = &s->disk;
    bool some = !list_empty(&d->doomed) || (surplus(s) > 0 && !list_empty(&d->ready));
    return some && !d->bad && d->now - d->last_commit > STORE_SPARE_IDLE_US &&
           d->now - d->last_finish > STORE_SPARE_IDLE_US;
}

void files_remove_surplus(struct store *s)
{
    files_trim(s, s->config.free_max, STORE_SURPLUS_FILES, STORE_SURPLUS_US);
}

void files_tick(struct store *s)
{
    const struct disk *d = &s->disk;
    uint32_t more = surplus(s);
    if (d->bad)
        return;
    if (more || !list_empty(&d->doomed))
        files_trim(s, s->config.free_max, STORE_TRIM_FILES + more / STORE_SURPLUS_SHARE,
                   STORE_SURPLUS_US);
    else if (d->now - d->last_commit > STORE_IDLE_US)
        files_trim(s, s->config.free_max / 4, STORE_TRIM_FILES, STORE_SURPLUS_US);
}
