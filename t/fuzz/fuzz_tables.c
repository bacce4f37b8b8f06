/* libraries: postern_tables */
/* The first byte chooses the kind of table, the first line is a key, the rest
 * is the table. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/log.h"
#include "tables/table.h"

static const char *const specs[] = {"texthash:/f", "pcre:/f", "cdb:/f", NULL, "cidr:/f"};

static struct table *open_table(unsigned kind, struct slice content)
{
    struct err e;
    char spec[1024];
    if (!specs[kind]) {
        size_t n = content.len < 1000 ? content.len : 1000;
        memcpy(spec, "inline:", 7);
        memcpy(spec + 7, content.ptr, n);
        return table_open_fd(slice_make(spec, n + 7), -1, &e);
    }
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (content.len && write(fd, content.ptr, content.len) != (ssize_t)content.len)
        abort();
    return table_open_fd(slice_str(specs[kind]), fd, &e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e;
    struct buf value = BUF_INIT(TABLE_VALUE_MAX);
    log_set_level(LOG_LEVEL_PANIC);
    if (size < 2)
        return 0;
    struct slice content = slice_make(data + 1, size - 1), key = slice_cut(&content, '\n');
    struct table *t = open_table(data[0] & 4 ? 4 : data[0] & 3, content);
    if (!t)
        return 0;
    if (table_lookup(t, key, &value, &e) == TABLE_FOUND && value.len > TABLE_VALUE_MAX)
        abort();
    (void)table_has_address_in(t, key);
    table_close(t);
    buf_free(&value);
    return 0;
}
