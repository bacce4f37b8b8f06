/* libraries: postern_io postern_core */
/* TLS without sockets: a client and a server, keys here and elsewhere. */
#include "tls_rig.h"

/* Sends all of `text` from one side and returns what arrives. */
static char *carry(struct tls *from, struct tls *to, struct slice text, size_t split)
{
    struct buf got = BUF_INIT(4 << 20);
    while (text.len || tls_output(from).len) {
        char plain[5000];
        size_t n;
        assert_int_equal(tls_encrypt(from, &text), TLS_OK);
        size_t step = split && split < tls_output(from).len ? split : tls_output(from).len;
        char *copy = slice_dup(slice_first(tls_output(from), step));
        struct slice in = slice_make(copy, step);
        tls_sent(from, step);
        enum tls_status status;
        do {
            status = tls_decrypt(to, &in, plain, sizeof plain, &n);
            buf_add(&got, plain, n);
        } while (status == TLS_OK);
        assert_int_equal(status, TLS_MORE);
        assert_int_equal(in.len, 0);
        free(copy);
    }
    char *result = slice_dup(buf_slice(&got));
    buf_free(&got);
    return result;
}

static void speaks(struct pair *p)
{
    char *text = carry(p->client, p->server, SLICE("EHLO x\r\n"), 0);
    assert_string_equal(text, "EHLO x\r\n");
    free(text);
    text = carry(p->server, p->client, SLICE("250 y\r\n"), 0);
    assert_string_equal(text, "250 y\r\n");
    free(text);
}

/* ---- tests ---------------------------------------------------------------------------- */

static void test_all_kinds_of_keys_here_and_elsewhere(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    const struct made *kinds[] = {&ec, &rsa};
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        const struct made *m = kinds[i & 1];
        bool elsewhere = (i & 2) != 0;
        int version = versions[i >> 2];
        struct tls_context *c = client_context(version), *s = server_context("a", false);
        add(s, "", m, elsewhere);
        struct pair p = connect_pair(c, s, "");
        p.key = elsewhere ? m->key : NULL;
        pair_run(&p);
        assert_int_equal(p.client_status, TLS_OK);
        assert_int_equal(p.server_status, TLS_OK);
        assert_int_equal(p.signatures, elsewhere);
        speaks(&p);
        struct tls_facts f;
        tls_facts(p.server, &f);
        assert_string_equal(f.protocol, i >> 2 ? "TLSv1.3" : "TLSv1.2");
        assert_string_equal(f.signature, m == &ec ? "ECDSA" : "RSA-PSS");
        assert_string_equal(f.key_exchange, "X25519");
        struct tls_peer peer;
        tls_peer(p.client, &peer);
        assert_true(peer.present);
        assert_int_equal(peer.verified, m == &ec);
        assert_string_equal(peer.subject, m == &ec ? "ec.example" : "rsa.example");
        pair_free(&p);
        tls_context_free(c);
        tls_context_free(s);
    }
}

static void test_words(void **state)
{
    struct tls_facts f = {
        "TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, 256, "X25519", "ECDSA", "SHA256", 256, false};
    struct buf b = BUF_INIT(300);
    (void)state;
    tls_describe(&f, &b);
    tls_describe_more(&f, &b);
    assert_slice_is(buf_slice(&b),
                    "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519 "
                    "server-signature ECDSA (256 bits) server-digest SHA256");
    buf_free(&b);
}

static void test_a_signature_that_fails_ends_the_handshake(void **state)
{
    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_context *c = client_context(version), *s = server_context("a", false);
        add(s, "", &ec, true);
        struct pair p = connect_pair(c, s, "");
        pair_run(&p);
        assert_int_equal(p.server_status, TLS_SIGN);
        assert_int_equal(tls_wanted_signature(p.server).key, 7);
        assert_int_equal(tls_wanted_signature(p.server).scheme, 0x0403);
        tls_signed(p.server, SLICE(""));
        pair_run(&p);
        assert_int_equal(p.server_status, TLS_BROKEN);
        assert_int_equal(p.client_status, TLS_BROKEN);
        assert_string_not_equal(tls_error(p.server), "");
        assert_string_equal(tls_alert(p.client), "internal error");
        pair_free(&p);
        tls_context_free(c);
        tls_context_free(s);
    }
}

