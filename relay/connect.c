#include "relay/connect.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "relay/hosts.h"
#include "relay/outcome.h"
#include "relay/rules.h"
#include "relay/slots.h"

enum { HOST_MAX = 255, COMPLAIN_EVERY = 60 };

static bool is_path(const struct ipc_target *t)
{
    return t->port == 0 && slice_starts(t->address, SLICE("/"));
}

/* Whether the job's source has no address from which this target could be reached. */
static bool is_out_of_reach(const struct job *j, const struct ipc_target *t)
{
    return j->m.source.len > 0 && !is_path(t) && t->address.len != j->m.source.len &&
           t->address.len != j->m.source6.len;
}

/* Where to send from: the job's source of the target's family, or if it has none the
 * configured one; empty: the kernel chooses. */
static struct slice source_for(const struct relay *relay, const struct job *j,
                               const struct ipc_target *t)
{
    static char parsed[16];
    const struct config *config = relay->service->config;
    bool v6 = t->address.len == sizeof parsed;
    const char *text = v6 ? config->smtp_bind_address6 : config->smtp_bind_address;
    if (j->m.source.len == t->address.len)
        return j->m.source;
    if (j->m.source6.len == t->address.len)
        return j->m.source6;
    if (*text && inet_pton(v6 ? AF_INET6 : AF_INET, text, parsed) == 1)
        return slice_make(parsed, t->address.len);
    return SLICE("");
}

