/* Jobs on their way to relay processes: DELIVER frames, and the content that goes with them. */
#include <stdio.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "qmgr/connections.h"
#include "qmgr/relays.h"
#include "qmgr/sources.h"
#include "rules/rules.h"
#include "tls/level.h"

enum { SESSIONS_NAME_MAX = 32 };

/* Ends a job that could not be sent. */
static void not_sent(struct qmgr *q, struct job *j, const char *why)
{
    struct message *m = j->m;
    struct attempt t = {.site = j->site, .sent = q->now};
    log_error("%s: content cannot be read, tried again later: %s", m->id.text, why);
    struct answer *a = answer_new(0, SLICE("4.3.0"),
                                  SLICE("mail system trouble: the message cannot "
                                        "be read at the moment"),
                                  SLICE(""), SLICE(""));
    a->local = true;
    dispatch_over(q, j, &relays_nothing, NULL);
    outcome_deferred(q, m, j->rcpts, j->count, a, &t, 0, true);
    answer_unref(a);
    job_free(q, j);
    message_settle(q, m);
}

static struct slice encode_recipients(struct qmgr *q, const struct job *j)
{
    struct buf *b = &q->relays.rcpts;
    buf_clear(b);
    for (uint32_t k = 0; k < j->count; k++) {
        uint32_t i = j->rcpts[k];
        ipc_job_rcpt_add(b, &(struct ipc_job_rcpt){.index = i,
                                                   .address = recipient_address(j->m, i),
                                                   .orcpt = recipient_orcpt(j->m, i),
                                                   .notify = j->m->env->recipients[i].notify});
    }
    return buf_slice(b);
}

/* By what sessions are shared: the addresses, where no host must prove its name. */
static struct slice sessions_name(const struct job *j, char name[static SESSIONS_NAME_MAX])
{
    struct ipc_cursor cursor = ipc_list_cursor(tls_rules_list(j->tls));
    struct ipc_tls_rule rule;
    bool unproven = true;
    while (ipc_tls_rule_next(&cursor, &rule))
        unproven = unproven && rule.level <= TLS_LEVEL_ENCRYPT && rule.host.len == 0;
    if (!unproven || cursor.failed || j->site->transport != TRANSPORT_SMTP)
        return site_name(j->site);
    int n = snprintf(name, SESSIONS_NAME_MAX, "addresses %016llx",
                     (unsigned long long)j->site->sessions);
    return slice_make(name, (size_t)n);
}

/* The level that providers.conf asks for, against what resolve found: what the operator's
 * table says of the domain goes before, and nothing that its policy asks for is lowered. */
static uint8_t level_of(const struct ipc_tls_rule *rule, enum rules_tls wish)
{
    if (rule->origin == TLS_ORIGIN_TABLE)
        return rule->level;
    if (wish == RULES_TLS_ENCRYPT && rule->level < TLS_LEVEL_ENCRYPT)
        return TLS_LEVEL_ENCRYPT;
    if (wish == RULES_TLS_MAY && rule->level < TLS_LEVEL_MAY)
        return TLS_LEVEL_MAY;
    if (wish == RULES_TLS_NONE && rule->level == TLS_LEVEL_MAY)
        return TLS_LEVEL_NONE;
    return rule->level;
}

/* The rules about TLS of a job; valid until the next call. */
static struct slice tls_of(const struct lane *l, const struct job *j)
{
    static struct buf b = {NULL, 0, 0, IPC_FRAME_MAX};
    enum rules_tls wish = (enum rules_tls)l->shaper.limits->tls;
    struct ipc_cursor cursor = ipc_list_cursor(tls_rules_list(j->tls));
    struct ipc_tls_rule rule;
    bool others = false;
    if (wish == RULES_TLS_UNSET || j->site->transport != TRANSPORT_SMTP)
        return tls_rules_list(j->tls);
    buf_clear(&b);
    while (ipc_tls_rule_next(&cursor, &rule)) {
        others = others || rule.host.len == 0;
        rule.level = level_of(&rule, wish);
        ipc_tls_rule_add(&b, &rule);
    }
    if (!others && wish != RULES_TLS_NONE) {
        rule = (struct ipc_tls_rule){.origin = TLS_ORIGIN_CONFIG};
        rule.level = wish == RULES_TLS_ENCRYPT ? TLS_LEVEL_ENCRYPT : TLS_LEVEL_MAY;
        ipc_tls_rule_add(&b, &rule);
    }
    return buf_slice(&b);
}

