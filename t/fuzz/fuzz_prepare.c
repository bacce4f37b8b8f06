/* libraries: quota_parts */
/* Passwords and names in any bytes: what is prepared stays in its bounds, preparing it
 * again changes nothing, and a password is always among its own forms. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "quota/prepare.h"

static bool is_form(const struct password_forms *f, struct slice s)
{
    for (unsigned i = 0; i < f->count; i++)
        if (f->len[i] == s.len && (s.len == 0 || memcmp(f->text[i], s.ptr, s.len) == 0))
            return true;
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char once[PASSWORD_MAX], login[LOGIN_MAX + 1], again[LOGIN_MAX + 1];
    static struct password_forms forms;
    struct slice in = slice_make(data, size);
    if (prepare_login(in, login) == 0 &&
        (prepare_login(slice_str(login), again) < 0 || strcmp(login, again) != 0))
        abort();
    if (size > PASSWORD_MAX)
        return 0;
    size_t len = prepare_password(in, once);
    if (len > PASSWORD_MAX || (size && !len))
        abort();
    password_forms(in, &forms);
    if (forms.count < 1 || forms.count > PASSWORD_FORMS || !is_form(&forms, in) ||
        !is_form(&forms, slice_make(once, len)))
        abort();
    return 0;
}
