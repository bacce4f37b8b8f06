/*
 * What happened to recipients: sent, deferred, failed. Sent ones are marked;
 * deferred ones get a record with the number of attempts; a failure is made
 * durable before its notice, and the recipient stays until that notice is
 * durable too. None of these settles the message: the caller does, at the end.
 */
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/qmgr.h"

enum { RECORD_RECIPIENTS_MAX = 1024 };

/* The recipient leaves its job, if it was in one, and learns what was said. */
static void take_back(struct message *m, uint32_t i, struct answer *a, bool attempt)
{
    struct recipient *r = &m->env->recipients[i];
    if (r->state == RCPT_QUEUED) {
        m->env->queued--;
        r->state = RCPT_WAITING;
    }
    if (attempt && r->attempts < UINT8_MAX)
        r->attempts++;
    if (a && a != r->answer) {
        answer_unref(r->answer);
        r->answer = answer_ref(a);
    }
}

static bool no_notice_on_failure(const struct recipient *r)
{
    return r->notify && !(r->notify & NOTIFY_FAILURE);
}

/* ---- sent ------------------------------------------------------------------------------ */

void outcome_sent(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count,
                  struct answer *a, const struct attempt *t)
{
    uint32_t few[16], *done = count <= 16 ? few : xmalloc(count * sizeof *done), n = 0;
    for (uint32_t k = 0; k < count; k++) {
        struct recipient *r = &m->env->recipients[rcpts[k]];
        take_back(m, rcpts[k], a, true);
        events_attempt(q, m, rcpts[k], ATTEMPT_SENT, a, t);
        bool confirm = (r->notify & NOTIFY_SUCCESS) && !t->dsn_taken_over && !m->env->discarded &&
                       message_sender(m).len > 0;
        if (!confirm) {
            done[n++] = rcpts[k];
            continue;
        }
        /* after a crash neither delivered again nor is the notice forgotten */
        r->state = RCPT_CONFIRMED;
        m->env->confirmed++;
        if (!m->quarantined)
            store_mark(q->store, &m->id, &m->ref, rcpts[k], SPOOL_CONFIRM);
    }
    q->counters.delivered += count;
    if (n)
        recipients_done(q, m, done, n, SPOOL_SENT);
    if (done != few)
        free(done);
}

/* ---- records ------------------------------------------------------------------------------ */

static void encode_indices(struct buf *b, const uint32_t *rcpts, uint32_t count)
{
    for (uint32_t k = 0; k < count; k++)
        for (int shift = 0; shift < 32; shift += 8)
            buf_addc(b, (char)(rcpts[k] >> shift));
}

/* Appends a record on these recipients. 0, or -1 if it could not be encoded. */
static int write_record(struct qmgr *q, struct message *m, struct spool_record *r,
                        const uint32_t *rcpts, uint32_t count, const struct answer *a,
                        void (*done)(const char *error, void *arg), void *arg)
{
    struct buf indices = BUF_INIT(4 * RECORD_RECIPIENTS_MAX), out = BUF_INIT(SPOOL_RECORD_MAX);
    encode_indices(&indices, rcpts, count);
    r->when = clock_wall();
    r->recipient_count = count;
    r->recipients = buf_slice(&indices);
    r->code = a->code;
    r->enhanced = slice_str(a->enhanced);
    r->text = answer_text(a);
    r->host = answer_host(a);
    int rc = spool_record_encode(&out, &m->id, r);
    if (rc == 0 && !m->quarantined)
        store_record(q->store, &m->id, &m->ref, buf_slice(&out), done, arg);
    buf_free(&indices);
    buf_free(&out);
    return rc;
}

static uint32_t chunk(uint32_t left)
{
    return left < RECORD_RECIPIENTS_MAX ? left : RECORD_RECIPIENTS_MAX;
}

/* ---- deferred ---------------------------------------------------------------------------------
 */

