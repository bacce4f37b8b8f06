#include "quota/failures.h"

#include "core/clock.h"
#include "core/mem.h"

enum { KEY_MAX = 200, SHARES = 4 };

/* What one smtpd process has reported of a counter. */
struct share {
    unsigned smtpd;
    float count;
};

/* Falls steadily: as if one failure were forgotten every `time / limit`. */
struct counter {
    struct list link;
    double count;
    int64_t at;                  /* monotonic: when count held */
    struct share shares[SHARES]; /* of it: who reported most */
    float rest;                  /* others' */
    uint8_t key_len;
    char key[KEY_MAX];
};

static struct slice counter_key(const void *value)
{
    const struct counter *c = value;
    return slice_make(c->key, c->key_len);
}

/* 'a' and an address, 'n' and a network, 'u' and a user, 's' and a user by SCRAM. */
static struct slice make_key(char out[KEY_MAX], char kind, struct slice what)
{
    out[0] = kind;
    what = slice_first(what, KEY_MAX - 1);
    if (what.len)
        memcpy(out + 1, what.ptr, what.len);
    return slice_make(out, what.len + 1);
}

static struct slice network_of(struct slice client)
{
    return slice_first(client, client.len == 4 ? 3 : 6); /* /24, /48 */
}

/* An IPv6 host has a /64 to itself. */
static struct slice address_of(struct slice client)
{
    return slice_first(client, client.len == 4 ? 4 : 8);
}

/* 'k', the address, and the user: that they belong together was shown. */
static struct slice known_key(char out[KEY_MAX], struct slice client, struct slice user)
{
    struct slice address = address_of(client), k = make_key(out, 'k', address);
    user = slice_first(user, KEY_MAX - k.len);
    if (user.len)
        memcpy(out + k.len, user.ptr, user.len);
    return slice_make(out, k.len + user.len);
}

void failures_init(struct failures *f)
{
    map_init(&f->counters, counter_key);
    list_init(&f->lru);
}

void failures_free(struct failures *f)
{
    struct list *n;
    while ((n = list_pop(&f->lru)))
        free(container_of(n, struct counter, link));
    map_free(&f->counters);
}

static double current(const struct counter *c, int64_t limit, int64_t seconds, int64_t now)
{
    double gone = (double)(now - c->at) / CLOCK_SECOND * (double)limit / (double)seconds;
    return c->count > gone ? c->count - gone : 0;
}

static double at_most(double n, int64_t limit)
{
    return n < (double)limit ? n : (double)limit;
}

/* What counts for the clients of one smtpd: all that it has seen itself, and of what each other
 * one says half the limit at most, so that none alone locks out the clients of the others. */
static double seen_by(const struct counter *c, unsigned smtpd, int64_t limit, int64_t seconds,
                      int64_t now)
{
    double left = c->count > 0 ? current(c, limit, seconds, now) / c->count : 0;
    double sum = (double)c->rest * left;
    for (int i = 0; i < SHARES; i++) {
        double n = (double)c->shares[i].count * left;
        sum += c->shares[i].smtpd == smtpd ? n : at_most(n, limit / 2);
    }
    return sum;
}

static bool is_full(struct failures *f, unsigned smtpd, struct slice key, int64_t limit,
                    int64_t seconds, int64_t now)
{
    const struct counter *c = map_get(&f->counters, key);
    return c && seen_by(c, smtpd, limit, seconds, now) > (double)limit - 0.5;
}

static bool is_known(struct failures *f, struct slice client, struct slice user, int64_t now)
{
    char key[KEY_MAX];
    const struct counter *c = map_get(&f->counters, known_key(key, client, user));
    return c && now - c->at < FAILURES_KNOWN_SECONDS * CLOCK_SECOND;
}

