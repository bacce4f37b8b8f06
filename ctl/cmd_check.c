/* check: what is wrong with the installation. */
#include "ctl/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/mem.h"
#include "ctl/accounts.h"
#include "io/net.h"

enum { FINDING_MAX = 2048 };

void check_say(struct check *c, enum check_level level, const char *format, ...)
{
    static const char *const names[] = {"ok", "note", "warning", "error"};
    static const char *const colours[] = {COLOUR_GREEN, "", COLOUR_YELLOW, COLOUR_RED};
    char text[FINDING_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    c->errors += level == CHECK_ERROR;
    c->warnings += level == CHECK_WARNING;
    if (c->ctl->json) {
        json_t *o = json_pack("{s:s, s:s}", "level", names[level], "text", text);
        print_json_line(o);
        json_decref(o);
        return;
    }
    printf("%s%s%s: ", colour(c->ctl, colours[level]), names[level], colour(c->ctl, COLOUR_OFF));
    print_safe(stdout, text);
    putchar('\n');
}

/* A configuration file that others may write gives them the mail system. */
static void check_file(struct check *c, const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return; /* the loader says so, with its reason */
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        check_say(c, CHECK_ERROR, "%s may be written by others; do: chmod go-w %s", path, path);
    if (c->root && st.st_uid != 0)
        check_say(c, CHECK_WARNING,
                  "%s belongs to user %u, who can change the mail system; do: "
                  "chown root %s",
                  path, st.st_uid, path);
}

static void check_bind_address(struct check *c, const struct config *own, const char *name,
                               const char *address)
{
    if (*address && !net_text_is_ours(address))
        check_say(c, CHECK_WARNING,
                  "%s: %s = %s is not an address of this machine; mail waits in the queue until it "
                  "is: correct it, or add it to an interface",
                  config_where(own, name), name, address);
}

static void check_overrides(struct check *c)
{
    for (size_t i = 0; i < c->master_cf->count; i++) {
        const struct master_cf_service *s = &c->master_cf->services[i];
        struct err e;
        struct config *own = config_override(c->config, (const char *const *)s->overrides,
                                             s->override_count, s->where, &e);
        if (!own)
            check_say(c, CHECK_ERROR, "%s", e.text);
        if (own && s->command == command_find(SLICE("relay"))) {
            check_bind_address(c, own, "smtp_bind_address", own->smtp_bind_address);
            check_bind_address(c, own, "smtp_bind_address6", own->smtp_bind_address6);
        }
        config_free(own);
    }
}

/* Master's line without "postern/master: fatal: ". */
static const char *finding_of(const char *line)
{
    static const char mark[] = ": fatal: ";
    const char *at = strstr(line, mark);
    return at ? at + sizeof mark - 1 : line;
}

static pid_t start_master(const char *program, const char *directory, int said)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    dup2(said, STDOUT_FILENO);
    dup2(said, STDERR_FILENO);
    execl(program, program, "-c", directory, "-t", (char *)NULL);
    _exit(126);
}

int check_by_master(struct ctl *ctl, const struct config *config, char *finding, size_t size)
{
    char *program = xasprintf("%s/master", config->program_directory);
    char line[FINDING_MAX], last[FINDING_MAX] = "";
    int ends[2], state = 0;
    if (access(program, X_OK) < 0 || pipe2(ends, O_CLOEXEC) < 0) {
        snprintf(finding, size, "%s: %s; correct program_directory", program, strerror(errno));
        free(program);
        return -1;
    }
    pid_t pid = start_master(program, ctl->directory, ends[1]);
    free(program);
    close(ends[1]);
    FILE *said = fdopen(ends[0], "r");
    while (said && fgets(line, sizeof line, said)) {
        line[strcspn(line, "\n")] = '\0';
        if (*line)
            memcpy(last, line, sizeof last);
    }
    if (said)
        fclose(said);
    while (pid > 0 && waitpid(pid, &state, 0) < 0 && errno == EINTR)
        ;
    if (pid > 0 && WIFEXITED(state) && WEXITSTATUS(state) == 0)
        return 0;
    snprintf(finding, size, "%s", *last ? finding_of(last) : "master cannot be run");
    return -1;
}

/* What only master looks at, such as lookup tables. */
static void ask_master(struct check *c)
{
    char finding[FINDING_MAX];
    if (check_by_master(c->ctl, c->config, finding, sizeof finding) < 0)
        check_say(c, CHECK_ERROR, "%s", finding);
}

