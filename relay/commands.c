/* MAIL and RCPT with their parameters, and what must hold before them. */
#include "core/log.h"
#include "core/mem.h"
#include "relay/outcome.h"
#include "smtp/address.h"
#include "smtp/params.h"

/* The limits of addresses and parameters are far below WIRE_OUT_MAX. */
static void add(struct buf *out, struct slice s)
{
    if (buf_adds(out, s) < 0)
        panic("commands longer than WIRE_OUT_MAX");
}

static bool offers(const struct session *s, enum ehlo_feature feature)
{
    return (s->ehlo.features & (uint32_t)feature) != 0;
}

static void mail_dsn(const struct job *j, struct buf *out)
{
    static struct buf value = BUF_INIT(4 * ENVID_MAX);
    if (j->m.ret == RET_HDRS || j->m.ret == RET_FULL)
        add(out, j->m.ret == RET_FULL ? SLICE(" RET=FULL") : SLICE(" RET=HDRS"));
    buf_clear(&value);
    if (j->m.envid.len == 0 || xtext_encode(j->m.envid, &value) < 0)
        return;
    add(out, SLICE(" ENVID="));
    add(out, buf_slice(&value));
}

void commands_mail(struct session *s, struct buf *out)
{
    const struct job *j = s->job;
    add(out, SLICE("MAIL FROM:<"));
    add(out, j->m.sender);
    add(out, SLICE(">"));
    if (offers(s, EHLO_SIZE)) {
        add(out, SLICE(" SIZE="));
        buf_addu64(out, job_size(j));
    }
    if ((j->m.flags & MESSAGE_8BIT) && offers(s, EHLO_8BITMIME))
        add(out, SLICE(" BODY=8BITMIME"));
    if (s->tx.utf8)
        add(out, SLICE(" SMTPUTF8"));
    if (offers(s, EHLO_DSN))
        mail_dsn(j, out);
    bool required = j->tls_wish == TLS_WISH_REQUIRED || j->tls_wish == TLS_WISH_OFFERED;
    if (required && s->tls.on && offers(s, EHLO_REQUIRETLS))
        add(out, SLICE(" REQUIRETLS"));
    add(out, SLICE("\r\n"));
}

static void rcpt_notify(uint8_t notify, struct buf *out)
{
    static const struct {
        uint8_t bit;
        struct slice name;
    } names[] = {{NOTIFY_NEVER, {"NEVER", 5}},
                 {NOTIFY_SUCCESS, {"SUCCESS", 7}},
                 {NOTIFY_FAILURE, {"FAILURE", 7}},
                 {NOTIFY_DELAY, {"DELAY", 5}}};
    struct slice separator = SLICE(" NOTIFY=");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!(notify & names[i].bit))
            continue;
        add(out, separator);
        add(out, names[i].name);
        separator = SLICE(",");
        if (names[i].bit == NOTIFY_NEVER)
            return;
    }
}

void commands_rcpt(struct session *s, const struct recipient *r, struct buf *out)
{
    static struct buf value = BUF_INIT(16 * ORCPT_MAX);
    add(out, SLICE("RCPT TO:<"));
    add(out, r->address);
    add(out, SLICE(">"));
    if (offers(s, EHLO_DSN)) {
        rcpt_notify(r->notify, out);
        buf_clear(&value);
        if (r->orcpt.len > 0 && orcpt_encode(r->orcpt, s->tx.utf8, &value) == 0) {
            add(out, SLICE(" ORCPT="));
            add(out, buf_slice(&value));
        }
    }
    add(out, SLICE("\r\n"));
}

/* ---- what a message needs -------------------------------------------------- */

static void fail_all(struct session *s, enum rcpt_outcome status, const struct verdict *v)
{
    job_widen(s->job, status == OUTCOME_DEFERRED ? SCOPE_RECIPIENT : SCOPE_MESSAGE);
    job_decide_all(s->job, RECIPIENT_DONE, status, v);
}

