#include "master/plan.h"

#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/nets.h"
#include "core/mem.h"
#include "master/plans_file.h"
#include "master/providers.h"
#include "master/sources_file.h"
#include "master/tables.h"

void plan_free(struct plan *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->count; i++) {
        config_free(p->services[i].config);
        keys_service_free(p->services[i].tls);
    }
    free(p->services);
    master_cf_free(p->master_cf);
    config_free(p->config);
    free(p);
}

/* ---- where a service listens ------------------------------------------------ */

static int add_address(struct plan_service *s, struct slice text, bool optional, struct err *e)
{
    unsigned char bytes[16];
    char printed[INET6_ADDRSTRLEN];
    int len = network_address(text, bytes);
    const char *protocols = s->config->inet_protocols;
    if (strcmp(protocols, len == 4 ? "ipv6" : "ipv4") == 0)
        return 0;
    if (s->address_count == SERVICE_LISTENERS_MAX)
        return err_set(e, "%s: more than %d addresses to listen on", s->line->where,
                       SERVICE_LISTENERS_MAX);
    struct plan_address *a = &s->addresses[s->address_count++];
    a->optional = optional && strcmp(protocols, "all") == 0;
    inet_ntop(len == 4 ? AF_INET : AF_INET6, bytes, printed, sizeof printed);
    snprintf(a->text, sizeof a->text, len == 4 ? "%s:%u" : "[%s]:%u", printed, s->line->port);
    if (len == 4) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)s->line->port)};
        memcpy(&in.sin_addr, bytes, 4);
        memcpy(&a->address, &in, a->len = sizeof in);
    } else {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
                                   .sin6_port = htons((uint16_t)s->line->port)};
        memcpy(&in6.sin6_addr, bytes, 16);
        memcpy(&a->address, &in6, a->len = sizeof in6);
    }
    return 0;
}

static int add_interfaces(struct plan_service *s, struct err *e)
{
    struct slice rest = slice_str(s->config->inet_interfaces), element;
    int rc = 0;
    while (rc == 0 && config_list_next(&rest, &element)) {
        if (slice_eq(element, SLICE("all"))) {
            rc = add_address(s, SLICE("0.0.0.0"), true, e);
            if (rc == 0)
                rc = add_address(s, SLICE("::"), true, e);
        } else if (slice_eq(element, SLICE("loopback-only"))) {
            rc = add_address(s, SLICE("127.0.0.1"), true, e);
            if (rc == 0)
                rc = add_address(s, SLICE("::1"), true, e);
        } else {
            rc = add_address(s, element, false, e);
        }
    }
    return rc;
}

static int plan_addresses(struct plan_service *s, struct err *e)
{
    if (!s->line->command->inet)
        return 0;
    if (s->line->local) {
        struct plan_address *a = &s->addresses[s->address_count++];
        snprintf(a->text, sizeof a->text, "unix:%s", s->line->name);
        a->public_name = s->line->name;
        return 0;
    }
    int rc =
        *s->line->host ? add_address(s, slice_str(s->line->host), false, e) : add_interfaces(s, e);
    if (rc == 0 && s->address_count == 0)
        return err_set(e, "%s: inet_protocols = %s leaves no address to listen on", s->line->where,
                       s->config->inet_protocols);
    return rc;
}

/* Whether both cannot be listened on: the same address and port, or one of them is
 * the wildcard of the family (IPv6 sockets are for IPv6 only). */
static bool collide(const struct plan_address *a, const struct plan_address *b)
{
    static const char *const wildcards[] = {"0.0.0.0:", "[::]:"};
    if (strcmp(a->text, b->text) == 0)
        return true;
    if (a->public_name || b->public_name || a->address.ss_family != b->address.ss_family ||
        strcmp(strrchr(a->text, ':'), strrchr(b->text, ':')) != 0)
        return false;
    for (size_t i = 0; i < sizeof wildcards / sizeof wildcards[0]; i++)
        if (slice_starts(slice_str(a->text), slice_str(wildcards[i])) ||
            slice_starts(slice_str(b->text), slice_str(wildcards[i])))
            return true;
    return false;
}

/* The service before `i` (or i itself, before its address k) that has the address
 * already; NULL if none has. */
