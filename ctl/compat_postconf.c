/* postconf: shows the configuration and changes main.cf. */
#include "ctl/compat_postconf.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/cf_edit.h"
#include "conf/cf_lines.h"
#include "core/mem.h"

#define USAGE                                                                                      \
    "usage: postconf [-c config_dir] [-d (parameter defaults)] [-e (edit configuration)] "         \
    "[-f (fold lines)] [-F (master.cf fields)] [-h (no names)] [-H (no values)] "                  \
    "[-m (map types)] [-M (master.cf)] [-n (non-default parameters)] "                             \
    "[-o name=value (override parameter value)] [-p (main.cf, default)] "                          \
    "[-P (master.cf parameters)] [-v (verbose)] [-x (expand parameter values)] [-X (exclude)] "    \
    "[-# (comment-out)] [name...]"

enum { FOLD_WIDTH = 80, FOLD_INDENT = 3 };

char *postconf_path(const struct postconf *pc, const char *file)
{
    return xasprintf("%s/%s", pc->ctl->directory, file);
}

/* ---- one parameter ------------------------------------------------------------------- */

/* "name = value" in lines, as -f has them: broken between words where one gets too long. */
static void print_folded(const char *name, const char *value)
{
    size_t column = strlen(name) + 2;
    printf("%s =", name);
    for (const char *p = value; *p;) {
        size_t word = strcspn(p, " "), gap = strspn(p + word, " ");
        if (p != value && column + 1 + word > FOLD_WIDTH) {
            printf("\n%*s", FOLD_INDENT, "");
            column = FOLD_INDENT;
        }
        printf(" %.*s", (int)word, p);
        column += 1 + word;
        p += word + gap;
    }
    putchar('\n');
}

void postconf_print(const struct postconf *pc, const char *name, const char *value)
{
    if (pc->names == 'h')
        puts(value);
    else if (pc->names == 'H')
        puts(name);
    else if (pc->fold)
        print_folded(name, value);
    else
        printf("%s =%s%s\n", name, *value ? " " : "", value);
}

/* Names that Postfix has and programs ask for, which main.cf cannot set. */
static bool print_fixed(const struct postconf *pc, const char *name)
{
    const struct {
        const char *name, *value;
    } fixed[] = {{"config_directory", pc->ctl->directory}, {"mail_version", POSTERN_VERSION}};
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        if (strcmp(name, fixed[i].name) == 0) {
            postconf_print(pc, name, fixed[i].value);
            return true;
        }
    return false;
}

static bool print_entry(const struct postconf *pc, const struct config *c, const char *name)
{
    struct config_entry entry;
    bool found = false;
    for (size_t i = 0; config_entry(c, i, &entry); i++) {
        if (name && strcmp(entry.name, name) != 0)
            continue;
        found = true;
        const char *value = pc->mode == 'd' ? entry.fallback : pc->expand ? entry.value : entry.raw;
        if (pc->mode != 'n' || entry.set)
            postconf_print(pc, entry.name, value);
    }
    return found;
}

/* main.cf with what -o says in place of its own; NULL after telling why not. */
static struct config *overridden(const struct postconf *pc)
{
    struct cf_change *changes = xcalloc(pc->override_count, sizeof *changes);
    char *path = postconf_path(pc, "main.cf");
    struct buf text = BUF_INIT(0), changed = BUF_INIT(CF_FILE_MAX);
    struct config *c = NULL;
    struct err e;
    int rc = cf_read_file(path, &text, &e);
    for (size_t i = 0; rc == 0 && i < pc->override_count; i++)
        rc = cf_change_parse(&changes[i], CF_SET, slice_str(pc->overrides[i]), &e);
    if (rc == 0)
        rc = cf_edit(buf_slice(&text), changes, pc->override_count, &changed, &e);
    if (rc == 0)
        c = config_parse(buf_slice(&changed), path, pc->ctl->directory, &e);
    if (!c)
        compat_fatal(EXIT_FAILURE, "%s", e.text);
    buf_free(&text);
    buf_free(&changed);
    free(changes);
    free(path);
    return c;
}

