/* postern check: its parts. Each adds findings; none changes anything. */
#ifndef POSTERN_CTL_CHECK_H
#define POSTERN_CTL_CHECK_H

#include "conf/master_cf.h"
#include "ctl/ctl.h"

enum check_level { CHECK_OK, CHECK_NOTE, CHECK_WARNING, CHECK_ERROR };

struct check {
    struct ctl *ctl;
    const struct config *config;
    const struct master_cf *master_cf;
    bool root;
    long pid; /* of the running master, or 0 */
    unsigned errors, warnings;
};

/* One finding, one line: what is wrong, and after a semicolon what to do. */
void check_say(struct check *c, enum check_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Users, groups, directories, programs, disk space: check_system.c. */
void check_system(struct check *c);
/* Listening addresses and name servers: check_network.c. */
void check_network(struct check *c);
/* Providers that sources.conf names: check_sources.c. */
void check_sources(struct check *c);
struct sources_conf;
/* source_config_file, which the caller frees; NULL: it cannot be used, and master says why. */
struct sources_conf *check_load_sources(const char *path);
/* Certificates and keys of smtpd: check_certificates.c. */
void check_certificates(struct check *c);

/* Has master check the whole configuration without starting: 0, or -1 and what is
 * wrong in `finding`. */
int check_by_master(struct ctl *ctl, const struct config *config, char *finding, size_t size);

#endif
