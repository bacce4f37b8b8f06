#include "smtpd/server.h"

#include "core/clock.h"
#include "core/mem.h"
#include "smtpd/auth.h"
#include "smtpd/limits.h"
#include "smtpd/listeners.h"
#include "smtpd/session.h"

enum { TEXT_MAX = 4096 };

/* ---- texts made from the configuration --------------------------------------- */

static bool is_discarded(const struct config *config, struct slice keyword)
{
    struct slice list = slice_str(config->smtpd_discard_ehlo_keywords), element;
    while (config_list_next(&list, &element))
        if (slice_caseeq(element, keyword))
            return true;
    return false;
}

static int64_t smaller(int64_t ours, uint64_t own)
{
    return own && (ours <= 0 || own < (uint64_t)ours) ? (int64_t)own : ours;
}

/* Of each extension the keyword, and a number behind it or -1. */
void server_ehlo(const struct config *config, uint64_t size_limit, uint64_t recipient_limit,
                 struct buf *out)
{
    int64_t size = smaller(config->message_size_limit, size_limit);
    const struct {
        const char *keyword, *more;
        int64_t number;
    } extensions[] = {
        {"PIPELINING", "", -1},
        {"SIZE", "", size ? size : -1},
        {"8BITMIME", "", -1},
        {"SMTPUTF8", "", -1},
        {"ENHANCEDSTATUSCODES", "", -1},
        {"DSN", "", -1},
        {"CHUNKING", "", -1},
        {"LIMITS", " RCPTMAX=", smaller(config->smtpd_recipient_limit, recipient_limit)},
    };
    size_t last = 0;
    buf_clear(out);
    buf_printf(out, "250-%s\r\n", config->myhostname);
    for (size_t i = 0; i < sizeof extensions / sizeof extensions[0]; i++) {
        if (is_discarded(config, slice_str(extensions[i].keyword)))
            continue;
        last = out->len;
        buf_printf(out, "250-%s", extensions[i].keyword);
        if (extensions[i].number >= 0)
            buf_printf(out, "%s%lld", extensions[i].more[0] ? extensions[i].more : " ",
                       (long long)extensions[i].number);
        buf_addstr(out, "\r\n");
    }
    out->data[last + 3] = ' ';
}

/* The banner begins with our name (RFC 5321 section 4.2), whatever else it says. */
static int make_greeting(struct buf *out, const struct config *config, struct err *e)
{
    buf_clear(out);
    if (buf_printf(out, "220 %s\r\n", config->smtpd_banner) < 0)
        return err_set(e, "smtpd_banner is longer than %d bytes", TEXT_MAX);
    return 0;
}

/* All or none of the lists of networks. */
static int make_networks(struct server *sv, const struct config *config, struct err *e)
{
    const struct {
        const char *name, *text;
        struct nets *list;
    } all[] = {
        {"mynetworks", config->mynetworks, &sv->relay_networks},
        {"smtpd_client_event_limit_exceptions", config->smtpd_client_event_limit_exceptions,
         &sv->exempt_networks},
        {"smtpd_proxy_networks", config->smtpd_proxy_networks, &sv->proxy_networks},
        {"smtpd_authorized_xclient_hosts", config->smtpd_authorized_xclient_hosts,
         &sv->xclient_hosts},
        {"smtpd_authorized_xforward_hosts", config->smtpd_authorized_xforward_hosts,
         &sv->xforward_hosts},
    };
    enum { COUNT = sizeof all / sizeof all[0] };
    struct nets fresh[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        if (nets_parse(&fresh[i], all[i].text, e) == 0)
            continue;
        while (i-- > 0)
            nets_free(&fresh[i]);
        return err_prefix(e, "%s", all[i + 1].name);
    }
    for (size_t i = 0; i < COUNT; i++) {
        nets_free(all[i].list);
        *all[i].list = fresh[i];
    }
    return 0;
}

