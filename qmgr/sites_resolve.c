/* The channel to resolve: questions about routes, and what its answers make of them. */
#include <stdlib.h>

#include "core/log.h"
#include "qmgr/moves.h"
#include "qmgr/sites.h"
#include "qmgr/sources.h"

enum {
    OUTSTANDING_MAX = 512, /* questions without an answer */
    TTL_MAX = 24 * 3600,
    TARGETS_MAX = 100
};

/* ---- asking ---------------------------------------------------------------------------- */

static struct slice map_tag_key(const void *value)
{
    const struct route *r = value;
    return slice_make(&r->tag, sizeof r->tag);
}

void sites_resolve_init(struct qmgr *q)
{
    map_init(&q->sites.asked, map_tag_key);
    list_init(&q->sites.unsent);
}

void route_ask(struct qmgr *q, struct route *r)
{
    if (r->state != ROUTE_NEW)
        return;
    r->state = ROUTE_UNSENT;
    list_push(&q->sites.unsent, &r->unsent);
}

void sites_turn(struct qmgr *q)
{
    struct sites *s = &q->sites;
    while (s->peer.channel && s->outstanding < OUTSTANDING_MAX && !list_empty(&s->unsent)) {
        struct route *r = container_of(list_pop(&s->unsent), struct route, unsent);
        r->state = ROUTE_ASKED;
        r->tag = ++s->next_tag;
        map_put(&s->asked, r);
        s->outstanding++;
        ipc_resolve_request_encode(
            channel_out(s->peer.channel),
            &(struct ipc_resolve_request){
                .tag = r->tag, .recipient = slice_make(r->text + r->key_len, r->sample_len)});
    }
}

/* ---- answers ---------------------------------------------------------------------------- */

/* What an answer says, checked: nothing is changed for one that makes no sense. */
struct said {
    const struct ipc_resolve_reply *in;
    bool delivers; /* to a site, with these targets */
    struct tls_rules *tls;
    struct buf targets;
    uint8_t families;
};

/* Keeps as many targets as fit, in resolve's order. -1: malformed or none. */
static int read_targets(struct slice list, struct said *out)
{
    struct ipc_cursor cursor = ipc_list_cursor(list);
    struct ipc_target t;
    int count = 0;
    while (ipc_target_next(&cursor, &t)) {
        size_t need = 12 + t.host.len + t.address.len;
        if (count < TARGETS_MAX && out->targets.len + need <= TARGET_BYTES_MAX) {
            ipc_target_add(&out->targets, &t);
            out->families |= t.address.len == 4 ? 1 : t.address.len == 16 ? 2 : 0;
            count++;
        }
    }
    return cursor.failed || count == 0 ? -1 : 0;
}

static void said_free(struct said *s)
{
    buf_free(&s->targets);
    tls_rules_unref(s->tls);
}

/* -1: the reply makes no sense, and there is nothing to free. */
static int read_answer(const struct ipc_resolve_reply *in, struct said *out, struct err *e)
{
    *out = (struct said){.in = in, .targets = BUF_INIT(TARGET_BYTES_MAX)};
    out->delivers = in->status == RESOLVE_OK &&
                    (in->transport == TRANSPORT_SMTP || in->transport == TRANSPORT_LMTP);
    if (in->status > RESOLVE_PERMANENT || in->transport > TRANSPORT_DISCARD)
        return err_set(e, "RESOLVE_REPLY with an undeclared status or transport");
    if (out->delivers && (in->site.len == 0 || in->site.len > SITE_NAME_MAX))
        return err_set(e, "RESOLVE_REPLY without a usable site name");
    if (sites_read_tls(in, &out->tls, e) < 0)
        return -1;
    if (out->delivers && read_targets(in->targets, out) < 0) {
        said_free(out);
        return err_set(e, "RESOLVE_REPLY without usable targets");
    }
    return 0;
}

/* The site that the answer leads to, a reference for the caller; its targets are those now. */
static struct site *find_site(struct qmgr *q, const struct route *r, struct said *said)
{
    struct slice domain = domain_part(route_key(r));
    struct site *site =
        site_get(q, &(struct site_id){.transport = said->in->transport,
                                      .own = !slice_caseeq(domain, said->in->nexthop),
                                      .name = said->in->site,
                                      .domain = domain});
    site->refs++;
    buf_free(&site->targets);
    site->targets = said->targets;
    site->families = said->families;
    buf_init(&said->targets, TARGET_BYTES_MAX);
    site_regroup(q, site); /* its targets may have changed, and with them whose limits hold */
    return site;
}

/* Takes the answer over into r. */
static void learn(struct qmgr *q, struct route *r, struct said *said)
{
    const struct ipc_resolve_reply *in = said->in;
    struct site *site = said->delivers ? find_site(q, r, said) : NULL;
    if (site && r->site && r->site->group != site->group)
        moves_look(q, r->site->group, false); /* not one by one, as they come to the front */
    route_forget_answer(q, r);
    r->tls = said->tls;
    said->tls = NULL;
    r->site = site;
    r->status = in->status;
    r->transport = in->transport;
    r->nexthop = slice_dup(slice_first(in->nexthop, SITE_NAME_MAX));
    uint32_t ttl = in->ttl < 1 ? 1 : in->ttl < TTL_MAX ? in->ttl : TTL_MAX;
    r->expires = q->now + ttl * CLOCK_SECOND;
    if (!said->delivers) {
        r->answer = answer_new(in->code, in->enhanced, in->text, SLICE(""), SLICE(""));
        r->answer->local = true;
    }
    r->state = ROUTE_READY;
}

