#include "token/token.h"

#include <openssl/crypto.h>

#include "core/id.h"
#include "token/mac.h"

enum {
    HEAD = TOKEN_BYTES - TOKEN_MAC,
    /* the head, recipients, size, and three texts with their lengths */
    TEXT_MAX = HEAD + 4 + 8 + 3 * 2 + ID_MAX + TOKEN_OWNER_MAX + TOKEN_SENDER_MAX
};

static size_t put_number(char *out, size_t at, uint64_t n, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++, n >>= 8)
        out[at + i] = (char)(n & 0xff);
    return at + bytes;
}

static uint64_t number_at(struct slice s, size_t at, size_t bytes)
{
    uint64_t n = 0;
    for (size_t i = bytes; i > 0; i--)
        n = n << 8 | (unsigned char)s.ptr[at + i - 1];
    return n;
}

/* With its length, so that no two claims give the same bytes. */
static size_t put_text(char *out, size_t at, struct slice s)
{
    at = put_number(out, at, s.len, 2);
    if (s.len)
        memcpy(out + at, s.ptr, s.len);
    return at + s.len;
}

static int seal(const unsigned char key[static TOKEN_KEY], const struct token_claim *c,
                struct slice head, unsigned char mac[static MAC_BYTES])
{
    char text[TEXT_MAX];
    if (c->id.len > ID_MAX || c->owner.len > TOKEN_OWNER_MAX || c->sender.len > TOKEN_SENDER_MAX)
        return -1;
    memcpy(text, head.ptr, HEAD);
    size_t at = put_number(text, HEAD, c->recipients, 4);
    at = put_number(text, at, c->size, 8);
    at = put_text(text, at, c->id);
    at = put_text(text, at, c->owner);
    at = put_text(text, at, c->sender);
    mac_sha256(key, slice_make(text, at), mac);
    return 0;
}

int token_make(const unsigned char key[static TOKEN_KEY], const struct token_claim *claim,
               const struct token *t, char out[static TOKEN_BYTES])
{
    unsigned char mac[MAC_BYTES];
    size_t at = put_number(out, 0, t->hold, 1);
    at = put_number(out, at, t->at, 4);
    put_number(out, at, t->serial, 8);
    if (seal(key, claim, slice_make(out, HEAD), mac) < 0)
        return -1;
    memcpy(out + HEAD, mac, TOKEN_MAC);
    return 0;
}

int token_read(const unsigned char key[static TOKEN_KEY], const struct token_claim *claim,
               struct slice text, struct token *t)
{
    unsigned char mac[MAC_BYTES];
    if (text.len != TOKEN_BYTES || seal(key, claim, text, mac) < 0 ||
        CRYPTO_memcmp(mac, text.ptr + HEAD, TOKEN_MAC) != 0)
        return -1;
    *t = (struct token){.hold = (uint8_t)text.ptr[0],
                        .at = (uint32_t)number_at(text, 1, 4),
                        .serial = number_at(text, 5, 8)};
    return 0;
}
