#include "smtpd/clients.h"

#include <unistd.h>

#include "core/clock.h"

/* ---- the table -------------------------------------------------------------- */

/* Other processes read our region while we write it, and we read theirs. The
 * order of accesses matters in one place only: a key is there before its counts
 * are read, and gone before they are another client's. */
static uint64_t key_at(const struct client_set *set, size_t way)
{
    return __atomic_load_n(&set->keys[way], __ATOMIC_ACQUIRE);
}

static void set_key(struct client_set *set, size_t way, uint64_t key)
{
    __atomic_store_n(&set->keys[way], key, __ATOMIC_RELEASE);
}

static uint32_t read_count(const uint32_t *count)
{
    return __atomic_load_n(count, __ATOMIC_RELAXED);
}

/* How much is lost if this client is forgotten: nothing for one whose period is
 * over; who did most in its period stays longest. */
static uint64_t worth(const struct client_set *set, size_t way, int64_t now)
{
    const struct client_count *n = &set->counts[way];
    if (set->keys[way] == 0)
        return 0;
    if (now >= n->period_end)
        return 1;
    return UINT64_C(2) + n->connections + n->messages + n->recipients;
}

/* The client's count in our region, made if need be; NULL when all who are in
 * its set have connections. */
static struct client_count *find_or_add(struct client_set *set, uint64_t key, int64_t now)
{
    size_t best = CLIENT_COUNTS_WAYS;
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < CLIENT_COUNTS_WAYS; i++)
        if (key_at(set, i) == key)
            return &set->counts[i];
    for (size_t i = 0; i < CLIENT_COUNTS_WAYS; i++) {
        if (key_at(set, i) && set->counts[i].open)
            continue;
        uint64_t value = worth(set, i, now);
        if (value < least) {
            least = value;
            best = i;
        }
    }
    if (best == CLIENT_COUNTS_WAYS)
        return NULL;
    set_key(set, best, 0);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    set->counts[best] = (struct client_count){0};
    set_key(set, best, key);
    return &set->counts[best];
}

/* Which client of which set it is. */
static void locate(const struct clients *c, const struct client_count *cl, unsigned *place,
                   size_t *way)
{
    size_t at = (size_t)((const char *)cl - (const char *)c->table.own);
    *place = (unsigned)(at / sizeof(struct client_set));
    *way = (size_t)(cl - c->table.own->sets[*place].counts);
}

struct sum {
    uint64_t open, connections, messages, recipients;
};

static void add(struct sum *sum, const struct client_set *set, uint64_t key, int64_t now)
{
    for (size_t i = 0; i < CLIENT_COUNTS_WAYS; i++) {
        const struct client_count *n = &set->counts[i];
        if (key_at(set, i) != key)
            continue;
        sum->open += read_count(&n->open);
        if (now >= __atomic_load_n(&n->period_end, __ATOMIC_RELAXED))
            return;
        sum->connections += read_count(&n->connections);
        sum->messages += read_count(&n->messages);
        sum->recipients += read_count(&n->recipients);
        return;
    }
}

/* What all processes have counted of the client. */
static struct sum sum_of(const struct clients *c, const struct client_count *cl, int64_t now)
{
    const struct client_counts *t = &c->table;
    struct sum sum = {cl->open, cl->connections, cl->messages, cl->recipients};
    unsigned place;
    size_t way;
    locate(c, cl, &place, &way);
    uint64_t key = key_at(&t->own->sets[place], way);
    for (unsigned i = 0; key && i < CLIENT_COUNTS_REGIONS; i++)
        if (i != t->region && __atomic_load_n(&t->header->used[i], __ATOMIC_RELAXED))
            add(&sum, &t->regions[i].sets[place], key, now);
    return sum;
}

/* ---- life --------------------------------------------------------------------- */

int clients_init(struct clients *c, const struct config *config, struct err *e)
{
    *c = (struct clients){0};
    clients_configure(c, config);
    int fd = client_counts_make(e);
    if (fd < 0)
        return -1;
    int rc = client_counts_map(&c->table, fd, 0, e);
    close(fd);
    return rc;
}

int clients_share(struct clients *c, int fd, unsigned region, struct err *e)
{
    struct client_counts shared;
    if (client_counts_map(&shared, fd, region, e) < 0)
        return -1;
    client_counts_unmap(&c->table);
    c->table = shared;
    return 0;
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
    client_counts_unmap(&c->table);
}

/* ---- counting ------------------------------------------------------------------- */

/* Starts a new period when the last one is over. */
static void turn_period(const struct clients *c, struct client_count *cl, int64_t now)
{
    if (now < cl->period_end)
        return;
    cl->connections = cl->messages = cl->recipients = 0;
    __atomic_store_n(&cl->period_end, now + c->limits.period, __ATOMIC_RELAXED);
}

static void count(uint32_t *counter)
{
    if (*counter < UINT32_MAX)
        __atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
}

static bool is_within(uint64_t sum, int64_t limit)
{
    return limit == 0 || sum <= (uint64_t)limit;
}

enum client_verdict clients_connect(struct clients *c, struct slice address, int64_t now,
                                    struct client_count **out)
{
    uint64_t key = client_counts_key(address);
    unsigned place = client_counts_place(&c->table, key);
    struct client_count *cl = *out = find_or_add(&c->table.own->sets[place], key, now);
    if (!cl)
        return CLIENT_OK;
    turn_period(c, cl, now);
    count(&cl->connections);
    count(&cl->open);
    if (!c->limits.connections && !c->limits.connection_rate)
        return CLIENT_OK;
    /* of two processes that count at the same time, at least one sees both */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    struct sum sum = sum_of(c, cl, now);
    if (!is_within(sum.connections, c->limits.connection_rate))
        return CLIENT_TOO_FAST;
    return is_within(sum.open, c->limits.connections) ? CLIENT_OK : CLIENT_TOO_MANY;
}

uint64_t clients_count(const struct clients *c, const struct client_count *cl,
                       enum client_verdict verdict, int64_t now)
{
    struct sum sum = sum_of(c, cl, now);
    return verdict == CLIENT_TOO_MANY ? sum.open : sum.connections;
}

void clients_disconnect(struct clients *c, struct client_count *cl)
{
    if (!cl)
        return;
    uint32_t open = cl->open;
    if (open) /* it is in memory that others may have written to */
        __atomic_store_n(&cl->open, open - 1, __ATOMIC_RELAXED);
    /* without a rate there is nothing to remember about who is gone */
    const struct client_limits *l = &c->limits;
    if (open > 1 || l->connection_rate || l->message_rate || l->recipient_rate)
        return;
    unsigned place;
    size_t way;
    locate(c, cl, &place, &way);
    set_key(&c->table.own->sets[place], way, 0);
}

bool clients_message(const struct clients *c, struct client_count *cl, int64_t now)
{
    if (!cl || !c->limits.message_rate)
        return true;
    turn_period(c, cl, now);
    count(&cl->messages);
    return is_within(sum_of(c, cl, now).messages, c->limits.message_rate);
}

bool clients_recipient(const struct clients *c, struct client_count *cl, int64_t now)
{
    if (!cl || !c->limits.recipient_rate)
        return true;
    turn_period(c, cl, now);
    count(&cl->recipients);
    return is_within(sum_of(c, cl, now).recipients, c->limits.recipient_rate);
}