static struct master_cf *load_files(struct check *c)
{
    struct err e;
    char *main_cf = xasprintf("%s/main.cf", c->ctl->directory);
    char *path = xasprintf("%s/master.cf", c->ctl->directory);
    struct master_cf *master_cf = NULL;
    check_file(c, main_cf);
    check_file(c, path);
    c->ctl->config = config_load(main_cf, &e);
    c->config = c->ctl->config;
    if (!c->config)
        check_say(c, CHECK_ERROR, "%s", e.text);
    master_cf = master_cf_load(path, &e);
    if (!master_cf)
        check_say(c, CHECK_ERROR, "%s", e.text);
    c->master_cf = master_cf;
    free(main_cf);
    free(path);
    return master_cf;
}

/* What is allowed and does not do what it looks like. */
static void check_tls_out(struct check *c)
{
    const struct config *config = c->config;
    const char *level = config->smtp_tls_security_level;
    bool dane = strcmp(level, "dane") == 0 || strcmp(level, "dane-only") == 0;
    bool authorities = *config->smtp_tls_CApath ||
                       (*config->smtp_tls_CAfile && access(config->smtp_tls_CAfile, R_OK) == 0);
    if (dane && !*config->resolver_trust_anchor)
        check_say(c, strcmp(level, "dane") == 0 ? CHECK_WARNING : CHECK_ERROR,
                  "smtp_tls_security_level = %s without resolver_trust_anchor: nothing is "
                  "validated, so there is no DANE; install dns-root-data and set "
                  "resolver_trust_anchor = /usr/share/dns/root.key",
                  level);
    if (!authorities && strcmp(level, "none") != 0)
        check_say(c, CHECK_WARNING,
                  "smtp_tls_CAfile = %s cannot be read: no server's certificate can be verified, "
                  "and no MTA-STS policy fetched; install ca-certificates",
                  config->smtp_tls_CAfile);
}

static void on_missing_plan(const char *sentence, void *arg)
{
    check_say(arg, CHECK_ERROR, "%s", sentence);
}

static void on_advice(const char *sentence, void *arg)
{
    check_say(arg, CHECK_WARNING, "%s", sentence);
}

static void check_configuration(struct check *c)
{
    const struct config *config = c->config;
    if (!strchr(config->myhostname, '.'))
        check_say(c, CHECK_WARNING,
                  "myhostname = %s has no domain, and many servers refuse such a greeting; set the "
                  "full name in main.cf",
                  config->myhostname);
    if (config->delay_warning_time == 0 && config->maximal_queue_lifetime > 86400)
        check_say(c, CHECK_NOTE,
                  "delay_warning_time is 0: senders are not told that a message is "
                  "late until it is returned");
    check_tls_out(c);
    check_overrides(c);
    if (c->errors == 0)
        ask_master(c);
    if (c->errors == 0 && c->pid)
        (void)plans_used_check(c->ctl, config, on_missing_plan, on_advice, c);
    if (c->errors == 0)
        plans_advise_check(c->ctl, config, on_advice, c);
    if (c->errors == 0)
        check_sources(c);
    if (c->errors == 0)
        check_say(c, CHECK_OK, "the configuration in %s is sound", c->ctl->directory);
}

int cmd_check(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    const struct arg none[] = {{NULL, NULL, NULL}};
    (void)argc;
    int n = args_parse(ctl, self, none, argv);
    if (n < 0)
        return args_status(n);
    if (n > 0)
        return ctl_usage(self, "'%.80s' is one argument too many", argv[0]);
    struct check c = {.ctl = ctl, .root = geteuid() == 0};
    struct master_cf *master_cf = load_files(&c);
    if (c.config && master_cf) {
        c.pid = master_pid(ctl);
        check_configuration(&c);
        check_system(&c);
        check_network(&c);
        check_certificates(&c);
    }
    if (!ctl->json && c.errors)
        printf("%u error%s, %u warning%s: Postern %s.\n", c.errors, c.errors == 1 ? "" : "s",
               c.warnings, c.warnings == 1 ? "" : "s",
               c.pid ? "is running, but may not start or reload" : "may not start");
    master_cf_free(master_cf);
    return c.errors ? CTL_FAILED : CTL_OK;
}
