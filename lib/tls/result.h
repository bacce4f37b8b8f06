/* What a session with a server came to, in the words of TLSRPT (RFC 8460 section
 * 4.3). */
#ifndef POSTERN_TLS_RESULT_H
#define POSTERN_TLS_RESULT_H

enum tls_result {
    TLS_RESULT_SUCCESS,
    TLS_RESULT_NOT_SUPPORTED,
    TLS_RESULT_HOST_MISMATCH,
    TLS_RESULT_EXPIRED,
    TLS_RESULT_NOT_TRUSTED,
    TLS_RESULT_VALIDATION,     /* everything else about certificates and handshakes */
    TLS_RESULT_TLSA,           /* TLSA records, and none that can be used */
    TLS_RESULT_DNSSEC,         /* the lookup of TLSA records failed, by a forged answer too */
    TLS_RESULT_DANE_REQUIRED,  /* we insist on TLSA records, and there are none */
    TLS_RESULT_POLICY_FETCH,   /* the MTA-STS policy could not be had, */
    TLS_RESULT_POLICY_INVALID, /* or is none, */
    TLS_RESULT_POLICY_WEBPKI,  /* or its server's certificate does not verify */
    TLS_RESULTS
};

/* "starttls-not-supported" and so on; "" for success. */
const char *tls_result_name(enum tls_result result);

#endif