static bool lacks_descriptors(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void complain(struct relay *relay, int error)
{
    int64_t now = clock_mono();
    if (relay->complained && now - relay->complained < COMPLAIN_EVERY * CLOCK_SECOND)
        return;
    relay->complained = now;
    log_warning("cannot make a socket: %s; deliveries are deferred (%u sessions are open; raise "
                "the limit of open files, or lower relay_job_limit)",
                strerror(error), relay->session_count);
}

/* Idle connections must not take the descriptors that jobs need (F28): for a
 * large message's content one comes with the job, and if that cannot be had the
 * channel to qmgr is lost. */
static void make_room(struct relay *relay)
{
    struct session *spare;
    while (relay->session_limit && relay->session_count >= relay->session_limit &&
           (spare = pool_spare(&relay->pool)))
        session_close(spare);
}

/* A socket on its way to the target, or -1 with errno. When descriptors run out
 * all the same a spare connection gives way. */
static int start(struct relay *relay, const struct job *j, const struct ipc_target *t,
                 bool *connected)
{
    struct slice source = source_for(relay, j, t);
    make_room(relay);
    int fd = net_connect(t->address, t->port, source, connected);
    while (fd < 0 && lacks_descriptors(errno)) {
        int error = errno;
        struct session *spare = pool_spare(&relay->pool);
        if (!spare) {
            complain(relay, error);
            errno = error;
            break;
        }
        session_close(spare);
        fd = net_connect(t->address, t->port, source, connected);
    }
    return fd;
}

/* A path is out of our jail's reach: master connects. 0, or -1 with errno. */
static int ask_master(struct relay *relay, struct slice path, uint64_t *tag)
{
    char endpoint[NET_TEXT_MAX + 8];
    struct channel *master = relay->service->master;
    make_room(relay);
    if (!master || path.len >= NET_TEXT_MAX) {
        errno = master ? ENAMETOOLONG : ENOTCONN;
        return -1;
    }
    int len = snprintf(endpoint, sizeof endpoint, "unix:%.*s", SLICE_ARG(path));
    *tag = ++relay->next_tag;
    ipc_connect_request_encode(
        channel_out(master),
        &(struct ipc_connect_request){.tag = *tag, .endpoint = slice_make(endpoint, (size_t)len)});
    return 0;
}

void connect_answered(struct relay *relay, uint64_t tag, int fd, struct slice why)
{
    list_each(&relay->asking, n)
    {
        struct session *s = container_of(n, struct session, link);
        if (s->asked != tag)
            continue;
        session_connecting(s, fd, why);
        return;
    }
    if (fd >= 0)
        close(fd); /* the session ended meanwhile */
}

void connect_failed(const struct relay *relay, const char *address, uint16_t port)
{
    int64_t first = relay->service->config->destination_suspend_time * CLOCK_SECOND;
    hosts_failed(address, port, first, clock_mono());
}

/* The operator's mistake, or an interface that is down: no word on the target. */
static void note_foreign_source(struct job *j, struct slice source)
{
    char text[NET_TEXT_MAX];
    net_text(source, 1, text);
    struct verdict v =
        verdict_local(STAGE_CONNECT, "4.3.5", "%s is not an address of this machine", text);
    job_note_unfit(j, &v);
    j->foreign_source = true;
}

/* 0: a session has taken the job over; -1: the target cannot even be tried. */
static int try_target(struct relay *relay, struct job *j, const struct ipc_target *t)
{
    char *host = slice_dup(slice_first(t->host, HOST_MAX));
    char address[NET_TEXT_MAX];
    bool connected = false;
    uint64_t asked = 0;
    net_text(t->address, t->port, address);
    job_set_host(j, host, address, t->port);
    j->use_count = 1;
    j->taken_count = 0;
    j->greeting = j->reply = 0;
    j->connecting = clock_mono();
    j->connected = 0;
    int fd = is_path(t) ? ask_master(relay, t->address, &asked) : start(relay, j, t, &connected);
    if (fd < 0) {
        int error = errno;
        struct slice source = source_for(relay, j, t);
        if (error == EADDRNOTAVAIL && source.len && !net_is_ours(source)) {
            note_foreign_source(j, source);
            free(host);
            return -1;
        }
        struct verdict v = connect_verdict(host, address, t->port, strerror(error));
        job_note_failure(j, &v);
        if (!lacks_descriptors(error))
            connect_failed(relay, address, t->port);
        free(host);
        return -1;
    }
    j->connections++;
    struct session *s = xcalloc(1, sizeof *s);
    s->relay = relay;
    s->job = j;
    s->lmtp = j->m.transport == TRANSPORT_LMTP;
    s->host = host;
    s->port = t->port;
    memcpy(s->address, address, sizeof address);
    j->session = s;
    pool_join(&relay->pool, s, j);
    slots_take(s, j);
    s->asked = asked;
    session_open(s, asked ? -1 : fd, connected);
    if (asked)
        list_push(&relay->asking, &s->link);
    return 0;
}

/* For the domain's report (RFC 8460): it keeps us from its own server. */
static void report_forbidden(const struct relay *relay, const struct job *j,
                             const struct ipc_target *t, const struct tls_need *need)
{
    char address[NET_TEXT_MAX], source[NET_TEXT_MAX] = "";
    struct slice from = source_for(relay, j, t);
    if (need->result == TLS_RESULT_SUCCESS || j->m.tls_report.len == 0 || !relay->qmgr)
        return;
    net_text(t->address, t->port, address);
    if (from.len)
        net_text(from, 0, source);
    struct ipc_tls_session m = {.domain = j->m.tls_report,
                                .origin = (uint8_t)need->origin,
                                .result = (uint8_t)need->result,
                                .host = slice_first(t->host, HOST_MAX),
                                .address = slice_str(address),
                                .source = slice_str(source),
                                .why = need->why};
    ipc_tls_session_encode(channel_out(relay->qmgr), &m);
}

/* Whether the rules about TLS leave this target out. */
static bool is_forbidden(const struct relay *relay, struct job *j, const struct ipc_target *t)
{
    struct tls_need need;
    if (j->m.transport != TRANSPORT_SMTP || (j->m.tls.len == 0 && j->tls_wish == TLS_WISH_NONE))
        return false;
    rules_find(j, t->host, &need);
    if (need.level != TLS_LEVEL_FORBIDDEN)
        return false;
    report_forbidden(relay, j, t, &need);
    char *host = slice_dup(slice_first(t->host, HOST_MAX));
    struct verdict v = verdict_local(STAGE_CONNECT, need.required ? "5.7.30" : "4.7.5",
                                     "%s must not be used: %.*s", host, SLICE_ARG(need.why));
    if (need.required)
        job_note_refusal(j, &v);
    else
        job_note_unfit(j, &v);
    free(host);
    return true;
}

/* Addresses that did not answer lately come last, in their own order. */
static void order_targets(const struct relay *relay, struct job *j)
{
    int64_t now = clock_mono(), meanwhile = relay->service->config->smtp_connect_timeout;
    unsigned late = 0;
    if (j->target_count < 2)
        return;
    struct ipc_target *last = xmalloc(j->target_count * sizeof *last);
    unsigned kept = 0;
    for (unsigned i = 0; i < j->target_count; i++) {
        char address[NET_TEXT_MAX];
        net_text(j->targets[i].address, j->targets[i].port, address);
        if (hosts_last(address, j->targets[i].port, meanwhile * CLOCK_SECOND, now))
            last[late++] = j->targets[i];
        else
            j->targets[kept++] = j->targets[i];
    }
    memcpy(j->targets + kept, last, late * sizeof *last);
    free(last);
}

void connect_next(struct relay *relay, struct job *j)
{
    const struct config *config = relay->service->config;
    uint64_t greetings = (uint64_t)config->smtp_mx_session_limit;
    if (j->m.greetings && j->m.greetings < greetings)
        greetings = j->m.greetings;
    j->session = NULL;
    j->clear_text = false;
    /* of a job that got as far as an answer the rest needs a connection all the same */
    if (j->m.reuse_only && j->undecided == j->recipient_count) {
        job_not_tried(j);
        relay_job_done(relay, j);
        return;
    }
    if (j->next_target == 0)
        order_targets(relay, j);
    while (j->next_target < j->target_count && j->addresses_tried < config->smtp_mx_address_limit &&
           j->sessions_tried < greetings) {
        const struct ipc_target *t = &j->targets[j->next_target++];
        if (is_forbidden(relay, j, t) || is_out_of_reach(j, t))
            continue;
        j->addresses_tried++;
        if (try_target(relay, j, t) == 0)
            return;
    }
    job_give_up(j);
    relay_job_done(relay, j);
}

void connect_again_clear(struct relay *relay, struct job *j)
{
    j->session = NULL;
    j->clear_text = true;
    if (j->sessions_tried > 0)
        j->sessions_tried--;
    if (j->next_target == 0 || try_target(relay, j, &j->targets[j->next_target - 1]) < 0)
        connect_next(relay, j);
}

void connect_restart(struct relay *relay, struct job *j)
{
    j->next_target = j->addresses_tried = j->sessions_tried = 0;
    connect_next(relay, j);
}
