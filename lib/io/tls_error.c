#include <openssl/err.h>

#include "core/mem.h"
#include "io/tls_private.h"

int tls_library_error(struct err *e, const char *context)
{
    unsigned long code = ERR_get_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    const char *text = reason ? reason : "OpenSSL says nothing about why";
    ERR_clear_error();
    if (context)
        return err_set(e, "%s: %s", context, text);
    return err_set(e, "%s", text);
}

const char *tls_error(const struct tls *t)
{
    return t->error ? t->error : "";
}

const char *tls_alert(const struct tls *t)
{
    return t->alert ? SSL_alert_desc_string_long(t->alert) : "";
}
