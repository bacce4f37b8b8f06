#include "relay/job.h"

#include "relay/hosts.h"

#include <stdio.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/err.h"
#include "core/mem.h"
#include "relay/rules.h"

/* ---- taking a job ---------------------------------------------------------- */

struct counts {
    unsigned recipients, targets;
};

static int count_lists(const struct ipc_deliver *m, struct counts *n, struct err *e)
{
    struct ipc_cursor c = ipc_list_cursor(m->recipients);
    struct ipc_job_rcpt r;
    struct ipc_target t;
    *n = (struct counts){0, 0};
    while (ipc_job_rcpt_next(&c, &r))
        n->recipients++;
    if (c.failed || n->recipients == 0 || n->recipients > JOB_RECIPIENTS_MAX)
        return err_set(e, "ipc_deliver with a bad list of %u recipients", n->recipients);
    c = ipc_list_cursor(m->targets);
    while (ipc_target_next(&c, &t))
        n->targets++;
    if (c.failed || n->targets > JOB_TARGETS_MAX)
        return err_set(e, "ipc_deliver with a bad list of %u targets", n->targets);
    return 0;
}

static int check(const struct ipc_deliver *m, int fd, struct err *e)
{
    if (m->transport != TRANSPORT_SMTP && m->transport != TRANSPORT_LMTP)
        return err_set(e, "ipc_deliver for transport %u", m->transport);
    bool address = m->source.len == 0 || m->source.len == 4 || m->source.len == 16;
    if (!address || (m->source6.len && (m->source6.len != 16 || m->source.len != 4)))
        return err_set(e, "ipc_deliver with a source of %zu and %zu bytes", m->source.len,
                       m->source6.len);
    if (fd < 0 && m->body.len != m->body_len)
        return err_set(e, "ipc_deliver with an inline body of another length");
    if (fd >= 0 && m->body.len > 0)
        return err_set(e, "ipc_deliver with a body and a descriptor");
    if (rules_check(m->tls, e) < 0)
        return err_prefix(e, "ipc_deliver");
    if (m->tls_report.len > TLS_REPORT_DOMAIN_MAX)
        return err_set(e, "ipc_deliver with a domain of %zu bytes", m->tls_report.len);
    if (m->body_at > INT64_MAX / 2 || m->body_len > INT64_MAX / 2)
        return err_set(e, "ipc_deliver with an offset or length out of range");
    return 0;
}

static void fill_lists(struct job *j)
{
    struct ipc_cursor c = ipc_list_cursor(j->m.recipients);
    struct ipc_job_rcpt r;
    struct recipient *to = j->recipients;
    while (ipc_job_rcpt_next(&c, &r))
        *to++ = (struct recipient){
            .address = r.address, .orcpt = r.orcpt, .index = r.index, .notify = r.notify};
    c = ipc_list_cursor(j->m.targets);
    for (struct ipc_target *t = j->targets; ipc_target_next(&c, t);)
        t++;
}

struct job *job_new(struct slice body, int fd, struct err *e)
{
    struct ipc_deliver m;
    struct counts n;
    if (ipc_deliver_decode(body, &m) < 0) {
        err_set(e, "malformed ipc_deliver");
        return NULL;
    }
    if (check(&m, fd, e) < 0 || count_lists(&m, &n, e) < 0)
        return NULL;
    /* one slot more: ipc_target_next writes to the place it is given even when
     * it finds the end */
    size_t recipients = n.recipients * sizeof(struct recipient);
    size_t targets = (n.targets + 1UL) * sizeof(struct ipc_target);
    struct job *j = xmalloc(sizeof *j + recipients + targets + body.len);
    memset(j, 0, sizeof *j);
    j->recipients = (struct recipient *)(j + 1);
    j->targets = (struct ipc_target *)(j->recipients + n.recipients);
    char *copy = (char *)(j->targets + n.targets + 1);
    memcpy(copy, body.ptr, body.len);
    if (ipc_deliver_decode(slice_make(copy, body.len), &j->m) < 0)
        panic("a frame that was decoded before does not decode");
    j->recipient_count = j->undecided = n.recipients;
    j->target_count = n.targets;
    fill_lists(j);
    if (m.flags & MESSAGE_REQUIRETLS)
        j->tls_wish = m.flags & MESSAGE_NOTICE ? TLS_WISH_OFFERED : TLS_WISH_REQUIRED;
    else if (m.flags & MESSAGE_TLS_OPTIONAL)
        j->tls_wish = TLS_WISH_OPTIONAL;
    j->fd = fd;
    j->received = clock_mono();
    buf_init(&j->texts, (size_t)JOB_RECIPIENTS_MAX * JOB_TEXT_MAX);
    list_init(&j->link);
    return j;
}

