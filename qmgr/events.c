/* The log lines of the queue, in the shape that Postfix's tools know, and the
 * JSON event log, which has everything else. */
#include "qmgr/qmgr.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "core/json.h"
#include "core/log.h"
#include "qmgr/shaping_show.h"
#include "rules/rules.h"

enum {
    EVENTS_MAX = 4 * 1024 * 1024, /* gathered in one turn */
    EVENTS_KEEP = 256 * 1024,
    LINE_MAX_LEN = 8192,
    EVENT_RECIPIENTS_MAX = 1000
};

/* One line at a time is put together here. */
static struct buf line = {NULL, 0, 0, LINE_MAX_LEN};

void events_reload(struct qmgr *q)
{
    const struct config *c = q->s->config;
    struct events *ev = &q->events;
    service_log_name(c, "qmgr", ev->queue, sizeof ev->queue);
    service_log_name(c, "relay", ev->relay, sizeof ev->relay);
    service_log_name(c, "bounce", ev->bounce, sizeof ev->bounce);
    ev->enabled = c->event_log_file[0] != '\0';
    ev->out.max = EVENTS_MAX;
}

void events_flush(struct qmgr *q)
{
    struct buf *b = &q->events.out;
    if (b->len == 0)
        return;
    size_t at = 0;
    while (at < b->len) {
        ssize_t n = write(q->s->event_log, b->data + at, b->len - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) { /* F43: a full disk there never stops mail */
            if (q->events.dropped++ == 0)
                log_warning("the event log cannot be written: %s", strerror(errno));
            break;
        }
        q->events.dropped = 0;
        at += (size_t)n;
    }
    buf_clear(b);
    if (b->cap > EVENTS_KEEP)
        buf_free(b);
}

/* ---- pieces ------------------------------------------------------------------------- */

static void begin(const struct message *m)
{
    buf_clear(&line);
    buf_addstr(&line, m->id.text);
    buf_addstr(&line, ": ");
}

static void put_address(const char *name, struct slice address)
{
    buf_addstr(&line, name);
    buf_addstr(&line, "=<");
    buf_add_escaped(&line, address, ADDRESS_MAX);
    buf_addc(&line, '>');
}

static void log_line(const char *program)
{
    log_info_as(program, buf_slice(&line));
}

/* Seconds with two significant digits and at most two decimals, as Postfix
 * writes them: 0, 0.05, 0.31, 1.4, 12, 345. */
static void put_delay(int64_t us)
{
    char text[32];
    if (us < 0)
        us = 0;
    int64_t hundredths = (us + 5000) / 10000;
    if (us >= 995 * CLOCK_SECOND / 100 || hundredths % 100 == 0)
        snprintf(text, sizeof text, "%lld", (long long)((us + CLOCK_SECOND / 2) / CLOCK_SECOND));
    else if (hundredths >= 100 && (us + 50000) / 100000 % 10 == 0)
        snprintf(text, sizeof text, "%lld", (long long)((us + 50000) / CLOCK_SECOND));
    else if (hundredths >= 100)
        snprintf(text, sizeof text, "%lld.%lld", (long long)((us + 50000) / CLOCK_SECOND),
                 (long long)((us + 50000) / 100000 % 10));
    else if (hundredths % 10 == 0)
        snprintf(text, sizeof text, "0.%lld", (long long)(hundredths / 10));
    else
        snprintf(text, sizeof text, "0.%02lld", (long long)hundredths);
    buf_addstr(&line, text);
}

struct buf *events_begin(struct qmgr *q, const char *name)
{
    struct buf *b = &q->events.out;
    if (!q->events.enabled || buf_reserve(b, 2 * LINE_MAX_LEN) < 0)
        return NULL;
    json_begin(b);
    json_seconds(b, "time", clock_wall());
    json_str(b, "event", slice_str(name));
    return b;
}

/* Begins an event of a message with what all have; end with event_end. */
static struct buf *event_begin(struct qmgr *q, const char *name, const struct message *m)
{
    struct buf *b = events_begin(q, name);
    if (b)
        json_str(b, "id", id_slice(&m->id));
    return b;
}

void events_end(struct buf *b)
{
    json_end(b);
    buf_addc(b, '\n');
}

static void event_end(struct buf *b)
{
    events_end(b);
}

static const char *class_name(uint8_t class)
{
    return class == CLASS_TRANSACTIONAL ? "transactional" : class == CLASS_BULK ? "bulk" : "normal";
}

/* ---- a message's way ------------------------------------------------------------------- */