static int show(const struct postconf *pc)
{
    struct config *own = pc->override_count ? overridden(pc) : NULL;
    const struct config *c = pc->override_count ? own : ctl_config(pc->ctl);
    if (!c)
        return EXIT_FAILURE;
    if (!pc->words[0])
        print_entry(pc, c, NULL);
    for (char **word = pc->words; *word; word++)
        if (!print_entry(pc, c, *word) && !print_fixed(pc, *word))
            compat_say("warning: %.100s: unknown parameter", *word);
    config_free(own);
    return EXIT_SUCCESS;
}

/* ---- options ------------------------------------------------------------------------- */

static void print_types(void)
{
    puts("cdb\ncidr\ninline\npcre\nsocketmap\ntcp\ntexthash");
}

/* One of a group of which only one may be given; *which is 0 before the first. */
static bool choose(char *which, int option, const char *group)
{
    char before = *which;
    *which = (char)option;
    if (!before || before == option)
        return true;
    if (strchr(group, before) > strchr(group, option))
        compat_fatal(EXIT_FAILURE, "specify one of -%c -%c", option, before);
    else
        compat_fatal(EXIT_FAILURE, "specify one of -%c -%c", before, option);
    return false;
}

/* Takes one option; false: it is wrong, and that was said. */
static bool take_option(struct postconf *pc, int option)
{
    switch (option) {
    case 'c':
        pc->ctl->directory = optarg;
        return true;
    case 'o':
        pc->overrides = xreallocarray(pc->overrides, pc->override_count + 1, sizeof *pc->overrides);
        pc->overrides[pc->override_count++] = optarg;
        return true;
    case 'f':
        pc->fold = true;
        return true;
    case 'x':
        pc->expand = true;
        return true;
    case 'h':
    case 'H':
        return choose(&pc->names, option, "hH");
    case 'd':
    case 'e':
    case 'n':
    case 'X':
    case '#':
        return choose(&pc->mode, option, "denX#");
    case 'F':
    case 'M':
    case 'P':
        return choose(&pc->master, option, "FMP");
    default:
        return true; /* -p is what it does anyway, -v tells nothing more */
    }
}

/* What does not go together; false after saying so. */
static bool check_options(struct postconf *pc)
{
    if (!pc->mode && pc->words[0] && strchr(pc->words[0], '='))
        pc->mode = 'e';
    bool edits = pc->mode && strchr("eX#", pc->mode);
    if (pc->master && edits)
        compat_fatal(EXIT_FAILURE,
                     "-%c%c: master.cf is changed with an editor; then run: postern check",
                     pc->master, pc->mode);
    else if (pc->master && pc->mode)
        compat_fatal(EXIT_FAILURE, "with option -%c, do not specify -%c", pc->master, pc->mode);
    else if (pc->master == 'M' && pc->names)
        compat_fatal(EXIT_FAILURE, "with option -M, do not specify -%c", pc->names);
    else if (edits && !pc->words[0])
        compat_fatal(EXIT_FAILURE, "-%c requires %s argument", pc->mode,
                     pc->mode == 'e' ? "name=value" : "name");
    else
        return true;
    return false;
}

int compat_postconf(struct ctl *ctl, int argc, char **argv)
{
    struct postconf pc = {.ctl = ctl};
    bool types = false, good = true;
    int option, status = EXIT_FAILURE;
    opterr = 0;
    while (good && (option = getopt(argc, argv, "+c:deFfhHmMno:pPvxX#")) != -1) {
        if (option == '?')
            good = compat_fatal(EXIT_FAILURE, "%s", USAGE) == EXIT_SUCCESS;
        else if (option == 'm')
            types = true;
        else
            good = take_option(&pc, option);
    }
    pc.words = argv + optind;
    if (good && types) {
        print_types();
        status = EXIT_SUCCESS;
    } else if (good && check_options(&pc)) {
        bool edits = pc.mode && strchr("eX#", pc.mode);
        status = pc.master ? postconf_master(&pc) : edits ? postconf_edit(&pc) : show(&pc);
    }
    free(pc.overrides);
    return status;
}
