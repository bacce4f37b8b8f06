/* Messages from smtpd: COMMIT goes to the spool, and only when the spool says
 * durable goes COMMITTED back. */
#include <unistd.h>

#include "core/fault.h"
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/commit.h"

struct smtpd {
    struct peer peer;
    struct list open;  /* struct commit */
    struct map by_tag; /* the same */
    size_t bytes;
    uint32_t count;
    int told_state;
    bool owners_only; /* by its configuration all of its mail is of accounts */
};

/* ---- answers ------------------------------------------------------------------------ */

static void refuse(struct smtpd *s, uint64_t tag, const struct refusal *r)
{
    s->peer.q->counters.refused++;
    ipc_refused_encode(channel_out(s->peer.channel), &(struct ipc_refused){
                                                         .tag = tag,
                                                         .code = r->code,
                                                         .enhanced = slice_str(r->enhanced),
                                                         .text = slice_str(r->text),
                                                     });
}

int intake_current_state(const struct qmgr *q)
{
    if (q->store_state != SPOOL_OK)
        return q->store_state;
    bool full = q->messages.count - q->deleted_count >= (uint64_t)q->s->config->qmgr_message_limit;
    return full || (q->draining && !q->orphaned) ? SPOOL_BUSY : SPOOL_OK;
}

static void tell_state(struct smtpd *s, int state)
{
    if (s->told_state == state)
        return;
    s->told_state = state;
    ipc_spool_state_encode(channel_out(s->peer.channel),
                           &(struct ipc_spool_state){.state = (uint8_t)state,
                                                     .commit_credit = COMMIT_CREDIT,
                                                     .byte_credit = BYTE_CREDIT});
}

void intake_state(struct qmgr *q)
{
    int state = intake_current_state(q);
    for (unsigned i = 0; i < q->smtpd_count; i++)
        tell_state(q->smtpds[i], state);
}

/* ---- open messages ---------------------------------------------------------------------- */

static struct slice tag_key(const void *value)
{
    const struct commit *c = value;
    return slice_make(&c->tag, sizeof c->tag);
}

static struct commit *find_open(const struct smtpd *s, uint64_t tag)
{
    return map_get(&s->by_tag, slice_make(&tag, sizeof tag));
}

static struct commit *open_commit(struct smtpd *s, uint64_t tag)
{
    struct commit *c = commit_new(s->peer.q);
    c->smtpd = s;
    c->tag = tag;
    list_push(&s->open, &c->link);
    map_put(&s->by_tag, c);
    s->count++;
    return c;
}

/* B94: what a peer has outstanding stays within its credit. */
static int charge(struct smtpd *s, struct commit *c, size_t bytes, struct err *e)
{
    if (s->count > COMMIT_CREDIT || s->bytes + bytes > BYTE_CREDIT)
        return err_set(e, "more open messages than its credit allows");
    s->bytes += bytes;
    c->charged += bytes;
    return 0;
}

/* The answer is given, or the channel is gone: c belongs to no smtpd any more. */
static void detach(struct commit *c)
{
    struct smtpd *s = c->smtpd;
    if (!s)
        return;
    map_remove(&s->by_tag, tag_key(c));
    list_remove(&c->link);
    s->bytes -= c->charged;
    s->count--;
    c->smtpd = NULL;
}

/* Ends a message that is not at the store. */
static void give_up(struct commit *c)
{
    struct message *m = c->m;
    if (m && c->large_fd >= 0)
        store_large_abort(c->q->store, &m->id, c->large_fd);
    c->large_fd = -1;
    detach(c);
    if (m)
        message_drop(c->q, m);
    commit_release(c);
}

static void abort_open(struct commit *c)
{
    if (c->state == COMMIT_GATHERING || c->state == COMMIT_OPEN) {
        give_up(c);
        return;
    }
    /* the store calls back; then it is cleared away */
    c->state = COMMIT_ABORTED;
    detach(c);
}

/* ---- large messages ------------------------------------------------------------------------ */

