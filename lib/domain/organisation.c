#include "domain/organisation.h"

#include <idn2.h>
#include <libpsl.h>

/* Without final dots. False: it is no name that could have an A-label form, or another one. */
static bool copy_lower(struct slice s, char out[static DOMAIN_NAME_MAX + 1], size_t *len)
{
    bool ascii = true;
    s = slice_first(s, DOMAIN_NAME_MAX);
    while (s.len && s.ptr[s.len - 1] == '.')
        s.len--;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        ascii = ascii && c > 0;
        out[i] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    out[s.len] = '\0';
    *len = s.len;
    return ascii;
}

static bool is_host_name(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
                    (c == '.' && i > 0 && s.ptr[i - 1] != '.');
        if (!good)
            return false;
    }
    return s.len > 0;
}

/* U-labels to A-labels, in its place; false: there is no such form. */
static bool to_ascii(char name[static DOMAIN_NAME_MAX + 1], size_t *len)
{
    uint8_t *converted = NULL;
    bool good =
        strlen(name) == *len && idn2_lookup_u8((const uint8_t *)name, &converted,
                                               IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) == IDN2_OK;
    struct slice s = slice_str(good ? (const char *)converted : "");
    /* other dots and letters of full width have become ASCII */
    good = good && s.len <= DOMAIN_NAME_MAX && is_host_name(s);
    if (good)
        (void)copy_lower(s, name, len);
    idn2_free(converted);
    return good;
}

struct slice domain_spelled(struct slice domain, char out[static DOMAIN_NAME_MAX + 1])
{
    size_t len;
    if (!copy_lower(domain, out, &len))
        (void)to_ascii(out, &len);
    return slice_make(out, len);
}

/* For a libpsl that was built without the list. */
static struct slice last_two_labels(struct slice name)
{
    size_t dot = slice_rchr(name, '.'), before;
    if (dot == name.len)
        return name;
    before = slice_rchr(slice_first(name, dot), '.');
    return before < dot ? slice_from(name, before + 1) : name;
}

struct slice domain_organisation(struct slice domain, char out[static DOMAIN_NAME_MAX + 1])
{
    const psl_ctx_t *list = psl_builtin();
    struct slice name = domain_spelled(domain, out);
    if (!is_host_name(name))
        return name;
    if (!list)
        return last_two_labels(name);
    const char *of = psl_registrable_domain(list, out);
    return of ? slice_str(of) : name;
}