static void fail_unreadable(struct session *s)
{
    outcome_log_unreadable(s->job);
    struct verdict v = verdict_local(STAGE_MAIL, "4.3.0", "the message cannot be read back");
    fail_all(s, OUTCOME_DEFERRED, &v);
}

static void check_size(struct session *s)
{
    uint64_t size = job_size(s->job);
    if (s->ehlo.size == 0 || size <= s->ehlo.size)
        return;
    struct verdict v = verdict_local(
        STAGE_MAIL, "5.3.4", "message size %llu exceeds the limit of %s[%s], %llu",
        (unsigned long long)size, s->host, s->address, (unsigned long long)s->ehlo.size);
    fail_all(s, OUTCOME_FAILED, &v);
}

static void check_8bit(struct session *s)
{
    if (!(s->job->m.flags & MESSAGE_8BIT) || offers(s, EHLO_8BITMIME))
        return;
    int found = content_has_8bit(s->job, false);
    if (found < 0) {
        fail_unreadable(s);
    } else if (found > 0) {
        struct verdict v =
            verdict_local(STAGE_MAIL, "5.6.3", "%s[%s] does not take 8-bit content (8BITMIME)",
                          s->host, s->address);
        fail_all(s, OUTCOME_FAILED, &v);
    }
}

static struct verdict no_utf8(const struct session *s)
{
    return verdict_local(STAGE_MAIL, "5.6.7",
                         "%s[%s] does not take internationalized mail (SMTPUTF8)", s->host,
                         s->address);
}

/* Without SMTPUTF8 only what is ASCII in truth can go (RFC 6531 3.3). */
static void check_without_utf8(struct session *s)
{
    struct job *j = s->job;
    int message = has_8bit(j->m.sender);
    if (!message && (j->m.flags & MESSAGE_SMTPUTF8))
        message = content_has_8bit(j, true);
    if (message < 0) {
        fail_unreadable(s);
    } else if (message > 0) {
        struct verdict v = no_utf8(s);
        fail_all(s, OUTCOME_FAILED, &v);
    }
    for (unsigned i = 0; i < j->recipient_count; i++) {
        struct recipient *r = &j->recipients[i];
        if (r->state == RECIPIENT_DONE || !has_8bit(r->address))
            continue;
        struct verdict v = no_utf8(s);
        job_decide(j, r, OUTCOME_FAILED, &v);
    }
}

static void check_utf8(struct session *s)
{
    struct job *j = s->job;
    if (!offers(s, EHLO_SMTPUTF8)) {
        check_without_utf8(s);
        return;
    }
    s->tx.utf8 = (j->m.flags & MESSAGE_SMTPUTF8) || has_8bit(j->m.sender);
    for (unsigned i = 0; i < j->recipient_count && !s->tx.utf8; i++)
        s->tx.utf8 = has_8bit(j->recipients[i].address);
}

/* Control bytes would be commands of their own. The parsers at the other end
 * refuse them; this is the last place that can. */
static bool is_plain(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] < 0x20 || s.ptr[i] == 0x7f)
            return false;
    return true;
}

static void check_addresses(struct session *s)
{
    struct job *j = s->job;
    if (!is_plain(j->m.sender)) {
        struct verdict v =
            verdict_local(STAGE_MAIL, "5.1.7", "the sender address holds control characters");
        fail_all(s, OUTCOME_FAILED, &v);
    }
    for (unsigned i = 0; i < j->recipient_count; i++) {
        if (is_plain(j->recipients[i].address))
            continue;
        struct verdict v =
            verdict_local(STAGE_RCPT, "5.1.3", "the address holds control characters");
        job_decide(j, &j->recipients[i], OUTCOME_FAILED, &v);
    }
}

void needs_check(struct session *s)
{
    check_addresses(s);
    check_size(s);
    check_8bit(s);
    check_utf8(s);
}