static void on_large_file(int fd, const char *error, int code, void *arg)
{
    struct commit *c = arg;
    struct qmgr *q = c->q;
    struct err e = {0, ""};
    q->open_commits--;
    c->large_fd = fd;
    if (c->state == COMMIT_ABORTED) {
        give_up(c);
        return;
    }
    int writer = fd < 0 ? -1 : store_large_writer(q->store, &c->m->id, &e);
    if (writer < 0) {
        log_error("no file for a large message: %s", error ? error : e.text);
        /* a file that was made and cannot be opened again is no lack of room */
        bool full = fd < 0 && code == 452;
        refuse(c->smtpd, c->tag, commit_state_refusal(full ? SPOOL_FULL : SPOOL_BAD));
        give_up(c);
        return;
    }
    c->state = COMMIT_OPEN;
    ipc_large_fd_encode(channel_out(c->smtpd->peer.channel), &(struct ipc_large_fd){.tag = c->tag});
    channel_attach(c->smtpd->peer.channel, writer);
    close(writer);
}

static int on_large_open(struct smtpd *s, struct slice body, struct err *e)
{
    struct ipc_large_open in;
    struct id id;
    if (ipc_large_open_decode(body, &in) < 0 || in.id.len != ID_LEN || id_parse(in.id, &id) < 0)
        return err_set(e, "malformed LARGE_OPEN");
    if (find_open(s, in.tag))
        return err_set(e, "LARGE_OPEN with a tag that is in use");
    const struct refusal *no = commit_state_refusal(intake_current_state(s->peer.q));
    if (!no && queue_find(s->peer.q, in.id))
        no = &refusal_id_in_use;
    if (no) {
        refuse(s, in.tag, no);
        return 0;
    }
    struct commit *c = open_commit(s, in.tag);
    c->m = message_new(s->peer.q, &id);
    c->state = COMMIT_OPENING;
    if (charge(s, c, 0, e) < 0)
        return -1;
    s->peer.q->open_commits++;
    store_large_create(s->peer.q->store, &id, on_large_file, c);
    return 0;
}

/* ---- COMMIT ------------------------------------------------------------------------------------
 */

static void on_committed(struct store_commit *sc, const char *error, int code, void *arg)
{
    struct commit *c = arg;
    struct qmgr *q = c->q;
    struct message *m = c->m;
    struct smtpd *s = c->smtpd;
    uint64_t tag = c->tag, added = sc->envelope.added;
    queue_tick(q);
    q->open_commits--;
    detach(c);
    fault_point("qmgr.committed");
    if (error) {
        log_warning("%s: not taken: %s", m->id.text, error);
        if (s)
            refuse(s, tag, commit_state_refusal(code == 452 ? SPOOL_FULL : SPOOL_BAD));
        message_drop(q, m);
        commit_release(c);
        return;
    }
    m->ref = sc->ref;
    if (c->state == COMMIT_ABORTED) {
        store_finish(q->store, &m->id, &m->ref);
        message_drop(q, m);
        commit_release(c);
        return;
    }
    if (s)
        ipc_committed_encode(channel_out(s->peer.channel), &(struct ipc_committed){.tag = tag});
    q->counters.accepted++;
    q->counters.accepted_bytes += message_size(m);
    m->phase = PHASE_LOADED;
    q->active++;
    events_accepted(q, m, sc->envelope.client, sc->envelope.message_id);
    message_keep_body(q, m, c->body);
    c->body = NULL;
    commit_release(c);
    charges_committed(q, m, added);
    message_enter(q, m);
}

static int on_commit_rcpts(struct smtpd *s, struct slice body, struct err *e)
{
    struct ipc_commit_rcpts in;
    if (ipc_commit_rcpts_decode(body, &in) < 0)
        return err_set(e, "malformed COMMIT_RCPTS");
    struct commit *c = find_open(s, in.tag);
    if (!c)
        c = open_commit(s, in.tag);
    if (c->state == COMMIT_COMMITTING || c->state == COMMIT_OPENING)
        return err_set(e, "COMMIT_RCPTS out of turn");
    if (charge(s, c, in.recipients.len, e) < 0)
        return -1;
    if (buf_adds(&c->gathered, in.recipients) < 0)
        return err_set(e, "too many recipients");
    return 0;
}

