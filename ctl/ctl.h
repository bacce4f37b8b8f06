/*
 * The postern command: what its parts share. Each family of subcommands has a
 * file cmd_*.c; commands.c has the table of all.
 *
 * Runs with the rights of whoever calls it: the configuration is read from the
 * file, the queue is seen through the control socket only.
 */
#ifndef POSTERN_CTL_CTL_H
#define POSTERN_CTL_CTL_H

#include <stdbool.h>
#include <stdio.h>

#include <jansson.h>

#include "conf/config.h"
#include "core/buf.h"
#include "core/err.h"
#include "core/slice.h"

/* Exit statuses; the help lists them. */
enum ctl_status {
    CTL_OK = 0,
    CTL_FAILED = 1,      /* it did not work; check: something is wrong */
    CTL_USAGE = 2,       /* the command line is not right */
    CTL_NOT_RUNNING = 3, /* Postern is not running */
    CTL_DENIED = 4,      /* not permitted */
    CTL_NOT_FOUND = 5    /* no message or parameter of that name */
};

struct ctl {
    const char *directory; /* of main.cf */
    bool json;             /* --json */
    bool terminal;         /* standard output is one */
    bool colour;
    struct config *config; /* see ctl_config */
};

struct ctl_command {
    const char *family, *name; /* "queue", "list"; family is NULL for "start" */
    int (*run)(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
    const char *usage;   /* what follows the name */
    const char *summary; /* one line */
    const char *help;    /* options and examples */
};
extern const struct ctl_command ctl_commands[];
extern const size_t ctl_command_count;

/* What ctl_error's sentences begin with: "postern: ", or the name of the command
 * of Postfix that this program stands for (compat.h). */
extern const char *ctl_prefix;
/* One sentence on standard error, "postern: ..."; returns `status`. */
int ctl_error(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same for a wrong command line, with the command's usage. */
int ctl_usage(const struct ctl_command *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The configuration, loaded when first asked for; NULL after telling why. */
const struct config *ctl_config(struct ctl *ctl);
/* Prints a command's help, or the overview for NULL. */
void ctl_help(const struct ctl_command *c, FILE *out);

/* ---- command lines: args.c ------------------------------------------------------ */

/* An option "--name VALUE" (value set) or "--name" (flag set). */
struct arg {
    const char *name; /* with its dashes: "--json", "-n" */
    bool *flag;
    const char **value;
};
/* Takes options out of argv, which ends with NULL; what remains are the
 * positional arguments. --json and --help are known to all commands. Returns
 * the number that remain, -1 if the line is wrong (told), or -2 if help was
 * printed. `args` ends with a NULL name. */
int args_parse(struct ctl *ctl, const struct ctl_command *c, const struct arg *args, char **argv);
/* What a command returns for args_parse's -1 and -2. */
static inline int args_status(int parsed)
{
    return parsed == -2 ? CTL_OK : CTL_USAGE;
}
/* "90", "2h", "5d" to seconds; 0, or -1. */
int args_duration(const char *text, int64_t *seconds);
/* A moment: "2026-11-22", "2026-11-22 14:30" or "2026-11-22 14:30:05" of the local time, or an
 * age before now such as "2h"; to seconds since 1970. 0, or -1. */
int args_moment(const char *text, int64_t *seconds);
/* "500", "20k", "3m", "1g" to bytes (units of 1024); 0, or -1. */
int args_size(const char *text, int64_t *bytes);

/* ---- the control socket: client.c -------------------------------------------------- */

/* Asks and calls `line` for each result (borrowed; a result not 0 stops). The
 * request is taken over. *last is the last line (the caller decrefs it), if
 * wanted. CTL_OK, or the status after telling what is wrong. */
int client_ask(struct ctl *ctl, json_t *request, int (*line)(json_t *result, void *arg), void *arg,
               json_t **last);
/* As client_ask, but a result that describes a message and is printable ASCII
 * throughout goes to `raw` as it came: its line, newline included. */
int client_ask_raw(struct ctl *ctl, json_t *request, int (*line)(json_t *result, void *arg),
                   void (*raw)(struct slice text, void *arg), void *arg, json_t **last);
/* The same at another socket of queue_directory/public: "accounts". */
int client_ask_at(struct ctl *ctl, const char *name, json_t *request,
                  int (*line)(json_t *result, void *arg), void *arg, json_t **last);
/* The same without results; what the service refuses is not printed, but *last's "error". */
int client_ask_quietly(struct ctl *ctl, const char *name, json_t *request, json_t **last);
/* Whether somebody answers at the control socket: CTL_OK, CTL_NOT_RUNNING, CTL_DENIED. */
int client_probe(struct ctl *ctl);
/* A connected socket to queue_directory/public/NAME, or -errno. */
int client_connect(const struct config *c, const char *name);
/* The process ID of the running master, 0 if none runs. */
long master_pid(struct ctl *ctl);

/* ---- output: print.c ------------------------------------------------------------------ */

/* Bytes of the control character at the front of s, 0 if there is none: ASCII's
 * and, in UTF-8, those above it that terminals obey. */
size_t print_control(struct slice s);
/* Text from elsewhere, with control characters replaced so that a terminal obeys
 * none. */
void print_safe(FILE *out, const char *text);
/* "2024-11-21 20:29:46" in local time. */
void print_time(char *out, size_t size, double when);
/* "45s", "12m", "3h05m", "2d07h" */
void print_age(char *out, size_t size, double seconds);
/* "512", "4.0K", "12M" */
void print_size(char *out, size_t size, double bytes);
/* The same in a sentence: "512 bytes", "4.0K" */
void print_amount(char *out, size_t size, double bytes);
/* As plans count: "512 bytes", "9.7 KB", "500.0 MB", by powers of 1,000. */
void print_volume(char *out, size_t size, double bytes);
/* "s", unless there is one. */
const char *plural(long long n);
const char *colour(const struct ctl *ctl, const char *sequence);
#define COLOUR_BOLD "\033[1m"
#define COLOUR_RED "\033[31m"
#define COLOUR_GREEN "\033[32m"
#define COLOUR_YELLOW "\033[33m"
#define COLOUR_OFF "\033[0m"

/* A message's content: as it is into a pipe or file, harmless on a terminal.
 * (cmd_message.c, as the two below) */
void message_print(const struct ctl *ctl, struct slice content);
/* Offset of the body; the header ends with the empty line before it. */
size_t message_body_at(struct slice content);
/* Appends what a "content" line of message.show has; 0 or -1. */
int message_base64(struct buf *out, const char *text);

/* Rows: aligned on a terminal, where a last cell that does not fit has a line of its
 * own (and is not said twice in a row); separated by tabs elsewhere. The first row is
 * the header. */
enum { TABLE_COLUMNS = 10, TABLE_BATCH = 500 };
struct table {
    struct ctl *ctl;
    size_t columns, rows;
    bool started; /* the header is out */
    const char *titles[TABLE_COLUMNS];
    int width[TABLE_COLUMNS];
    char *cells[TABLE_BATCH][TABLE_COLUMNS];
    char *said; /* the last cell that had a line of its own */
};
/* `titles` ends with NULL; a title that begins with '>' is aligned right. */
struct table *table_new(struct ctl *ctl, const char *const *titles);
/* One row; the cells are copied. */
void table_row(struct table *t, const char *const *cells);
/* Prints what is left and frees. */
void table_end(struct table *t);
/* Any JSON value for people: objects as "name: value" lines, lists of objects
 * as tables. */
void print_json(struct ctl *ctl, const json_t *value, int indent);
/* One JSON object in a line, for --json. */
void print_json_line(const json_t *value);

/* ---- selections: select.c ------------------------------------------------------------- */

struct select_args {
    const char *id, *account, *site, *source, *sender, *recipient, *reply, *status;
    const char *older_than, *newer_than, *larger_than, *smaller_than;
    const char *min_attempts, *max_attempts;
    bool all;
    bool deleted; /* of the deleted messages; an option of some commands only */
};
enum { SELECT_ARGS = 15, SELECT_BATCH = 2000 };
/* The options' table entries, for args_parse. */
void select_options(struct select_args *s, struct arg out[SELECT_ARGS]);
/* The "select" objects, one for each SELECT_BATCH of IDs: a list that the caller
 * decrefs, or NULL after telling what is wrong. `ids` are positional arguments;
 * "-" reads them from standard input. With `default_all` no selector selects all. */
json_t *select_build(const struct ctl_command *c, const struct select_args *s, char **ids,
                     bool default_all);

/* ---- providers.conf: cmd_provider.c ----------------------------------------------------- */

struct rules;
/* The rules of a file and those it includes, or NULL after telling what is wrong. The
 * caller frees them (rules_free). */
struct rules *provider_load(struct ctl *ctl, const char *path);

/* ---- the commands ------------------------------------------------------------------------ */

int cmd_start(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_stop(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_reload(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_status(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_check(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_config(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_queue_list(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_queue_summary(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_queue_action(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_message_show(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_trace(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_shaping_list(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_shaping_show(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_shaping_why(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_shaping_act(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_shaping_export(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_shaping_import(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_shaping_replay(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_provider_check(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_source_list(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_source_show(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_source_pools(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_source_act(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_site_show(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_accounts(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_accounts_import(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_usage_report(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_usage_list(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);
int cmd_help(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv);

#endif
