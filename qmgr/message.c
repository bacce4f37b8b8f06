#include "qmgr/message.h"

#include "core/mem.h"

struct envelope *envelope_new(uint32_t recipients, size_t string_bytes)
{
    size_t fixed = sizeof(struct envelope), all;
    if (__builtin_mul_overflow((size_t)recipients, sizeof(struct recipient), &all) ||
        __builtin_add_overflow(all, fixed, &all) || __builtin_add_overflow(all, string_bytes, &all))
        panic("envelope of %u recipients", recipients);
    struct envelope *e = xmalloc(all);
    *e = (struct envelope){.left = recipients, .next_due = 0};
    memset(e->recipients, 0, (size_t)recipients * sizeof(struct recipient));
    list_init(&e->jobs);
    list_init(&e->waiting);
    return e;
}

void envelope_free(struct envelope *e, uint32_t recipient_count)
{
    if (!e)
        return;
    if (!list_empty(&e->jobs))
        panic("envelope freed while jobs refer to it");
    for (uint32_t i = 0; i < recipient_count; i++)
        answer_unref(e->recipients[i].answer);
    list_remove(&e->waiting);
    free(e->body);
    free(e);
}

/* ---- from the spool ------------------------------------------------------------ */

/* Sum of the strings' lengths; -1 if a limit is broken. */
static int measure(const struct spool_envelope *e, size_t *bytes)
{
    if (e->account.len > ACCOUNT_MAX || e->sender.len > ADDRESS_MAX || e->envid.len > ENVID_MAX ||
        e->recipient_count == 0 || e->recipient_count > SPOOL_RECIPIENTS_MAX)
        return -1;
    if (e->signer.len > SIGNER_MAX)
        return -1;
    *bytes = e->account.len + e->sender.len + e->envid.len + e->signer.len;
    struct slice rest = e->recipients;
    struct spool_rcpt r;
    uint32_t n = 0;
    int rc;
    while ((rc = spool_rcpt_next(&rest, &r)) == 1) {
        if (r.address.len > ADDRESS_MAX || r.orcpt.len > ADDRESS_MAX)
            return -1;
        *bytes += r.address.len + r.orcpt.len;
        n++;
    }
    return rc < 0 || n != e->recipient_count ? -1 : 0;
}

static size_t put(char *strings, size_t at, struct slice s)
{
    if (s.len)
        memcpy(strings + at, s.ptr, s.len);
    return at + s.len;
}

static void fill(struct message *m, const struct spool_envelope *e)
{
    char *strings = envelope_strings(m);
    m->env->account_len = (uint16_t)e->account.len;
    m->env->sender_len = (uint16_t)e->sender.len;
    m->env->envid_len = (uint16_t)e->envid.len;
    m->env->signer_len = (uint8_t)e->signer.len;
    m->env->ret = e->ret;
    m->env->mail_class = e->mail_class <= CLASS_BULK ? e->mail_class : CLASS_NORMAL;
    size_t at = put(strings, 0, e->account);
    at = put(strings, at, e->sender);
    at = put(strings, at, e->envid);
    at = put(strings, at, e->signer);
    struct slice rest = e->recipients;
    struct spool_rcpt r;
    for (uint32_t i = 0; i < m->recipient_count && spool_rcpt_next(&rest, &r) == 1; i++) {
        m->env->recipients[i] = (struct recipient){.at = (uint32_t)at,
                                                   .address_len = (uint16_t)r.address.len,
                                                   .orcpt_len = (uint16_t)r.orcpt.len,
                                                   .notify = r.notify,
                                                   .state = RCPT_WAITING};
        at = put(strings, at, r.address);
        at = put(strings, at, r.orcpt);
    }
}

static void apply_to_recipients(struct message *m, const struct spool_record *r, uint32_t due)
{
    struct answer *a = answer_new(r->code, r->enhanced, r->text, r->host, SLICE(""));
    a->when = r->when;
    a->local = r->code == 0;
    for (uint32_t k = 0; k < r->recipient_count; k++) {
        uint32_t i = spool_record_recipient(r, k);
        if (i >= m->recipient_count)
            continue;
        struct recipient *rcpt = &m->env->recipients[i];
        answer_unref(rcpt->answer);
        rcpt->answer = answer_ref(a);
        rcpt->attempts = r->attempts < UINT8_MAX ? (uint8_t)r->attempts : UINT8_MAX;
        rcpt->due = due;
        if (r->type == SPOOL_RECORD_FAILED) {
            rcpt->state = RCPT_FAILED;
            rcpt->notice = r->notice;
        }
    }
    answer_unref(a);
}

static void apply_records(struct message *m, struct slice records,
                          uint32_t (*second_of)(int64_t wall, void *arg), void *arg)
{
    struct spool_record r;
    while (spool_record_next(&records, &m->id, &r) == 1) {
        switch (r.type) {
        case SPOOL_RECORD_DEFERRED:
            apply_to_recipients(m, &r, second_of(r.next, arg));
            break;
        case SPOOL_RECORD_FAILED:
            apply_to_recipients(m, &r, 0);
            if (r.notice >= m->env->notice_next)
                m->env->notice_next = r.notice < NOTICE_LAST ? r.notice + 1 : NOTICE_LAST;
            break;
        case SPOOL_RECORD_FLAGS:
            m->flags = r.flags;
            m->env->flags_at = r.when;
            break;
        case SPOOL_RECORD_DELAY_SENT:
            m->env->delay_sent = true;
            break;
        default:
            break; /* of a later version, and nothing that delivery needs */
        }
    }
}

int message_build(struct message *m, const struct store_found *found,
                  uint32_t (*second_of)(int64_t wall, void *arg), void *arg)
{
    const struct spool_envelope *e = found->envelope;
    size_t bytes;
    if (measure(e, &bytes) < 0)
        return -1;
    m->arrival = e->arrival;
    m->flags = e->flags;
    m->recipient_count = e->recipient_count;
    m->env = envelope_new(e->recipient_count, bytes);
    fill(m, e);
    apply_records(m, found->records, second_of, arg);
    m->env->left = 0;
    m->env->next_due = UINT32_MAX;
    for (uint32_t i = 0; i < m->recipient_count; i++) {
        struct recipient *r = &m->env->recipients[i];
        if (found->status[i] == SPOOL_CONFIRM)
            r->state = RCPT_CONFIRMED;
        else if (found->status[i] != SPOOL_PENDING)
            r->state = RCPT_DONE;
        else if (r->state == RCPT_WAITING && r->due < m->env->next_due)
            m->env->next_due = r->due;
        m->env->left += r->state != RCPT_DONE;
        m->env->failed += r->state == RCPT_FAILED;
        m->env->confirmed += r->state == RCPT_CONFIRMED;
    }
    return 0;
}
