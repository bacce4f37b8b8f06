#include "resolve/dns.h"

#include <sys/time.h> /* struct timeval, before unbound-event.h */
#include <unbound-event.h>
#include <unbound.h>

#include "conf/config.h"
#include "conf/nets.h"
#include "core/log.h"
#include "core/mem.h"

struct dns {
    struct ub_ctx *context;
    struct list waiting; /* of dns_query.queue: not asked yet */
    size_t waiting_count;
    unsigned outstanding, abandoned; /* asked: with and without somebody who waits */
    struct list retired;
};

struct dns_query {
    struct list owned; /* in the owner's list; empty once abandoned */
    struct list queue;
    struct dns *dns;
    dns_callback *callback; /* NULL: abandoned */
    void *arg;
    enum dns_type type;
    unsigned tag;
    struct domain name;
};

enum { CLASS_IN = 1, RCODE_OK = 0, RCODE_NXDOMAIN = 3, SEC_BOGUS = 1, SEC_SECURE = 2 };

/* ---- set-up ---------------------------------------------------------------- */

static int option(struct ub_ctx *context, const char *name, const char *value, struct err *e)
{
    int rc = ub_ctx_set_option(context, name, value);
    return rc == 0 ? 0 : err_set(e, "libunbound: %s %s: %s", name, value, ub_strerror(rc));
}