/* A wrong key's signature, and a connection that is given up while it waits. */
static void test_a_wrong_signature_and_none(void **state)
{
    struct tls_context *c = client_context(0), *s = server_context("a", false);
    (void)state;
    add(s, "", &ec, true);
    struct pair p = connect_pair(c, s, "");
    p.key = other.key;
    pair_run(&p);
    assert_int_equal(p.client_status, TLS_BROKEN);
    pair_free(&p);
    p = connect_pair(c, s, "");
    pair_run(&p);
    assert_int_equal(p.server_status, TLS_SIGN);
    pair_free(&p);
    tls_context_free(c);
    tls_context_free(s);
}

static void test_B04_any_split(void **state)
{
    struct tls_context *c = client_context(0), *s = server_context("a", false);
    (void)state;
    add(s, "", &ec, true);
    for (size_t split = 1; split < 700; split = split * 2 + 1) {
        struct pair p = connect_pair(c, s, "");
        p.split = split;
        p.key = ec.key;
        pair_run(&p);
        assert_int_equal(p.client_status, TLS_OK);
        assert_int_equal(p.server_status, TLS_OK);
        char *text = carry(p.client, p.server, SLICE("MAIL FROM:<a@b>\r\n"), split);
        assert_string_equal(text, "MAIL FROM:<a@b>\r\n");
        free(text);
        pair_free(&p);
    }
    tls_context_free(c);
    tls_context_free(s);
}

static void test_much_data_in_bounded_output(void **state)
{
    struct tls_context *c = client_context(0), *s = server_context("a", false);
    size_t len = 1 << 20;
    char *big = xmalloc(len + 1);
    (void)state;
    for (size_t i = 0; i < len; i++)
        big[i] = (char)('a' + i % 23);
    big[len] = '\0';
    add(s, "", &ec, false);
    struct pair p = connect_pair(c, s, "");
    pair_run(&p);
    struct slice plain = slice_make(big, len);
    assert_int_equal(tls_encrypt(p.client, &plain), TLS_OK);
    assert_true(plain.len > 0 && tls_output(p.client).len <= TLS_OUT_HIGH + TLS_RECORD_MAX);
    tls_sent(p.client, tls_output(p.client).len); /* lost: the next record does not decrypt */
    pair_free(&p);
    p = connect_pair(c, s, "");
    pair_run(&p);
    char *text = carry(p.client, p.server, slice_make(big, len), 0);
    assert_string_equal(text, big);
    free(text);
    free(big);
    pair_free(&p);
    tls_context_free(c);
    tls_context_free(s);
}

static void test_names_choose_certificates(void **state)
{
    static const struct {
        const char *host, *subject;
    } rows[] = {{"", "ec.example"},
                {"nobody.example", "ec.example"},
                {"one.example", "rsa.example"},
                {"ONE.Example", "rsa.example"},
                {"a.b.two.example", "other.example"},
                {"two.example", "ec.example"}};
    struct tls_context *c = client_context(0), *s = server_context("a", false);
    (void)state;
    add(s, "", &ec, false);
    add(s, "One.example", &rsa, false);
    add(s, ".two.example", &other, false);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct pair p = connect_pair(c, s, rows[i].host);
        struct tls_peer peer;
        pair_run(&p);
        assert_int_equal(p.server_status, TLS_OK);
        tls_peer(p.client, &peer);
        assert_string_equal(peer.subject, rows[i].subject);
        pair_free(&p);
    }
    tls_context_free(c);
    tls_context_free(s);
}

