/* Reports by HTTPS (RFC 8460 section 5.4): addresses of the server, then a POST. */
#include <arpa/inet.h>
#include <stdio.h>

#include "core/mem.h"
#include "resolve/tlsrpt.h"

enum { POST_ADDRESSES_MAX = 8, REPLY_MAX = 64 * 1024, CONTENT_MAX = 80 * 1024 };

struct tlsrpt_post {
    struct tlsrpt *all;
    struct tlsrpt_domain *d;
    struct list questions;
    unsigned address_count;
    char addresses[POST_ADDRESSES_MAX * 48];
    struct https_fetch *fetch;
    uint16_t port;
    char host[DNS_NAME_MAX + 1], path[TLSRPT_URL_MAX + 1];
};

void tlsrpt_post_cancel(struct tlsrpt_domain *d)
{
    struct tlsrpt_post *p = d->post;
    if (!p)
        return;
    dns_abandon(&p->questions);
    https_cancel(p->fetch);
    p->all->posts--;
    free(p);
    d->post = NULL;
}

static void end(struct tlsrpt_post *p, const char *why)
{
    struct tlsrpt *all = p->all;
    struct tlsrpt_domain *d = p->d;
    tlsrpt_post_cancel(d);
    tlsrpt_posted(all, d, why);
}

static void on_reply(struct slice body, const char *why, enum https_end how, void *arg)
{
    struct tlsrpt_post *p = arg;
    (void)body;
    p->fetch = NULL; /* it is over */
    end(p, how == HTTPS_FINE ? NULL : why);
}

static void begin(struct tlsrpt_post *p)
{
    struct buf content = BUF_INIT(CONTENT_MAX);
    struct https_request r = {.host = p->host,
                              .path = p->path,
                              .addresses = p->addresses,
                              .port = p->port,
                              .seconds = TLSRPT_POST_SECONDS,
                              .limit = REPLY_MAX,
                              .content_type = "application/tlsrpt+gzip"};
    if (tlsrpt_pack(p->all, p->d, &content) == 0) {
        r.content = buf_slice(&content);
        p->fetch = https_get(p->all->https, &r, on_reply, p);
    }
    buf_free(&content);
    if (!p->fetch)
        end(p, "there is no smtp_tls_CAfile to verify the server with");
}

static void on_address(const struct dns_answer *a, unsigned tag, void *arg)
{
    struct tlsrpt_post *p = arg;
    (void)tag;
    for (size_t i = 0; a->result == DNS_FOUND && i < a->count; i++) {
        char text[INET6_ADDRSTRLEN];
        struct slice raw = slice_make(a->records[i].address, a->records[i].address_len);
        size_t at = strlen(p->addresses);
        if (policy_check(p->all->policy, raw) != ADDRESS_FINE ||
            p->address_count == POST_ADDRESSES_MAX)
            continue;
        inet_ntop(raw.len == 4 ? AF_INET : AF_INET6, raw.ptr, text, sizeof text);
        snprintf(p->addresses + at, sizeof p->addresses - at, at ? ",%s" : "%s", text);
        p->address_count++;
    }
    if (!list_empty(&p->questions))
        return;
    if (p->address_count)
        begin(p);
    else
        end(p, "the server has no address that may be used");
}

void tlsrpt_post(struct tlsrpt *all, struct tlsrpt_domain *d, const char *url)
{
    struct tlsrpt_url parts;
    const char *protocols = all->config->inet_protocols;
    if (tlsrpt_url_parse(slice_str(url), &parts) < 0 || parts.host.len > DNS_NAME_MAX)
        panic("a URL that was not checked");
    struct tlsrpt_post *p = d->post = xcalloc(1, sizeof *p);
    all->posts++;
    p->all = all;
    p->d = d;
    p->port = parts.port;
    list_init(&p->questions);
    snprintf(p->host, sizeof p->host, "%.*s", SLICE_ARG(parts.host));
    snprintf(p->path, sizeof p->path, "%s%.*s", parts.path.len ? "" : "/", SLICE_ARG(parts.path));
    if (strcmp(protocols, "ipv6") != 0)
        dns_ask(*all->dns, p->host, DNS_TYPE_A, &p->questions, 0, on_address, p);
    if (strcmp(protocols, "ipv4") != 0)
        dns_ask(*all->dns, p->host, DNS_TYPE_AAAA, &p->questions, 0, on_address, p);
}
