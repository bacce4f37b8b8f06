/* libraries: postern_io postern_core */
/* TLS sessions that are resumed, and what tells one connection from another. */
#include "tls_rig.h"

/* ---- resumption ------------------------------------------------------------------------- */

static const struct tls_ticket_key keys[] = {{"key one        ", "aes1", "mac1"},
                                             {"key two        ", "aes2", "mac2"}};

static SSL_SESSION *session_by(struct tls_context *c, struct tls_context *s, const char *host)
{
    struct pair p = connect_pair(c, s, host);
    pair_run(&p);
    assert_int_equal(p.client_status, TLS_OK);
    SSL_SESSION *session = SSL_get1_session(tls_native(p.client));
    tls_shutdown(p.client); /* OpenSSL takes a session for broken otherwise */
    pair_free(&p);
    return session;
}

static SSL_SESSION *session_with(struct tls_context *c, struct tls_context *s)
{
    return session_by(c, s, "");
}

static bool resumes_by(struct tls_context *c, struct tls_context *s, SSL_SESSION *session,
                       const char *host)
{
    struct pair p = connect_pair(c, s, host);
    struct tls_facts f;
    SSL_set_session(tls_native(p.client), session);
    pair_run(&p);
    assert_int_equal(p.client_status, TLS_OK);
    tls_facts(p.server, &f);
    tls_shutdown(p.client);
    pair_free(&p);
    return f.resumed;
}

static bool resumes(struct tls_context *c, struct tls_context *s, SSL_SESSION *session)
{
    return resumes_by(c, s, session, "");
}

/* RFC 6066 section 3. Names with a certificate of their own, below one, and with none. */
static void test_B73_session_is_of_one_server_name(void **state)
{
    static const char *const names[] = {"a.test",      "mx.b.test",    "mx2.b.test",
                                        "nobody.test", "nowhere.test", ""};
    enum { NAMES = sizeof names / sizeof names[0] };
    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_context *c = client_context(version), *s = server_context("a", false);
        add(s, "", &ec, false);
        add(s, "a.test", &ec, false);
        add(s, ".b.test", &ec, false);
        tls_context_tickets(s, keys, 1);
        for (size_t i = 0; i < NAMES; i++) {
            SSL_SESSION *session = session_by(c, s, names[i]);
            for (size_t k = 0; k < NAMES; k++)
                assert_int_equal(resumes_by(c, s, session, names[k]), i == k);
            if (i == 0)
                assert_true(resumes_by(c, s, session, "A.Test"));
            SSL_SESSION_free(session);
        }
        tls_context_free(c);
        tls_context_free(s);
    }
}

static void test_B73_tickets(void **state)
{
    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_context *c = client_context(version);
        struct tls_context *s = server_context("a", false), *twin = server_context("a", false);
        struct tls_context *stranger = server_context("b", false), *same_keys;
        same_keys = server_context("b", false);
        add(s, "", &ec, false);
        add(twin, "", &ec, false);
        add(stranger, "", &ec, false);
        add(same_keys, "", &ec, false);
        tls_context_tickets(s, keys, 1);
        tls_context_tickets(twin, keys, 1);
        tls_context_tickets(stranger, keys + 1, 1);
        tls_context_tickets(same_keys, keys, 1);
        SSL_SESSION *session = session_with(c, s);
        assert_true(resumes(c, s, session));
        assert_true(resumes(c, twin, session)); /* another process of the listener */
        assert_false(resumes(c, stranger, session));
        assert_false(resumes(c, same_keys, session)); /* even with the same keys */
        struct tls_ticket_key rotated[] = {keys[1], keys[0]};
        tls_context_tickets(twin, rotated, 2);
        assert_true(resumes(c, twin, session));
        tls_context_tickets(twin, rotated, 1);
        assert_false(resumes(c, twin, session));
        SSL_SESSION_free(session);
        tls_context_tickets(s, keys, 0);
        session = session_with(c, s);
        assert_false(resumes(c, s, session));
        SSL_SESSION_free(session);
        tls_context_free(c);
        tls_context_free(s);
        tls_context_free(twin);
        tls_context_free(stranger);
        tls_context_free(same_keys);
    }
}

/* ---- channel binding ---------------------------------------------------------------------- */

static void test_both_ends_know_the_connection_by_the_same(void **state)
{
    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_context *c = client_context(version), *s = server_context("a", false);
        unsigned char first[TLS_EXPORTER_BYTES] = {0}, ours[TLS_EXPORTER_BYTES],
                      theirs[TLS_EXPORTER_BYTES], endpoint[TLS_ENDPOINT_MAX], digest[32];
        unsigned len;
        bool exports = version == TLS1_3_VERSION;
        add(s, "", &ec, false);
        add(s, "", &rsa, false);
        tls_context_tickets(s, keys, 1);
        for (int i = 0; i < 2; i++) {
            struct pair p = connect_pair(c, s, "");
            assert_false(tls_exporter(p.server, ours)); /* before the handshake */
            pair_run(&p);
            assert_int_equal(tls_exporter(p.client, theirs), exports);
            assert_int_equal(tls_exporter(p.server, ours), exports);
            if (exports) {
                assert_memory_equal(ours, theirs, sizeof ours);
                assert_memory_not_equal(ours, first, sizeof ours); /* another each time */
                memcpy(first, ours, sizeof first);
            }
            assert_int_equal(tls_endpoint(p.server, endpoint), 32);
            X509 *seen = SSL_get0_peer_certificate(tls_native(p.client));
            assert_int_equal(X509_digest(seen, EVP_sha256(), digest, &len), 1);
            assert_memory_equal(endpoint, digest, 32);
            tls_shutdown(p.client);
            pair_free(&p);
        }
        /* which certificate a resumed session began with is not known any more */
        SSL_SESSION *session = session_with(c, s);
        struct pair p = connect_pair(c, s, "");
        SSL_set_session(tls_native(p.client), session);
        pair_run(&p);
        assert_true(SSL_session_reused(tls_native(p.server)));
        assert_int_equal(tls_endpoint(p.server, endpoint), 0);
        assert_int_equal(tls_exporter(p.server, ours), exports);
        tls_shutdown(p.client);
        pair_free(&p);
        SSL_SESSION_free(session);
        tls_context_free(c);
        tls_context_free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_B73_tickets),
        cmocka_unit_test(test_B73_session_is_of_one_server_name),
        cmocka_unit_test(test_both_ends_know_the_connection_by_the_same),
    };
    return cmocka_run_group_tests(tests, make_all, free_all);
}
