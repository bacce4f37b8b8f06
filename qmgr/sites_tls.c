/* What resolve says about TLS with a destination, on its way to relay; and reports
 * about how TLS went, on their way back and out. */
#include "core/log.h"
#include "core/mem.h"
#include "qmgr/sites.h"
#include "tls/tlsrpt.h"

enum {
    TLS_TEXT_MAX = 200,
    TLS_SESSION_TEXT_MAX = 2048, /* bytes of the texts in one TLS_SESSION */
    TLS_REPORTS_MAX = 16         /* being committed at a time */
};

/* ---- TLS ------------------------------------------------------------------------------ */

struct tls_rules *tls_rules_ref(struct tls_rules *r)
{
    if (r)
        r->refs++;
    return r;
}

void tls_rules_unref(struct tls_rules *r)
{
    if (r && --r->refs == 0)
        free(r);
}

bool tls_rules_same(const struct tls_rules *a, const struct tls_rules *b)
{
    return a == b || (slice_eq(tls_rules_list(a), tls_rules_list(b)) &&
                      slice_eq(tls_rules_report(a), tls_rules_report(b)));
}

/* relay checks what is in the rules; here only how much it is. */
int sites_read_tls(const struct ipc_resolve_reply *in, struct tls_rules **out, struct err *e)
{
    size_t len = in->tls.len + in->tls_report.len;
    *out = NULL;
    if (in->tls.len > TLS_RULES_BYTES || in->tls_report.len > TLS_REPORT_DOMAIN_MAX)
        return err_set(e, "RESOLVE_REPLY with %zu bytes of rules about TLS", len);
    if (len == 0)
        return 0;
    struct tls_rules *r = xmalloc(sizeof *r + len);
    *r = (struct tls_rules){
        .refs = 1, .len = (uint16_t)in->tls.len, .report_len = (uint16_t)in->tls_report.len};
    if (in->tls.len)
        memcpy(r->bytes, in->tls.ptr, in->tls.len);
    if (in->tls_report.len)
        memcpy(r->bytes + in->tls.len, in->tls_report.ptr, in->tls_report.len);
    *out = r;
    return 0;
}

const char *tls_peer_name(uint8_t status)
{
    static const char *const names[] = {[TLS_PEER_NONE] = "",
                                        [TLS_PEER_UNTRUSTED] = "untrusted",
                                        [TLS_PEER_TRUSTED] = "trusted",
                                        [TLS_PEER_VERIFIED] = "verified"};
    return status < sizeof names / sizeof *names ? names[status] : "";
}

void site_note_tls(struct site *s, struct slice text, uint8_t peer)
{
    const char *word = tls_peer_name(peer);
    size_t len = strlen(word);
    text = slice_first(text, TLS_TEXT_MAX);
    if (s->tls && slice_starts(slice_str(s->tls), slice_str(word)) &&
        slice_eq(slice_from(slice_str(s->tls), len ? len + 1 : 0), text))
        return;
    free(s->tls);
    s->tls = xasprintf("%s%s%s", word, len ? " " : "", log_esc(text));
}

/* ---- reports about TLS (RFC 8460) ------------------------------------------------------ */

int sites_tls_session(struct qmgr *q, struct slice body, struct err *e)
{
    struct ipc_tls_session m;
    if (ipc_tls_session_decode(body, &m) < 0 || m.domain.len > TLS_REPORT_DOMAIN_MAX ||
        m.host.len + m.address.len + m.source.len + m.why.len > TLS_SESSION_TEXT_MAX)
        return err_set(e, "malformed TLS_SESSION");
    if (q->sites.peer.channel) /* counters are not worth more than that */
        ipc_tls_session_encode(channel_out(q->sites.peer.channel), &m);
    return 0;
}

struct report {
    struct qmgr *q;
    struct channel *channel; /* that asked; compared, never used when it is another */
    uint64_t tag;
};

static void on_report(const char *error, void *arg)
{
    struct report *r = arg;
    struct qmgr *q = r->q;
    if (error)
        log_warning("a report about TLS cannot be queued, tried again later: %s", error);
    if (q->sites.peer.channel && q->sites.peer.channel == r->channel)
        ipc_tls_reported_encode(channel_out(q->sites.peer.channel),
                                &(struct ipc_tls_reported){.tag = r->tag, .taken = !error});
    q->sites.reports--;
    free(r);
}

/* A resolve that was taken over must not make a mailer of us: whoever gets the
 * message must have one plain address, the sender is empty, and they are few. */
int sites_tls_report(struct qmgr *q, struct slice body, struct err *e)
{
    struct ipc_tls_report m;
    struct tlsrpt_record address;
    struct buf record = BUF_INIT(2 * TLSRPT_MAILBOX_MAX);
    if (ipc_tls_report_decode(body, &m) < 0)
        return err_set(e, "malformed TLS_REPORT");
    (void)buf_printf(&record, "v=TLSRPTv1;rua=mailto:%.*s",
                     SLICE_ARG(slice_first(m.recipient, TLSRPT_MAILBOX_MAX)));
    bool good = slice_chr(m.recipient, '%') == m.recipient.len &&
                slice_chr(m.recipient, ',') == m.recipient.len &&
                tlsrpt_record_parse(buf_slice(&record), &address) == 0 && address.count == 1 &&
                slice_eq(slice_str(address.mailbox[0]), m.recipient);
    buf_free(&record);
    if (!good || m.content.len == 0 || m.content.len > INLINE_CONTENT_MAX ||
        q->sites.reports >= TLS_REPORTS_MAX)
        return err_set(e, "TLS_REPORT that cannot be mailed");
    struct report *r = xmalloc(sizeof *r);
    *r = (struct report){q, q->sites.peer.channel, m.tag};
    q->sites.reports++;
    log_info("report about TLS with %s for <%s>", log_esc(m.domain), log_esc(m.recipient));
    intake_commit_report(q, m.recipient, m.content, on_report, r);
    return 0;
}
