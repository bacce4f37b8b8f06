#include "smtpd/transaction.h"

#include "core/clock.h"
#include "smtpd/content.h"
#include "smtpd/forward.h"
#include "smtpd/gate.h"
#include "smtpd/limits.h"
#include "smtpd/restrictions.h"
#include "smtpd/session.h"

enum { RCPT_OVERHEAD = 16 }; /* of ipc_rcpt: two lengths and a byte */

void tx_init(struct transaction *tx)
{
    *tx = (struct transaction){
        .sender = BUF_INIT(ADDRESS_MAX),
        .envid = BUF_INIT(ENVID_MAX),
        .rcpts = BUF_INIT(RCPTS_MAX),
        .prepend = BUF_INIT(PREPEND_MAX),
    };
    list_init(&tx->at_qmgr.waiting);
}

void tx_begin(struct transaction *tx, const struct smtp_path *sender, const struct mail_params *p)
{
    tx->id = id_new();
    tx->arrival = clock_wall();
    buf_adds(&tx->sender, path_address(sender));
    buf_adds(&tx->envid, mail_envid(p));
    tx->ret = p->ret;
    tx->size = p->size;
    if (p->smtputf8)
        tx->flags |= MESSAGE_SMTPUTF8;
    if (p->requiretls)
        tx->flags |= MESSAGE_REQUIRETLS;
    if (p->body == BODY_8BITMIME)
        tx->flags |= MESSAGE_8BIT;
}

int tx_add_recipient(struct session *s, struct slice address, const struct rcpt_params *p)
{
    struct transaction *tx = &s->tx;
    struct server *sv = s->server;
    struct ipc_rcpt r = {.address = address, .orcpt = rcpt_orcpt(p), .notify = p->notify};
    size_t before = tx->rcpts.cap;
    if (sv->memory > (uint64_t)sv->config->smtpd_memory_limit ||
        buf_reserve(&tx->rcpts, address.len + r.orcpt.len + RCPT_OVERHEAD) < 0)
        return -1;
    sv->memory += tx->rcpts.cap - before;
    ipc_rcpt_add(&tx->rcpts, &r);
    tx->rcpt_count++;
    return 0;
}

struct slice tx_single_recipient(const struct transaction *tx)
{
    struct ipc_cursor at = ipc_list_cursor(buf_slice(&tx->rcpts));
    struct ipc_rcpt r;
    if (tx->rcpt_count != 1 || !ipc_rcpt_next(&at, &r))
        return SLICE("");
    return r.address;
}

void tx_reset(struct session *s)
{
    struct transaction *tx = &s->tx;
    link_abort(&s->server->link, s);
    gate_free(s);
    content_free(s);
    forward_free(&tx->forward);
    restrictions_forget(s);
    s->server->memory -= tx->rcpts.cap;
    buf_free(&tx->sender);
    buf_free(&tx->envid);
    buf_free(&tx->rcpts);
    buf_free(&tx->prepend);
    tx_init(tx);
    s->mode = INPUT_COMMAND;
    s->state = s->helo ? STATE_READY : STATE_GREETED;
}

bool tx_is_clean(const struct transaction *tx)
{
    return tx->id.text[0] == '\0' && !tx->arrival && !tx->sender.data && !tx->envid.data &&
           !tx->rcpts.data && !tx->rcpt_count && !tx->refused && !tx->flags && !tx->ret &&
           !tx->size && !tx->forward && !tx->prepend.data && !tx->run && !tx->gate &&
           !tx->content && !tx->at_qmgr.tag && list_empty(&tx->at_qmgr.waiting);
}