static void record_deferral(struct qmgr *q, struct message *m, const uint32_t *rcpts,
                            uint32_t count, const struct answer *a, unsigned attempts, int64_t next)
{
    while (count) {
        uint32_t n = chunk(count);
        struct spool_record r = {.type = SPOOL_RECORD_DEFERRED,
                                 .attempts = attempts,
                                 .next = clock_wall() + (next - q->now)};
        if (write_record(q, m, &r, rcpts, n, a, NULL, NULL) < 0)
            log_error("%s: a deferral could not be recorded", m->id.text);
        rcpts += n;
        count -= n;
    }
}

void outcome_deferred(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count,
                      struct answer *a, const struct attempt *t, int64_t not_before, bool record)
{
    unsigned attempts = 0;
    for (uint32_t k = 0; k < count; k++) {
        take_back(m, rcpts[k], a, true);
        events_attempt(q, m, rcpts[k], ATTEMPT_DEFERRED, a, t);
        unsigned made = m->env->recipients[rcpts[k]].attempts;
        attempts = made > attempts ? made : attempts;
    }
    q->counters.deferred += count;
    if (m->env->discarded) {
        recipients_done(q, m, rcpts, count, SPOOL_DROPPED);
        return;
    }
    /* age and at least one attempt, this one (F30) */
    bool over = (m->flags & MESSAGE_EXPIRED) || (count && retry_expired(q, m));
    if (over && !(m->flags & MESSAGE_DELETED)) {
        outcome_expired(q, m, rcpts, count);
        return;
    }
    int64_t next = q->now + retry_backoff(q->s->config, attempts);
    if (!record || not_before > next)
        next = not_before;
    uint32_t due = next > q->now ? queue_seconds(q, next) + 1 : queue_seconds(q, q->now);
    for (uint32_t k = 0; k < count; k++)
        recipient_waits(m, rcpts[k], due);
    if (record)
        record_deferral(q, m, rcpts, count, a, attempts, next);
    if (!m->env->delay_sent && retry_is_late(q, m))
        m->env->delay_due = true;
}

/* ---- failed -------------------------------------------------------------------------------------
 */

/* A failure that is being made durable. */
struct failing {
    struct qmgr *q;
    struct message *m;
    uint32_t count;
    uint32_t rcpts[];
};

static void on_failure_durable(const char *error, void *arg)
{
    struct failing *f = arg;
    struct qmgr *q = f->q;
    struct message *m = f->m;
    queue_tick(q);
    q->open_records--;
    if (!message_unpin(q, m)) {
        free(f);
        return;
    }
    m->env->failing -= f->count;
    if (m->env->discarded) {
        recipients_done(q, m, f->rcpts, f->count, SPOOL_DROPPED);
    } else if (error) {
        /* F22: nobody was told, so it is not over */
        log_error("%s: a failure could not be recorded, delivery is tried again: %s", m->id.text,
                  error);
        uint32_t due = queue_seconds(q, q->now + retry_backoff(q->s->config, 1)) + 1;
        for (uint32_t k = 0; k < f->count; k++)
            recipient_waits(m, f->rcpts[k], due);
    } else {
        for (uint32_t k = 0; k < f->count; k++)
            m->env->recipients[f->rcpts[k]].state = RCPT_FAILED;
        m->env->failed += f->count;
    }
    free(f);
    message_settle(q, m);
}

static void record_failure(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count,
                           const struct answer *a)
{
    struct failing *f = xmalloc(sizeof *f + count * sizeof f->rcpts[0]);
    *f = (struct failing){.q = q, .m = m, .count = count};
    memcpy(f->rcpts, rcpts, count * sizeof f->rcpts[0]);
    struct spool_record r = {.type = SPOOL_RECORD_FAILED, .notice = m->env->notice_next};
    for (uint32_t k = 0; k < count; k++) {
        struct recipient *rcpt = &m->env->recipients[rcpts[k]];
        rcpt->state = RCPT_FAILING;
        rcpt->notice = m->env->notice_next;
        r.attempts = rcpt->attempts;
    }
    m->env->failing += count;
    message_pin(m);
    q->open_records++;
    if (write_record(q, m, &r, rcpts, count, a, on_failure_durable, f) < 0)
        panic("%s: a failure record does not fit its limits", m->id.text);
}

