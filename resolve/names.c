#include "resolve/names.h"

#include <stdio.h>

#include "core/clock.h"
#include "core/mem.h"
#include "ipc/ipc.h"

struct name_lookup {
    struct list link;    /* in names.active; empty once it is settled */
    struct list waiting; /* in names.waiting; empty once it has a place */
    struct names *all;
    struct dns *dns;       /* for the whole lookup; NULL while it waits */
    struct entry *entry;   /* NULL once it is settled */
    struct list questions; /* the open one */
    int64_t deadline;
    uint32_t ttl;
    bool failed; /* a name could not be checked */
    size_t tried, count;
    struct domain names[NAMES_PER_ADDRESS_MAX];
};

struct name_request {
    struct waiter waiter;
    struct list link; /* in names.requests */
    struct names *all;
    struct entry *entry;
    struct channel *channel;
    uint64_t tag;
};

static void start_waiting(struct names *all);

void names_reverse(struct slice address, struct domain *out)
{
    struct buf b = {out->text, 0, DNS_NAME_MAX, DNS_NAME_MAX};
    const unsigned char *bytes = (const unsigned char *)address.ptr;
    for (size_t i = address.len; i-- > 0;)
        if (address.len == 4)
            (void)buf_printf(&b, "%u.", bytes[i]);
        else
            (void)buf_printf(&b, "%x.%x.", bytes[i] & 0xfu, bytes[i] >> 4);
    (void)buf_printf(&b, "%s", address.len == 4 ? "in-addr.arpa" : "ip6.arpa");
    out->text[b.len] = '\0';
}

/* ---- the end of a lookup ---------------------------------------------------------- */

static int64_t clamp_ttl(const struct name_lookup *l, enum name_status status)
{
    const struct config *c = l->all->mail->config;
    int64_t ttl = l->ttl;
    if (status == NAME_TEMPORARY)
        ttl = FAILURE_TTL;
    if (ttl > c->resolver_max_ttl)
        ttl = c->resolver_max_ttl;
    if (ttl < c->resolver_min_ttl)
        ttl = c->resolver_min_ttl;
    return ttl * CLOCK_SECOND;
}

/* The answer is there, or has to do. */
static void settle(struct name_lookup *l, enum name_status status)
{
    struct entry *e = l->entry;
    e->result.status = (uint8_t)status;
    if (status == NAME_FOUND)
        e->result.site = xstrdup(l->names[l->tried].text);
    l->entry = NULL;
    list_remove(&l->link);
    entry_complete(e, clock_mono(), clamp_ttl(l, status));
    entry_release(e);
}

/* Frees a settled lookup; its place is the next one's. */
static void leave(struct name_lookup *l)
{
    struct names *all = l->all;
    if (l->dns)
        all->running--;
    else
        all->queued--;
    list_remove(&l->waiting);
    free(l);
    start_waiting(all);
}

static void complete(struct name_lookup *l, enum name_status status)
{
    settle(l, status);
    leave(l);
}

/* ---- from address to name to address ------------------------------------------------ */

static void ask_addresses(struct name_lookup *l);

static void note_ttl(struct name_lookup *l, const struct dns_answer *a)
{
    if (a->result != DNS_FAILED && a->ttl < l->ttl)
        l->ttl = a->ttl;
}

static struct slice address_of(const struct name_lookup *l)
{
    return slice_make(l->entry->key, l->entry->key_len);
}

static bool has_address(const struct dns_answer *a, struct slice address)
{
    for (size_t i = 0; i < a->count; i++)
        if (slice_eq(slice_make(a->records[i].address, a->records[i].address_len), address))
            return true;
    return false;
}

static void addresses_answered(const struct dns_answer *a, unsigned tag, void *arg)
{
    struct name_lookup *l = arg;
    (void)tag;
    if (!l->entry) { /* too late */
        leave(l);
        return;
    }
    note_ttl(l, a);
    if (a->result == DNS_FOUND && has_address(a, address_of(l))) {
        complete(l, NAME_FOUND);
        return;
    }
    l->failed = l->failed || a->result == DNS_FAILED;
    if (++l->tried < l->count)
        ask_addresses(l);
    else
        complete(l, l->failed ? NAME_TEMPORARY : NAME_MISMATCH);
}

static void ask_addresses(struct name_lookup *l)
{
    dns_ask(l->dns, l->names[l->tried].text, l->entry->key_len == 4 ? DNS_TYPE_A : DNS_TYPE_AAAA,
            &l->questions, 0, addresses_answered, l);
}

/* The first ones by the alphabet: whatever order the server gives, a client has
 * the same name each time. */
static void keep_name(struct name_lookup *l, const struct domain *name)
{
    size_t at = l->count;
    while (at > 0 && strcmp(name->text, l->names[at - 1].text) < 0)
        at--;
    if (at == NAMES_PER_ADDRESS_MAX)
        return;
    if (l->count < NAMES_PER_ADDRESS_MAX)
        l->count++;
    memmove(&l->names[at + 1], &l->names[at], (l->count - at - 1) * sizeof *l->names);
    l->names[at] = *name;
}