static int take(struct smtpd *s, struct commit *c, const struct ipc_commit *in, struct err *e)
{
    struct id id;
    if (!c->m) {
        id_parse(in->id, &id);
        c->m = message_new(s->peer.q, &id);
    }
    if (commit_build(c, in, e) < 0)
        return -1;
    c->m->flags &= ~(uint32_t)MESSAGE_NOTICE; /* only qmgr itself makes notices */
    c->c.envelope.flags = c->m->flags;
    c->c.large_len = in->large_len;
    c->c.large_sum = in->large_sum;
    commit_submit(c, on_committed);
    return 0;
}

static int on_commit(struct smtpd *s, struct slice body, struct err *e)
{
    struct ipc_commit in;
    if (ipc_commit_decode(body, &in) < 0)
        return err_set(e, "malformed COMMIT");
    struct commit *c = find_open(s, in.tag);
    if (c && c->state != COMMIT_GATHERING && c->state != COMMIT_OPEN)
        return err_set(e, "COMMIT with a tag that is in use"); /* B91 */
    if (!c)
        c = open_commit(s, in.tag);
    if (commit_check(c, &in, e) < 0 || charge(s, c, body.len, e) < 0)
        return -1;
    const struct refusal *no = commit_state_refusal(intake_current_state(s->peer.q));
    if (!no && !c->m && queue_find(s->peer.q, in.id))
        no = &refusal_id_in_use;
    if (!no) /* last: it uses the token up */
        no = tokens_refuse(s->peer.q, channel_name(s->peer.channel), s->owners_only, &in);
    if (no) {
        refuse(s, in.tag, no);
        give_up(c);
        return 0;
    }
    return take(s, c, &in, e);
}

static int on_abort(struct smtpd *s, struct slice body, struct err *e)
{
    struct ipc_abort in;
    if (ipc_abort_decode(body, &in) < 0)
        return err_set(e, "malformed ABORT");
    struct commit *c = find_open(s, in.tag);
    if (c) /* otherwise the answer and this crossed on the way */
        abort_open(c);
    return 0;
}

/* ---- the channel
 * --------------------------------------------------------------------------------- */

static int on_frame(struct peer *p, const struct ipc_frame *f, struct err *e)
{
    struct smtpd *s = container_of(p, struct smtpd, peer);
    switch (f->number) {
    case IPC_NUMBER_ipc_commit:
        return on_commit(s, f->body, e);
    case IPC_NUMBER_ipc_commit_rcpts:
        return on_commit_rcpts(s, f->body, e);
    case IPC_NUMBER_ipc_large_open:
        return on_large_open(s, f->body, e);
    case IPC_NUMBER_ipc_abort:
        return on_abort(s, f->body, e);
    default:
        return err_set(e, "%s is not for qmgr", ipc_name(f->number));
    }
}

static void on_gone(struct peer *p)
{
    struct smtpd *s = container_of(p, struct smtpd, peer);
    struct qmgr *q = p->q;
    while (!list_empty(&s->open)) {
        struct commit *c = container_of(s->open.next, struct commit, link);
        if (c->state == COMMIT_COMMITTING)
            detach(c); /* F03: it may be answered for; the message is ours */
        else
            abort_open(c);
    }
    map_free(&s->by_tag);
    for (unsigned i = 0; i < q->smtpd_count; i++)
        if (q->smtpds[i] == s)
            q->smtpds[i] = q->smtpds[--q->smtpd_count];
    free(s);
}

