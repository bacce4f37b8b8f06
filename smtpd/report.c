#include "smtpd/report.h"

#include <ctype.h>

#include "core/log.h"
#include "service/service.h"
#include "smtpd/content.h"
#include "smtpd/forward.h"

void report_connect(const struct session *s)
{
    log_info("connect from %s", s->peer);
}

static void add_count(struct buf *b, const char *name, uint32_t all, uint32_t good)
{
    buf_addc(b, ' ');
    for (; *name; name++)
        buf_addc(b, (char)tolower((unsigned char)*name));
    buf_addc(b, '=');
    if (good != all || !all) { /* "0/0", as Postfix has it */
        buf_addu64(b, good);
        buf_addc(b, '/');
    }
    buf_addu64(b, all);
}

void report_disconnect(const struct session *s)
{
    char text[1024];
    struct buf b = {text, 0, sizeof text, sizeof text - 1};
    uint32_t all = 0, good = 0;
    for (int verb = VERB_UNKNOWN + 1; verb <= VERB_COUNT; verb++) {
        /* unknown ones last, as Postfix has them */
        enum smtp_verb v = verb == VERB_COUNT ? VERB_UNKNOWN : (enum smtp_verb)verb;
        const struct verb_count *n = &s->counts[v];
        all += n->all;
        good += n->good;
        if (n->all)
            add_count(&b, command_name(v), n->all, n->good);
    }
    add_count(&b, "commands", all, good);
    text[b.len] = '\0';
    log_info("disconnect from %s%s", s->peer, text);
}

void report_broken(const struct session *s, const char *event)
{
    if (!s->tx.content)
        log_info("%s after %s from %s", event, s->where, s->peer);
    else
        log_info("%s after %s (%llu bytes) from %s", event, s->where,
                 (unsigned long long)s->tx.content->received, s->peer);
}

/* As Postfix's pickup has it: log tools count such mail as received here. */
static void report_local(const struct session *s, struct buf *b)
{
    char name[128];
    service_log_name(s->server->config, "pickup", name, sizeof name);
    buf_printf(b, "%s: uid=%u from=<", s->tx.id.text, s->uid);
    buf_add_escaped(b, buf_slice(&s->tx.sender), ADDRESS_MAX);
    buf_addc(b, '>');
    log_info_as(name, buf_slice(b));
}

void report_client(const struct session *s)
{
    char text[2048];
    struct buf b = {text, 0, sizeof text, sizeof text - 1};
    if (s->local_user) {
        report_local(s, &b);
        return;
    }
    if (s->login)
        buf_printf(&b, ", sasl_method=%s, sasl_username=%s", s->login->method, s->login->user);
    forward_describe(s->tx.forward, &b);
    text[b.len] = '\0';
    log_info("%s: client=%s%s", s->tx.id.text, s->peer, text);
}