/* One name with two certificates: a client that knows RSA only gets that one. */
static void test_rsa_beside_ecdsa(void **state)
{
    struct tls_context *s = server_context("a", false), *c = client_context(0);
    (void)state;
    add(s, "", &ec, false);
    add(s, "", &rsa, false);
    for (int only_rsa = 0; only_rsa < 2; only_rsa++) {
        struct pair p = connect_pair(c, s, "");
        struct tls_peer peer;
        if (only_rsa)
            SSL_set1_sigalgs_list(tls_native(p.client), "RSA-PSS+SHA256");
        pair_run(&p);
        tls_peer(p.client, &peer);
        assert_string_equal(peer.subject, only_rsa ? "rsa.example" : "ec.example");
        pair_free(&p);
    }
    tls_context_free(c);
    tls_context_free(s);
}

static void test_B70_old_protocols_and_renegotiation(void **state)
{
    struct tls_context *s = server_context("a", false), *c = client_context(0);
    struct tls_context *old = client_context(TLS1_2_VERSION);
    (void)state;
    add(s, "", &ec, false);
    struct pair p = connect_pair(c, s, "");
    SSL_set_min_proto_version(tls_native(p.client), TLS1_VERSION);
    SSL_set_max_proto_version(tls_native(p.client), TLS1_1_VERSION);
    SSL_set_security_level(tls_native(p.client), 0);
    SSL_set_cipher_list(tls_native(p.client), "ALL:@SECLEVEL=0");
    pair_run(&p);
    assert_int_equal(p.server_status, TLS_BROKEN);
    assert_string_equal(tls_error(p.server), "unsupported protocol");
    assert_string_equal(tls_alert(p.client), "protocol version");
    pair_free(&p);
    p = connect_pair(old, s, "");
    SSL_set_security_level(tls_native(p.client), 0);
    SSL_set_cipher_list(tls_native(p.client), "eNULL:aNULL:@SECLEVEL=0");
    pair_run(&p);
    assert_int_equal(p.server_status, TLS_BROKEN);
    pair_free(&p);
    p = connect_pair(old, s, "");
    pair_run(&p);
    SSL_clear_options(tls_native(p.client), SSL_OP_NO_RENEGOTIATION);
    assert_int_equal(SSL_renegotiate(tls_native(p.client)), 1);
    SSL_do_handshake(tls_native(p.client));
    char plain[16], *copy = slice_dup(tls_output(p.client));
    struct slice in = slice_make(copy, tls_output(p.client).len);
    size_t got;
    assert_true(in.len > 0);
    assert_int_equal(tls_decrypt(p.server, &in, plain, sizeof plain, &got), TLS_MORE);
    free(copy);
    copy = slice_dup(tls_output(p.server));
    in = slice_make(copy, tls_output(p.server).len);
    tls_decrypt(p.client, &in, plain, sizeof plain, &got);
    assert_string_equal(tls_alert(p.client), "no renegotiation");
    free(copy);
    pair_free(&p);
    tls_context_free(c);
    tls_context_free(old);
    tls_context_free(s);
}

/* ---- clients' certificates --------------------------------------------------------------- */

static void test_clients_certificates(void **state)
{
    const struct {
        const struct made *certificate;
        bool verified;
    } rows[] = {{&member, true}, {&other, false}, {NULL, false}};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct tls_context *c = client_context(0), *s = server_context("a", true);
        struct tls_peer peer;
        add(s, "", &ec, false);
        if (rows[i].certificate)
            add(c, "", rows[i].certificate, false);
        struct pair p = connect_pair(c, s, "");
        pair_run(&p);
        assert_int_equal(p.server_status, TLS_OK);
        tls_peer(p.server, &peer);
        assert_int_equal(peer.present, rows[i].certificate != NULL);
        assert_int_equal(peer.verified, rows[i].verified);
        if (peer.present) {
            assert_int_equal(strlen(peer.fingerprint), 95);
            assert_int_equal(strlen(peer.key_fingerprint), 95);
            assert_string_not_equal(peer.fingerprint, peer.key_fingerprint);
        }
        if (rows[i].verified)
            assert_string_equal(peer.issuer, "authority.example");
        pair_free(&p);
        tls_context_free(c);
        tls_context_free(s);
    }
}

