/* qmgr's channel: charges, letters that it took, source pools. */
#include <openssl/crypto.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "quota/book.h"

static int on_noticed(struct quota *q, struct slice body, struct err *e)
{
    struct ipc_account_noticed in;
    if (ipc_account_noticed_decode(body, &in) < 0)
        return err_set(e, "malformed ACCOUNT_NOTICED");
    letters_taken(q, in.tag, in.error.len == 0);
    return 0;
}

/* ---- tokens ------------------------------------------------------------------------ */

static int on_token_key(struct quota *q, struct slice body, struct err *e)
{
    struct ipc_token_key in;
    if (ipc_token_key_decode(body, &in) < 0 || in.key.len != sizeof q->token_key)
        return err_set(e, "malformed TOKEN_KEY");
    memcpy(q->token_key, in.key.ptr, sizeof q->token_key);
    q->token_serial = in.first;
    q->token_known = true;
    return 0;
}

/* Nobody is there who would take what is reserved with it. */
static void forget_token_key(struct quota *q)
{
    OPENSSL_cleanse(q->token_key, sizeof q->token_key);
    q->token_known = false;
}

/* ---- source pools ------------------------------------------------------------------ */

static int on_ask(struct quota *q, struct slice body, struct err *e)
{
    struct ipc_account_ask in;
    char name[ACCOUNT_NAME_MAX + 1];
    struct account *a = NULL;
    if (ipc_account_ask_decode(body, &in) < 0)
        return err_set(e, "malformed ACCOUNT_ASK");
    if (name_account(in.account, name) == 0) /* else it is smtpd's word, passed on */
        a = account_find(q, slice_str(name));
    q->book.pools_told = true;
    struct ipc_account_pool out = {.account = in.account,
                                   .pool = slice_str(a ? account_pool(q, a) : "")};
    if (a)
        account_at_destination(q, a, &out.connections, &out.recipients_a_day);
    ipc_account_pool_encode(channel_out(q->book.channel), &out);
    return 0;
}

void book_pools_changed(struct quota *q)
{
    if (q->book.channel && q->book.pools_told)
        ipc_account_pool_encode(channel_out(q->book.channel),
                                &(struct ipc_account_pool){.account = SLICE("")});
    q->book.pools_told = false;
}

/* ---- the channel --------------------------------------------------------------------- */

static int on_frame(struct channel *channel, const struct ipc_frame *f, int fd, void *arg,
                    struct err *e)
{
    struct quota *q = arg;
    (void)channel, (void)fd; /* no message of qmgr's has one */
    int rc;
    switch (f->number) {
    case IPC_NUMBER_ipc_charges:
        rc = book_charges(q, f->body, e);
        break;
    case IPC_NUMBER_ipc_charges_gone:
        rc = book_gone(q, f->body, e);
        break;
    case IPC_NUMBER_ipc_charges_released:
        rc = book_released(q, f->body, e);
        break;
    case IPC_NUMBER_ipc_account_noticed:
        rc = on_noticed(q, f->body, e);
        break;
    case IPC_NUMBER_ipc_token_key:
        rc = on_token_key(q, f->body, e);
        break;
    case IPC_NUMBER_ipc_account_ask:
        rc = on_ask(q, f->body, e);
        break;
    default:
        rc = err_set(e, "%s is not for quota", ipc_name(f->number));
    }
    return rc;
}

static void on_closed(struct channel *channel, const char *why, void *arg)
{
    struct quota *q = arg;
    if (q->book.channel != channel)
        return;
    if (!q->s->draining)
        log_warning("the channel to qmgr is gone: %s", why);
    q->book.channel = NULL;
    forget_token_key(q);
    q->book.query = 0;
    q->book.scanned = false;
    book_release_again(q);
}

static bool note_any(struct slice key, struct slice value, void *arg)
{
    (void)key, (void)value;
    *(bool *)arg = true;
    return false;
}

void book_ready(struct quota *q)
{
    struct err e;
    bool changed = false;
    if (q->empty && clock_mono() >= q->import_until) {
        if (kv_walk(q->kv, T_AUDIT, SLICE(""), note_any, &changed, &e) < 0)
            panic("%s", e.text);
        q->empty = !changed;
    }
    if (q->empty || q->book.ready || !q->book.channel)
        return;
    q->book.ready = true;
    ipc_charges_ready_encode(channel_out(q->book.channel),
                             &(struct ipc_charges_ready){.credit = BATCH_CREDIT});
}

void book_peer(struct quota *q, int fd)
{
    static const struct channel_ops ops = {on_frame, on_closed};
    struct channel *old = q->book.channel;
    q->book.channel = NULL;
    if (old)
        channel_free(old);
    forget_token_key(q);
    q->book.generation++;
    book_release_again(q);
    q->book.asked = false; /* a batch of the channel before: it is sent again */
    q->book.query = 0;
    q->book.pools_told = false;
    q->book.next_sweep = clock_mono() + 2 * CLOCK_SECOND;
    q->book.sweep.len = 0;
    q->book.looked = q->book.scanned = false;
    q->book.channel = channel_new(q->s->base, fd, "qmgr", &ops, q);
    q->book.ready = false;
    book_ready(q);
    letters_connected(q);
}