int server_configure(struct server *sv, const struct config *config, struct err *e)
{
    sv->config = config;
    if (make_greeting(&sv->greeting, config, e) < 0 || make_networks(sv, config, e) < 0)
        return -1;
    sv->submission = strcmp(config->smtpd_service_kind, "submission") == 0;
    sv->proxied = *config->smtpd_upstream_proxy_protocol != '\0';
    server_ehlo(config, 0, 0, &sv->ehlo);
    secure_configure(&sv->secure, config);
    auth_configure(&sv->auth, config);
    sv->auth.announced = sv->auth.enabled && !is_discarded(config, SLICE("AUTH"));
    sv->requiretls = !is_discarded(config, SLICE("REQUIRETLS"));
    sv->secure.announced = sv->secure.offered && !is_discarded(config, SLICE("STARTTLS"));
    clients_configure(&sv->clients, config);
    sv->timeouts.lasts[TIMEOUT_CLIENT] = config->smtpd_timeout * CLOCK_SECOND;
    sv->timeouts.lasts[TIMEOUT_PROXY] = config->smtpd_upstream_proxy_timeout * CLOCK_SECOND;
    sv->timeouts.lasts[TIMEOUT_TLS] = config->smtpd_starttls_timeout * CLOCK_SECOND;
    sv->timeouts.lasts[TIMEOUT_NAME] = config->smtpd_peername_timeout * CLOCK_SECOND;
    sv->timeouts.lasts[TIMEOUT_SLEEP] = config->smtpd_error_sleep_time * CLOCK_SECOND;
    sv->timeouts.lasts[TIMEOUT_ACCOUNTS] = ACCOUNTS_SECONDS * CLOCK_SECOND;
    sv->timeouts.lasts[TIMEOUT_COMMIT] = COMMIT_SECONDS * CLOCK_SECOND;
    sv->timeouts.lasts[TIMEOUT_LINGER] = LINGER_SECONDS * CLOCK_SECOND;
    return 0;
}

/* ---- life --------------------------------------------------------------------- */

static void on_expired(struct timeout *t, enum timeout_kind kind)
{
    session_expired(container_of(t, struct session, timeout), kind);
}

static void on_second(void *arg, int64_t now)
{
    struct server *sv = arg;
    if (sv->listeners)
        listeners_tick(sv->listeners, now);
    restrictions_tick(&sv->restrictions, now);
    dovecot_tick(&sv->dovecot, now);
}

int server_init(struct server *sv, struct event_base *base, const struct config *config,
                struct err *e)
{
    *sv = (struct server){.base = base};
    buf_init(&sv->greeting, TEXT_MAX);
    buf_init(&sv->ehlo, TEXT_MAX);
    buf_init(&sv->slice, 4 * INPUT_SLICE);
    list_init(&sv->sessions);
    link_init(&sv->link, base);
    names_init(&sv->names, base);
    accounts_init(&sv->accounts, base);
    keys_init(&sv->keys, base);
    timeouts_init(&sv->timeouts, base, on_expired, on_second, sv);
    sv->input = xmalloc(SERVER_INPUT);
    sv->restrictions.network.base = base;
    dovecot_init(&sv->dovecot, &sv->restrictions.network, config);
    if (restrictions_init(&sv->restrictions, config, e) < 0 ||
        clients_init(&sv->clients, config, e) < 0)
        return -1;
    return server_configure(sv, config, e);
}

void server_drain(struct server *sv, bool hurry, void (*idle)(void *arg), void *arg)
{
    sv->draining = true;
    sv->closing = hurry;
    sv->idle = idle;
    sv->idle_arg = arg;
    if (sv->listeners)
        listeners_close(sv->listeners);
    if (sv->session_count == 0)
        idle(arg);
    else if (hurry)
        list_each_safe(&sv->sessions, n) session_drain(container_of(n, struct session, link));
}

void server_free(struct server *sv)
{
    timeouts_free(&sv->timeouts);
    link_free(&sv->link);
    names_free(&sv->names);
    accounts_free(&sv->accounts);
    dovecot_free(&sv->dovecot);
    keys_free(&sv->keys);
    secure_free(&sv->secure);
    restrictions_free(&sv->restrictions);
    clients_free(&sv->clients);
    nets_free(&sv->relay_networks);
    nets_free(&sv->exempt_networks);
    nets_free(&sv->proxy_networks);
    nets_free(&sv->xclient_hosts);
    nets_free(&sv->xforward_hosts);
    buf_free(&sv->greeting);
    buf_free(&sv->ehlo);
    buf_free(&sv->slice);
    xfree(&sv->input);
}
