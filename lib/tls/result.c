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
        [TLS_RESULT_TLSA] = "tlsa-invalid",
        [TLS_RESULT_DNSSEC] = "dnssec-invalid",
        [TLS_RESULT_DANE_REQUIRED] = "dane-required",
        [TLS_RESULT_POLICY_FETCH] = "sts-policy-fetch-error",
        [TLS_RESULT_POLICY_INVALID] = "sts-policy-invalid",
        [TLS_RESULT_POLICY_WEBPKI] = "sts-webpki-invalid",
    };
    return result < TLS_RESULTS ? names[result] : "validation-failure";
}
