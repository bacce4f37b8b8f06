#include "quota/prepare.h"

#include <openssl/crypto.h>
#include <stringprep.h>
#include <uninorm.h>
#include <unistr.h>

static bool is_ascii(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] > 127)
            return false;
    return true;
}

/* SASLprep of UTF-8 without NUL, in a buffer of `size` bytes; -1 if it refuses. Code
 * points that are newer than Unicode 3.2 pass, as RFC 3454 section 7 has it for
 * queries: a password with a new sign is to work the same when it is set and when
 * it is asked for. The library keeps copies while it works and does not wipe them. */
static long saslprep(struct slice in, char *buffer, size_t size)
{
    if (in.len >= size || memchr(in.ptr, '\0', in.len) || u8_check((const uint8_t *)in.ptr, in.len))
        return -1;
    memcpy(buffer, in.ptr, in.len);
    buffer[in.len] = '\0';
    if (stringprep(buffer, size, 0, stringprep_saslprep) != STRINGPREP_OK)
        return -1;
    return (long)strlen(buffer);
}

size_t prepare_password(struct slice in, char out[static PASSWORD_MAX])
{
    char text[PASSWORD_MAX + 1];
    long len = is_ascii(in) ? -1 : saslprep(in, text, sizeof text);
    if (len > 0)
        memcpy(out, text, (size_t)len);
    else if (in.len)
        memcpy(out, in.ptr, in.len);
    OPENSSL_cleanse(text, sizeof text);
    return len > 0 ? (size_t)len : in.len;
}

/* Takes the form in f->text[f->count], if there is none like it. */
static void keep(struct password_forms *f, size_t len)
{
    for (unsigned i = 0; i < f->count; i++)
        if (f->len[i] == len && memcmp(f->text[i], f->text[f->count], len) == 0)
            return;
    f->len[f->count++] = len;
}

static void keep_normalized(struct password_forms *f, uninorm_t form, struct slice in)
{
    uint8_t *room = (uint8_t *)f->text[f->count];
    size_t len = PASSWORD_MAX;
    uint8_t *made = u8_normalize(form, (const uint8_t *)in.ptr, in.len, room, &len);
    if (made == room)
        keep(f, len);
    else if (made) { /* it did not fit: no hash is of that */
        OPENSSL_cleanse(made, len);
        free(made);
    }
}

void password_forms(struct slice in, struct password_forms *out)
{
    out->count = 0;
    keep(out, prepare_password(in, out->text[0]));
    if (is_ascii(in))
        return;
    memcpy(out->text[out->count], in.ptr, in.len);
    keep(out, in.len);
    if (u8_check((const uint8_t *)in.ptr, in.len))
        return;
    keep_normalized(out, UNINORM_NFC, in);
    keep_normalized(out, UNINORM_NFD, in);
}

void password_forms_wipe(struct password_forms *f)
{
    OPENSSL_cleanse(f, sizeof *f);
}

int prepare_login(struct slice in, char out[static LOGIN_MAX + 1])
{
    char text[4 * LOGIN_MAX];
    if (is_ascii(in))
        return name_login(in, out);
    long len = saslprep(in, text, sizeof text);
    return len < 0 ? -1 : name_login(slice_make(text, (size_t)len), out);
}