static const struct plan_service *find_collision(const struct plan *p, size_t i, unsigned k,
                                                 const struct plan_address **with)
{
    for (size_t j = 0; j <= i; j++)
        for (unsigned l = 0; l < p->services[j].address_count && (j < i || l < k); l++)
            if (collide(&p->services[i].addresses[k], &p->services[j].addresses[l])) {
                *with = &p->services[j].addresses[l];
                return &p->services[j];
            }
    return NULL;
}

static int check_address_once(const struct plan *p, struct err *e)
{
    for (size_t i = 0; i < p->count; i++)
        for (unsigned k = 0; k < p->services[i].address_count; k++) {
            const struct plan_address *a = &p->services[i].addresses[k], *b;
            const struct plan_service *other = find_collision(p, i, k, &b);
            if (!other)
                continue;
            if (strcmp(a->text, b->text) == 0)
                return err_set(e, "%s: %s is listened on already, by %s",
                               p->services[i].line->where, a->text, other->line->where);
            return err_set(e,
                           "%s: %s cannot be listened on beside %s of %s, which is all addresses "
                           "or one of them",
                           p->services[i].line->where, a->text, b->text, other->line->where);
        }
    return 0;
}

/* ---- processes ---------------------------------------------------------------- */

static unsigned processor_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return (unsigned)CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (unsigned)n : 1;
}

static unsigned process_count(const struct plan_service *s)
{
    if (s->line->command->single)
        return 1;
    if (s->line->count)
        return s->line->count;
    if (s->config->default_process_limit)
        return (unsigned)s->config->default_process_limit;
    return processor_count() >= 4 ? 2 : 1;
}

/* What root is going to execute must not be in others' hands. */
static int check_program(const struct plan *p, const struct command *command, bool privileged,
                         struct err *e)
{
    struct stat st;
    char *path = xasprintf("%s/%s", p->config->program_directory, command->name);
    int rc = 0;
    if (stat(path, &st) < 0)
        rc = err_sys(e, "%s (see program_directory)", path);
    else if (!S_ISREG(st.st_mode) || access(path, X_OK) < 0)
        rc = err_set(e, "%s: is not a program that can be executed (see program_directory)", path);
    else if (privileged && (st.st_mode & S_IWOTH))
        rc = err_set(e, "%s: is writable by everybody; run: chmod o-w %s", path, path);
    free(path);
    return rc;
}

static int check_user(const struct command *command, struct err *e)
{
    const struct passwd *user = getpwnam(command->user);
    if (user && user->pw_uid != 0)
        return 0;
    return err_set(e,
                   "user %s, for %s: %s; run: useradd --system --user-group --no-create-home "
                   "--home-dir /nonexistent --shell /usr/sbin/nologin %s",
                   command->user, command->name, user ? "must not be root" : "does not exist",
                   command->user);
}

static int check_accounts(struct plan *p, struct err *e)
{
    for (size_t i = 0; i < command_count; i++)
        if (check_user(&commands[i], e) < 0)
            return -1;
    const struct passwd *queue = getpwnam(command_find(SLICE("qmgr"))->user);
    if (!queue)
        return err_set(e, "the user of qmgr has vanished");
    p->queue_uid = queue->pw_uid;
    p->quota_uid = getpwnam(command_find(SLICE("quota"))->user)->pw_uid;
    const struct group *group = getgrnam(p->config->control_group);
    if (!group)
        return err_set(e, "control_group = %s: there is no such group; run: groupadd --system %s",
                       p->config->control_group, p->config->control_group);
    p->control_gid = group->gr_gid;
    return 0;
}

/* Whether any smtpd of the configuration speaks TLS, so that there are keys. */
static bool has_tls(const struct plan *p)
{
    for (size_t i = 0; i < p->count; i++)
        if (p->services[i].tls)
            return true;
    return false;
}

/* Services that the configuration has no use for are not started; keyd comes after
 * all that may need it. */
static bool is_wanted(const struct plan *p, const struct master_cf_service *line)
{
    if (line->command == command_find(SLICE("keyd")))
        return has_tls(p);
    return p->config->accounts_enable || line->command != command_find(SLICE("quota"));
}

static int plan_tls(struct plan_service *s, struct err *e)
{
    if (s->line->command != command_find(SLICE("smtpd")) || s->line->local ||
        !certs_wanted(s->config))
        return 0;
    s->tls = keys_load(s->config, e);
    return s->tls ? 0 : err_prefix(e, "%s", s->line->where);
}

