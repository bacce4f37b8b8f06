/* What patterns see of a reply: its words, without the mail addresses that it echoes. */
#include <string.h>

#include "rules/rules.h"

/* Bytes of a quoted local part at the beginning with the @ after it ("a b"@, RFC 5321, 4.1.2);
 * 0: there is none. */
static size_t quoted_local_part(struct slice s)
{
    size_t end = s.len < RULES_LOCAL_PART_MAX ? s.len : RULES_LOCAL_PART_MAX;
    for (size_t i = 1; i + 1 < end; i++) {
        if (s.ptr[i] == '\\')
            i++;
        else if (s.ptr[i] == '"')
            return s.ptr[i + 1] == '@' ? i + 2 : 0;
    }
    return 0;
}

struct slice rules_subject(struct slice text, char out[static RULES_SUBJECT_MAX])
{
    size_t len = 0, i = 0;
    text = slice_first(text, RULES_REPLY_MAX);
    while (i < text.len && len < RULES_SUBJECT_MAX) {
        char c = text.ptr[i];
        size_t address = c == '@' ? 1 : c == '"' ? quoted_local_part(slice_from(text, i)) : 0;
        if (!address) {
            out[len++] = c;
            i++;
            continue;
        }
        while (len > 0 && !char_is_space(out[len - 1]))
            len--;
        out[len++] = '@';
        for (i += address; i < text.len && !char_is_space(text.ptr[i]);)
            i++;
    }
    return slice_make(out, len);
}
