/* A client and a server back to back, with certificates of all kinds: for tests of lib/io's TLS. */
#ifndef POSTERN_T_TLS_RIG_H
#define POSTERN_T_TLS_RIG_H

#include "tls_world.h"
#include "unit.h"

static struct made ec, rsa, other, authority, member;

static inline struct tls_context *client_context(int version)
{
    struct err e = {0, ""};
    struct tls_settings s = {.min_version = version,
                             .max_version = version,
                             .security_level = 1,
                             .authorities = slice_str(ec.certificate_pem)};
    struct tls_context *c = tls_context_new(&s, &e);
    assert_string_equal(e.text, "");
    return c;
}

static inline struct tls_context *server_context(const char *session_context, bool ask)
{
    struct err e = {0, ""};
    struct tls_settings s = {.server = true,
                             .security_level = 1,
                             .ask_certificate = ask,
                             .authorities = ask ? slice_str(authority.certificate_pem) : SLICE(""),
                             .session_context = slice_str(session_context),
                             .session_seconds = 3600};
    struct tls_context *c = tls_context_new(&s, &e);
    assert_string_equal(e.text, "");
    return c;
}

static inline void add(struct tls_context *c, const char *name, const struct made *m,
                       bool elsewhere)
{
    struct err e = {0, ""};
    struct tls_key key = {.pem = elsewhere ? SLICE("") : slice_str(m->key_pem), .number = 7};
    tls_context_add(c, slice_str(name), slice_str(m->certificate_pem), &key, &e);
    assert_string_equal(e.text, "");
}

static inline struct pair connect_pair(struct tls_context *client, struct tls_context *server,
                                       const char *host)
{
    struct pair p = {tls_new(client, slice_str(host)),
                     tls_new(server, SLICE("")),
                     NULL,
                     0,
                     0,
                     TLS_MORE,
                     TLS_MORE};
    return p;
}

static inline int make_all(void **state)
{
    (void)state;
    tls_library();
    ec = make_certificate("ec.example", 0, NULL);
    rsa = make_certificate("rsa.example", 2048, NULL);
    other = make_certificate("other.example", 0, NULL);
    authority = make_certificate("authority.example", 0, NULL);
    member = make_certificate("member.example", 0, &authority);
    return 0;
}

static inline int free_all(void **state)
{
    struct made *all[] = {&ec, &rsa, &other, &authority, &member};
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        made_free(all[i]);
    return 0;
}

#endif
