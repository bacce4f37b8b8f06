#include "relay/hosts.h"

#include <string.h>

#include "core/map.h"
#include "io/net.h"

enum { HOSTS = 1024, DOUBLINGS_MAX = 3 };

static struct host {
    char address[NET_TEXT_MAX];
    uint16_t port;
    uint8_t failures;
    uint32_t closed_after;
    uint32_t open;
    int64_t last_until;
} table[HOSTS];

/* The address's place; with `make` it is its own afterwards, otherwise NULL if it is not. */
static struct host *find(const char *address, uint16_t port, bool make)
{
    struct slice text = slice_first(slice_str(address), NET_TEXT_MAX - 1);
    struct host *h = &table[map_hash(text) % HOSTS];
    if (h->port == port && slice_eq(slice_str(h->address), text))
        return h;
    if (!make)
        return NULL;
    *h = (struct host){.port = port};
    if (text.len)
        memcpy(h->address, text.ptr, text.len);
    return h;
}

void hosts_failed(const char *address, uint16_t port, int64_t first, int64_t now)
{
    struct host *h = find(address, port, true);
    h->last_until = now + (first << h->failures);
    if (h->failures < DOUBLINGS_MAX)
        h->failures++;
}

void hosts_worked(const char *address, uint16_t port)
{
    struct host *h = find(address, port, false);
    if (h) {
        h->failures = 0;
        h->last_until = 0;
    }
}

/* What is remembered of an address that does not answer is worth more than this. */
void hosts_opened(const char *address, uint16_t port)
{
    struct host *h = find(address, port, false);
    const struct host *other = &table[map_hash(slice_str(address)) % HOSTS];
    if (!h && other->last_until == 0 && other->open == 0 && other->closed_after == 0)
        h = find(address, port, true);
    if (h)
        h->open++;
}

void hosts_left(const char *address, uint16_t port)
{
    struct host *h = find(address, port, false);
    if (h && h->open)
        h->open--;
}

bool hosts_serves(const char *address, uint16_t port)
{
    const struct host *h = find(address, port, false);
    return h && h->open;
}

bool hosts_last(const char *address, uint16_t port, int64_t meanwhile, int64_t now)
{
    struct host *h = find(address, port, false);
    if (!h || h->last_until == 0)
        return false;
    if (h->last_until > now)
        return true;
    h->last_until = now + meanwhile;
    return false;
}

void hosts_closed(const char *address, uint16_t port, uint32_t messages)
{
    find(address, port, true)->closed_after = messages;
}

uint32_t hosts_take_closed(const char *address, uint16_t port)
{
    struct host *h = find(address, port, false);
    uint32_t messages = h ? h->closed_after : 0;
    if (h)
        h->closed_after = 0;
    return messages;
}
