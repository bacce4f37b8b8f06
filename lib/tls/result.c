#include "tls/result.h"

const char *tls_result_name(enum tls_result result)
{
    static const char *const names[TLS_RESULTS] = {
        [TLS_RESULT_SUCCESS] = "",
        [TLS_RESULT_NOT_SUPPORTED] = "starttls-not-supported",
        [TLS_RESULT_HOST_MISMATCH] = "certificate-host-mismatch",
        [TLS_RESULT_EXPIRED] = "certificate-expired",
        [TLS_RESULT_NOT_TRUSTED] = "certificate-not-trusted",
        [TLS_RESULT_VALIDATION] = "validation-failure",
    };
    return result < TLS_RESULTS ? names[result] : "validation-failure";
}
