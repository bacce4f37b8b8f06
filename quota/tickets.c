/*
 * Tickets: an account and a user under a MAC whose key only this process has. They
 * stand for a login in all that smtpd asks later.
 *
 * With the names goes the epoch: a number that comes of when the user and the accounts
 * above it were last changed in a way that ends their sessions (a new password, a
 * suspension, deletion). A ticket of another epoch is of a login that is over.
 */
#include <openssl/crypto.h>

#include "quota/login.h"
#include "token/mac.h"

enum {
    DIGEST = 32,
    MAC_LEN = 16,
    TICKET_VERSION = 2,
    TICKET_SPARE = 600 /* seconds beyond the longest session */
};

static int64_t ticket_seconds(const struct quota *q)
{
    return q->s->config->smtpd_session_time_limit + TICKET_SPARE;
}

static uint64_t mix(uint64_t epoch, int64_t more)
{
    return (epoch ^ (uint64_t)more) * UINT64_C(0x100000001b3);
}

uint64_t ticket_epoch(struct quota *q, struct account *a, const struct user *u)
{
    struct account *chain[CHARGE_LEVELS_MAX];
    unsigned n = account_chain(q, a, chain);
    uint64_t epoch = mix(n, u ? u->epoch : 0);
    for (unsigned i = 0; i < n; i++)
        epoch = mix(epoch, chain[i]->epoch);
    return epoch;
}

void ticket_make(const struct quota *q, const struct ticket *t, struct buf *out)
{
    unsigned char mac[DIGEST];
    int64_t now = quota_now();
    buf_addc(out, TICKET_VERSION);
    buf_add(out, &now, sizeof now);
    buf_add(out, &t->epoch, sizeof t->epoch);
    buf_addc(out, (char)strlen(t->account));
    buf_addstr(out, t->account);
    buf_addstr(out, t->user);
    mac_sha256(q->ticket_key, buf_slice(out), mac);
    buf_add(out, mac, MAC_LEN);
}

int ticket_read(struct quota *q, struct slice ticket, struct ticket *t)
{
    unsigned char mac[DIGEST];
    int64_t issued;
    enum { HEAD = 1 + sizeof issued + sizeof t->epoch + 1 };
    if (ticket.len < HEAD + MAC_LEN || ticket.len > TICKET_MAX)
        return -1;
    struct slice text = slice_first(ticket, ticket.len - MAC_LEN);
    mac_sha256(q->ticket_key, text, mac);
    if (CRYPTO_memcmp(mac, ticket.ptr + text.len, MAC_LEN) != 0 || text.ptr[0] != TICKET_VERSION)
        return -1;
    memcpy(&issued, text.ptr + 1, sizeof issued);
    memcpy(&t->epoch, text.ptr + 1 + sizeof issued, sizeof t->epoch);
    size_t len = (unsigned char)text.ptr[HEAD - 1];
    text = slice_from(text, HEAD);
    if (len > ACCOUNT_NAME_MAX || len > text.len || text.len - len > LOGIN_MAX ||
        quota_now() - issued > ticket_seconds(q))
        return -1;
    memcpy(t->account, text.ptr, len);
    t->account[len] = '\0';
    memcpy(t->user, text.ptr + len, text.len - len);
    t->user[text.len - len] = '\0';
    return 0;
}
