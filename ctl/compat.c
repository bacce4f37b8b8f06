#include "ctl/compat.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/mem.h"

static const struct compat_command commands[] = {
    {"mailq", compat_mailq},     {"postqueue", compat_postqueue}, {"postsuper", compat_postsuper},
    {"postcat", compat_postcat}, {"postconf", compat_postconf},   {"sendmail", compat_sendmail},
};
static const char *program = "postern";

const struct compat_command *compat_find(const char *argv0)
{
    const char *slash = strrchr(argv0, '/');
    const char *name = slash ? slash + 1 : argv0;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

int compat_run(const struct compat_command *c, struct ctl *ctl, int argc, char **argv)
{
    const char *directory = getenv("MAIL_CONFIG"); /* as Postfix's commands do */
    program = c->name;
    char *prefix = xasprintf("%s: fatal: ", program);
    ctl_prefix = prefix;
    if (directory && *directory)
        ctl->directory = directory;
    int status = c->run(ctl, argc, argv);
    ctl_prefix = "postern: ";
    free(prefix);
    return status;
}

static void say(const char *kind, const char *format, va_list args)
{
    fflush(stdout);
    fprintf(stderr, "%s: %s", program, kind);
    vfprintf(stderr, format, args);
    putc('\n', stderr);
}

int compat_fatal(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("fatal: ", format, args);
    va_end(args);
    return status;
}

void compat_say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("", format, args);
    va_end(args);
}

void compat_print_quoted(const char *text)
{
    json_t *value = json_string(text);
    if (!value) {
        char *copy = xstrdup(text);
        for (char *p = copy; *p; p++)
            if ((unsigned char)*p >= 0x80)
                *p = '?';
        value = json_string(copy);
        free(copy);
    }
    json_dumpf(value, stdout, JSON_ENCODE_ANY);
    json_decref(value);
}

void compat_time(char out[static 32], long long when)
{
    /* asctime(3) without the system's translations */
    static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t seconds = (time_t)when;
    struct tm tm;
    if (localtime_r(&seconds, &tm))
        snprintf(out, 32, "%s %s %2d %02d:%02d:%02d %d", days[tm.tm_wday], months[tm.tm_mon],
                 tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, 1900 + tm.tm_year);
    else
        snprintf(out, 32, "?");
}

int compat_act(struct ctl *ctl, const char *action, const char *status, const json_t *ids,
               int (*line)(json_t *, void *), void *arg, unsigned long *changed)
{
    json_t *select = json_object(), *last = NULL;
    if (status)
        json_object_set_new(select, "status", json_string(status));
    if (ids)
        json_object_set(select, "ids", (json_t *)(uintptr_t)ids);
    else if (!status)
        json_object_set_new(select, "all", json_true());
    int rc = client_ask(ctl,
                        json_pack("{s:s, s:s, s:o, s:b}", "request", "queue.action", "action",
                                  action, "select", select, "list", line != NULL),
                        line, arg, &last);
    if (rc == CTL_OK && changed)
        *changed += (unsigned long)json_integer_value(json_object_get(last, "changed"));
    json_decref(last);
    return rc;
}
