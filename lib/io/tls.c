#include "io/tls.h"

#include <openssl/async.h>
#include <openssl/bio.h>
#include <openssl/err.h>

#include "core/mem.h"
#include "io/tls_private.h"

enum { RECORD_PLAIN = 16 * 1024 }; /* what one record holds at most (RFC 8446 section 5.1) */

/* ---- OpenSSL's view of our bytes ------------------------------------------------------ */

static int bytes_read(BIO *bio, char *out, size_t room, size_t *got)
{
    struct tls *t = BIO_get_data(bio);
    struct slice part = slice_first(t->in, room);
    BIO_clear_retry_flags(bio);
    *got = part.len;
    if (part.len == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    memcpy(out, part.ptr, part.len);
    t->in = slice_from(t->in, part.len);
    return 1;
}

static int bytes_write(BIO *bio, const char *data, size_t len, size_t *written)
{
    struct tls *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    *written = len;
    return buf_add(&t->out, data, len) == 0;
}

static long bytes_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO *bytes_new(struct tls *t)
{
    static BIO_METHOD *method;
    if (!method) {
        method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "postern");
        if (!method || !BIO_meth_set_read_ex(method, bytes_read) ||
            !BIO_meth_set_write_ex(method, bytes_write) ||
            !BIO_meth_set_ctrl(method, bytes_control))
            panic("OpenSSL cannot be set up");
    }
    BIO *bio = BIO_new(method);
    if (!bio)
        panic("out of memory");
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    return bio;
}

/* ---- life --------------------------------------------------------------------------------- */

static void on_info(const SSL *ssl, int where, int value)
{
    if (where == SSL_CB_READ_ALERT)
        tls_of(ssl)->alert = (uint8_t)(value & 0xff);
}

struct tls *tls_new(struct tls_context *c, struct slice host)
{
    struct tls *t = xcalloc(1, sizeof *t);
    char name[TLS_NAME_MAX + 1];
    t->context = tls_context_use(c);
    buf_init(&t->out, TLS_OUT_MAX);
    t->ssl = SSL_new(c->native);
    if (!t->ssl || !SSL_set_app_data(t->ssl, t))
        panic("out of memory");
    BIO *bytes = bytes_new(t);
    SSL_set_bio(t->ssl, bytes, bytes);
    SSL_set_info_callback(t->ssl, on_info);
    SSL_set_mode(t->ssl, SSL_MODE_ASYNC); /* during the handshake */
    if (c->settings.server) {
        SSL_set_accept_state(t->ssl);
        return t;
    }
    SSL_set_connect_state(t->ssl);
    if (host.len && host.len <= TLS_NAME_MAX && slice_chr(host, '\0') == host.len) {
        memcpy(name, host.ptr, host.len);
        name[host.len] = '\0';
        SSL_set_tlsext_host_name(t->ssl, name);
    }
    return t;
}

void tls_free(struct tls *t)
{
    struct slice nothing = SLICE("");
    if (!t)
        return;
    if (t->sign_state == SIGN_WANTED) { /* its job has to come to an end */
        tls_signed(t, nothing);
        tls_handshake(t, &nothing);
    }
    SSL_free(t->ssl);
    tls_context_free(t->context);
    buf_free(&t->out);
    free(t->answer);
    free(t->error);
    free(t);
}

void tls_set_owner(struct tls *t, void *owner)
{
    t->owner = owner;
}

void *tls_owner(const struct tls *t)
{
    return t->owner;
}

struct tls *tls_of(const SSL *ssl)
{
    return SSL_get_app_data(ssl);
}

SSL *tls_native(struct tls *t)
{
    return t->ssl;
}

bool tls_established(const struct tls *t)
{
    return t->established;
}

/* ---- calls --------------------------------------------------------------------------------- */

static enum tls_status give_up(struct tls *t)
{
    struct err e = {0, ""};
    tls_library_error(&e, NULL);
    if (!t->error)
        t->error = xstrdup(e.text);
    t->broken = true;
    return TLS_BROKEN;
}

static enum tls_status status_of(struct tls *t, int rc)
{
    switch (SSL_get_error(t->ssl, rc)) {
    case SSL_ERROR_NONE:
        return TLS_OK;
    case SSL_ERROR_WANT_READ:
        return TLS_MORE;
    case SSL_ERROR_WANT_ASYNC:
        return TLS_SIGN;
    case SSL_ERROR_ZERO_RETURN:
        return TLS_CLOSED;
    default:
        return give_up(t);
    }
}

enum tls_status tls_handshake(struct tls *t, struct slice *in)
{
    if (t->broken)
        return TLS_BROKEN;
    if (t->established)
        return TLS_OK;
    if (t->sign_state == SIGN_WANTED)
        return TLS_SIGN;
    t->in = *in;
    ERR_clear_error();
    tls_key_current(t);
    enum tls_status status = status_of(t, SSL_do_handshake(t->ssl));
    tls_key_current(NULL);
    *in = t->in;
    t->in = SLICE("");
    if (t->sign_state != SIGN_ANSWERED)
        xfree(&t->answer);
    if (status == TLS_OK) {
        t->established = true;
        SSL_clear_mode(t->ssl, SSL_MODE_ASYNC);
    }
    return status;
}

enum tls_status tls_decrypt(struct tls *t, struct slice *in, char *out, size_t room, size_t *got)
{
    enum tls_status status = t->broken ? TLS_BROKEN : TLS_OK;
    *got = 0;
    t->in = *in;
    ERR_clear_error();
    while (status == TLS_OK && *got < room) {
        size_t n = 0;
        int rc = SSL_read_ex(t->ssl, out + *got, room - *got, &n);
        *got += n;
        if (rc <= 0)
            status = status_of(t, rc);
    }
    *in = t->in;
    t->in = SLICE("");
    return status;
}

enum tls_status tls_encrypt(struct tls *t, struct slice *plain)
{
    ERR_clear_error();
    while (plain->len && t->out.len < TLS_OUT_HIGH) {
        size_t n = 0;
        if (t->broken || !t->established)
            return TLS_BROKEN;
        int rc = SSL_write_ex(t->ssl, plain->ptr, slice_first(*plain, RECORD_PLAIN).len, &n);
        if (rc <= 0)
            return give_up(t); /* the output takes all, so there is nothing to wait for */
        *plain = slice_from(*plain, n);
    }
    return TLS_OK;
}

void tls_shutdown(struct tls *t)
{
    if (t->broken || !t->established)
        return;
    ERR_clear_error();
    SSL_shutdown(t->ssl);
    ERR_clear_error();
}

struct slice tls_output(const struct tls *t)
{
    return buf_slice(&t->out);
}

void tls_sent(struct tls *t, size_t n)
{
    if (n >= t->out.len)
        buf_free(&t->out);
    else
        buf_consume(&t->out, n);
}

/* ---- signatures from elsewhere ------------------------------------------------------------- */

struct tls_signing tls_wanted_signature(const struct tls *t)
{
    return t->signing;
}

void tls_signed(struct tls *t, struct slice signature)
{
    if (t->sign_state != SIGN_WANTED)
        return;
    free(t->answer);
    t->answer = slice_dup(signature);
    t->signature = slice_make(t->answer, signature.len);
    t->sign_state = SIGN_ANSWERED;
}
