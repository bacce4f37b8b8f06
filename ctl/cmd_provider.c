/* provider check, provider test: the samples and contradictions of providers.conf. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"
#include "ctl/ctl.h"
#include "rules/rules.h"

static int read_file(const char *name, struct buf *out, void *arg, struct err *e)
{
    const char *directory = arg;
    char *path = name[0] == '/' ? xstrdup(name) : xasprintf("%s/%s", directory, name);
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = 1;
    if (fd < 0)
        rc = err_sys(e, "%s", path);
    while (rc == 0 && n > 0) {
        if (buf_reserve(out, 4096) < 0)
            rc = err_set(e, "%s: longer than %d bytes", path, RULES_TEXT_MAX);
        else if ((n = read(fd, out->data + out->len, out->cap - out->len)) < 0)
            rc = err_sys(e, "%s", path);
        else
            out->len += (size_t)n;
    }
    if (fd >= 0)
        close(fd);
    free(path);
    return rc;
}

static void print(const struct ctl *ctl, const char *level, const char *text)
{
    if (ctl->json) {
        json_t *o = json_pack("{s:s, s:s}", "level", level, "text", text);
        print_json_line(o);
        json_decref(o);
        return;
    }
    printf("%s: ", level);
    print_safe(stdout, text);
    putchar('\n');
}

static void say(const char *text, bool error, void *arg)
{
    print(arg, error ? "error" : "warning", text);
}

/* The folder of a file, where its includes are looked for; the caller frees it. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slice_dup(slice_make(path, (size_t)(slash - path))) : xstrdup(".");
}

struct rules *provider_load(struct ctl *ctl, const char *path)
{
    struct err e;
    char *folder = folder_of(path);
    const char *slash = strrchr(path, '/');
    struct rules *r = rules_load(slash ? slash + 1 : path, read_file, folder, &e);
    free(folder);
    if (!r)
        say(e.text, true, ctl);
    return r;
}

static int try_file(struct ctl *ctl, const char *path)
{
    struct rules *r = provider_load(ctl, path);
    if (!r)
        return CTL_FAILED;
    for (unsigned i = 0; rules_override(r, i); i++)
        print(ctl, "note", rules_override(r, i));
    unsigned errors = rules_check(r, say, ctl);
    if (!ctl->json)
        printf("%s: %u providers, %u rules, %u errors\n", path, rules_providers(r), rules_count(r),
               errors);
    rules_free(r);
    return errors ? CTL_FAILED : CTL_OK;
}

int cmd_provider_check(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    const struct arg none[] = {{NULL, NULL, NULL}};
    bool test = strcmp(self->name, "test") == 0;
    (void)argc;
    int n = args_parse(ctl, self, none, argv);
    if (n < 0)
        return args_status(n);
    if (n != (test ? 1 : 0))
        return ctl_usage(self, test ? "give one file" : "takes no arguments");
    if (test)
        return try_file(ctl, argv[0]);
    const struct config *c = ctl_config(ctl);
    if (!c)
        return CTL_FAILED;
    if (!*c->provider_config_file)
        return ctl_error(CTL_FAILED, "provider_config_file is empty: there are no rules in use");
    return try_file(ctl, c->provider_config_file);
}