static int set_options(struct ub_ctx *context, struct err *e)
{
    static const char *const options[][2] = {
        {"outgoing-range:", "1100"}, /* sockets: a little more than DNS_ASKED_MAX */
        {"num-queries-per-thread:", "2048"},
        {"outgoing-num-tcp:", "16"},
        {"msg-cache-size:", "4m"},
        {"rrset-cache-size:", "8m"},
        /* Local servers that were down answer again after seconds, not after
         * a quarter of an hour. */
        {"infra-host-ttl:", "60"},
        {"infra-keep-probing:", "yes"},
        /* Milliseconds before a question is asked again. The servers here resolve for us: the
         * same one answers at once from its cache and takes seconds for a slow domain. By
         * what it usually takes all tries would be over before such an answer comes. */
        {"infra-cache-min-rtt:", "800"},
        {"cache-max-negative-ttl:", "300"},
        {"use-syslog:", "no"},
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (option(context, options[i][0], options[i][1], e) < 0)
            return -1;
    return 0;
}

/* Without an anchor nothing is validated, and answers are never `secure`. */
static int set_anchors(struct ub_ctx *context, struct slice anchors, struct err *e)
{
    while (anchors.len) {
        struct slice line = slice_cut(&anchors, '\n');
        line = slice_trim(slice_first(line, slice_chr(line, ';')));
        if (line.len == 0)
            continue;
        char *text = slice_dup(line);
        int rc = ub_ctx_add_ta(context, text);
        free(text);
        if (rc != 0)
            return err_set(e, "resolver_trust_anchor: \"%s\" is no DS or DNSKEY record",
                           log_esc_n(line, 80));
    }
    return 0;
}

static int set_forwarders(struct ub_ctx *context, const char *nameservers, struct err *e)
{
    struct slice list = slice_str(nameservers), element;
    unsigned char address[16];
    bool loopback = false;
    while (config_list_next(&list, &element)) {
        struct slice host = slice_first(element, slice_chr(element, '@'));
        char *text = slice_dup(element);
        int rc = ub_ctx_set_fwd(context, text);
        free(text);
        if (rc != 0)
            return err_set(e, "resolver_nameservers: \"%s\" is not an address or address@port",
                           log_esc(element));
        int len = network_address(host, address);
        if ((len == 4 && address[0] == 127) || len == 16)
            loopback = true;
    }
    /* libunbound does not ask servers on loopback unless told to. */
    return loopback ? option(context, "do-not-query-localhost:", "no", e) : 0;
}

/* libunbound answers for "test." and for the names of loopback and private
 * addresses by itself (RFC 6761, RFC 6303). Where there are servers to ask, they
 * may know those zones. What 127.0.0.1 is called needs no server. */
static int leave_local_zones(struct ub_ctx *context, struct err *e)
{
    if (option(context, "unblock-lan-zones:", "yes", e) < 0)
        return -1;
    (void)ub_ctx_zone_remove(context, "test.");
    (void)ub_ctx_zone_remove(context, "127.in-addr.arpa.");
    int rc = ub_ctx_data_add(context, "1.0.0.127.in-addr.arpa. 10800 IN PTR localhost.");
    return rc == 0 ? 0 : err_set(e, "libunbound: local data: %s", ub_strerror(rc));
}

struct dns *dns_new(struct event_base *base, const char *nameservers, struct slice anchors,
                    struct err *e)
{
    struct ub_ctx *context = ub_ctx_create_event(base);
    if (!context) {
        err_set(e, "libunbound cannot be started");
        return NULL;
    }
    if (set_options(context, e) < 0 || set_anchors(context, anchors, e) < 0 ||
        set_forwarders(context, nameservers, e) < 0) {
        ub_ctx_delete(context);
        return NULL;
    }
    if (nameservers[0] && leave_local_zones(context, e) < 0) {
        ub_ctx_delete(context);
        return NULL;
    }
    struct dns *d = xcalloc(1, sizeof *d);
    d->context = context;
    list_init(&d->waiting);
    return d;
}

/* ---- questions ------------------------------------------------------------- */

/* One at a time: answers are delivered one after another, and what a callback
 * asks waits for dns_turn. */
static struct dns_record records[DNS_RECORDS_MAX];

static void deliver(struct dns_query *q, const struct dns_answer *answer)
{
    list_remove(&q->owned);
    if (q->callback)
        q->callback(answer, q->tag, q->arg);
    free(q);
}

static void answered(void *arg, int rcode, void *packet, int len, int secure, char *why_bogus,
                     int ratelimited)
{
    (void)why_bogus;
    (void)ratelimited;
    struct dns_query *q = arg;
    struct dns_answer answer = {.result = DNS_FAILED, .records = records};
    if (q->callback)
        q->dns->outstanding--;
    else
        q->dns->abandoned--;
    if (secure == SEC_BOGUS) {
        answer.result = DNS_FAILED; /* whatever it says was forged, or is broken (B67) */
    } else if (rcode == RCODE_NXDOMAIN) {
        answer.result = DNS_NXDOMAIN;
        answer.ttl = DNS_NEGATIVE_TTL;
    } else if (rcode == RCODE_OK && packet && len > 0 && q->callback)
        dns_answer_parse(slice_make(packet, (size_t)len), q->type, records, DNS_RECORDS_MAX,
                         &answer);
    answer.secure = secure == SEC_SECURE;
    deliver(q, &answer);
}

void dns_ask(struct dns *d, const char *name, enum dns_type type, struct list *owner, unsigned tag,
             dns_callback *callback, void *arg)
{
    struct dns_query *q = xcalloc(1, sizeof *q);
    q->dns = d;
    q->type = type;
    q->tag = tag;
    q->callback = callback;
    q->arg = arg;
    size_t len = strnlen(name, DNS_NAME_MAX);
    memcpy(q->name.text, name, len);
    list_push(owner, &q->owned);
    list_push(&d->waiting, &q->queue);
    d->waiting_count++;
}

bool dns_is_busy(const struct dns *d)
{
    return d->waiting_count >= DNS_WAITING_MAX;
}

void dns_abandon(struct list *owner)
{
    list_each_safe(owner, n)
    {
        struct dns_query *q = container_of(n, struct dns_query, owned);
        list_remove(&q->owned);
        q->callback = NULL;
        if (!list_empty(&q->queue)) { /* not asked yet: nobody will answer it */
            list_remove(&q->queue);
            q->dns->waiting_count--;
            free(q);
            continue;
        }
        /* libunbound goes on with it, perhaps for a minute. Domains whose servers
         * are dead must not take all the places (F32). */
        q->dns->outstanding--;
        q->dns->abandoned++;
    }
}

void dns_turn(struct dns *d)
{
    while (d->outstanding < DNS_OUTSTANDING_MAX && d->outstanding + d->abandoned < DNS_ASKED_MAX) {
        struct list *n = list_pop(&d->waiting);
        if (!n)
            break;
        struct dns_query *q = container_of(n, struct dns_query, queue);
        d->waiting_count--;
        d->outstanding++;
        int rc =
            ub_resolve_event(d->context, q->name.text, (int)q->type, CLASS_IN, q, answered, NULL);
        if (rc != 0) {
            log_warning("DNS question for %s cannot be sent: %s", q->name.text, ub_strerror(rc));
            answered(q, -1, NULL, 0, 0, NULL, 0);
        }
    }
}

void dns_retire(struct dns *d, struct list *retired)
{
    list_push(retired, &d->retired);
}

void dns_turn_retired(struct list *retired)
{
    list_each_safe(retired, n)
    {
        struct dns *d = container_of(n, struct dns, retired);
        dns_turn(d);
        if (d->outstanding || d->abandoned || !list_empty(&d->waiting))
            continue;
        list_remove(&d->retired);
        ub_ctx_delete(d->context);
        free(d);
    }
}
