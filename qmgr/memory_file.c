#include "qmgr/memory_file.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "core/mem.h"
#include "qmgr/memory.h"
#include "qmgr/writing.h"

static const char first_line[] = "{\"postern_shaping\":1}\n";

/* ---- format ---------------------------------------------------------------------- */

void memory_file_begin(struct buf *out)
{
    buf_addstr(out, first_line);
}

static int last_line(char *text, size_t size, size_t entries, struct slice before)
{
    unsigned long long sum = XXH3_64bits(before.ptr ? before.ptr : "", before.len);
    return snprintf(text, size, "{\"entries\":%zu,\"sum\":\"%016llx\"}\n", entries, sum);
}

void memory_file_end(struct buf *out, size_t entries)
{
    char text[80];
    int n = last_line(text, sizeof text, entries, buf_slice(out));
    buf_add(out, text, (size_t)n);
}

/* The entries alone, or -1. */
static int check(struct slice text, struct slice *entries)
{
    size_t head = sizeof first_line - 1, end = text.len, count = 0;
    char expected[80];
    if (text.len < head || memcmp(text.ptr, first_line, head) != 0 ||
        text.ptr[text.len - 1] != '\n')
        return -1;
    while (end > head && text.ptr[end - 2] != '\n')
        end--;
    end--;
    if (end < head)
        return -1;
    *entries = slice_make(text.ptr + head, end - head);
    for (size_t i = 0; i < entries->len; i++)
        count += entries->ptr[i] == '\n';
    int n = last_line(expected, sizeof expected, count, slice_first(text, end));
    return slice_eq(slice_from(text, end), slice_make(expected, (size_t)n)) ? 0 : -1;
}

/* ---- reading ----------------------------------------------------------------------- */

int memory_file_read(void (*entry)(struct slice object, void *arg), void *arg, struct err *e)
{
    struct buf text = BUF_INIT((size_t)MEMORY_FILE_MAX + FILE_READ_STEP);
    struct slice entries;
    int rc = file_read_whole(MEMORY_FILE, &text, e);
    if (rc == 0 && check(buf_slice(&text), &entries) < 0)
        rc = err_set(e, "%s is damaged", MEMORY_FILE);
    if (rc < 0)
        rc = file_keep_aside(MEMORY_FILE, e);
    while (rc == 0 && entries.len)
        entry(slice_cut(&entries, '\n'), arg);
    buf_free(&text);
    return rc;
}
