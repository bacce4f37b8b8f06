/*
 * postern: the operator's command.
 *
 *   user     whoever calls it; the control socket's group decides what it may
 *   files    main.cf and master.cf, the event log (trace)
 *   network  check asks name servers and tries to bind the configured ports
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/mem.h"
#include "ctl/compat.h"
#include "ctl/ctl.h"

const char *ctl_prefix = "postern: ";

int ctl_error(int status, const char *format, ...)
{
    va_list args;
    fflush(stdout);
    fputs(ctl_prefix, stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    putc('\n', stderr);
    return status;
}

static void print_usage(const struct ctl_command *c, FILE *out)
{
    fprintf(out, "usage: postern [-c DIR] %s%s%s%s%s\n", c->family ? c->family : "",
            c->family ? " " : "", c->name, *c->usage ? " " : "", c->usage);
}

int ctl_usage(const struct ctl_command *c, const char *format, ...)
{
    va_list args;
    fflush(stdout);
    fputs("postern: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    putc('\n', stderr);
    print_usage(c, stderr);
    fprintf(stderr, "More: postern help %s%s%s\n", c->family ? c->family : "", c->family ? " " : "",
            c->name);
    return CTL_USAGE;
}

const struct config *ctl_config(struct ctl *ctl)
{
    if (ctl->config)
        return ctl->config;
    struct err e;
    char *path = xasprintf("%s/main.cf", ctl->directory);
    ctl->config = config_load(path, &e);
    if (!ctl->config)
        ctl_error(CTL_FAILED, "%s", e.text);
    free(path);
    return ctl->config;
}

static void overview(FILE *out)
{
    fputs("usage: postern [-c DIR] COMMAND [ARGUMENTS]\n\n"
          "  -c DIR    directory of main.cf and master.cf; default /etc/postern\n\n"
          "Commands:\n",
          out);
    for (size_t i = 0; i < ctl_command_count; i++) {
        const struct ctl_command *c = &ctl_commands[i];
        char name[64];
        snprintf(name, sizeof name, "%s%s%s", c->family ? c->family : "", c->family ? " " : "",
                 c->name);
        fprintf(out, "  %-16s %s\n", name, c->summary);
    }
    fputs("\n'postern help COMMAND' explains one of them, with examples. Output goes to a\n"
          "terminal in aligned columns and elsewhere in columns that are separated by tabs;\n"
          "--json gives JSON, one object a line.\n\n"
          "Exit status: 0 done, 1 failed (check: found an error), 2 wrong command line,\n"
          "3 Postern is not running, 4 not permitted, 5 no such message or parameter.\n",
          out);
}

void ctl_help(const struct ctl_command *c, FILE *out)
{
    if (!c) {
        overview(out);
        return;
    }
    print_usage(c, out);
    fprintf(out, "\n%s.\n%s%s", c->summary, *c->help ? "\n" : "", c->help);
}

/* The command that argv begins with; *used is how many words name it. */
static const struct ctl_command *find_command(char **argv, int *used)
{
    for (size_t i = 0; i < ctl_command_count && argv[0]; i++) {
        const struct ctl_command *c = &ctl_commands[i];
        const char *first = c->family ? c->family : c->name;
        if (strcmp(first, argv[0]) != 0)
            continue;
        if (c->family && (!argv[1] || strcmp(c->name, argv[1]) != 0))
            continue;
        *used = c->family ? 2 : 1;
        return c;
    }
    return NULL;
}

static void print_family(const char *family, FILE *out)
{
    for (size_t i = 0; i < ctl_command_count; i++)
        if (ctl_commands[i].family && strcmp(ctl_commands[i].family, family) == 0)
            print_usage(&ctl_commands[i], out);
}

static bool is_family(const char *word)
{
    for (size_t i = 0; word && i < ctl_command_count; i++)
        if (ctl_commands[i].family && strcmp(ctl_commands[i].family, word) == 0)
            return true;
    return false;
}

int cmd_help(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    int used;
    const struct ctl_command *c = find_command(argv, &used);
    (void)ctl, (void)argc;
    if (!argv[0] || c)
        ctl_help(c, stdout);
    else if (is_family(argv[0]) && !argv[1])
        print_family(argv[0], stdout);
    else
        return ctl_usage(self, "there is no command '%.80s'", argv[argv[1] ? 1 : 0]);
    return CTL_OK;
}

/* Options before the command. Returns how many words they take, or -1. */
static int global_options(struct ctl *ctl, char **argv)
{
    int n = 0;
    while (argv[n] && argv[n][0] == '-') {
        if (strcmp(argv[n], "-c") == 0 && argv[n + 1]) {
            ctl->directory = argv[n + 1];
            n += 2;
        } else if (strcmp(argv[n], "--json") == 0) {
            ctl->json = true;
            n++;
        } else if (strcmp(argv[n], "--help") == 0 || strcmp(argv[n], "-h") == 0) {
            argv[n][0] = '\0'; /* no word: the overview */
            return n;
        } else if (strcmp(argv[n], "--version") == 0) {
            puts("postern " POSTERN_VERSION);
            exit(CTL_OK);
        } else if (strcmp(argv[n], "-c") == 0) {
            ctl_error(CTL_USAGE, "-c needs a directory, that of main.cf and master.cf");
            return -1;
        } else {
            ctl_error(CTL_USAGE,
                      "there is no option %.80s before the command; 'postern help' "
                      "lists all",
                      argv[n]);
            return -1;
        }
    }
    return n;
}

static int run(struct ctl *ctl, char **argv)
{
    int used = 0, n = global_options(ctl, argv);
    if (n < 0)
        return CTL_USAGE;
    argv += n;
    if (!argv[0] || !*argv[0]) {
        ctl_help(NULL, argv[0] ? stdout : stderr);
        return argv[0] ? CTL_OK : CTL_USAGE;
    }
    const struct ctl_command *c = find_command(argv, &used);
    if (!c && is_family(argv[0]) && argv[1] &&
        (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        print_family(argv[0], stdout);
        return CTL_OK;
    }
    if (!c && is_family(argv[0])) {
        ctl_error(CTL_USAGE, argv[1] ? "there is no command '%.40s %.40s'" : "'%.40s' what?",
                  argv[0], argv[1]);
        print_family(argv[0], stderr);
        return CTL_USAGE;
    }
    if (!c)
        return ctl_error(CTL_USAGE, "there is no command '%.80s'; 'postern help' lists all",
                         argv[0]);
    argv += used;
    int argc = 0;
    while (argv[argc])
        argc++;
    return c->run(ctl, c, argc, argv);
}

int main(int argc, char **argv)
{
    struct ctl ctl = {.directory = "/etc/postern", .terminal = isatty(STDOUT_FILENO)};
    const char *no_colour = getenv("NO_COLOR");
    ctl.colour = ctl.terminal && !(no_colour && *no_colour);
    signal(SIGPIPE, SIG_DFL);
    tzset();
    /* Postfix's names (mailq, postqueue) are links to this program */
    const struct compat_command *compat = argc > 0 ? compat_find(argv[0]) : NULL;
    int status = compat ? compat_run(compat, &ctl, argc, argv) : run(&ctl, argv + 1);
    config_free(ctl.config);
    if (fflush(stdout) != 0 && status == CTL_OK)
        status = ctl_error(CTL_FAILED, "cannot write the output");
    return status;
}