void intake_peer(struct qmgr *q, unsigned slot, unsigned pid, int fd)
{
    static const struct peer_ops ops = {on_frame, on_gone};
    char name[64];
    const bool owners_only = q->owners_only && pid == q->owners_only;
    q->owners_only = 0; /* it is said of the next one; later its number may be another process's */
    if (q->smtpd_count == SMTPDS_MAX) {
        log_error("more than %d smtpd processes: one stays without a queue", SMTPDS_MAX);
        close(fd);
        return;
    }
    snprintf(name, sizeof name, "smtpd %u (process %u)", slot, pid);
    struct smtpd *s = xcalloc(1, sizeof *s);
    s->told_state = -1;
    s->owners_only = owners_only;
    if (s->owners_only)
        log_debug("all mail of %s has to be of accounts", name);
    list_init(&s->open);
    map_init(&s->by_tag, tag_key);
    peer_open(&s->peer, q, fd, name, &ops);
    q->smtpds[q->smtpd_count++] = s;
    tell_state(s, intake_current_state(q));
}

void intake_reload(struct qmgr *q)
{
    for (unsigned i = 0; !*q->s->config->mynetworks_account && i < q->smtpd_count; i++)
        q->smtpds[i]->owners_only = false;
}

/* ---- our own notices
 * -------------------------------------------------------------------------------- */

static void on_notice_committed(struct store_commit *sc, const char *error, int code, void *arg)
{
    struct commit *c = arg;
    struct qmgr *q = c->q;
    struct message *m = c->m;
    void (*done)(const char *, void *) = c->done;
    void *done_arg = c->arg;
    (void)code;
    queue_tick(q);
    q->open_commits--;
    if (error) {
        message_drop(q, m);
        commit_release(c);
        done(error, done_arg);
        return;
    }
    m->ref = sc->ref;
    m->phase = PHASE_LOADED;
    q->active++;
    message_keep_body(q, m, c->body);
    c->body = NULL;
    commit_release(c);
    charges_committed(q, m, 0); /* of a letter */
    done(NULL, done_arg);
    message_enter(q, m);
}

/* replace: a crash may have left the same notice in the spool. */
static void commit_to(struct qmgr *q, const struct id *id, bool replace, struct slice owner,
                      struct slice recipient, uint32_t flags, struct slice content,
                      void (*done)(const char *error, void *arg), void *arg)
{
    struct err e;
    struct buf list = BUF_INIT(2 * ADDRESS_MAX);
    ipc_rcpt_add(&list, &(struct ipc_rcpt){.address = recipient});
    struct ipc_commit in = {
        .arrival = clock_wall(),
        .flags = flags & ~MESSAGE_HELD,
        .account = owner,
        .recipient_count = 1,
        .recipients = buf_slice(&list),
        .body = content,
    };
    struct commit *c = commit_new(q);
    c->m = message_new(q, id);
    c->c.replace = replace;
    c->done = done;
    c->arg = arg;
    if (commit_build(c, &in, &e) < 0)
        panic("message %s of our own: %s", id->text, e.text);
    buf_free(&list);
    commit_submit(c, on_notice_committed);
}

void intake_commit_notice(struct qmgr *q, const struct id *id, const struct message *about,
                          struct slice recipient, uint32_t flags, struct slice content,
                          void (*done)(const char *error, void *arg), void *arg)
{
    /* RFC 8689 section 5: protected as what it is about; bounce has no say in it */
    flags &= MESSAGE_FLAGS_ALL & ~(uint32_t)MESSAGE_REQUIRETLS;
    flags |= MESSAGE_NOTICE | (about->flags & MESSAGE_REQUIRETLS);
    commit_to(q, id, true, message_owner(about), recipient, flags, content, done, arg);
}

void intake_commit_own(struct qmgr *q, const struct id *id, struct slice recipient, uint32_t flags,
                       struct slice content, void (*done)(const char *error, void *arg), void *arg)
{
    flags = (flags & (MESSAGE_FLAGS_ALL | MESSAGE_LETTER)) | MESSAGE_NOTICE;
    commit_to(q, id, false, SLICE(""), recipient, flags, content, done, arg);
}

void intake_commit_report(struct qmgr *q, struct slice recipient, struct slice content,
                          void (*done)(const char *error, void *arg), void *arg)
{
    struct id id = id_new();
    commit_to(q, &id, false, SLICE(""), recipient, MESSAGE_TLS_OPTIONAL, /* RFC 8460 section 5.3 */
              content, done, arg);
}