static int plan_service(struct plan *p, const struct master_cf_service *line, bool privileged,
                        struct err *e)
{
    struct plan_service *s = &p->services[p->count++];
    s->line = line;
    s->config = config_override(p->config, (const char *const *)line->overrides,
                                line->override_count, line->where, e);
    if (!s->config || plan_addresses(s, e) < 0 ||
        check_program(p, line->command, privileged, e) < 0 || plan_tls(s, e) < 0)
        return -1;
    s->processes = process_count(s);
    if (line->command == command_find(SLICE("quota")) && *s->config->plans_file)
        return plans_file_check(s->config->plans_file, e);
    if (line->command == command_find(SLICE("qmgr")))
        return providers_check(p->config->provider_config_file, e) < 0 ||
                       sources_file_check(p->config->source_config_file, e) < 0
                   ? -1
                   : 0;
    return line->command == command_find(SLICE("resolve")) ? tables_check(s->config, e) : 0;
}

/* Tickets of quota last as long as the longest session, which a line of master.cf may have
 * longer than main.cf; its own line decides if it says something. */
static int plan_tickets(struct plan *p, struct err *e)
{
    struct plan_service *quota = NULL;
    int64_t longest = 0;
    for (size_t i = 0; i < p->count; i++) {
        struct plan_service *s = &p->services[i];
        if (s->line->command == command_find(SLICE("quota")))
            quota = s;
        if (s->line->command == command_find(SLICE("smtpd")) &&
            s->config->smtpd_session_time_limit > longest)
            longest = s->config->smtpd_session_time_limit;
    }
    if (!quota || longest <= p->config->smtpd_session_time_limit ||
        quota->config->smtpd_session_time_limit != p->config->smtpd_session_time_limit)
        return 0;
    char *limit = xasprintf("smtpd_session_time_limit=%llds", (long long)longest);
    const char *const overrides[] = {limit};
    struct config *c = config_override(quota->config, overrides, 1, quota->line->where, e);
    free(limit);
    if (!c)
        return -1;
    config_free(quota->config);
    quota->config = c;
    return 0;
}

static int plan_services(struct plan *p, bool privileged, struct err *e)
{
    p->services = xcalloc(p->master_cf->count, sizeof *p->services);
    for (int keyd = 0; keyd < 2; keyd++)
        for (size_t i = 0; i < p->master_cf->count; i++) {
            const struct master_cf_service *line = &p->master_cf->services[i];
            if ((line->command == command_find(SLICE("keyd"))) == (keyd == 1) &&
                is_wanted(p, line) && plan_service(p, line, privileged, e) < 0)
                return -1;
        }
    return plan_tickets(p, e) < 0 ? -1 : check_address_once(p, e);
}

struct plan *plan_load(const char *directory, bool privileged, struct err *e)
{
    struct plan *p = xcalloc(1, sizeof *p);
    char *main_cf = xasprintf("%s/main.cf", directory);
    char *master_cf = xasprintf("%s/master.cf", directory);
    p->config = config_load(main_cf, e);
    p->master_cf = p->config ? master_cf_load(master_cf, e) : NULL;
    bool good = p->master_cf && plan_services(p, privileged, e) == 0 &&
                (!privileged || check_accounts(p, e) == 0);
    free(main_cf);
    free(master_cf);
    if (good)
        return p;
    plan_free(p);
    return NULL;
}

int plan_check_reload(const struct plan *from, const struct plan *to, struct err *e)
{
    const struct {
        const char *name, *before, *after;
    } fixed[] = {
        {"queue_directory", from->config->queue_directory, to->config->queue_directory},
        {"data_directory", from->config->data_directory, to->config->data_directory},
        {"accounts_directory", from->config->accounts_directory, to->config->accounts_directory},
        {"empty_directory", from->config->empty_directory, to->config->empty_directory},
        {"pid_directory", from->config->pid_directory, to->config->pid_directory},
        {"control_group", from->config->control_group, to->config->control_group},
    };
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        if (strcmp(fixed[i].before, fixed[i].after) != 0)
            return err_set(e,
                           "main.cf: %s cannot change from %s to %s while running; stop and "
                           "start instead",
                           fixed[i].name, fixed[i].before, fixed[i].after);
    return 0;
}
