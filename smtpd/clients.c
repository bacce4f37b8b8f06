#include "smtpd/clients.h"

#include "core/clock.h"
#include "core/mem.h"
#include "smtpd/limits.h"

enum { KEY_V4 = 4, KEY_V6 = 8 };

struct client {
    char key[1 + KEY_V6]; /* length of the address, then its counted part */
    uint8_t key_len;
    uint32_t open;
    int64_t period_end;
    uint32_t connections, messages, recipients; /* in this period */
};

static struct slice client_key(const void *value)
{
    const struct client *cl = value;
    return slice_make(cl->key, cl->key_len);
}

void clients_init(struct clients *c, const struct config *config)
{
    map_init(&c->map, client_key);
    c->next_sweep = 0;
    clients_configure(c, config);
}

void clients_configure(struct clients *c, const struct config *config)
{
    c->limits = (struct client_limits){
        .connections = config->smtpd_client_connection_count_limit,
        .connection_rate = config->smtpd_client_connection_rate_limit,
        .message_rate = config->smtpd_client_message_rate_limit,
        .recipient_rate = config->smtpd_client_recipient_rate_limit,
        .period = config->anvil_rate_time_unit * CLOCK_SECOND,
    };
}

void clients_free(struct clients *c)
{
    map_clear(&c->map, free);
    map_free(&c->map);
}

/* Starts a new period when the last one is over. */
static void turn_period(const struct clients *c, struct client *cl, int64_t now)
{
    if (now < cl->period_end)
        return;
    cl->period_end = now + c->limits.period;
    cl->connections = cl->messages = cl->recipients = 0;
}

static bool count(uint32_t *counter, int64_t limit)
{
    if (*counter < UINT32_MAX)
        (*counter)++;
    return limit == 0 || *counter <= limit;
}

static struct client *find_or_add(struct clients *c, struct slice address)
{
    struct client probe = {0};
    size_t part = address.len == KEY_V4 ? KEY_V4 : KEY_V6;
    probe.key[0] = (char)address.len;
    memcpy(probe.key + 1, address.ptr, part);
    probe.key_len = (uint8_t)(1 + part);
    struct client *cl = map_get(&c->map, client_key(&probe));
    if (cl || c->map.count >= CLIENTS_MAX)
        return cl;
    cl = xmalloc(sizeof *cl);
    *cl = probe;
    map_put(&c->map, cl);
    return cl;
}

enum client_verdict clients_connect(struct clients *c, struct slice address, int64_t now,
                                    struct client **out)
{
    struct client *cl = *out = find_or_add(c, address);
    if (!cl)
        return CLIENT_OK;
    turn_period(c, cl, now);
    cl->open++;
    if (!count(&cl->connections, c->limits.connection_rate))
        return CLIENT_TOO_FAST;
    if (c->limits.connections && cl->open > c->limits.connections)
        return CLIENT_TOO_MANY;
    return CLIENT_OK;
}

unsigned clients_count(const struct client *cl, enum client_verdict verdict)
{
    return verdict == CLIENT_TOO_MANY ? cl->open : cl->connections;
}

void clients_disconnect(struct clients *c, struct client *cl)
{
    if (!cl)
        return;
    cl->open--;
    /* without a rate there is nothing to remember about who is gone */
    const struct client_limits *l = &c->limits;
    if (cl->open == 0 && !l->connection_rate && !l->message_rate && !l->recipient_rate) {
        map_remove(&c->map, client_key(cl));
        free(cl);
    }
}

bool clients_message(const struct clients *c, struct client *cl, int64_t now)
{
    if (!cl)
        return true;
    turn_period(c, cl, now);
    return count(&cl->messages, c->limits.message_rate);
}

bool clients_recipient(const struct clients *c, struct client *cl, int64_t now)
{
    if (!cl)
        return true;
    turn_period(c, cl, now);
    return count(&cl->recipients, c->limits.recipient_rate);
}

void clients_sweep(struct clients *c, int64_t now)
{
    if (now < c->next_sweep)
        return;
    c->next_sweep = now + c->limits.period;
    /* the map must not change while it is walked: gather first */
    struct client **idle = NULL;
    size_t n = 0, at = 0;
    for (struct client *cl; (cl = map_next(&c->map, &at));) {
        if (cl->open || now < cl->period_end)
            continue;
        if (!idle)
            idle = xcalloc(c->map.count, sizeof(struct client *));
        idle[n++] = cl;
    }
    for (size_t i = 0; i < n; i++) {
        map_remove(&c->map, client_key(idle[i]));
        free(idle[i]);
    }
    free(idle);
}
