/* The start of a session: greeting, EHLO or LHLO, HELO. */
#include "core/mem.h"
#include "relay/hosts.h"
#include "relay/outcome.h"

/* Bits of the EHLO keywords that the operator does not want used. */
static uint32_t discarded(const struct config *config)
{
    static const struct {
        const char *keyword;
        uint32_t bit;
    } keywords[] = {
#define EHLO_KEYWORD(enumerator, bit, keyword) {keyword, enumerator},
        EHLO_KEYWORDS
#undef EHLO_KEYWORD
    };
    struct slice list = slice_str(config->smtp_discard_ehlo_keywords), word;
    uint32_t bits = 0;
    while (config_list_next(&list, &word))
        for (size_t i = 0; i < sizeof keywords / sizeof keywords[0]; i++)
            if (slice_caseeq(word, slice_str(keywords[i].keyword)))
                bits |= keywords[i].bit;
    return bits;
}

static void discard_features(struct session *s)
{
    uint32_t bits = discarded(s->relay->service->config);
    s->ehlo.features &= ~bits;
    if (bits & EHLO_SIZE)
        s->ehlo.size = 0;
    if (bits & EHLO_LIMITS)
        s->ehlo.mail_max = s->ehlo.rcpt_max = s->ehlo.rcpt_domain_max = 0;
}

static void queue_hello(struct session *s, const char *verb, enum session_state state)
{
    const struct config *config = s->relay->service->config;
    struct slice name = s->job->m.helo;
    if (name.len == 0)
        name = slice_str(s->lmtp ? config->lmtp_lhlo_name : config->smtp_helo_name);
    struct buf *out = session_queue(s);
    if (buf_addstr(out, verb) < 0 || buf_adds(out, name) < 0 || buf_addstr(out, "\r\n") < 0)
        panic("a HELO name longer than its frame");
    session_enter(s, state);
}

/* The server does not want us: the next one may (RFC 5321 5.1). */
static void refused(struct session *s, const struct smtp_reply *r, enum smtp_stage stage)
{
    struct verdict v = verdict_of_reply(stage, r);
    session_fail(s, &v, true);
}

void hello_again(struct session *s)
{
    s->ehlo = (struct ehlo){.features = 0};
    queue_hello(s, s->lmtp ? "LHLO " : "EHLO ", SESSION_EHLO);
}

/* Mail, or first TLS. */
static void go_on(struct session *s)
{
    switch (starttls_wanted(s)) {
    case STARTTLS_BEGIN:
        starttls_begin(s);
        break;
    case STARTTLS_GO_ON:
        if (starttls_suffices(s))
            transaction_begin(s);
        break;
    case STARTTLS_ENDED:
        break;
    }
}

void hello_on_greeting(struct session *s, const struct smtp_reply *r)
{
    if (r->code / 100 != 2)
        refused(s, r, STAGE_GREETING);
    else {
        hosts_worked(s->address, s->port);
        hosts_opened(s->address, s->port);
        s->greeted = true;
        s->job->greeting = clock_mono() - s->opened;
        queue_hello(s, s->lmtp ? "LHLO " : "EHLO ", SESSION_EHLO);
    }
}

void hello_on_ehlo(struct session *s, const struct smtp_reply *r)
{
    if (r->code / 100 == 2) {
        ehlo_parse(r, &s->ehlo);
        discard_features(s);
        go_on(s);
    } else if (r->code / 100 == 5 && !s->lmtp) {
        queue_hello(s, "HELO ", SESSION_HELO);
    } else {
        refused(s, r, STAGE_EHLO);
    }
}

void hello_on_helo(struct session *s, const struct smtp_reply *r)
{
    if (r->code / 100 == 2)
        go_on(s);
    else
        refused(s, r, STAGE_EHLO);
}
