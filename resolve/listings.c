#include "resolve/listings.h"

#include <stdio.h>

#include "core/mem.h"

enum { OPEN_MAX = 64, TEXT_MAX = 200 };

struct listing {
    struct list link;      /* in listings.open */
    struct list questions; /* the open one */
    struct listings *all;
    struct dns *dns;
    struct channel *channel;
    uint64_t tag;
    struct domain name;
};

void listings_init(struct listings *all, const struct lookups *mail)
{
    *all = (struct listings){.mail = mail};
    list_init(&all->open);
}

int listings_name(struct slice address, struct slice zone, struct domain *out)
{
    struct domain parsed;
    struct buf b = {out->text, 0, DNS_NAME_MAX, DNS_NAME_MAX};
    const unsigned char *bytes = (const unsigned char *)address.ptr;
    int rc = 0;
    if ((address.len != 4 && address.len != 16) || domain_parse(zone, &parsed) < 0)
        return -1;
    for (size_t i = address.len; i-- > 0 && rc == 0;)
        rc = address.len == 4 ? buf_printf(&b, "%u.", bytes[i])
                              : buf_printf(&b, "%x.%x.", bytes[i] & 0xfu, bytes[i] >> 4);
    if (rc < 0 || buf_printf(&b, "%s", parsed.text) < 0)
        return -1;
    out->text[b.len] = '\0';
    return 0;
}

enum listing_status listings_meaning(const struct dns_answer *a)
{
    static const uint8_t refused[] = {127, 255, 255};
    enum listing_status status = LISTING_UNKNOWN;
    if (a->result == DNS_NXDOMAIN || a->result == DNS_NODATA)
        return LISTING_NONE;
    for (size_t i = 0; a->result == DNS_FOUND && i < a->count; i++) {
        const struct dns_record *r = &a->records[i];
        if (r->address_len != 4 || r->address[0] != 127)
            return LISTING_WRONG; /* it is no more, and answers everything with its web server */
        if (memcmp(r->address, refused, sizeof refused) == 0)
            status = LISTING_REFUSED;
        else if (status != LISTING_REFUSED)
            status = LISTING_LISTED;
    }
    return status;
}

static void over(struct listing *l, enum listing_status status, struct slice text)
{
    ipc_listing_reply_encode(
        channel_out(l->channel),
        &(struct ipc_listing_reply){.tag = l->tag, .status = (uint8_t)status, .text = text});
    list_remove(&l->link);
    l->all->count--;
    free(l);
}

static void on_text(const struct dns_answer *a, unsigned status, void *arg)
{
    struct buf text = BUF_INIT(4 * TEXT_MAX);
    if (a->result == DNS_FOUND && a->count > 0 && dns_txt(a->records[0].data, &text) < 0)
        buf_clear(&text);
    over(arg, (enum listing_status)status, slice_first(buf_slice(&text), TEXT_MAX));
    buf_free(&text);
}

static void on_addresses(const struct dns_answer *a, unsigned tag, void *arg)
{
    struct listing *l = arg;
    enum listing_status status = listings_meaning(a);
    (void)tag;
    if (status == LISTING_LISTED || status == LISTING_REFUSED)
        dns_ask(l->dns, l->name.text, DNS_TYPE_TXT, &l->questions, status, on_text, l);
    else
        over(l, status, SLICE(""));
}

int listings_take(struct listings *all, struct channel *channel,
                  const struct ipc_listing_request *m)
{
    struct domain name;
    if (listings_name(m->address, m->zone, &name) < 0)
        return -1;
    if (all->count >= OPEN_MAX) {
        ipc_listing_reply_encode(
            channel_out(channel),
            &(struct ipc_listing_reply){.tag = m->tag, .status = LISTING_UNKNOWN});
        return 0;
    }
    struct listing *l = xcalloc(1, sizeof *l);
    l->all = all;
    l->dns = all->mail->dns;
    l->channel = channel;
    l->tag = m->tag;
    l->name = name;
    list_init(&l->questions);
    list_push(&all->open, &l->link);
    all->count++;
    dns_ask(l->dns, l->name.text, DNS_TYPE_A, &l->questions, 0, on_addresses, l);
    return 0;
}

void listings_forget(struct listings *all, const struct channel *channel)
{
    list_each_safe(&all->open, n)
    {
        struct listing *l = container_of(n, struct listing, link);
        if (l->channel != channel)
            continue;
        dns_abandon(&l->questions);
        list_remove(&l->link);
        all->count--;
        free(l);
    }
}
