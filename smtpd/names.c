#include "smtpd/names.h"

#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "smtpd/limits.h"
#include "smtpd/session.h"

static struct slice question_key(const void *value)
{
    const struct name_question *q = value;
    return slice_make(&q->tag, sizeof q->tag);
}

void names_init(struct names *n, struct event_base *base)
{
    *n = (struct names){.base = base};
    map_init(&n->asked, question_key);
}

void names_free(struct names *n)
{
    channel_free(n->channel);
    n->channel = NULL;
    map_free(&n->asked);
}

void names_forget(struct names *n, struct name_question *q)
{
    if (!q->tag)
        return;
    map_remove(&n->asked, question_key(q));
    q->tag = 0;
}

bool names_is_host(struct slice name)
{
    size_t label = 0;
    if (name.len == 0 || name.len > HOST_NAME_LIMIT)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i], lower = (char)(c | 0x20);
        bool plain =
            (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
        if (c == '.' ? label == 0 : !plain || ++label > HOST_LABEL_LIMIT)
            return false;
        if (c == '.')
            label = 0;
    }
    return label > 0;
}

static int on_frame(struct channel *c, const struct ipc_frame *f, int fd, void *arg, struct err *e)
{
    struct names *n = arg;
    struct ipc_name_reply m;
    (void)c;
    (void)fd; /* no message of resolve's has one */
    if (f->number != IPC_NUMBER_ipc_name_reply || ipc_name_reply_decode(f->body, &m) < 0)
        return err_set(e, "bad %s", ipc_name(f->number));
    struct name_question *q = map_get(&n->asked, slice_make(&m.tag, sizeof m.tag));
    if (!q) /* it came too late */
        return 0;
    bool good = m.status == NAME_FOUND && names_is_host(m.host);
    names_forget(n, q);
    session_named(container_of(q, struct session, name), good ? m.host : SLICE(""));
    return 0;
}

/* Nobody will answer what is open. */
static void give_up(struct names *n)
{
    /* the map must not change while it is walked: gather first */
    size_t count = 0, at = 0;
    struct name_question *q, **all = xcalloc(n->asked.count + 1, sizeof(struct name_question *));
    while ((q = map_next(&n->asked, &at)))
        all[count++] = q;
    for (size_t i = 0; i < count; i++) {
        names_forget(n, all[i]);
        session_named(container_of(all[i], struct session, name), SLICE(""));
    }
    free(all);
}

static void on_closed(struct channel *c, const char *why, void *arg)
{
    struct names *n = arg;
    if (c != n->channel)
        return;
    log_debug("channel to resolve closed: %s", why);
    n->channel = NULL;
    give_up(n);
}

void names_attach(struct names *n, int fd)
{
    static const struct channel_ops ops = {on_frame, on_closed};
    channel_free(n->channel);
    n->channel = NULL;
    give_up(n);
    n->channel = channel_new(n->base, fd, "resolve", &ops, n);
}

bool names_ask(struct names *n, struct session *s)
{
    if (!n->channel)
        return false;
    s->name.tag = ++n->next_tag;
    map_put(&n->asked, &s->name);
    ipc_name_request_encode(
        channel_out(n->channel),
        &(struct ipc_name_request){.tag = s->name.tag,
                                   .address = slice_make(s->address, s->address_len)});
    return true;
}
