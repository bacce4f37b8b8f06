#include "quota/zones.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/map.h"
#include "core/mem.h"
#include "plan/tzfile.h"
#include "plan/zone.h"

enum { DEPTH_MAX = 3 };

struct zone_entry {
    char name[64], *rule; /* the text for zone_parse */
};

struct zones {
    struct map by_name;
};

static struct slice entry_key(const void *value)
{
    return slice_str(((const struct zone_entry *)value)->name);
}

static void add(struct zones *z, const char *name)
{
    struct zone_entry *e = xcalloc(1, sizeof *e);
    char rule[ZONE_TEXT_MAX];
    if (snprintf(e->name, sizeof e->name, "%s", name) < (int)sizeof e->name &&
        tzfile_lookup(name, rule, sizeof rule, NULL) == 0) {
        e->rule = xstrdup(rule);
        e = map_put(&z->by_name, e);
    }
    if (e) /* one that was there, or is of no use */
        free(e->rule);
    free(e);
}

/* Zones' names begin with a capital letter; posix/ and right/ are the same again. */
static void scan(struct zones *z, const char *folder, int depth)
{
    char path[256], name[512];
    snprintf(path, sizeof path, "/usr/share/zoneinfo/%.200s", folder);
    DIR *d = opendir(path);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        snprintf(name, sizeof name, "%s%s%s", folder, *folder ? "/" : "", e->d_name);
        if (e->d_name[0] < 'A' || e->d_name[0] > 'Z' || strlen(name) > 60)
            continue;
        if (e->d_type == DT_DIR && depth < DEPTH_MAX)
            scan(z, name, depth + 1);
        else if (e->d_type != DT_DIR)
            add(z, name);
    }
    closedir(d);
}

struct zones *zones_load(void)
{
    struct zones *z = xcalloc(1, sizeof *z);
    map_init(&z->by_name, entry_key);
    add(z, "UTC");
    scan(z, "", 1);
    return z;
}

int zones_lookup(const char *name, char *out, size_t size, void *arg)
{
    const struct zones *z = arg;
    const struct zone_entry *e = map_get(&z->by_name, slice_str(name));
    return e && snprintf(out, size, "%s", e->rule) < (int)size ? 0 : -1;
}
