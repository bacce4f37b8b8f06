/* config: the parameters and their values. */
#include <string.h>

#include "ctl/ctl.h"

static bool wanted(const char *name, char **names)
{
    if (!*names)
        return true;
    for (; *names; names++)
        if (strcmp(*names, name) == 0)
            return true;
    return false;
}

static void print_entry(const struct ctl *ctl, const struct config_entry *entry, bool defaults,
                        bool value_only)
{
    const char *value = defaults ? entry->fallback : entry->value;
    if (ctl->json) {
        json_t *o = json_pack("{s:s, s:s, s:s, s:b, s:s, s:s, s:s}", "name", entry->name, "value",
                              value, "default", entry->fallback, "set", entry->set, "where",
                              entry->where, "type", entry->type, "doc", entry->doc);
        print_json_line(o);
        json_decref(o);
    } else if (value_only) {
        printf("%s\n", value);
    } else {
        printf("%s%s%s =%s%s\n", colour(ctl, COLOUR_BOLD), entry->name, colour(ctl, COLOUR_OFF),
               *value ? " " : "", value);
    }
}

static int check_names(const struct config *c, char **names)
{
    struct config_entry entry;
    for (; *names; names++) {
        size_t i = 0;
        while (config_entry(c, i, &entry) && strcmp(entry.name, *names) != 0)
            i++;
        if (!config_entry(c, i, &entry))
            return ctl_error(CTL_NOT_FOUND,
                             "there is no parameter %.80s; 'postern config -d' lists all", *names);
    }
    return CTL_OK;
}

int cmd_config(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    bool changed = false, defaults = false, value_only = false;
    const struct arg args[] = {{"-n", &changed, NULL},
                               {"-d", &defaults, NULL},
                               {"--value", &value_only, NULL},
                               {NULL, NULL, NULL}};
    (void)argc;
    int n = args_parse(ctl, self, args, argv);
    if (n < 0)
        return args_status(n);
    if (changed && defaults)
        return ctl_usage(self, "-n and -d exclude each other");
    const struct config *c = ctl_config(ctl);
    if (!c)
        return CTL_FAILED;
    int status = check_names(c, argv);
    struct config_entry entry;
    for (size_t i = 0; status == CTL_OK && config_entry(c, i, &entry); i++)
        if (wanted(entry.name, argv) && (!changed || entry.set))
            print_entry(ctl, &entry, defaults, value_only);
    return status;
}
