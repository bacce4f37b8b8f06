#include "resolve/state.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/mem.h"

struct head {
    char magic[8];
    uint64_t generation, len, sum; /* sum: XXH3-64 of generation, length and content */
};

static const char magic[8] = "PSTATE1";

static uint64_t sum_of(const struct head *h, struct slice content)
{
    uint64_t seed = h->generation * 1000003 + h->len;
    return XXH3_64bits_withSeed(content.ptr ? content.ptr : "", content.len, seed);
}

int state_open(struct state *s, const char *directory, const char *name, struct err *e)
{
    *s = (struct state){.name = xstrdup(name), .fds = {-1, -1}};
    if (mkdir(directory, 0700) < 0 && errno != EEXIST)
        return err_sys(e, "%s: cannot create", directory);
    for (int i = 0; i < 2; i++) {
        char *path = xasprintf("%s/%s.%d", directory, name, i);
        s->fds[i] = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
        if (s->fds[i] < 0)
            err_sys(e, "%s: cannot open", path);
        free(path);
        if (s->fds[i] < 0)
            return -1;
    }
    return 0;
}

/* 0, with the content in *out, if the file is whole. */
static int read_file(int fd, struct head *h, struct buf *out)
{
    buf_clear(out);
    if (pread(fd, h, sizeof *h, 0) != (ssize_t)sizeof *h ||
        memcmp(h->magic, magic, sizeof magic) != 0 || h->len > STATE_MAX ||
        buf_reserve(out, h->len) < 0)
        return -1;
    while (out->len < h->len) {
        ssize_t n =
            pread(fd, out->data + out->len, h->len - out->len, (off_t)(sizeof *h + out->len));
        if (n <= 0)
            return -1;
        out->len += (size_t)n;
    }
    return sum_of(h, buf_slice(out)) == h->sum ? 0 : -1;
}

void state_load(struct state *s, struct buf *out)
{
    struct buf content = BUF_INIT(STATE_MAX);
    for (int i = 0; i < 2; i++) {
        struct head h;
        if (read_file(s->fds[i], &h, &content) < 0 || h.generation <= s->generation)
            continue;
        s->generation = h.generation;
        buf_clear(out);
        (void)buf_adds(out, buf_slice(&content));
    }
    buf_free(&content);
}

static int write_all(int fd, const void *data, size_t len, off_t at)
{
    const char *p = data;
    while (len > 0) {
        ssize_t n = pwrite(fd, p, len, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        p += n;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

int state_save(struct state *s, struct slice content, struct err *e)
{
    struct head h = {.generation = s->generation + 1, .len = content.len};
    int fd = s->fds[h.generation % 2];
    memcpy(h.magic, magic, sizeof magic);
    if (content.len > STATE_MAX)
        return err_set(e, "%s: more than %d bytes", s->name, STATE_MAX);
    h.sum = sum_of(&h, content);
    if (write_all(fd, &h, sizeof h, 0) < 0 ||
        write_all(fd, content.ptr, content.len, sizeof h) < 0 ||
        ftruncate(fd, (off_t)(sizeof h + content.len)) < 0 || fdatasync(fd) < 0)
        return err_sys(e, "%s: cannot be saved", s->name);
    s->generation = h.generation;
    return 0;
}
