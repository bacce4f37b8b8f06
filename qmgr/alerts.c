#include "qmgr/alerts.h"

#include <stdlib.h>

#include "core/log.h"
#include "core/mem.h"
#include "mail/date.h"
#include "mail/message_id.h"
#include "rules/rules.h"

enum { REPLY_BYTES = 500 };

struct alert {
    struct list link; /* in alerts.all: told longest ago first */
    char *key;        /* rule and destination */
    int64_t told;     /* monotonic */
    unsigned more;    /* times since then */
};

struct alerts {
    struct map known;
    struct list all;
    struct buf text;   /* of the next mail */
    unsigned left_out; /* alerts that did not fit into it */
    int64_t due;       /* monotonic: it goes then; 0: there is none */
    int64_t hour;      /* monotonic: since when mails are counted */
    unsigned mails;    /* in that hour */
    bool complained;   /* that there are too many */
};

static struct slice key_of(const void *value)
{
    return slice_str(((const struct alert *)value)->key);
}

void alerts_init(struct qmgr *q)
{
    struct alerts *all = xcalloc(1, sizeof *all);
    map_init(&all->known, key_of);
    list_init(&all->all);
    buf_init(&all->text, ALERTS_TEXT_MAX);
    q->alerts = all;
}

static void forget(struct alerts *all, struct alert *a)
{
    map_remove(&all->known, key_of(a));
    list_remove(&a->link);
    free(a->key);
    free(a);
}

/* Whether it is time to tell of this event (again); *more: how often it was not told since
 * the last time. Takes the key over. */
static bool is_time(struct qmgr *q, char *key, unsigned *more)
{
    struct alerts *all = q->alerts;
    struct alert *a = map_get(&all->known, slice_str(key));
    *more = 0;
    if (a) {
        free(key);
        if (q->now - a->told < ALERTS_PERIOD_SECONDS * CLOCK_SECOND) {
            a->more++;
            return false;
        }
        list_remove(&a->link);
    } else {
        if (all->known.count >= ALERTS_MAX)
            forget(all, container_of(all->all.next, struct alert, link));
        a = xcalloc(1, sizeof *a);
        a->key = key;
        map_put(&all->known, a);
    }
    *more = a->more;
    a->more = 0;
    a->told = q->now;
    list_push(&all->all, &a->link);
    return true;
}

/* Adds an alert to the next mail. */
static void gather(struct qmgr *q, struct slice text)
{
    struct alerts *all = q->alerts;
    if (!*q->s->config->error_notice_recipient)
        return;
    size_t before = all->text.len;
    if (buf_adds(&all->text, text) < 0) {
        all->text.len = before;
        all->left_out++;
    }
    if (!all->due)
        all->due = q->now + ALERTS_GATHER_SECONDS * CLOCK_SECOND;
}

void alerts_raise(struct qmgr *q, const struct lane *l, const struct rule *rule,
                  const struct ipc_outcome *o)
{
    unsigned more;
    if (!is_time(q, xasprintf("%s\n%s", rule->name, l->group->stable), &more))
        return;
    const char *what = rule->action >= RULES_SUSPEND ? "refuses our address for a while"
                                                     : "says something that needs attention";
    struct buf reply = BUF_INIT(8 * REPLY_BYTES), text = BUF_INIT(16 * REPLY_BYTES);
    buf_printf(&reply, "%u ", o->code);
    (void)buf_add_escaped(&reply, o->text, REPLY_BYTES);
    struct slice said = buf_slice(&reply);
    log_warning("%s: %s (rule %s, %s:%d): %.*s", log_esc(slice_str(l->group->name)), what,
                rule->name, rule->file, rule->line, SLICE_ARG(said));
    buf_printf(&text, "%s %s.\r\n  Its reply: %.*s\r\n  Rule: %s (%s:%d)\r\n",
               log_esc(slice_str(l->group->name)), what, SLICE_ARG(said), rule->name, rule->file,
               rule->line);
    if (more)
        buf_printf(&text, "  And %u times more since this was told last.\r\n", more);
    buf_addstr(&text, "\r\n");
    gather(q, buf_slice(&text));
    buf_free(&reply);
    buf_free(&text);
}

void alerts_costly(struct qmgr *q, const struct rule *rule)
{
    unsigned more;
    if (!is_time(q, xasprintf("costly\n%s", rule->name), &more))
        return;
    struct buf text = BUF_INIT(8 * 1024);
    buf_printf(&text,
               "%s:%d: rule %s is skipped: its pattern tries too many ways to match; make it "
               "simpler",
               rule->file, rule->line, rule->name);
    log_error("%.*s", SLICE_ARG(buf_slice(&text)));
    buf_addstr(&text, ".\r\n\r\n");
    gather(q, buf_slice(&text));
    buf_free(&text);
}

/* ---- the mail ------------------------------------------------------------------------------ */

static void on_stored(const char *error, void *arg)
{
    (void)arg;
    if (error)
        log_warning("a mail with alerts cannot be queued: %s", error);
}

static void mail(struct qmgr *q, struct slice text, unsigned left_out)
{
    const char *host = q->s->config->myhostname, *to = q->s->config->error_notice_recipient;
    int64_t wall = clock_wall();
    struct id id = id_new();
    struct buf b = BUF_INIT(2 * ALERTS_TEXT_MAX);
    buf_printf(&b,
               "From: Postern <postmaster@%s>\r\nTo: <%s>\r\n"
               "Subject: %s: replies that need attention\r\nDate: %.*s\r\nMessage-ID: ",
               host, to, host, SLICE_ARG(mail_date(wall)));
    (void)message_id_make(&b, wall, id_slice(&id), slice_str(host));
    buf_addstr(&b, "\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n"
                   "Content-Type: text/plain; charset=us-ascii\r\n\r\n");
    (void)buf_adds(&b, text);
    if (left_out)
        buf_printf(&b, "And %u more, which are in the log.\r\n\r\n", left_out);
    buf_addstr(&b,
               "`postern shaping list` shows what is slow or suspended, `postern shaping show\r\n"
               "NAME` why. The same event is told once an hour.\r\n");
    intake_commit_own(q, &id, slice_str(to), 0, buf_slice(&b), on_stored, NULL);
    buf_free(&b);
}

void alerts_turn(struct qmgr *q)
{
    struct alerts *all = q->alerts;
    if (!all->due || q->now < all->due || !q->scanned || q->draining)
        return;
    if (q->now - all->hour >= 3600 * CLOCK_SECOND || !all->hour) {
        all->hour = q->now;
        all->mails = 0;
        all->complained = false;
    }
    if (all->mails >= ALERTS_MAILS_HOUR) { /* the rest of the hour makes one mail */
        if (!all->complained)
            log_warning("more than %d mails with alerts in an hour: the next one has the rest",
                        ALERTS_MAILS_HOUR);
        all->complained = true;
        all->due = all->hour + 3600 * CLOCK_SECOND;
        return;
    }
    all->mails++;
    all->due = 0;
    if (*q->s->config->error_notice_recipient)
        mail(q, buf_slice(&all->text), all->left_out);
    buf_clear(&all->text);
    all->left_out = 0;
}

int64_t alerts_next_due(const struct qmgr *q)
{
    return q->alerts->due && q->scanned && !q->draining ? q->alerts->due : INT64_MAX;
}