static void deliver(struct qmgr *q, struct job *j, struct slice prefix, struct slice body, int fd)
{
    const struct lane *l = j->queue->lane;
    const struct config *c = q->s->config;
    const struct message *m = j->m;
    char name[SESSIONS_NAME_MAX];
    bool lmtp = j->site->transport == TRANSPORT_LMTP;
    uint32_t messages = shaper_messages(&l->shaper),
             most = (uint32_t)c->smtp_connection_reuse_count_limit;
    struct ipc_deliver out = {
        .job = j->number,
        .lane = l->number,
        .id = id_slice(&m->id),
        .site = sessions_name(j, name),
        .transport = j->site->transport,
        .source = lane_address(l),
        .source6 = l->from && l->from->has_v4 && l->from->has_v6
                       ? slice_make(l->from->v6, sizeof l->from->v6)
                       : SLICE(""),
        .helo = slice_str(lmtp                          ? c->lmtp_lhlo_name
                          : l->from && l->from->helo[0] ? l->from->helo
                                                        : c->smtp_helo_name),
        .tls = tls_of(l, j),
        .recipients_max = l->shaper.limits->recipients,
        .idle_seconds = l->shaper.limits->idle_seconds,
        .tls_report = tls_rules_report(j->tls),
        .session_messages = messages && messages < most ? messages : most,
        .sessions = shaper_window(&l->shaper),
        .reuse_only = !j->may_connect,
        .greetings = shaper_works(&l->shaper, q->now) ? 1 : 0,
        .flags = m->flags & MESSAGE_FLAGS_ALL & ~MESSAGE_HELD,
        .ret = m->env->ret,
        .envid = message_envid(m),
        .sender = message_sender(m),
        .targets = buf_slice(&j->site->targets),
        .recipients = encode_recipients(q, j),
        .prefix = prefix,
        .body = body,
        .body_at = fd >= 0 ? m->ref.body_at : 0,
        .body_len = fd >= 0 ? m->ref.body_len : body.len,
    };
    ipc_deliver_encode(channel_out(j->relay->peer.channel), &out);
    if (fd >= 0) {
        channel_attach(j->relay->peer.channel, fd);
        close(fd);
    }
    j->state = JOB_SENT;
    j->sent_at = q->now;
}

static void deliver_large(struct qmgr *q, struct job *j, struct slice prefix)
{
    struct err e;
    int fd = store_reader(q->store, &j->m->id, &j->m->ref, &e);
    if (fd < 0)
        not_sent(q, j, e.text);
    else
        deliver(q, j, prefix, SLICE(""), fd);
}

struct reading {
    struct qmgr *q;
    struct message *m;
    uint64_t number;
};

static void on_content(struct slice prefix, struct slice body, const char *error, void *arg)
{
    struct reading *r = arg;
    struct qmgr *q = r->q;
    struct message *m = r->m;
    struct job *j = relays_find(&q->relays, r->number);
    free(r);
    queue_tick(q);
    if (!message_unpin(q, m))
        return;
    if (!j) /* its relay process died meanwhile */
        message_settle(q, m);
    else if (error)
        not_sent(q, j, error);
    else if (m->ref.large)
        deliver_large(q, j, prefix);
    else
        deliver(q, j, prefix, body, -1);
}

void relays_send(struct qmgr *q, struct relay *r, struct job *j)
{
    struct message *m = j->m;
    const struct body *b = m->env->body;
    j->relay = r;
    j->sent_at = q->now;
    r->in_flight++;
    connections_sent(r, j);
    relays_add(&q->relays, j);
    list_push(&r->jobs, &j->link);
    if (b && !m->ref.large) {
        deliver(q, j, slice_make(b->data, b->prefix_len),
                slice_make(b->data + b->prefix_len, b->body_len), -1);
    } else if (m->ref.large && (b || m->ref.prefix_len == 0)) {
        deliver_large(q, j, b ? slice_make(b->data, b->prefix_len) : SLICE(""));
    } else {
        struct reading *reading = xmalloc(sizeof *reading);
        *reading = (struct reading){q, m, j->number};
        message_pin(m);
        store_read(q->store, &m->id, &m->ref, m->ref.large ? 0 : UINT64_MAX, on_content, reading);
    }
}