/* The addresses of this domain differ: what was said holds for the address that
 * was asked about; everything that waits for the domain is routed anew. */
static struct route *split_by_address(struct qmgr *q, struct route *domain, struct list *again)
{
    struct slice sample = slice_make(domain->text + domain->key_len, domain->sample_len);
    if (domain->site)
        moves_look(q, domain->site->group, false);
    route_forget_answer(q, domain);
    domain->by_address = true;
    domain->state = ROUTE_READY;
    domain->expires = q->now + TTL_MAX * CLOCK_SECOND;
    struct list *n;
    while ((n = list_pop(&domain->waiting)))
        list_push(again, n);
    return route_get(q, sample, sample);
}

static void route_anew(struct qmgr *q, struct list *again)
{
    struct list *n;
    while ((n = list_pop(again))) {
        struct job *j = container_of(n, struct job, link);
        struct message *m = j->m;
        for (uint32_t k = 0; k < j->count; k++)
            recipient_waits(m, j->rcpts[k], 0);
        m->env->queued -= j->count;
        job_free(q, j);
        message_activate(q, m);
    }
}

static void release_waiting(struct qmgr *q, struct route *r)
{
    struct list *n;
    while ((n = list_pop(&r->queues)))
        moves_go_on(q, container_of(n, struct queue, link));
    while ((n = list_pop(&r->watchers))) {
        struct route_watcher *w = container_of(n, struct route_watcher, link);
        w->done(r, w->arg);
        free(w);
    }
    while ((n = list_pop(&r->waiting))) {
        struct job *j = container_of(n, struct job, link);
        struct message *m = j->m;
        route_apply(q, r, j);
        message_settle(q, m);
    }
}

/* The reply is about r, or about the address for which r, of its domain, was asked. r stays for as
 * long as this lasts, whatever room others need. */
static int work_in(struct qmgr *q, struct route *r, const struct ipc_resolve_reply *in,
                   struct err *e)
{
    struct route *target = r;
    struct list again;
    struct said said;
    bool whole_domain = r->key_len != r->sample_len;
    list_init(&again);
    if (read_answer(in, &said, e) < 0) {
        route_ask(q, r); /* the next resolve process is asked again */
        return -1;
    }
    if (in->scope == 1 && whole_domain)
        target = split_by_address(q, r, &again);
    learn(q, target, &said);
    said_free(&said);
    target->answering = true;
    if (target != r) {
        /* the domain's entry lives as long as what it stands for */
        r->expires = target->expires;
        release_waiting(q, r);
    }
    release_waiting(q, target);
    route_anew(q, &again);
    target->answering = false;
    return 0;
}

static int on_reply(struct qmgr *q, struct slice body, struct err *e)
{
    struct ipc_resolve_reply in;
    if (ipc_resolve_reply_decode(body, &in) < 0)
        return err_set(e, "malformed RESOLVE_REPLY");
    struct route *r = map_get(&q->sites.asked, slice_make(&in.tag, sizeof in.tag));
    if (!r)
        return err_set(e, "RESOLVE_REPLY to a question that was not asked");
    map_remove(&q->sites.asked, map_tag_key(r));
    q->sites.outstanding--;
    r->state = ROUTE_NEW;
    r->answering = true;
    int rc = work_in(q, r, &in, e);
    r->answering = false;
    return rc;
}

/* ---- the channel ------------------------------------------------------------------------ */

static int on_frame(struct peer *p, const struct ipc_frame *f, struct err *e)
{
    struct qmgr *q = p->q;
    if (f->number == IPC_NUMBER_ipc_resolve_reply)
        return on_reply(q, f->body, e);
    if (f->number == IPC_NUMBER_ipc_tls_report)
        return sites_tls_report(q, f->body, e);
    if (f->number == IPC_NUMBER_ipc_listing_reply)
        return sources_listing(q, f->body, e);
    return err_set(e, "%s is not for qmgr", ipc_name(f->number));
}

/* F33: what was asked waits for the next resolve process. */
static void on_gone(struct peer *p)
{
    struct qmgr *q = p->q;
    sources_lists_reset(q);
    size_t cursor = 0;
    struct route *r;
    while ((r = map_next(&q->sites.asked, &cursor))) {
        r->state = ROUTE_UNSENT;
        list_push(&q->sites.unsent, &r->unsent);
    }
    map_clear(&q->sites.asked, NULL);
    q->sites.outstanding = 0;
}

void sites_peer(struct qmgr *q, int fd)
{
    static const struct peer_ops ops = {on_frame, on_gone};
    peer_open(&q->sites.peer, q, fd, "resolve", &ops);
}
