/* Who has a share of its own of a destination. */
#include "domain/organisation.h"
#include "qmgr/qmgr.h"

/* Domains that were looked at lately, as they were written, and whose they are: a look at the list
 * of public suffixes takes microseconds, and a message is asked about several times. */
enum { MEMOS = 1024, MEMO_BYTES = 126 };
struct memo {
    uint8_t len, of_len;
    char text[MEMO_BYTES]; /* the domain, then whose it is */
};

static struct slice organisation(struct slice domain, char out[static DOMAIN_NAME_MAX + 1])
{
    static struct memo memos[MEMOS];
    struct memo *m = &memos[map_hash(domain) % MEMOS];
    if (domain.len && slice_eq(slice_make(m->text, m->len), domain))
        return slice_make(m->text + m->len, m->of_len);
    struct slice of = domain_organisation(domain, out);
    if (domain.len == 0 || domain.len + of.len > MEMO_BYTES)
        return of;
    *m = (struct memo){.len = (uint8_t)domain.len, .of_len = (uint8_t)of.len};
    memcpy(m->text, domain.ptr, domain.len);
    if (of.len)
        memcpy(m->text + domain.len, of.ptr, of.len);
    return of;
}

struct slice dispatch_sharer_of(struct slice domain, char buffer[static ACCOUNT_MAX + 1])
{
    char name[DOMAIN_NAME_MAX + 1];
    _Static_assert((int)ACCOUNT_MAX >= (int)DOMAIN_NAME_MAX, "a domain's name finds room");
    struct slice of = organisation(domain, name);
    buffer[0] = '@'; /* no account's name begins so */
    if (of.len)
        memcpy(buffer + 1, of.ptr, of.len);
    return slice_make(buffer, 1 + of.len);
}

struct slice dispatch_sharer(const struct message *m, char buffer[static ACCOUNT_MAX + 1])
{
    struct slice account = message_account(m), sender = message_sender(m);
    if (account.len)
        return account;
    return dispatch_sharer_of(slice_from(sender, slice_rchr(sender, '@') + 1), buffer);
}
