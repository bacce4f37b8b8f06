/* libraries: postern_io postern_core */
/* What a client sends where TLS is expected, split at any place; and what one
 * sends after a good handshake. Input: a byte that chooses, a byte of split, the
 * stream. No read past the end, no endless loop, bounded output. */
#include "../unit/tls_world.h"

static struct tls_context *server, *client;

static void set_up(void)
{
    struct err e = {0, ""};
    tls_library();
    struct made m = make_certificate("fuzz.example", 0, NULL);
    struct tls_key key = {.pem = slice_str(m.key_pem)};
    struct tls_settings s = {.server = true, .ask_certificate = true, .security_level = 1};
    server = tls_context_new(&s, &e);
    client = tls_context_new(&(struct tls_settings){.security_level = 1}, &e);
    if (!server || !client ||
        tls_context_add(server, SLICE(""), slice_str(m.certificate_pem), &key, &e) < 0)
        panic("%s", e.text);
    made_free(&m);
}

static enum tls_status feed(struct tls *t, struct slice in)
{
    char plain[1000];
    size_t got;
    enum tls_status status = tls_handshake(t, &in);
    while (status == TLS_OK) {
        status = tls_decrypt(t, &in, plain, sizeof plain, &got);
        if (got > sizeof plain)
            panic("%zu bytes", got);
    }
    if (status == TLS_MORE && in.len)
        panic("%zu bytes are left", in.len);
    if (tls_output(t).len > TLS_OUT_MAX)
        panic("%zu bytes of output", tls_output(t).len);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    if (!server)
        set_up();
    struct slice in = slice_make(data + 2, size - 2);
    struct pair p = {.server = tls_new(server, SLICE(""))};
    if (data[0] & 1) {
        p.client = tls_new(client, SLICE("fuzz.example"));
        pair_run(&p);
        if (!tls_established(p.server))
            panic("no handshake");
    }
    while (in.len && feed(p.server, slice_first(in, data[1] + 1u)) == TLS_MORE)
        in = slice_from(in, data[1] + 1u);
    pair_free(&p);
    return 0;
}
