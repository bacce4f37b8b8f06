/* XCLIENT: a client that may do so says who the real client is. */
#include "core/log.h"
#include "core/mem.h"
#include "smtp/xattr.h"
#include "smtpd/opening.h"
#include "smtpd/reply.h"
#include "smtpd/verbs.h"

/* What the command has said, all of it checked before anything of it holds. */
struct claims {
    bool given[XATTR_COUNT], esmtp;
    struct xattr name, helo, login;
    struct proxy_endpoint client, local;
};

static int take_name(const struct xattr *a, struct claims *c)
{
    c->name = *a;
    return a->known && !names_is_host(xattr_value(a)) ? -1 : 0;
}

static int take_helo(const struct xattr *a, struct claims *c)
{
    c->helo = *a;
    return a->known && !command_helo_valid(xattr_value(a)) ? -1 : 0;
}

static int take(const struct xattr *a, struct claims *c)
{
    c->given[a->name] = true;
    switch (a->name) {
    case XATTR_NAME:
        return take_name(a, c);
    case XATTR_ADDR:
        return a->known ? xattr_address(a, &c->client) : 0;
    case XATTR_PORT:
        return a->known ? xattr_port(a, &c->client.port) : 0;
    case XATTR_PROTO:
        return a->known ? xattr_protocol(a, &c->esmtp) : 0;
    case XATTR_HELO:
        return take_helo(a, c);
    case XATTR_LOGIN:
        c->login = *a;
        return 0;
    case XATTR_DESTADDR:
        return a->known ? xattr_address(a, &c->local) : 0;
    case XATTR_DESTPORT:
        return a->known ? xattr_port(a, &c->local.port) : 0;
    default:
        return -1;
    }
}

/* 0, or -1 when it was answered. */
static int parse(struct session *s, struct slice argument, struct claims *c)
{
    struct xattr a = {0};
    int rc, count = 0;
    while ((rc = xattr_next(&argument, &a)) == 1) {
        count++;
        if (c->given[a.name] || take(&a, c) < 0) {
            reply(s, 501, "5.5.4", "Error: bad or second XCLIENT attribute %s", xattr_text(a.name));
            return -1;
        }
    }
    if (rc == 0 && count)
        return 0;
    reply(s, 501, "5.5.4", "Syntax: XCLIENT attribute=value...");
    return -1;
}

static void replace(char **text, const struct xattr *a)
{
    free(*text);
    *text = a->known && a->len ? slice_dup(xattr_value(a)) : NULL;
}

/* A proxy's word about who has authenticated there stays until it says another. Who
 * has authenticated here was another client. */
static void change_login(struct session *s, const struct xattr *said)
{
    bool was_said = s->login && strcmp(s->login->method, "XCLIENT") == 0;
    s->nobody = false;
    login_free(&s->host_login);
    if (!said && was_said)
        return;
    login_free(&s->login);
    if (said && said->known && said->len)
        s->login = login_new("XCLIENT", xattr_value(said));
}

/* What the command does not mention stays as it is, but a new address never goes
 * with the old one's name or port. */
static void apply(struct session *s, struct claims *c)
{
    struct proxy_endpoint *client = &c->client;
    struct slice name = xattr_value(&c->name);
    char *kept = NULL;
    if (!c->given[XATTR_ADDR]) {
        client->len = s->address_len;
        memcpy(client->address, s->address, sizeof client->address);
        if (!c->given[XATTR_PORT])
            client->port = s->port;
        if (!c->given[XATTR_NAME])
            name = slice_str(kept = slice_dup(session_client_name(s)));
    }
    if (c->given[XATTR_DESTADDR] || c->given[XATTR_DESTPORT])
        s->local = c->local;
    change_login(s, c->given[XATTR_LOGIN] ? &c->login : NULL);
    replace(&s->helo, &c->helo);
    s->esmtp = c->given[XATTR_PROTO] && c->esmtp;
    tx_reset(s);
    opening_change_client(s, client, name);
    free(kept);
}

void cmd_xclient(struct session *s, struct slice argument)
{
    struct claims c = {0};
    if (!s->may_xclient)
        reply(s, 550, "5.7.0", "Error: insufficient authorization");
    else if (s->state != STATE_GREETED && s->state != STATE_READY)
        reply(s, 503, "5.5.1", "Error: MAIL transaction in progress");
    else if (parse(s, argument, &c) == 0)
        apply(s, &c);
}
