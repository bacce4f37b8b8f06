#include "qmgr/commit.h"

#include <unistd.h>

#include "core/mem.h"
#include "domain/organisation.h"

enum {
    SCRATCH_KEEP = 4096, /* a commit for reuse keeps this much memory */
    FREE_COMMITS_MAX = 256,
    CLIENT_MAX = 512,
    MESSAGE_ID_MAX = 255
};

#define ARRIVAL_AGE_MAX (7 * 86400 * CLOCK_SECOND)

struct commit *commit_new(struct qmgr *q)
{
    struct list *n = list_pop(&q->commits_free);
    struct commit *c = n ? container_of(n, struct commit, link) : xcalloc(1, sizeof *c);
    if (n)
        q->commits_free_count--;
    struct buf scratch = c->scratch;
    *c = (struct commit){.q = q, .scratch = scratch, .large_fd = -1};
    list_init(&c->link);
    buf_init(&c->gathered, SPOOL_ENVELOPE_MAX);
    c->scratch.max = SPOOL_ENVELOPE_MAX;
    return c;
}

void commit_release(struct commit *c)
{
    struct qmgr *q = c->q;
    list_remove(&c->link);
    if (c->large_fd >= 0)
        panic("a large message's file was left open");
    buf_free(&c->gathered);
    xfree(&c->body);
    buf_clear(&c->scratch);
    if (c->scratch.cap > SCRATCH_KEEP)
        buf_free(&c->scratch);
    if (q->commits_free_count < FREE_COMMITS_MAX) {
        list_push(&q->commits_free, &c->link);
        q->commits_free_count++;
        return;
    }
    buf_free(&c->scratch);
    free(c);
}

const struct refusal refusal_id_in_use = {451, "4.3.0", "queue ID in use, try again"};

const struct refusal *commit_state_refusal(int spool_state)
{
    static const struct refusal by_state[] = {
        [SPOOL_FULL] = {452, "4.3.1", "Insufficient system storage"},
        [SPOOL_BAD] = {451, "4.3.0", "Mail storage is out of order"},
        [SPOOL_BUSY] = {452, "4.3.2", "The mail queue is full"},
    };
    return spool_state == SPOOL_OK ? NULL : &by_state[spool_state];
}

/* ---- checks ------------------------------------------------------------------------ */

int commit_check(const struct commit *c, const struct ipc_commit *in, struct err *e)
{
    bool large = c->state == COMMIT_OPEN;
    if (large != (in->large_len > 0) || (large && in->body.len))
        return err_set(e, "COMMIT of a %s message with a %s body", large ? "large" : "small",
                       in->large_len ? "large" : "small");
    if (c->m && !slice_eq(in->id, id_slice(&c->m->id)))
        return err_set(e, "COMMIT with another ID than LARGE_OPEN");
    if (in->id.len != ID_LEN || !id_valid(in->id))
        return err_set(e, "COMMIT without a valid ID");
    if (in->flags & ~MESSAGE_FLAGS_ALL)
        return err_set(e, "COMMIT with undeclared flags");
    if (in->ret > RET_FULL || in->mail_class > CLASS_BULK)
        return err_set(e, "COMMIT with an undeclared RET or class");
    if (in->account.len > ACCOUNT_MAX || in->sender.len > ADDRESS_MAX ||
        in->envid.len > ENVID_MAX || in->client.len > CLIENT_MAX ||
        in->message_id.len > MESSAGE_ID_MAX || in->signer.len > SIGNER_MAX)
        return err_set(e, "COMMIT with a text that is too long");
    if (in->prefix.len > INLINE_CONTENT_MAX || in->prefix.len + in->body.len > INLINE_CONTENT_MAX)
        return err_set(e, "COMMIT with %zu bytes of content", in->prefix.len + in->body.len);
    /* a line end is made of one byte at least; two more may end the last line, two the header */
    uint64_t body = in->large_len ? in->large_len : in->body.len;
    if (in->added > body || in->added > body / 2 + 2)
        return err_set(e, "COMMIT of a message that is hardly the client's");
    if (in->recipient_count == 0 || in->recipient_count > SPOOL_RECIPIENTS_MAX)
        return err_set(e, "COMMIT with %u recipients", in->recipient_count);
    return 0;
}

/* ---- building ------------------------------------------------------------------------ */

/* Adds up one list; -1 if it is malformed or breaks a limit. */
static int measure(struct slice list, uint32_t *count, size_t *bytes)
{
    struct ipc_cursor cursor = ipc_list_cursor(list);
    struct ipc_rcpt r;
    while (ipc_rcpt_next(&cursor, &r)) {
        if (r.address.len == 0 || r.address.len > ADDRESS_MAX || r.orcpt.len > ADDRESS_MAX ||
            r.notify > 15)
            return -1;
        *bytes += r.address.len + r.orcpt.len;
        ++*count;
    }
    return cursor.failed ? -1 : 0;
}

