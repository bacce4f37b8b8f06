/* libraries: postern_token */
/* Any token for any claim: none is taken but one that was made with the key for just this claim.
 *
 * Input: length of the token, of the ID, the owner; these; recipients and size (12 bytes); the
 * rest is the sender. */
#include <stdlib.h>

#include "token/token.h"

static struct slice take(struct slice *rest, size_t len)
{
    struct slice part = slice_first(*rest, len);
    *rest = slice_from(*rest, len);
    return part;
}

static uint64_t number(struct slice s)
{
    uint64_t n = 0;
    for (size_t i = 0; i < s.len; i++)
        n = n << 8 | (unsigned char)s.ptr[i];
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned char key[TOKEN_KEY] = "a key that no input can know....";
    struct slice rest = slice_make(data, size);
    struct slice lengths = take(&rest, 3);
    struct token t;
    char made[TOKEN_BYTES];
    if (lengths.len < 3)
        return 0;
    struct slice text = take(&rest, (unsigned char)lengths.ptr[0]);
    struct token_claim c = {.id = take(&rest, (unsigned char)lengths.ptr[1]),
                            .owner = take(&rest, (unsigned char)lengths.ptr[2])};
    c.recipients = (uint32_t)number(take(&rest, 4));
    c.size = number(take(&rest, 8));
    c.sender = rest;
    if (token_read(key, &c, text, &t) == 0)
        abort();
    const struct token proper = {.hold = (uint8_t)size, .at = c.recipients, .serial = c.size};
    if (token_make(key, &c, &proper, made) < 0)
        return 0;
    if (token_read(key, &c, slice_make(made, sizeof made), &t) < 0 || t.hold != proper.hold ||
        t.at != proper.at || t.serial != proper.serial)
        abort();
    c.recipients++;
    if (token_read(key, &c, slice_make(made, sizeof made), &t) == 0)
        abort();
    return 0;
}
