/*
 * Postfix's commands by their names: mailq, postqueue, postsuper, postcat,
 * postconf, sendmail are links to this program. Options, output and exit
 * statuses are Postfix's, so that scripts go on working; the work is done over
 * the same sockets as postern's own commands.
 */
#ifndef POSTERN_CTL_COMPAT_H
#define POSTERN_CTL_COMPAT_H

#include <sysexits.h>

#include "ctl/ctl.h"

struct compat_command {
    const char *name;
    int (*run)(struct ctl *ctl, int argc, char **argv);
};

/* The command that argv[0] names, or NULL. */
const struct compat_command *compat_find(const char *argv0);
int compat_run(const struct compat_command *c, struct ctl *ctl, int argc, char **argv);

/* "postqueue: fatal: ..." on standard error; returns `status`. */
int compat_fatal(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "postqueue: ..." on standard error. */
void compat_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A JSON string with its quotes; text that is not UTF-8 gets question marks. */
void compat_print_quoted(const char *text);
/* As asctime(3): "Sat Nov 21 22:17:18 2026" of local time. */
void compat_time(char out[static 32], long long when);

/* The whole queue in the form of mailq, or of postqueue -j; EX_OK or the status
 * after telling what is wrong. */
int compat_list(struct ctl *ctl, bool json);
/* One request of the control protocol for all or, with `ids`, for these messages;
 * sums up the last lines' `changed` into *changed. `line` sees each result. */
int compat_act(struct ctl *ctl, const char *action, const char *status, const json_t *ids,
               int (*line)(json_t *, void *), void *arg, unsigned long *changed);
/* postqueue -f, sendmail -q. */
int compat_flush(struct ctl *ctl);
/* The same for one message (-i ID) and one domain (-s SITE). */
int compat_flush_id(struct ctl *ctl, const char *id);
int compat_flush_site(struct ctl *ctl, const char *site);

int compat_mailq(struct ctl *ctl, int argc, char **argv);
int compat_postqueue(struct ctl *ctl, int argc, char **argv);
int compat_postsuper(struct ctl *ctl, int argc, char **argv);
int compat_postcat(struct ctl *ctl, int argc, char **argv);
int compat_sendmail(struct ctl *ctl, int argc, char **argv);
int compat_postconf(struct ctl *ctl, int argc, char **argv);

#endif
