/* Tickets: an account and a user under a MAC whose key only this process has. They
 * stand for a login in all that smtpd asks later. */
#include <openssl/crypto.h>

#include "quota/login.h"
#include "quota/mac.h"

enum { DIGEST = 32, MAC_LEN = 16, TICKET_VERSION = 1, TICKET_SECONDS = 8 * 86400 };

static void ticket_mac(const struct quota *q, struct slice text, unsigned char out[DIGEST])
{
    mac_sha256(q->ticket_key, text, out);
}

void ticket_make(const struct quota *q, const char *account, const char *user, struct buf *out)
{
    unsigned char mac[DIGEST];
    int64_t now = quota_now();
    buf_addc(out, TICKET_VERSION);
    buf_add(out, &now, sizeof now);
    buf_addc(out, (char)strlen(account));
    buf_addstr(out, account);
    buf_addstr(out, user);
    ticket_mac(q, buf_slice(out), mac);
    buf_add(out, mac, MAC_LEN);
}

int ticket_read(struct quota *q, struct slice ticket, char account[static ACCOUNT_NAME_MAX + 1],
                char user[static LOGIN_MAX + 1])
{
    unsigned char mac[DIGEST];
    int64_t issued;
    enum { HEAD = 1 + sizeof issued + 1 };
    if (ticket.len < HEAD + MAC_LEN || ticket.len > TICKET_MAX)
        return -1;
    struct slice text = slice_first(ticket, ticket.len - MAC_LEN);
    ticket_mac(q, text, mac);
    if (CRYPTO_memcmp(mac, ticket.ptr + text.len, MAC_LEN) != 0 || text.ptr[0] != TICKET_VERSION)
        return -1;
    memcpy(&issued, text.ptr + 1, sizeof issued);
    size_t len = (unsigned char)text.ptr[HEAD - 1];
    text = slice_from(text, HEAD);
    if (len > ACCOUNT_NAME_MAX || len > text.len || text.len - len > LOGIN_MAX ||
        quota_now() - issued > TICKET_SECONDS)
        return -1;
    memcpy(account, text.ptr, len);
    account[len] = '\0';
    memcpy(user, text.ptr + len, text.len - len);
    user[text.len - len] = '\0';
    return 0;
}