void events_accepted(struct qmgr *q, const struct message *m, struct slice client,
                     struct slice message_id)
{
    struct buf *b = event_begin(q, "accepted", m);
    if (!b)
        return;
    json_str(b, "client", client);
    json_str(b, "message_id", message_id);
    json_str(b, "account", message_account(m));
    json_str(b, "user", slice_from(message_owner(m), message_account(m).len + 1));
    json_str(b, "class", slice_str(class_name(m->env->mail_class)));
    json_str(b, "from", message_sender(m));
    json_int(b, "size", (int64_t)message_size(m));
    json_int(b, "nrcpt", m->recipient_count);
    json_list(b, "to");
    for (uint32_t i = 0; i < m->recipient_count && i < EVENT_RECIPIENTS_MAX; i++)
        json_str(b, NULL, recipient_address(m, i));
    json_list_end(b);
    event_end(b);
}

void events_active(struct qmgr *q, const struct message *m)
{
    begin(m);
    put_address("from", message_sender(m));
    buf_addstr(&line, ", size=");
    buf_addu64(&line, message_size(m));
    buf_addstr(&line, ", nrcpt=");
    buf_addu64(&line, m->recipient_count);
    buf_addstr(&line, " (queue active)");
    log_line(q->events.queue);
}

void events_removed(struct qmgr *q, const struct message *m, const char *why)
{
    begin(m);
    buf_addstr(&line, "removed");
    log_line(q->events.queue);
    struct buf *b = event_begin(q, "removed", m);
    if (!b)
        return;
    json_str(b, "why", slice_str(why));
    event_end(b);
}

void events_expired(struct qmgr *q, const struct message *m)
{
    begin(m);
    put_address("from", message_sender(m));
    buf_addstr(&line, ", status=expired, returned to sender");
    log_line(q->events.queue);
}

void events_notice(struct qmgr *q, const struct message *m, const struct id *notice,
                   enum notice_kind kind, uint32_t recipients)
{
    static const struct {
        const char *words, *name;
    } kinds[] = {
        [NOTICE_FAILURE] = {"sender non-delivery notification: ", "failure"},
        [NOTICE_DELAY] = {"sender delay notification: ", "delay"},
        [NOTICE_SUCCESS] = {"sender delivery status notification: ", "success"},
        [NOTICE_DOUBLE] = {"postmaster non-delivery notification: ", "double"},
    };
    begin(m);
    buf_addstr(&line, kinds[kind].words);
    buf_addstr(&line, notice->text);
    log_line(q->events.bounce);
    struct buf *b = event_begin(q, "notice", m);
    if (!b)
        return;
    json_str(b, "kind", slice_str(kinds[kind].name));
    json_str(b, "notice", id_slice(notice));
    json_int(b, "nrcpt", recipients);
    event_end(b);
}

void events_purged(struct qmgr *q, const struct message *m)
{
    log_info("%s: purged, it had been deleted", m->id.text);
    struct buf *b = event_begin(q, "purged", m);
    if (b)
        event_end(b);
}

void events_action(struct qmgr *q, const struct message *m, const char *action, const char *by)
{
    log_info("%s: %s by %s", m->id.text, action, by);
    struct buf *b = event_begin(q, action, m);
    if (!b)
        return;
    json_str(b, "by", slice_str(by));
    event_end(b);
}

/* ---- attempts ---------------------------------------------------------------------------- */

/* Postfix's four parts: before the queue manager, in it, connecting, sending. */
struct delays {
    int64_t all, before, queue, connect, transfer;
};

static struct delays delays_of(const struct qmgr *q, const struct message *m,
                               const struct attempt *t)
{
    int64_t sent = t->sent ? t->sent : q->now;
    int64_t activated = m->env->activated < sent ? m->env->activated : sent;
    return (struct delays){
        .all = clock_mono() - m->born,
        .before = activated - m->born,
        .queue = sent - activated + (int64_t)t->wait_us,
        .connect = (int64_t)t->connect_us,
        .transfer = (int64_t)t->transfer_us,
    };
}

/* As Postfix: the host only if there was a connection to it; which one could not
 * be had is in the text. */
static void put_relay(const struct attempt *t, const struct answer *a)
{
    bool no_connection = a->local && a->stage == STAGE_CONNECT;
    buf_addstr(&line, ", relay=");
    if (t->host.len == 0 || no_connection) {
        buf_addstr(&line, "none");
        return;
    }
    buf_add_escaped(&line, t->host, ANSWER_HOST_MAX);
    buf_addc(&line, '[');
    buf_add_escaped(&line, t->address, ANSWER_HOST_MAX);
    buf_addc(&line, ']');
    if (t->port) {
        buf_addc(&line, ':');
        buf_addu64(&line, t->port);
    }
    if (t->use_count > 1) {
        buf_addstr(&line, ", conn_use=");
        buf_addu64(&line, t->use_count);
    }
}

static void put_delays(const struct delays *d)
{
    const int64_t parts[] = {d->before, d->queue, d->connect, d->transfer};
    buf_addstr(&line, ", delay=");
    put_delay(d->all);
    buf_addstr(&line, ", delays=");
    for (size_t i = 0; i < 4; i++) {
        if (i)
            buf_addc(&line, '/');
        put_delay(parts[i]);
    }
}