/* How many of them go into the record and the notice of the present number. A
 * notice that is full is followed by the next; the last one takes all. */
static uint32_t fitting(struct envelope *e, const uint32_t *rcpts, uint32_t count,
                        const struct answer *a)
{
    enum { FIXED = 96 }; /* numbers and lengths of an ipc_notice_rcpt, codes */
    uint32_t words = a->text_len < NOTICE_DIAGNOSTIC_MAX ? a->text_len : NOTICE_DIAGNOSTIC_MAX, n;
    for (n = 0; n < chunk(count); n++) {
        const struct recipient *r = &e->recipients[rcpts[n]];
        uint32_t bytes = FIXED + words + a->host_len + r->address_len + r->orcpt_len;
        if (e->notice_bytes && e->notice_bytes + bytes > NOTICE_LIST_MAX &&
            e->notice_next < NOTICE_LAST) {
            if (n)
                break;
            e->notice_next++;
            e->notice_bytes = 0;
        }
        e->notice_bytes += bytes;
    }
    return n;
}

/* Recipients that failed for one reason: those whose sender hears of it are
 * recorded, the others are over. */
static void fail(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count,
                 const struct answer *a)
{
    uint32_t *told = xmalloc(2 * count * sizeof *told), *quiet = told + count;
    uint32_t n_told = 0, n_quiet = 0;
    bool nobody = !notices_has_reader(q, m);
    if (nobody)
        log_warning("%s: cannot be delivered or returned, and is dropped", m->id.text);
    for (uint32_t k = 0; k < count; k++) {
        if (nobody || m->env->discarded || m->quarantined ||
            no_notice_on_failure(&m->env->recipients[rcpts[k]]))
            quiet[n_quiet++] = rcpts[k];
        else
            told[n_told++] = rcpts[k];
    }
    for (uint32_t at = 0; at < n_told;) {
        uint32_t n = fitting(m->env, told + at, n_told - at, a);
        record_failure(q, m, told + at, n, a);
        at += n;
    }
    if (n_quiet)
        recipients_done(q, m, quiet, n_quiet, SPOOL_BOUNCED);
    free(told);
}

void outcome_failed(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count,
                    struct answer *a, const struct attempt *t)
{
    for (uint32_t k = 0; k < count; k++) {
        take_back(m, rcpts[k], a, true);
        events_attempt(q, m, rcpts[k], ATTEMPT_BOUNCED, a, t);
    }
    q->counters.bounced += count;
    if (count)
        fail(q, m, rcpts, count, a);
}

void outcome_expired(struct qmgr *q, struct message *m, const uint32_t *rcpts, uint32_t count)
{
    struct answer *none =
        answer_new(0, SLICE("4.4.7"), SLICE("delivery time expired"), SLICE(""), SLICE(""));
    none->local = true;
    if (!m->env->expiry_logged) {
        q->counters.expired++;
        events_expired(q, m);
    }
    m->env->expiry_logged = true;
    for (uint32_t from = 0, to; from < count; from = to) {
        struct answer *a = m->env->recipients[rcpts[from]].answer;
        for (to = from; to < count && m->env->recipients[rcpts[to]].answer == a; to++)
            take_back(m, rcpts[to], NULL, false);
        if (!a)
            for (uint32_t k = from; k < to; k++)
                take_back(m, rcpts[k], none, false);
        for (uint32_t k = from; k < to; k++)
            events_expired_recipient(q, m, rcpts[k], a ? a : none);
        fail(q, m, rcpts + from, to - from, a ? a : none);
    }
    q->counters.bounced += count;
    answer_unref(none);
}