static void names_answered(const struct dns_answer *a, unsigned tag, void *arg)
{
    struct name_lookup *l = arg;
    (void)tag;
    if (!l->entry) { /* too late */
        leave(l);
        return;
    }
    note_ttl(l, a);
    if (a->result == DNS_FOUND) {
        for (size_t i = 0; i < a->count; i++)
            keep_name(l, &a->records[i].host);
        ask_addresses(l);
    } else if (a->result == DNS_FAILED && a->dropped == 0) {
        complete(l, NAME_TEMPORARY);
    } else {
        if (a->dropped) /* there are names, none of them a host's */
            l->ttl = DNS_NEGATIVE_TTL;
        complete(l, NAME_NONE);
    }
}

/* ---- places and time ------------------------------------------------------------------ */

static void start_waiting(struct names *all)
{
    while (all->running < NAME_LOOKUPS_MAX) {
        struct list *n = list_pop(&all->waiting);
        if (!n)
            return;
        struct name_lookup *l = container_of(n, struct name_lookup, waiting);
        struct domain reverse;
        all->queued--;
        all->running++;
        l->dns = all->mail->dns;
        names_reverse(address_of(l), &reverse);
        dns_ask(l->dns, reverse.text, DNS_TYPE_PTR, &l->questions, 0, names_answered, l);
    }
}

static void start_tick(struct names *all)
{
    struct timeval tick = {0, DEADLINE_TICK_MS * 1000};
    if (!event_pending(all->tick, EV_TIMEOUT, NULL))
        event_add(all->tick, &tick);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct names *all = arg;
    int64_t now = clock_mono();
    (void)fd;
    (void)what;
    while (!list_empty(&all->active)) {
        struct name_lookup *l = container_of(all->active.next, struct name_lookup, link);
        if (now < l->deadline)
            break;
        settle(l, NAME_TEMPORARY);
        /* a question goes on until libunbound gives up, and so long it has its
         * place: else silent servers could use up the questions that mail needs */
        if (!l->dns)
            leave(l);
    }
    if (!list_empty(&all->active))
        start_tick(all);
}

static void lookup(struct names *all, struct entry *e)
{
    struct name_lookup *l = xcalloc(1, sizeof *l);
    l->all = all;
    l->entry = e;
    l->ttl = UINT32_MAX;
    l->deadline = clock_mono() + NAME_SECONDS * CLOCK_SECOND;
    entry_hold(e);
    list_init(&l->questions);
    list_push(&all->active, &l->link);
    list_push(&all->waiting, &l->waiting);
    all->queued++;
    start_tick(all);
    start_waiting(all);
}

/* ---- smtpd's questions ----------------------------------------------------------------- */

static void answer(struct channel *channel, uint64_t tag, const struct result *r)
{
    ipc_name_reply_encode(
        channel_out(channel),
        &(struct ipc_name_reply){.tag = tag, .status = r->status, .host = slice_str(r->site)});
}

static void request_free(struct name_request *q)
{
    list_remove(&q->waiter.link);
    list_remove(&q->link);
    q->all->count--;
    entry_release(q->entry);
    free(q);
}

static void ready(struct waiter *w)
{
    struct name_request *q = container_of(w, struct name_request, waiter);
    answer(q->channel, q->tag, &q->entry->result);
    request_free(q);
}

static void wait_for(struct names *all, struct entry *e, struct channel *channel, uint64_t tag)
{
    struct name_request *q = xcalloc(1, sizeof *q);
    q->all = all;
    q->entry = e;
    q->channel = channel;
    q->tag = tag;
    q->waiter.ready = ready;
    entry_hold(e);
    list_push(&e->waiters, &q->waiter.link);
    list_push(&all->requests, &q->link);
    all->count++;
}

int names_take(struct names *all, struct channel *channel, uint64_t tag, struct slice address)
{
    const struct result busy = {.status = NAME_TEMPORARY};
    if (address.len != 4 && address.len != 16)
        return -1;
    struct entry *e = cache_find(&all->cache, address, clock_mono());
    if (e && e->done) {
        answer(channel, tag, &e->result);
        return 0;
    }
    if (all->count >= NAME_REQUESTS_MAX || (!e && all->queued >= NAME_WAITING_MAX)) {
        answer(channel, tag, &busy);
        return 0;
    }
    if (e) {
        wait_for(all, e, channel, tag);
        return 0;
    }
    e = cache_add(&all->cache, address);
    wait_for(all, e, channel, tag);
    lookup(all, e);
    entry_release(e);
    return 0;
}

void names_forget(struct names *all, const struct channel *channel)
{
    list_each_safe(&all->requests, n)
    {
        struct name_request *q = container_of(n, struct name_request, link);
        if (q->channel == channel)
            request_free(q);
    }
}

void names_clear(struct names *all)
{
    cache_clear(&all->cache);
}

int names_init(struct names *all, struct event_base *base, const struct lookups *mail,
               struct err *e)
{
    *all = (struct names){.mail = mail};
    cache_init(&all->cache);
    list_init(&all->active);
    list_init(&all->waiting);
    list_init(&all->requests);
    all->tick = evtimer_new(base, on_tick, all);
    return all->tick ? 0 : err_set(e, "no timer");
}