void job_free(struct job *j)
{
    if (!j)
        return;
    list_remove(&j->link);
    if (j->fd >= 0)
        close(j->fd);
    buf_free(&j->texts);
    free(j->failed_enhanced);
    free(j->failed_text);
    free(j->host);
    free(j->address);
    free(j->tls);
    free(j);
}

uint64_t job_size(const struct job *j)
{
    return j->m.prefix.len + j->m.body_len;
}

/* ---- outcomes -------------------------------------------------------------- */

static struct slice kept_text(const struct job *j, uint32_t at, uint16_t len)
{
    return len ? slice_make(j->texts.data + at, len) : SLICE("");
}

static void keep_text(struct job *j, struct recipient *r, struct slice text)
{
    size_t share = JOB_RESULT_TEXT / j->recipient_count;
    text = slice_first(text, share < JOB_TEXT_MAX ? share : JOB_TEXT_MAX);
    if (!slice_eq(kept_text(j, j->last_text_at, j->last_text_len), text)) {
        uint32_t at = (uint32_t)j->texts.len;
        if (buf_adds(&j->texts, text) < 0)
            text.len = 0;
        j->last_text_at = at;
        j->last_text_len = (uint16_t)text.len;
    }
    r->text_at = j->last_text_at;
    r->text_len = j->last_text_len;
}

void job_decide(struct job *j, struct recipient *r, enum rcpt_outcome status,
                const struct verdict *v)
{
    if (r->state == RECIPIENT_DONE)
        return;
    r->state = RECIPIENT_DONE;
    r->status = (uint8_t)status;
    r->stage = (uint8_t)v->stage;
    r->local = v->local;
    r->code = v->code;
    struct slice enhanced = slice_first(v->enhanced, JOB_ENHANCED_MAX);
    r->enhanced_len = (uint8_t)enhanced.len;
    if (enhanced.len > 0) {
        memcpy(r->enhanced, enhanced.ptr, enhanced.len);
        r->enhanced[0] = status == OUTCOME_SENT ? '2' : status == OUTCOME_DEFERRED ? '4' : '5';
    }
    keep_text(j, r, v->text);
    j->undecided--;
}

void job_decide_all(struct job *j, enum recipient_state state, enum rcpt_outcome status,
                    const struct verdict *v)
{
    for (unsigned i = 0; i < j->recipient_count; i++) {
        struct recipient *r = &j->recipients[i];
        if (r->state != RECIPIENT_DONE && (state == RECIPIENT_DONE || r->state == state))
            job_decide(j, r, status, v);
    }
}

static void note(struct job *j, const struct verdict *v)
{
    free(j->failed_enhanced);
    free(j->failed_text);
    j->failed_stage = v->stage;
    j->failed_local = v->local;
    j->failed_code = v->code;
    j->failed_enhanced = slice_dup(v->enhanced);
    j->failed_text = slice_dup(slice_first(v->text, JOB_TEXT_MAX));
}

void job_note_failure(struct job *j, const struct verdict *v)
{
    note(j, v);
    j->failed_temporarily = j->failed_site = true;
}

void job_note_unfit(struct job *j, const struct verdict *v)
{
    note(j, v);
    j->failed_temporarily = true;
}

void job_note_refusal(struct job *j, const struct verdict *v)
{
    if (j->failed_temporarily)
        return; /* what may pass is what is reported */
    note(j, v);
    j->failed_for_good = true;
}