/* What rules made of the reply, so that it can be asked what others would have made of it:
 * `postern shaping replay`. A delivery has one reply that the shaper goes by. */
static void put_rules(const struct attempt *t, uint32_t rcpt, struct buf *b)
{
    bool judged = t->judged == rcpt + 1;
    if (t->delivery)
        json_int(b, "delivery", (int64_t)t->delivery);
    if (judged)
        json_bool(b, "judged", true);
    if (!t->rule)
        return;
    json_str(b, "rule", slice_str(t->rule->name));
    rules_put_where(b, t->rule);
    if (judged)
        json_bool(b, "acts", t->acts);
}

static void add_event(struct qmgr *q, const struct message *m, uint32_t rcpt, const char *name,
                      const struct answer *a, const struct attempt *t, const struct delays *d,
                      struct slice status)
{
    struct buf *b = event_begin(q, name, m);
    if (!b)
        return;
    json_str(b, "from", message_sender(m));
    json_str(b, "to", recipient_address(m, rcpt));
    json_str(b, "account", message_account(m));
    json_str(b, "class", slice_str(class_name(m->env->mail_class)));
    if (message_signer(m).len)
        json_str(b, "domain", message_signer(m));
    if (t->site)
        json_str(b, "site", site_name(t->site));
    if (t->site && t->site->group && !slice_eq(slice_str(t->site->group->name), site_name(t->site)))
        json_str(b, "destination", slice_str(t->site->group->name));
    json_str(b, "pool", pools_name(q, m));
    json_str(b, "source", t->source);
    json_str(b, "mx", t->host);
    json_str(b, "address", t->address);
    json_int(b, "port", t->port);
    json_str(b, "tls", t->tls);
    json_str(b, "tls_peer", slice_str(tls_peer_name(t->tls_status)));
    json_int(b, "conn_use", t->use_count);
    json_int(b, "attempt", m->env->recipients[rcpt].attempts);
    json_seconds(b, "delay", d->all);
    json_seconds(b, "queue_delay", d->queue);
    json_seconds(b, "connect_delay", d->connect);
    json_seconds(b, "transfer_delay", d->transfer);
    json_int(b, "code", a->code);
    json_str(b, "status", status);
    json_bool(b, "local", a->local);
    if (a->stage >= STAGE_CONNECT && a->stage <= STAGE_DOT)
        json_str(b, "stage", slice_str(rules_stage_name((enum rules_stage)a->stage)));
    json_str(b, "text", answer_text(a));
    put_rules(t, rcpt, b);
    event_end(b);
}

void events_expired_recipient(struct qmgr *q, const struct message *m, uint32_t rcpt,
                              const struct answer *last)
{
    char buffer[ENHANCED_MAX + 1];
    struct buf *b = event_begin(q, "expired", m);
    if (!b)
        return;
    json_str(b, "from", message_sender(m));
    json_str(b, "to", recipient_address(m, rcpt));
    json_str(b, "account", message_account(m));
    json_str(b, "class", slice_str(class_name(m->env->mail_class)));
    json_int(b, "attempt", m->env->recipients[rcpt].attempts);
    json_seconds(b, "delay", clock_mono() - m->born);
    json_str(b, "mx", answer_host(last));
    json_int(b, "code", last->code);
    json_str(b, "status", answer_status(last, '4', buffer));
    json_bool(b, "local", last->local);
    json_str(b, "text", answer_text(last));
    event_end(b);
}

void events_attempt(struct qmgr *q, const struct message *m, uint32_t rcpt,
                    enum attempt_status status, const struct answer *a, const struct attempt *t)
{
    static const struct {
        const char *name, *event;
        char class;
    } kinds[] = {
        [ATTEMPT_SENT] = {"sent", "delivered", '2'},
        [ATTEMPT_DEFERRED] = {"deferred", "deferred", '4'},
        [ATTEMPT_BOUNCED] = {"bounced", "bounced", '5'},
    };
    char buffer[ENHANCED_MAX + 1];
    struct slice dsn = answer_status(a, kinds[status].class, buffer);
    struct delays d = delays_of(q, m, t);
    begin(m);
    put_address("to", recipient_address(m, rcpt));
    put_relay(t, a);
    put_delays(&d);
    buf_addstr(&line, ", dsn=");
    buf_adds(&line, dsn);
    buf_addstr(&line, ", status=");
    buf_addstr(&line, kinds[status].name);
    buf_addstr(&line, " (");
    answer_describe(a, &line);
    buf_addc(&line, ')');
    log_line(q->events.relay);
    add_event(q, m, rcpt, kinds[status].event, a, t, &d, dsn);
}
