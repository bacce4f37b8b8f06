/* XFORWARD: a client that may do so, usually a content filter, says where the
 * message that it is going to send came from. */
#include "core/log.h"
#include "core/mem.h"
#include "smtpd/forward.h"
#include "smtpd/reply.h"
#include "smtpd/verbs.h"

void forward_free(struct forward **f)
{
    for (int i = 0; *f && i < XATTR_COUNT; i++)
        free((*f)->values[i]);
    xfree(f);
}

void forward_describe(const struct forward *f, struct buf *out)
{
    if (!f)
        return;
    const char *name = f->values[XATTR_NAME], *address = f->values[XATTR_ADDR];
    if (f->values[XATTR_IDENT])
        buf_printf(out, ", orig_queue_id=%s", f->values[XATTR_IDENT]);
    if (name || address)
        buf_printf(out, ", orig_client=%s[%s]", name ? name : "unknown",
                   address ? address : "unknown");
}

/* Whether the value makes sense for its name. */
static bool is_good(const struct xattr *a)
{
    struct proxy_endpoint endpoint;
    uint16_t port;
    bool esmtp;
    switch (a->name) {
    case XATTR_ADDR:
        return !a->known || xattr_address(a, &endpoint) == 0;
    case XATTR_PORT:
        return !a->known || xattr_port(a, &port) == 0;
    case XATTR_PROTO:
        return !a->known || xattr_protocol(a, &esmtp) == 0;
    case XATTR_SOURCE:
        return !a->known || slice_caseeq(xattr_value(a), SLICE("LOCAL")) ||
               slice_caseeq(xattr_value(a), SLICE("REMOTE"));
    case XATTR_NAME:
    case XATTR_HELO:
    case XATTR_IDENT:
        return true;
    default:
        return false;
    }
}

/* An address in log lines is written as everywhere else. */
static const char *shown(const struct xattr *a)
{
    struct slice prefix = SLICE("IPV6:");
    bool is6 = a->name == XATTR_ADDR && slice_casestarts(xattr_value(a), prefix);
    return a->value + (is6 ? prefix.len : 0);
}

/* Several commands may add up (a line has its limit); the last word counts. */
static int take_all(struct slice argument, struct forward *f)
{
    struct xattr a = {0};
    int rc, count = 0;
    while ((rc = xattr_next(&argument, &a)) == 1) {
        if (!is_good(&a))
            return -1;
        count++;
        xfree(&f->values[a.name]);
        if (a.known && a.len)
            f->values[a.name] = xstrdup(shown(&a));
    }
    return rc == 0 && count ? 0 : -1;
}

void cmd_xforward(struct session *s, struct slice argument)
{
    if (!s->may_xforward) {
        reply(s, 550, "5.7.0", "Error: insufficient authorization");
    } else if (s->state != STATE_GREETED && s->state != STATE_READY) {
        reply(s, 503, "5.5.1", "Error: MAIL transaction in progress");
    } else {
        if (!s->tx.forward)
            s->tx.forward = xcalloc(1, sizeof *s->tx.forward);
        if (take_all(argument, s->tx.forward) == 0)
            reply_ready(s, 250, SLICE("250 2.0.0 Ok\r\n"));
        else
            reply(s, 501, "5.5.4", "Syntax: XFORWARD attribute=value...");
    }
}
