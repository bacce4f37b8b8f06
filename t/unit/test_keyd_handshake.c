/* libraries: keyd_parts postern_core */
/* What keyd takes for a server's part of a TLS handshake: these forms and no byte
 * more or less. */
#include "core/mem.h"
#include "keyd/handshake.h"
#include "unit.h"

enum { ECDSA = 0x0403, PSS = 0x0804, PKCS1 = 0x0401 };

static struct slice tls13(char *out, const char *words, size_t hash)
{
    size_t len = strlen(words) + 1;
    memset(out, ' ', 64);
    memcpy(out + 64, words, len);
    memset(out + 64 + len, 'h', hash);
    return slice_make(out, 64 + len + hash);
}

static struct slice tls12(char *out, unsigned char type, unsigned curve, unsigned char len,
                          size_t point)
{
    memset(out, 'r', 64);
    out[64] = (char)type;
    out[65] = (char)(curve >> 8);
    out[66] = (char)(curve & 255);
    out[67] = (char)len;
    memset(out + 68, 4, point);
    return slice_make(out, 68 + point);
}

static void test_tls13(void **state)
{
    static const char server[] = "TLS 1.3, server CertificateVerify";
    char b[512];
    (void)state;
    assert_true(handshake_is_servers(ECDSA, tls13(b, server, 32)));
    assert_true(handshake_is_servers(PSS, tls13(b, server, 48)));
    assert_false(handshake_is_servers(PKCS1, tls13(b, server, 32)));
    assert_false(handshake_is_servers(0x0203, tls13(b, server, 32)));
    for (size_t hash = 0; hash < 80; hash++)
        assert_int_equal(handshake_is_servers(ECDSA, tls13(b, server, hash)),
                         hash == 32 || hash == 48);
    assert_false(handshake_is_servers(ECDSA, tls13(b, "TLS 1.3, client CertificateVerify", 32)));
    struct slice s = tls13(b, server, 32);
    for (size_t i = 0; i < 64 + sizeof server; i++) {
        b[i] ^= 1;
        assert_false(handshake_is_servers(ECDSA, s));
        b[i] ^= 1;
    }
}

static void test_tls12(void **state)
{
    static const struct {
        unsigned curve;
        unsigned char point;
    } curves[] = {{23, 65}, {24, 97}, {25, 133}, {29, 32}, {30, 56}};
    char b[512];
    (void)state;
    for (size_t i = 0; i < 5; i++) {
        unsigned char n = curves[i].point;
        assert_true(handshake_is_servers(ECDSA, tls12(b, 3, curves[i].curve, n, n)));
        assert_true(handshake_is_servers(PKCS1, tls12(b, 3, curves[i].curve, n, n)));
        assert_false(handshake_is_servers(ECDSA, tls12(b, 3, curves[i].curve, n, n + 1u)));
        assert_false(handshake_is_servers(ECDSA, tls12(b, 3, curves[i].curve, n, n - 1u)));
        assert_false(handshake_is_servers(ECDSA, tls12(b, 1, curves[i].curve, n, n)));
        assert_false(handshake_is_servers(ECDSA, tls12(b, 3, curves[i].curve + 100, n, n)));
    }
    assert_false(handshake_is_servers(ECDSA, tls12(b, 3, 23, 32, 32)));
    for (size_t len = 0; len < 68; len++)
        assert_false(handshake_is_servers(ECDSA, slice_make(b, len)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tls13), cmocka_unit_test(test_tls12)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
