#include "plan/tzfile.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "core/buf.h"
#include "plan/zone.h"

enum {
    HEADER = 44,       /* RFC 8536, section 3.1 */
    COUNTS = 20,       /* where its six numbers are */
    TYPE = 6,          /* bytes of a local time type record */
    SINCE = 1577836800 /* 2020: nothing is reckoned in the years before */
};

/* What a header says there is behind it. */
struct counts {
    uint32_t utc, standard, leap, times, types, chars;
};

static int64_t number(const char *at, unsigned bytes)
{
    uint64_t n = bytes == 8 || !(at[0] & 0x80) ? 0 : UINT64_MAX;
    for (unsigned i = 0; i < bytes; i++)
        n = n << 8 | (unsigned char)at[i];
    return (int64_t)n;
}

static int take_header(struct slice *s, struct counts *c)
{
    uint32_t *const fields[] = {&c->utc, &c->standard, &c->leap, &c->times, &c->types, &c->chars};
    if (s->len < HEADER || !slice_starts(*s, SLICE("TZif")) || s->ptr[4] < '2')
        return -1;
    for (unsigned i = 0; i < 6; i++) {
        int64_t n = number(s->ptr + COUNTS + 4 * (size_t)i, 4);
        if (n < 0 || n > TZFILE_MAX)
            return -1;
        *fields[i] = (uint32_t)n;
    }
    *s = slice_from(*s, HEADER);
    return 0;
}

/* Bytes of the data behind a header whose times have so many bytes. */
static size_t data_bytes(const struct counts *c, size_t time)
{
    return c->times * (time + 1) + c->types * (size_t)TYPE + c->chars + c->leap * (time + 4) +
           c->standard + c->utc;
}

/* The changes since SINCE behind the rule, if it does not say the same by itself. Those that are no
 * full minutes, or too many, are left out: then the rule alone holds. */
static void add_steps(struct slice data, const struct counts *c, const struct zone *rule,
                      struct buf *out)
{
    const char *indices = data.ptr + (size_t)c->times * 8, *types = indices + c->times;
    size_t begun = out->len;
    bool differ = false, good = true;
    unsigned count = 0;
    for (uint32_t i = 0; i < c->times && good; i++) {
        int64_t at = number(data.ptr + (size_t)i * 8, 8);
        unsigned type = (unsigned char)indices[i];
        if (at < SINCE)
            continue;
        good =
            type < c->types && ++count <= ZONE_STEPS_MAX && at % 60 == 0 && at / 60 <= UINT32_MAX;
        int64_t offset = good ? number(types + (size_t)type * TYPE, 4) : 0;
        good = good && offset % 60 == 0 &&
               buf_printf(out, " %lld=%lld", (long long)(at / 60), (long long)(offset / 60)) == 0;
        differ = differ || (good && offset != zone_offset(rule, at));
    }
    if (!good || !differ)
        out->len = begun;
}

int tzfile_rule(struct slice content, char *out, size_t size)
{
    struct counts c;
    struct zone z;
    struct buf text = BUF_INIT(ZONE_TEXT_MAX - 1);
    if (take_header(&content, &c) < 0 || data_bytes(&c, 4) > content.len)
        return -1;
    content = slice_from(content, data_bytes(&c, 4));
    if (take_header(&content, &c) < 0 || data_bytes(&c, 8) > content.len)
        return -1;
    struct slice data = content, rule = slice_from(content, data_bytes(&c, 8));
    if (rule.len < 2 || rule.ptr[0] != '\n' || rule.ptr[rule.len - 1] != '\n')
        return -1;
    rule = slice_first(slice_from(rule, 1), rule.len - 2);
    if (zone_parse(rule, &z) < 0 || z.step_count || buf_adds(&text, rule) < 0)
        return -1;
    add_steps(data, &c, &z, &text);
    bool good = zone_parse(buf_slice(&text), &z) == 0 && text.len < size;
    if (!good && zone_parse(rule, &z) == 0 && rule.len < size) { /* steps that do not ascend */
        text.len = rule.len;
        good = true;
    }
    if (good)
        snprintf(out, size, "%.*s", SLICE_ARG(buf_slice(&text)));
    buf_free(&text);
    return good ? 0 : -1;
}

int tzfile_lookup(const char *name, char *out, size_t size, void *arg)
{
    char path[256], content[TZFILE_MAX];
    (void)arg;
    if (strstr(name, "..") || name[0] == '/' ||
        snprintf(path, sizeof path, "/usr/share/zoneinfo/%s", name) >= (int)sizeof path)
        return -1;
    if (strcmp(name, "UTC") == 0) /* needs no file */
        return snprintf(out, size, "UTC0") < (int)size ? 0 : -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, content, sizeof content);
    if (fd >= 0)
        close(fd);
    return tzfile_rule(slice_make(content, n > 0 ? (size_t)n : 0), out, size);
}
