/* Names of hosts and domains in providers.conf. One that no destination can have is a mistake:
 * what is said under it would never hold. */
#include <stdlib.h>

#include "core/mem.h"
#include "rules/read.h"

enum { NAME_MAX_LEN = 255 };

/* What is wrong with a name; NULL: nothing. */
static const char *trouble(struct slice name, bool suffix)
{
    if (name.len == 0)
        return "is empty: nothing is called so";
    if (name.len > NAME_MAX_LEN)
        return "is longer than names can be";
    if (slice_chr(name, '*') < name.len)
        return "'*' has no meaning here: in mx, \".example.com\" stands for all hosts below "
               "example.com";
    if (name.ptr[0] == '.' && !suffix)
        return "begins with a dot: only in mx \".example.com\" stands for all hosts below it";
    for (size_t i = 0; i < name.len; i++)
        if ((unsigned char)name.ptr[i] <= ' ' || name.ptr[i] == 0x7f || name.ptr[i] == ',')
            return "holds a character that no name has";
    for (size_t i = 1; i < name.len; i++)
        if (name.ptr[i] == '.' && name.ptr[i - 1] == '.')
            return "has two dots in a row";
    return NULL;
}

char *rules_name(const char *text, bool suffix, const char **why)
{
    struct slice name = slice_str(text);
    if (name.len > 1 && name.ptr[name.len - 1] == '.') /* of the root, as DNS tools print it */
        name.len--;
    *why = trouble(name, suffix);
    if (!*why && slice_eq(name, SLICE(".")))
        *why = "is no name";
    if (*why)
        return NULL;
    char *copy = slice_dup(name), *out = rules_lower(copy);
    free(copy);
    return out;
}

int rules_take_names(cfg_t *s, const char *setting, bool suffix, char ***out, struct err *e)
{
    unsigned n = cfg_size(s, setting);
    *out = xcalloc(n + 1UL, sizeof **out);
    for (unsigned i = 0; i < n; i++) {
        const char *why, *text = cfg_getnstr(s, setting, i);
        (*out)[i] = rules_name(text, suffix, &why);
        if (!(*out)[i])
            return rules_bad_value(s, setting, text, why, e);
    }
    return 0;
}
