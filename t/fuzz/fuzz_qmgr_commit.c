/* libraries: qmgr_parts */
/* Any COMMIT, and what an earlier COMMIT_RCPTS brought: it is refused, or the
 * message that comes of it has what was sent, in memory and in the spool. */
#include <stdlib.h>

#include "core/mem.h"
#include "qmgr/commit.h"

static struct slice no_key(const void *value)
{
    (void)value;
    return SLICE("x");
}

static void check_message(const struct commit *c, const struct ipc_commit *in)
{
    const struct message *m = c->m;
    const struct spool_envelope *e = &c->c.envelope;
    struct slice rest = e->recipients;
    struct spool_rcpt r;
    uint32_t n = 0;
    for (; spool_rcpt_next(&rest, &r) == 1; n++)
        if (!slice_eq(r.address, recipient_address(m, n)) ||
            !slice_eq(r.orcpt, recipient_orcpt(m, n)))
            abort();
    if (n != in->recipient_count || rest.len || n != m->recipient_count)
        abort();
    if (!slice_eq(message_sender(m), in->sender) || !slice_eq(message_envid(m), in->envid) ||
        !slice_eq(message_owner(m), in->account) || !slice_eq(e->client, in->client) ||
        !slice_eq(e->message_id, in->message_id) || !slice_eq(c->c.prefix, in->prefix) ||
        !slice_eq(c->c.body, in->body) || e->added != in->added)
        abort();
    if (e->added > (in->large_len ? in->large_len : in->body.len) / 2 + 2)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct qmgr q;
    struct ipc_commit in;
    struct err e;
    if (size < 2)
        return 0;
    if (!q.commits_free.next) {
        list_init(&q.commits_free);
        map_init(&q.messages, no_key);
    }
    size_t gathered = data[0] | (size_t)data[1] << 8;
    struct slice all = slice_make(data + 2, size - 2);
    struct slice before = slice_first(all, gathered);
    if (ipc_commit_decode(slice_from(all, gathered), &in) < 0)
        return 0;
    struct commit *c = commit_new(&q);
    buf_adds(&c->gathered, before);
    if (commit_check(c, &in, &e) == 0) {
        c->m = xcalloc(1, sizeof *c->m);
        if (commit_build(c, &in, &e) == 0)
            check_message(c, &in);
        envelope_free(c->m->env, c->m->recipient_count);
        free(c->m);
    }
    commit_release(c);
    return 0;
}
