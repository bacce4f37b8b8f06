#include "plan/tzfile.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "plan/zone.h"

struct slice tzfile_rule(struct slice content)
{
    struct slice none = SLICE("");
    struct zone z;
    if (!slice_starts(content, SLICE("TZif")) || content.len < 6 ||
        content.ptr[content.len - 1] != '\n')
        return none;
    content.len--;
    size_t line = slice_rchr(content, '\n');
    struct slice rule = line < content.len ? slice_from(content, line + 1) : none;
    return zone_parse(rule, &z) == 0 ? rule : none;
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
    struct slice rule = tzfile_rule(slice_make(content, n > 0 ? (size_t)n : 0));
    if (rule.len == 0 || rule.len >= size)
        return -1;
    snprintf(out, size, "%.*s", SLICE_ARG(rule));
    return 0;
}
