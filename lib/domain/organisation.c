#include "domain/organisation.h"

#include <idn2.h>
#include <libpsl.h>

/* Without final dots. False: there are bytes in it that are not ASCII. */
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

/* The bytes of a dot at the end of s, the ideographic ones included (RFC 3490, 3.1); 0: there is
 * none. */
static size_t dot_at_end(struct slice s)
{
    static const struct slice dots[] = {
        {".", 1}, {"\343\200\202", 3}, {"\357\274\216", 3}, {"\357\275\241", 3}};
    for (size_t i = 0; i < sizeof dots / sizeof dots[0]; i++)
        if (slice_ends(s, dots[i]))
            return dots[i].len;
    return 0;
}

/* A label as an A-label, before what there is of the name; one that has no such form as it is.
 * False: there is no room. */
static bool put_before(struct slice label, char text[static DOMAIN_NAME_MAX + 1], size_t *start)
{
    char u[DOMAIN_NAME_MAX + 1];
    uint8_t *converted = NULL;
    memcpy(u, label.ptr, label.len);
    u[label.len] = '\0';
    bool good =
        strlen(u) == label.len && idn2_lookup_u8((const uint8_t *)u, &converted,
                                                 IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) == IDN2_OK;
    struct slice a = slice_str(good ? (const char *)converted : "");
    /* letters of full width have become ASCII */
    if (is_host_name(a))
        label = a;
    bool fits = label.len <= *start;
    if (fits && label.len)
        memcpy(text + (*start -= label.len), label.ptr, label.len);
    idn2_free(converted);
    return fits;
}

/* U-labels to A-labels, each for itself: one that has no such form hides none of the others. From
 * the right, where the owner's name is: of a name that becomes too long the rest is left out. */
static size_t to_ascii(struct slice name, char out[static DOMAIN_NAME_MAX + 1])
{
    char text[DOMAIN_NAME_MAX + 1];
    size_t start = DOMAIN_NAME_MAX, from, dot;
    while ((dot = dot_at_end(name)))
        name = slice_first(name, name.len - dot);
    while (name.len) {
        from = name.len;
        dot = dot_at_end(name);
        while (from && !dot)
            dot = dot_at_end(slice_first(name, --from));
        if (!put_before(slice_from(name, from), text, &start)) {
            start += start < DOMAIN_NAME_MAX && text[start] == '.';
            break;
        }
        name = slice_first(name, from - dot);
        if (dot && start)
            text[--start] = '.';
    }
    size_t len = DOMAIN_NAME_MAX - start;
    memcpy(out, text + start, len);
    out[len] = '\0';
    return len;
}

struct slice domain_spelled(struct slice domain, char out[static DOMAIN_NAME_MAX + 1])
{
    char name[DOMAIN_NAME_MAX + 1];
    size_t len;
    if (copy_lower(domain, out, &len))
        return slice_make(out, len);
    memcpy(name, out, len);
    return slice_make(out, to_ascii(slice_make(name, len), out));
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
    struct slice spelled = domain_spelled(domain, out), name = spelled;
    while (name.len && !is_host_name(name))
        name = slice_from(name, slice_chr(name, '.') + 1);
    if (name.len == 0)
        return spelled.len ? SLICE(DOMAIN_NO_NAME) : spelled;
    if (!list)
        return last_two_labels(name);
    const char *of = psl_registrable_domain(list, name.ptr);
    return of ? slice_str(of) : name;
}