void job_give_up(struct job *j)
{
    bool refused = j->failed_for_good && !j->failed_temporarily;
    struct verdict v = {.stage = j->failed_stage,
                        .local = j->failed_local,
                        .code = j->failed_code,
                        .enhanced = slice_str(j->failed_enhanced),
                        .text = slice_str(j->failed_text)};
    if (!j->failed_text)
        v = (struct verdict){.stage = STAGE_CONNECT,
                             .local = true,
                             .enhanced = SLICE("4.4.4"),
                             .text = SLICE("the destination has no address to connect to")};
    bool tls_only = j->failed_text && !j->failed_site;
    job_widen(j, j->foreign_source && !j->failed_site ? SCOPE_SOURCE
                 : tls_only                           ? SCOPE_MESSAGE
                                                      : SCOPE_SITE);
    job_decide_all(j, RECIPIENT_DONE, refused ? OUTCOME_FAILED : OUTCOME_DEFERRED, &v);
}

void job_not_tried(struct job *j)
{
    struct verdict v = {.stage = STAGE_CONNECT,
                        .local = true,
                        .enhanced = SLICE("4.3.2"),
                        .text = SLICE("no connection may be opened at the moment")};
    j->scope = SCOPE_NO_CONNECTION;
    job_decide_all(j, RECIPIENT_DONE, OUTCOME_DEFERRED, &v);
}

void job_widen(struct job *j, enum failure_scope scope)
{
    if (scope > j->scope)
        j->scope = scope;
}

void job_set_host(struct job *j, const char *host, const char *address, uint16_t port)
{
    free(j->host);
    free(j->address);
    j->host = xstrdup(host);
    j->address = xstrdup(address);
    j->port = port;
    job_set_tls(j, NULL, TLS_PEER_NONE);
}

void job_set_tls(struct job *j, const char *text, uint8_t peer)
{
    free(j->tls);
    j->tls = text ? xstrdup(text) : NULL;
    j->tls_peer = peer;
}

static void encode_outcomes(const struct job *j, struct buf *list)
{
    for (unsigned i = 0; i < j->recipient_count; i++) {
        const struct recipient *r = &j->recipients[i];
        struct ipc_outcome o = {.index = r->index,
                                .status = r->status,
                                .stage = r->stage,
                                .local = r->local,
                                .code = r->code,
                                .enhanced = {r->enhanced, r->enhanced_len},
                                .text = kept_text(j, r->text_at, r->text_len)};
        ipc_outcome_add(list, &o);
    }
}

static uint64_t span(int64_t from, int64_t to)
{
    return from > 0 && to > from ? (uint64_t)(to - from) : 0;
}

void job_encode_result(struct job *j, struct buf *out)
{
    static struct buf list = BUF_INIT(IPC_FRAME_MAX);
    int64_t now = clock_mono();
    int64_t started = j->connecting ? j->connecting : j->connected ? j->connected : now;
    if (j->undecided > 0)
        panic("a result with %u undecided recipients", j->undecided);
    buf_clear(&list);
    encode_outcomes(j, &list);
    struct ipc_result m = {
        .job = j->m.job,
        .scope = (uint8_t)j->scope,
        .after_dot = j->after_dot,
        .dsn = j->dsn,
        .host = slice_str(j->host),
        .address = slice_str(j->address),
        .port = j->port,
        .use_count = j->use_count,
        .taken_count = j->taken_count,
        .closed_after = j->address ? hosts_take_closed(j->address, j->port) : 0,
        .mail_max = j->mail_max,
        .tls = slice_str(j->tls),
        .tls_status = j->tls_peer,
        .wait_us = span(j->received, started),
        .connect_us = j->connecting ? span(j->connecting, j->connected ? j->connected : now) : 0,
        .greeting_us = (uint64_t)j->greeting,
        .connections = j->connections,
        .opened = j->opened,
        .leaving = j->leaving,
        .transfer_us = span(j->connected, now),
        .reply_us = (uint64_t)j->reply,
        .outcomes = buf_slice(&list)};
    ipc_result_encode(out, &m);
}
