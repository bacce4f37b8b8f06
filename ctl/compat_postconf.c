/* postconf: shows parameters; main.cf is changed with an editor. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/compat.h"

struct form {
    bool defaults, changed, value_only, name_only;
};

static void print_parameter(const struct form *f, const char *name, const char *value)
{
    if (f->value_only)
        puts(value);
    else if (f->name_only)
        puts(name);
    else
        printf("%s =%s%s\n", name, *value ? " " : "", value);
}

/* Names that Postfix has and programs ask for, which main.cf cannot set. */
static bool print_fixed(const struct ctl *ctl, const struct form *f, const char *name)
{
    const struct {
        const char *name, *value;
    } fixed[] = {{"config_directory", ctl->directory}, {"mail_version", POSTERN_VERSION}};
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        if (strcmp(name, fixed[i].name) == 0) {
            print_parameter(f, name, fixed[i].value);
            return true;
        }
    return false;
}

static bool print_entry(const struct config *c, const struct form *f, const char *name)
{
    struct config_entry entry;
    bool found = false;
    for (size_t i = 0; config_entry(c, i, &entry); i++) {
        if (name && strcmp(entry.name, name) != 0)
            continue;
        found = true;
        if (!f->changed || entry.set)
            print_parameter(f, entry.name, f->defaults ? entry.fallback : entry.value);
    }
    return found;
}

static void print_types(void)
{
    puts("cdb\ninline\npcre\nsocketmap\ntcp\ntexthash");
}

int compat_postconf(struct ctl *ctl, int argc, char **argv)
{
    struct form f = {false, false, false, false};
    bool types = false;
    int option;
    opterr = 0;
    while ((option = getopt(argc, argv, "+c:dfhHmnpvx")) != -1) {
        switch (option) {
        case 'c':
            ctl->directory = optarg;
            break;
        case 'd':
            f.defaults = true;
            break;
        case 'h':
            f.value_only = true;
            break;
        case 'H':
            f.name_only = true;
            break;
        case 'm':
            types = true;
            break;
        case 'n':
            f.changed = true;
            break;
        case '?':
            return compat_fatal(EXIT_FAILURE,
                                "-%c: this postconf only shows main.cf's parameters and knows -c "
                                "-d -f -h -H -m -n -p -x; change main.cf with an editor",
                                optopt);
        default:
            break; /* -p and -x are what it does anyway */
        }
    }
    if (types) {
        print_types();
        return EXIT_SUCCESS;
    }
    const struct config *c = ctl_config(ctl);
    if (!c)
        return EXIT_FAILURE;
    if (optind == argc)
        print_entry(c, &f, NULL);
    for (int i = optind; i < argc; i++)
        if (!print_entry(c, &f, argv[i]) && !print_fixed(ctl, &f, argv[i]))
            compat_say("warning: %.100s: unknown parameter", argv[i]);
    return EXIT_SUCCESS;
}
