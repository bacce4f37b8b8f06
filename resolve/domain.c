#include "resolve/domain.h"

#include <idn2.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Underscores do not belong into host names, but working domains have them. */
static bool is_name_byte(char c)
{
    char lower = (char)(c | 0x20);
    return (lower >= 'a' && lower <= 'z') || is_digit(c) || c == '-' || c == '_';
}

static int check(struct slice s)
{
    size_t label = 0;
    bool numeric = true; /* the label under way */
    if (s.len == 0 || s.len > DNS_NAME_MAX)
        return -1;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '.') {
            if (label == 0)
                return -1;
            label = 0;
            numeric = true;
            continue;
        }
        if (!is_name_byte(s.ptr[i]) || ++label > DNS_LABEL_MAX)
            return -1;
        numeric = numeric && is_digit(s.ptr[i]);
    }
    /* "1.2.3.4" is an address that lacks its brackets, never a domain. */
    return label == 0 || numeric ? -1 : 0;
}

static int take(struct slice s, struct domain *out)
{
    if (s.len && s.ptr[s.len - 1] == '.')
        s.len--;
    if (check(s) < 0)
        return -1;
    for (size_t i = 0; i < s.len; i++)
        out->text[i] = (char)(s.ptr[i] >= 'A' && s.ptr[i] <= 'Z' ? s.ptr[i] | 0x20 : s.ptr[i]);
    out->text[s.len] = '\0';
    return 0;
}

int domain_parse(struct slice s, struct domain *out)
{
    bool ascii = true;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '\0')
            return -1;
        if ((unsigned char)s.ptr[i] >= 0x80)
            ascii = false;
    }
    if (ascii)
        return take(s, out);
    char name[4 * DNS_NAME_MAX + 1];
    uint8_t *converted = NULL;
    if (s.len >= sizeof name)
        return -1;
    memcpy(name, s.ptr, s.len);
    name[s.len] = '\0';
    int rc = -1;
    if (idn2_lookup_u8((const uint8_t *)name, &converted, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) ==
        IDN2_OK)
        rc = take(slice_str((const char *)converted), out);
    idn2_free(converted);
    return rc;
}