/* ---- what cannot be used -------------------------------------------------------------------- */

static void test_bad_certificates_and_keys(void **state)
{
    char encrypted[] = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
                       "MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgAAAAAAAAAAAICCAAw\n"
                       "DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEAAAAAAAAAAAAAAAAAAAAAAEgZAA\n"
                       "-----END ENCRYPTED PRIVATE KEY-----\n";
    char *cut = slice_dup(slice_first(slice_str(ec.certificate_pem), 200));
    char *two = xasprintf("%s%s", ec.certificate_pem, cut);
    const struct {
        const char *chain, *key, *error;
    } rows[] = {
        {"", ec.key_pem, "holds no certificate"},
        {cut, ec.key_pem, "holds no certificate"},
        {two, ec.key_pem, "a damaged certificate"},
        {ec.key_pem, ec.key_pem, "holds no certificate"},
        {ec.certificate_pem, "x", "holds no private key"},
        {ec.certificate_pem, ec.certificate_pem, "holds no private key"},
        {ec.certificate_pem, other.key_pem, "the private key is not that of the certificate"},
        {ec.certificate_pem, rsa.key_pem, "the private key is not that of the certificate"},
        {ec.certificate_pem, encrypted, NULL},
    };
    struct tls_context *s = server_context("a", false);
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct err e = {0, ""};
        struct tls_key key = {.pem = slice_str(rows[i].key)};
        assert_int_equal(tls_context_add(s, SLICE(""), slice_str(rows[i].chain), &key, &e), -1);
        if (rows[i].error)
            assert_non_null(strstr(e.text, rows[i].error));
    }
    free(cut);
    free(two);
    tls_context_free(s);
    struct err e = {0, ""};
    assert_null(tls_context_new(&(struct tls_settings){.ciphers = "NO-SUCH"}, &e));
    assert_null(tls_context_new(&(struct tls_settings){.groups = "no-such"}, &e));
    assert_null(tls_context_new(&(struct tls_settings){.min_version = TLS1_1_VERSION}, &e));
}

static void test_the_end(void **state)
{
    struct tls_context *c = client_context(0), *s = server_context("a", false);
    (void)state;
    add(s, "", &ec, false);
    struct pair p = connect_pair(c, s, "");
    pair_run(&p);
    tls_shutdown(p.client);
    struct slice in = tls_output(p.client);
    char plain[16];
    size_t got;
    assert_int_equal(tls_decrypt(p.server, &in, plain, sizeof plain, &got), TLS_CLOSED);
    in = SLICE("\x17\x03\x03\x00\x20"
               "this is not what was encrypted.....");
    assert_int_equal(tls_decrypt(p.client, &in, plain, sizeof plain, &got), TLS_BROKEN);
    assert_string_not_equal(tls_error(p.client), "");
    pair_free(&p);
    p = connect_pair(c, s, ""); /* a client that does not speak TLS at all */
    in = SLICE("EHLO client.example\r\n");
    assert_int_equal(tls_handshake(p.server, &in), TLS_BROKEN);
    assert_int_equal(tls_handshake(p.server, &in), TLS_BROKEN);
    pair_free(&p);
    tls_context_free(c);
    tls_context_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_kinds_of_keys_here_and_elsewhere),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_a_signature_that_fails_ends_the_handshake),
        cmocka_unit_test(test_a_wrong_signature_and_none),
        cmocka_unit_test(test_B04_any_split),
        cmocka_unit_test(test_much_data_in_bounded_output),
        cmocka_unit_test(test_names_choose_certificates),
        cmocka_unit_test(test_rsa_beside_ecdsa),
        cmocka_unit_test(test_B70_old_protocols_and_renegotiation),
        cmocka_unit_test(test_clients_certificates),
        cmocka_unit_test(test_bad_certificates_and_keys),
        cmocka_unit_test(test_the_end),
    };
    return cmocka_run_group_tests(tests, make_all, free_all);
}
