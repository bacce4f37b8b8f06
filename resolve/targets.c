#include "resolve/targets.h"

#include <stdlib.h>

#include "core/mem.h"
#include "ipc/ipc.h"

enum { TARGET_BYTES_MAX = DNS_NAME_MAX + 16 + 16 }; /* one encoded ipc_target */

/* ---- order ----------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const struct mx_host *x = a, *y = b;
    int order = slice_cmp(domain_slice(&x->name), domain_slice(&y->name));
    return order ? order : (x->preference > y->preference) - (x->preference < y->preference);
}

static int by_preference(const void *a, const void *b)
{
    const struct mx_host *x = a, *y = b;
    int order = (x->preference > y->preference) - (x->preference < y->preference);
    return order ? order : by_name(a, b);
}

size_t mx_hosts_sort(struct mx_host *hosts, size_t count)
{
    size_t kept = 0;
    qsort(hosts, count, sizeof *hosts, by_name);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 ||
            !slice_eq(domain_slice(&hosts[kept - 1].name), domain_slice(&hosts[i].name)))
            hosts[kept++] = hosts[i];
    qsort(hosts, kept, sizeof *hosts, by_preference);
    return kept < MX_HOSTS_MAX ? kept : MX_HOSTS_MAX;
}

/* Hosts are sorted by preference, so their index keeps that order. */
static int by_host(const void *a, const void *b)
{
    const struct host_address *x = a, *y = b;
    if (x->host != y->host)
        return x->host < y->host ? -1 : 1;
    if (x->len != y->len)
        return x->len < y->len ? -1 : 1;
    return memcmp(x->raw, y->raw, x->len);
}

/* Not for secrets: which of equal servers is tried first. */
static uint32_t chance(uint32_t below)
{
    static uint64_t state;
    while (state == 0)
        state = (uint64_t)arc4random() << 32 | arc4random();
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 32) % below);
}

static void shuffle(struct host_address *a, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = chance((uint32_t)i);
        struct host_address moved = a[i - 1];
        a[i - 1] = a[j];
        a[j] = moved;
    }
}

/* Keeps the order inside each family. */
static void order_families(struct host_address *a, size_t n, enum family_order order,
                           struct host_address *scratch)
{
    size_t next[2] = {0, 0}, out = 0; /* IPv4, IPv6 */
    unsigned turn = order == FAMILY_IPV4_FIRST   ? 0
                    : order == FAMILY_IPV6_FIRST ? 1
                                                 : a[0].len == 16;
    memcpy(scratch, a, n * sizeof *a);
    while (out < n) {
        uint8_t want = turn ? 16 : 4;
        while (next[turn] < n && scratch[next[turn]].len != want)
            next[turn]++;
        if (next[turn] == n)
            turn = !turn;
        else {
            a[out++] = scratch[next[turn]++];
            turn = order == FAMILY_ANY ? !turn : turn;
        }
    }
}

/* Calls `arrange` for each run of one preference. */
static void each_preference(const struct mx_host *hosts, struct host_address *a, size_t n,
                            enum family_order order, bool at_random, struct host_address *scratch)
{
    for (size_t begin = 0, end; begin < n; begin = end) {
        end = begin + 1;
        while (end < n && hosts[a[end].host].preference == hosts[a[begin].host].preference)
            end++;
        if (at_random)
            shuffle(a + begin, end - begin);
        order_families(a + begin, end - begin, order, scratch);
    }
}

void targets_add(const struct mx_host *hosts, struct host_address *addresses, size_t count,
                 const struct target_settings *settings, struct buf *out)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        if (addresses[i].len)
            addresses[n++] = addresses[i];
    if (n == 0)
        return;
    struct host_address *scratch = xcalloc(n, sizeof *scratch);
    qsort(addresses, n, sizeof *addresses, by_host);
    each_preference(hosts, addresses, n, settings->order, false, scratch);
    if (n > settings->limit)
        n = settings->limit;
    each_preference(hosts, addresses, n, settings->order, true, scratch);
    free(scratch);
    for (size_t i = 0; i < n && out->max - out->len > TARGET_BYTES_MAX; i++) {
        const struct mx_host *host = &hosts[addresses[i].host];
        struct ipc_target t = {.host = domain_slice(&host->name),
                               .address = slice_make(addresses[i].raw, addresses[i].len),
                               .port = settings->port,
                               .preference = host->preference};
        ipc_target_add(out, &t);
    }
}

/* ---- site ------------------------------------------------------------------ */

static void add_port(const struct destination *d, uint16_t usual_port, struct buf *out)
{
    if (d->port != usual_port)
        (void)buf_printf(out, ":%u", d->port);
}

void site_of_hosts(const struct mx_host *hosts, size_t count, const struct destination *d,
                   uint16_t usual_port, struct buf *out)
{
    struct mx_host *sorted = xcalloc(count ? count : 1, sizeof *sorted);
    size_t start = out->len, length = 0;
    memcpy(sorted, hosts, count * sizeof *hosts);
    qsort(sorted, count, sizeof *sorted, by_name);
    for (size_t i = 0; i < count; i++)
        length += strlen(sorted[i].name.text) + 1;
    if (d->lmtp)
        (void)buf_addstr(out, "lmtp:");
    if (count == 0 || length > SITE_NAME_MAX)
        (void)buf_printf(out, "mx:%s", d->name.text);
    else
        for (size_t i = 0; i < count; i++)
            (void)buf_printf(out, "%s%s", i ? "," : "", sorted[i].name.text);
    add_port(d, usual_port, out);
    free(sorted);
    if (out->len == start)
        panic("a site without a name");
}

void site_of_destination(const struct destination *d, uint16_t usual_port, struct buf *out)
{
    if (d->lmtp)
        (void)buf_addstr(out, "lmtp:");
    if (d->kind == DESTINATION_HOST) {
        (void)buf_addstr(out, d->name.text);
        add_port(d, usual_port, out);
    } else
        destination_print(d, usual_port, out);
}
