/*
 * keyd: keeps the private keys and signs with them.
 *
 * user       _postern-key
 * chroot     an empty directory
 * sees       private keys, which master hands over; what is to be signed
 * does not   mail, passwords, files
 * network    none
 *
 * An smtpd process asks for a signature in each full TLS handshake. It gets one
 * only for what a TLS server signs there (handshake.h), and so many a second
 * (keyd_signature_rate_limit). One that was taken over can so pass for this
 * server as long as it is in strangers' hands; it cannot have the key, nor use it
 * for anything else: decrypting, certificates, another protocol.
 */
#include <unistd.h>

#include "core/clock.h"
#include "core/fault.h"
#include "core/log.h"
#include "core/mem.h"
#include "io/tls.h"
#include "keyd/keys.h"
#include "service/service.h"

/* An smtpd process. */
struct client {
    struct channel *channel;
    int64_t since; /* monotonic: begin of the second that is counted */
    int64_t count; /* requests in it */
    bool warned;   /* of passing the limit */
    unsigned pid;
};

static struct keys keys;
static struct service *service;

/* ---- smtpd --------------------------------------------------------------------------- */

static bool is_too_fast(struct client *c)
{
    int64_t now = clock_mono(), limit = service->config->keyd_signature_rate_limit;
    if (now - c->since >= CLOCK_SECOND) {
        c->since = now;
        c->count = 0;
        c->warned = false;
    }
    if (++c->count <= limit)
        return false;
    if (!c->warned)
        log_warning("smtpd (process %u) asks for more than keyd_signature_rate_limit (%lld) "
                    "signatures a second: refused",
                    c->pid, (long long)limit);
    c->warned = true;
    return true;
}

static void on_request(struct client *c, const struct ipc_sign_request *m)
{
    unsigned char out[SIGNATURE_MAX];
    struct err e = {0, ""};
    size_t len = 0;
    fault_point("keyd.sign");
    if (!is_too_fast(c)) {
        len = keys_sign_handshake(&keys, m->key, m->scheme, m->content, out, &e);
        if (len == 0)
            log_warning("no signature for smtpd (process %u): %s", c->pid, e.text);
    }
    ipc_signature_encode(channel_out(c->channel),
                         &(struct ipc_signature){.tag = m->tag, .signature = slice_make(out, len)});
}

static int on_frame(struct channel *channel, const struct ipc_frame *f, int fd, void *arg,
                    struct err *e)
{
    struct ipc_sign_request m;
    (void)channel;
    if (fd >= 0)
        close(fd);
    if (f->number != IPC_NUMBER_ipc_sign_request || ipc_sign_request_decode(f->body, &m) < 0)
        return err_set(e, "unexpected or malformed %s", ipc_name(f->number));
    on_request(arg, &m);
    return 0;
}

static void on_closed(struct channel *channel, const char *why, void *arg)
{
    struct client *c = arg;
    (void)channel;
    log_debug("smtpd (process %u): channel closed: %s", c->pid, why);
    free(c);
}

static void peer(struct service *s, struct slice name, unsigned slot, unsigned pid, int fd)
{
    static const struct channel_ops ops = {on_frame, on_closed};
    (void)slot;
    if (!slice_eq(name, SLICE("smtpd"))) {
        close(fd);
        return;
    }
    struct client *c = xcalloc(1, sizeof *c);
    c->pid = pid;
    c->channel = channel_new(s->base, fd, "smtpd", &ops, c);
}

/* ---- master ---------------------------------------------------------------------------- */

static int take_key(struct service *s, const struct ipc_frame *f, int fd, struct err *e)
{
    struct ipc_key m;
    struct err why = {0, ""};
    if (f->number != IPC_NUMBER_ipc_key || ipc_key_decode(f->body, &m) < 0) {
        close(fd);
        return err_set(e, "unexpected or malformed %s", ipc_name(f->number));
    }
    if (keys_add(&keys, m.number, m.purpose, fd, &why) < 0)
        log_error("key %u: %s", m.number, why.text);
    close(fd);
    if (s->master)
        ipc_key_taken_encode(
            channel_out(s->master),
            &(struct ipc_key_taken){.number = m.number, .error = slice_str(why.text)});
    return 0;
}

static int message(struct service *s, const struct ipc_frame *f, struct err *e)
{
    struct ipc_key_forget m;
    (void)s;
    if (f->number != IPC_NUMBER_ipc_key_forget || ipc_key_forget_decode(f->body, &m) < 0)
        return err_set(e, "unexpected or malformed %s", ipc_name(f->number));
    keys_forget(&keys, m.number);
    return 0;
}

static int start(struct service *s, struct err *e)
{
    (void)e;
    service = s;
    tls_library();
    keys_init(&keys);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct service_ops ops = {
        .program = "keyd",
        .user = "_postern-key",
        .jail = JAIL_EMPTY,
        .network = false,
        .start = start,
        .peer = peer,
        .descriptor = take_key,
        .message = message,
    };
    return service_main(argc, argv, &ops);
}