bool failures_allow(struct failures *f, const struct config *c, unsigned smtpd, struct slice client,
                    struct slice user, enum failures_by by, int64_t now, const char **why)
{
    char key[KEY_MAX];
    int64_t limit = c->auth_failure_limit, seconds = c->auth_failure_time;
    *why = NULL;
    if (client.len &&
        is_full(f, smtpd, make_key(key, 'a', address_of(client)), limit, seconds, now))
        *why = "too many failed logins from this address";
    else if (client.len && is_full(f, smtpd, make_key(key, 'n', network_of(client)),
                                   c->auth_failure_network_limit, seconds, now))
        *why = "too many failed logins from this network";
    else if (user.len && !is_known(f, client, user, now) &&
             is_full(f, smtpd, make_key(key, 'u', user), limit, seconds, now))
        *why = "too many failed logins of this user";
    else if (user.len && by == BY_SCRAM && !is_known(f, client, user, now) &&
             is_full(f, smtpd, make_key(key, 's', user), limit, seconds, now))
        *why = "too many failed logins of this user by SCRAM";
    return !*why;
}

/* One more of this smtpd's; who reported least makes room. */
static void add_share(struct counter *c, unsigned smtpd, double left, int64_t limit)
{
    struct share *mine = NULL, *least = &c->shares[0];
    c->rest = (float)((double)c->rest * left);
    for (int i = 0; i < SHARES; i++) {
        struct share *s = &c->shares[i];
        s->count = (float)((double)s->count * left);
        if (s->smtpd == smtpd)
            mine = s;
        if (s->count < least->count)
            least = s;
    }
    if (!mine) {
        c->rest += (float)at_most((double)least->count, limit / 2);
        *least = (struct share){.smtpd = smtpd};
        mine = least;
    }
    mine->count += 1;
}

static double count_one(struct failures *f, unsigned smtpd, struct slice key, int64_t limit,
                        int64_t seconds, int64_t now)
{
    struct counter *c = map_get(&f->counters, key);
    if (!c && f->counters.count >= FAILURES_MAX) {
        c = container_of(f->lru.next, struct counter, link);
        map_remove(&f->counters, counter_key(c));
        list_remove(&c->link);
        free(c);
        c = NULL;
    }
    if (!c) {
        c = xcalloc(1, sizeof *c);
        memcpy(c->key, key.ptr, key.len);
        c->key_len = (uint8_t)key.len;
        list_init(&c->link);
        map_put(&f->counters, c);
    }
    double left = current(c, limit, seconds, now);
    add_share(c, smtpd, c->count > 0 ? left / c->count : 0, limit);
    c->count = left + 1;
    c->at = now;
    list_remove(&c->link);
    list_push(&f->lru, &c->link);
    return c->count;
}

uint32_t failures_add(struct failures *f, const struct config *c, unsigned smtpd,
                      struct slice client, struct slice user, enum failures_by by, int64_t now)
{
    char key[KEY_MAX], kind = by == BY_SCRAM ? 's' : 'u';
    int64_t limit = c->auth_failure_limit, seconds = c->auth_failure_time;
    double most =
        user.len ? count_one(f, smtpd, make_key(key, kind, user), limit, seconds, now) : 1;
    if (client.len) {
        double n = count_one(f, smtpd, make_key(key, 'a', address_of(client)), limit, seconds, now);
        most = n > most ? n : most;
        (void)count_one(f, smtpd, make_key(key, 'n', network_of(client)),
                        c->auth_failure_network_limit, seconds, now);
    }
    uint32_t delay = 250;
    for (double n = 1; n < most && delay < FAILURES_DELAY_MAX; n++)
        delay *= 2;
    return delay < FAILURES_DELAY_MAX ? delay : FAILURES_DELAY_MAX;
}

void failures_known(struct failures *f, struct slice client, struct slice user, int64_t now)
{
    char key[KEY_MAX];
    (void)count_one(f, 0, known_key(key, client, user), 1, FAILURES_KNOWN_SECONDS, now);
}
