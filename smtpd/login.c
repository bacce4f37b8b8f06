#include "smtpd/login.h"

#include <stdio.h>

#include "core/mem.h"

static struct login *make(const char *method, struct slice user, struct slice ticket)
{
    struct buf escaped = BUF_INIT(5 * LOGIN_USER_MAX);
    struct login *l = xcalloc(1, sizeof *l + ticket.len);
    snprintf(l->method, sizeof l->method, "%s", method);
    buf_add_escaped(&escaped, user, LOGIN_USER_MAX);
    l->user = slice_dup(buf_slice(&escaped));
    buf_free(&escaped);
    l->name = slice_dup(user);
    l->name_len = user.len;
    l->ticket_len = (uint16_t)ticket.len;
    if (ticket.len)
        memcpy(l->ticket, ticket.ptr, ticket.len);
    return l;
}

struct login *login_of_account(const char *method, const struct ipc_auth_result *r,
                               uint64_t changes)
{
    bool named = *method != '\0';
    if (r->ticket.len == 0 || r->ticket.len > LOGIN_TICKET_MAX || (r->user.len != 0) != named)
        return NULL;
    struct login *l = make(method, r->user, r->ticket);
    l->size_limit = r->size_limit;
    l->recipient_limit = r->recipient_limit;
    l->limits_at = changes;
    l->any_sender = (r->permissions & PERMIT_ANY_SENDER) != 0;
    return l;
}

struct login *login_new(const char *method, struct slice user)
{
    return make(method, user, SLICE(""));
}

void login_free(struct login **l)
{
    if (!*l)
        return;
    free((*l)->user);
    free((*l)->name);
    xfree(l);
}