static size_t put(char *strings, size_t at, struct slice s)
{
    if (s.len)
        memcpy(strings + at, s.ptr, s.len);
    return at + s.len;
}

/* Fills recipients from *i on; both the envelope and the spool's list. */
static size_t add_recipients(struct commit *c, struct slice list, uint32_t *i, size_t at)
{
    char *strings = envelope_strings(c->m);
    struct ipc_cursor cursor = ipc_list_cursor(list);
    struct ipc_rcpt r;
    for (; ipc_rcpt_next(&cursor, &r); ++*i) {
        c->m->env->recipients[*i] = (struct recipient){.at = (uint32_t)at,
                                                       .address_len = (uint16_t)r.address.len,
                                                       .orcpt_len = (uint16_t)r.orcpt.len,
                                                       .notify = r.notify};
        at = put(strings, at, r.address);
        at = put(strings, at, r.orcpt);
        struct spool_rcpt s = {r.address, r.orcpt, r.notify};
        spool_rcpt_add(&c->scratch, &s);
    }
    return at;
}

static void build_spool_envelope(struct commit *c, const struct ipc_commit *in)
{
    struct message *m = c->m;
    size_t list_len = c->scratch.len;
    buf_adds(&c->scratch, in->client);
    buf_adds(&c->scratch, in->message_id);
    struct slice all = buf_slice(&c->scratch);
    c->c.envelope = (struct spool_envelope){
        .arrival = m->arrival,
        .flags = m->flags,
        .ret = in->ret,
        .mail_class = in->mail_class,
        .account = message_owner(m),
        .client = slice_first(slice_from(all, list_len), in->client.len),
        .message_id = slice_from(all, list_len + in->client.len),
        .sender = message_sender(m),
        .envid = message_envid(m),
        .signer = message_signer(m),
        .added = in->added,
        .recipient_count = m->recipient_count,
        .recipients = slice_first(all, list_len),
    };
}

static void copy_content(struct commit *c, struct slice prefix, struct slice body)
{
    c->body = xmalloc(sizeof *c->body + prefix.len + body.len);
    c->body->prefix_len = (uint32_t)prefix.len;
    c->body->body_len = (uint32_t)body.len;
    put(c->body->data, put(c->body->data, 0, prefix), body);
    c->c.prefix = slice_make(c->body->data, prefix.len);
    c->c.body = slice_make(c->body->data + prefix.len, body.len);
}

int commit_build(struct commit *c, const struct ipc_commit *in, struct err *e)
{
    struct message *m = c->m;
    uint32_t count = 0, i = 0;
    char spelled[DOMAIN_NAME_MAX + 1];
    /* as it was in From: in any other spelling it would not be the domain that is suspended */
    struct slice signer = domain_spelled(in->signer, spelled);
    _Static_assert((int)SIGNER_MAX >= (int)DOMAIN_NAME_MAX, "a domain's name finds room");
    size_t bytes = in->account.len + in->sender.len + in->envid.len + signer.len;
    if (measure(buf_slice(&c->gathered), &count, &bytes) < 0 ||
        measure(in->recipients, &count, &bytes) < 0)
        return err_set(e, "COMMIT with a malformed recipient");
    if (count != in->recipient_count)
        return err_set(e, "COMMIT of %u recipients came with %u", in->recipient_count, count);
    /* smtpd is believed within reason: a wrong arrival would expire the message */
    int64_t now = clock_wall();
    bool sane = in->arrival <= now && in->arrival > now - ARRIVAL_AGE_MAX;
    m->arrival = sane ? in->arrival : now;
    m->born = c->q->now - (now - m->arrival);
    m->flags = in->flags;
    m->recipient_count = count;
    m->env = envelope_new(count, bytes);
    m->env->account_len = (uint16_t)in->account.len;
    m->env->sender_len = (uint16_t)in->sender.len;
    m->env->envid_len = (uint16_t)in->envid.len;
    m->env->signer_len = (uint8_t)signer.len;
    m->env->ret = in->ret;
    m->env->mail_class = in->mail_class;
    char *strings = envelope_strings(m);
    size_t at = put(strings, 0, in->account);
    at = put(strings, at, in->sender);
    at = put(strings, at, in->envid);
    at = put(strings, at, signer);
    at = add_recipients(c, buf_slice(&c->gathered), &i, at);
    add_recipients(c, in->recipients, &i, at);
    build_spool_envelope(c, in);
    copy_content(c, in->prefix, in->body);
    return 0;
}

void commit_submit(struct commit *c, void (*done)(struct store_commit *, const char *, int, void *))
{
    c->state = COMMIT_COMMITTING;
    c->c.id = c->m->id;
    c->c.large_fd = c->large_fd;
    c->large_fd = -1; /* the store's now */
    c->c.done = done;
    c->c.arg = c;
    c->q->open_commits++;
    store_commit(c->q->store, &c->c);
}
