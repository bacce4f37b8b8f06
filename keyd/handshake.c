#include "keyd/handshake.h"

enum {
    PKCS1_SHA256 = 0x0401,
    PKCS1_SHA384 = 0x0501,
    PKCS1_SHA512 = 0x0601,
    ECDSA_SHA256 = 0x0403,
    ECDSA_SHA384 = 0x0503,
    ECDSA_SHA512 = 0x0603,
    PSS_SHA256 = 0x0804,
    PSS_SHA384 = 0x0805,
    PSS_SHA512 = 0x0806
};

bool handshake_scheme(uint16_t number, struct handshake_scheme *out)
{
    static const struct {
        uint16_t number;
        struct handshake_scheme scheme;
    } all[] = {
        {ECDSA_SHA256, {"SHA256", false, false}}, {PSS_SHA256, {"SHA256", true, true}},
        {ECDSA_SHA384, {"SHA384", false, false}}, {PSS_SHA384, {"SHA384", true, true}},
        {ECDSA_SHA512, {"SHA512", false, false}}, {PSS_SHA512, {"SHA512", true, true}},
        {PKCS1_SHA256, {"SHA256", true, false}},  {PKCS1_SHA384, {"SHA384", true, false}},
        {PKCS1_SHA512, {"SHA512", true, false}},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i].number == number) {
            *out = all[i].scheme;
            return true;
        }
    return false;
}

/* 64 blanks, the words, a zero byte, the hash of the handshake so far. */
static bool is_tls13(struct slice content)
{
    enum { BLANKS = 64, SHA256_LEN = 32, SHA384_LEN = 48 };
    static const char words[] = "TLS 1.3, server CertificateVerify"; /* with its zero byte */
    size_t before = BLANKS + sizeof words;
    if (content.len != before + SHA256_LEN && content.len != before + SHA384_LEN)
        return false;
    for (size_t i = 0; i < BLANKS; i++)
        if (content.ptr[i] != ' ')
            return false;
    return memcmp(content.ptr + BLANKS, words, sizeof words) == 0;
}

/* Both sides' random bytes, then the server's half of the key exchange: a named
 * curve and a point on it. */
static bool is_tls12(struct slice content)
{
    enum { RANDOMS = 64, HEAD = 4, NAMED_CURVE = 3 };
    static const struct {
        unsigned curve, point;
    } curves[] = {{23, 65}, {24, 97}, {25, 133}, {29, 32}, {30, 56}};
    if (content.len < RANDOMS + HEAD)
        return false;
    const unsigned char *p = (const unsigned char *)content.ptr + RANDOMS;
    unsigned curve = p[1] * 256u + p[2];
    if (p[0] != NAMED_CURVE || p[3] != content.len - RANDOMS - HEAD)
        return false;
    for (size_t i = 0; i < sizeof curves / sizeof curves[0]; i++)
        if (curves[i].curve == curve)
            return p[3] == curves[i].point;
    return false;
}

bool handshake_is_servers(uint16_t scheme, struct slice content)
{
    struct handshake_scheme s;
    if (!handshake_scheme(scheme, &s))
        return false;
    bool old = s.rsa && !s.pss; /* not in TLS 1.3 */
    return is_tls12(content) || (!old && is_tls13(content));
}
