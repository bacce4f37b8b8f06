#include "smtpd/keys.h"

#include "core/log.h"
#include "core/mem.h"
#include "smtpd/session.h"

static struct slice question_key(const void *value)
{
    const struct key_question *q = value;
    return slice_make(&q->tag, sizeof q->tag);
}

void keys_init(struct keys *k, struct event_base *base)
{
    *k = (struct keys){.base = base};
    map_init(&k->asked, question_key);
}

void keys_free(struct keys *k)
{
    channel_free(k->channel);
    k->channel = NULL;
    map_free(&k->asked);
}

void keys_forget(struct keys *k, struct key_question *q)
{
    if (!q->tag)
        return;
    map_remove(&k->asked, question_key(q));
    q->tag = 0;
}

static int on_frame(struct channel *c, const struct ipc_frame *f, int fd, void *arg, struct err *e)
{
    struct keys *k = arg;
    struct ipc_signature m;
    (void)c;
    (void)fd; /* no message of keyd's has one */
    if (f->number != IPC_NUMBER_ipc_signature || ipc_signature_decode(f->body, &m) < 0 ||
        m.signature.len > TLS_SIGNATURE_MAX)
        return err_set(e, "bad %s", ipc_name(f->number));
    struct key_question *q = map_get(&k->asked, slice_make(&m.tag, sizeof m.tag));
    if (!q) /* it came too late */
        return 0;
    keys_forget(k, q);
    session_signed(container_of(q, struct session, key), m.signature);
    return 0;
}

/* Nobody will answer what is open: never unsigned, always an error (F15). */
static void give_up(struct keys *k)
{
    size_t count = 0, at = 0;
    struct key_question *q, **all = xcalloc(k->asked.count + 1, sizeof(struct key_question *));
    while ((q = map_next(&k->asked, &at)))
        all[count++] = q;
    for (size_t i = 0; i < count; i++) {
        keys_forget(k, all[i]);
        session_signed(container_of(all[i], struct session, key), SLICE(""));
    }
    free(all);
}

static void on_closed(struct channel *c, const char *why, void *arg)
{
    struct keys *k = arg;
    if (c != k->channel)
        return;
    log_warning("keyd is gone: %s; TLS is refused with 454 until it is back", why);
    k->channel = NULL;
    give_up(k);
}

void keys_attach(struct keys *k, int fd)
{
    static const struct channel_ops ops = {on_frame, on_closed};
    channel_free(k->channel);
    k->channel = NULL;
    give_up(k);
    k->channel = channel_new(k->base, fd, "keyd", &ops, k);
}

bool keys_ask(struct keys *k, struct session *s, const struct tls_signing *wanted)
{
    if (!k->channel)
        return false;
    s->key.tag = ++k->next_tag;
    map_put(&k->asked, &s->key);
    ipc_sign_request_encode(channel_out(k->channel),
                            &(struct ipc_sign_request){.tag = s->key.tag,
                                                       .key = wanted->key,
                                                       .scheme = wanted->scheme,
                                                       .content = wanted->content});
    return true;
}
