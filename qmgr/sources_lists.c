/* Looks our own addresses up in block lists, in rounds, and does what the operator wants of
 * a source that is listed: alerts with who sends from it, and no more mail from there. */
#include <stdio.h>

#include "core/log.h"
#include "core/mem.h"
#include "mail/date.h"
#include "mail/message_id.h"
#include "qmgr/sources.h"

enum { OPEN_MAX = 32, ALERT_MAX = 16 * 1024, NAMED_SENDERS = 5, COMPLAIN_SECONDS = 3600 };

/* A question to resolve. */
struct list_question {
    struct list link; /* in sources.questions */
    uint64_t tag;
    struct source *source;
    uint32_t list;
    bool v6;
};

/* ---- what an answer means ------------------------------------------------------------------ */

static int by_volume(const void *a, const void *b)
{
    double x = ((const struct source_share *)a)->recipients,
           y = ((const struct source_share *)b)->recipients;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* "acme 61%, beta 20%" */
static void add_senders(const struct source *s, struct buf *out)
{
    struct source_share shares[SOURCE_SHARES];
    double all = 0;
    memcpy(shares, s->shares, sizeof shares);
    qsort(shares, SOURCE_SHARES, sizeof *shares, by_volume);
    for (int i = 0; i < SOURCE_SHARES; i++)
        all += shares[i].recipients;
    for (int i = 0; i < NAMED_SENDERS && shares[i].name && all >= 1; i++)
        (void)buf_printf(out, "%s%s %.0f%%", i ? ", " : "", log_esc(slice_str(shares[i].name)),
                         100 * shares[i].recipients / all);
    if (all < 1)
        buf_addstr(out, "nobody lately");
}

static void alert(struct qmgr *q, const struct source *s, const struct list_conf *list,
                  struct slice text)
{
    struct buf senders = BUF_INIT(4096);
    char addresses[80];
    add_senders(s, &senders);
    (void)source_addresses(s, addresses);
    log_warning("source %s (%s) is on the block list %s: %s; who sent from it lately: %.*s%s",
                s->name, addresses, list->zone, log_esc(text), SLICE_ARG(buf_slice(&senders)),
                list->quarantine ? "; it is not used until it is off the list" : "");
    (void)buf_printf(&q->from->alert,
                     "Source %s (%s) is on the block list %s.\r\n"
                     "  The list says:  %s\r\n"
                     "  Sent from it:   %.*s\r\n"
                     "  What happens:   %s\r\n\r\n",
                     s->name, addresses, list->zone, log_esc(text), SLICE_ARG(buf_slice(&senders)),
                     list->quarantine ? "it is not used until it is off the list"
                                      : "it is used all the same (quarantine = no)");
    buf_free(&senders);
}

static void set_zones(struct qmgr *q, struct source *s)
{
    const struct sources_conf *c = q->from->conf;
    struct buf b = BUF_INIT(SOURCES_LISTS_MAX * (SOURCES_HOST_MAX + 2));
    for (size_t i = 0; i < c->list_count; i++)
        if (s->listed >> i & 1)
            (void)buf_printf(&b, "%s%s", b.len ? " " : "", c->lists[i].zone);
    free(s->listed_zones);
    s->listed_zones = slice_dup(buf_slice(&b));
    buf_free(&b);
    q->from->dirty = true;
}

static void note_listed(struct qmgr *q, struct source *s, uint32_t list, struct slice text)
{
    uint32_t bit = UINT32_C(1) << list;
    if (s->listed & bit)
        return;
    if (!s->listed)
        s->listed_since = clock_wall();
    s->listed |= bit;
    free(s->listed_text);
    s->listed_text = slice_dup(slice_first(text, SOURCE_REASON_MAX));
    set_zones(q, s);
    alert(q, s, &q->from->conf->lists[list], text);
    if (q->from->conf->lists[list].quarantine)
        sources_leave(q, s);
}

static void note_clean(struct qmgr *q, struct source *s, uint32_t list)
{
    uint32_t bit = UINT32_C(1) << list;
    if (!(s->listed & bit) || ((s->found4 | s->found6) & bit))
        return;
    s->listed &= ~bit;
    set_zones(q, s);
    log_info("source %s is off the block list %s", s->name, q->from->conf->lists[list].zone);
    (void)buf_printf(&q->from->alert, "Source %s is off the block list %s.\r\n\r\n", s->name,
                     q->from->conf->lists[list].zone);
}

static void complain(struct qmgr *q, const struct list_question *ask, struct slice text)
{
    if (q->from->complained && q->now - q->from->complained < COMPLAIN_SECONDS * CLOCK_SECOND)
        return;
    q->from->complained = q->now;
    log_warning("the block list %s does not answer our name servers: %s; ask it through a resolver "
                "of your own, or take it out of sources.conf",
                q->from->conf->lists[ask->list].zone, log_esc(text));
}

static void learn(struct qmgr *q, const struct list_question *ask, uint8_t status,
                  struct slice text)
{
    struct source *s = ask->source;
    if (text.len == 0)
        text = SLICE("it gives no reason");
    uint32_t bit = UINT32_C(1) << ask->list, *found = ask->v6 ? &s->found6 : &s->found4;
    if (status == LISTING_REFUSED)
        complain(q, ask, text);
    if (status != LISTING_LISTED && status != LISTING_NONE)
        return; /* what was known holds */
    *found = status == LISTING_LISTED ? *found | bit : *found & ~bit;
    if (status == LISTING_LISTED)
        note_listed(q, s, ask->list, text);
    else
        note_clean(q, s, ask->list);
}

/* ---- the mail ---------------------------------------------------------------------------------
 */

static void on_alert_stored(const char *error, void *arg)
{
    (void)arg;
    if (error)
        log_warning("an alert about sources cannot be queued: %s", error);
}

/* One for all that was found in a round. */
static void mail_alert(struct qmgr *q)
{
    const char *to = q->from->conf ? q->from->conf->alert_address : NULL;
    const char *host = q->s->config->myhostname;
    struct buf b = BUF_INIT(2 * ALERT_MAX), *text = &q->from->alert;
    int64_t wall = clock_wall();
    if (to && text->len) {
        struct id id = id_new();
        struct slice date = mail_date(wall);
        (void)buf_printf(
            &b,
            "From: Postern <postmaster@%s>\r\nTo: <%s>\r\nSubject: Block lists and the "
            "sources of %s\r\nDate: %.*s\r\nMessage-ID: ",
            host, to, host, SLICE_ARG(date));
        (void)message_id_make(&b, wall, id_slice(&id), slice_str(host));
        buf_addstr(&b, "\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n"
                       "Content-Type: text/plain; charset=us-ascii\r\n\r\n");
        (void)buf_adds(&b, buf_slice(text));
        buf_addstr(&b, "`postern source list` shows all sources, `postern source show NAME` who\r\n"
                       "sends from one.\r\n");
        intake_commit_own(q, &id, SLICE(""), slice_str(to), 0, buf_slice(&b), on_alert_stored,
                          NULL);
    }
    buf_free(&b);
    buf_clear(text);
}

/* ---- rounds
 * --------------------------------------------------------------------------------------- */

void sources_lists_reset(struct qmgr *q)
{
    struct sources *all = q->from;
    for (struct list *n; (n = list_pop(&all->questions));)
        free(container_of(n, struct list_question, link));
    all->open = 0;
    all->list_next = all->list_next_list = 0;
    all->list_due = q->now;
}

static void ask(struct qmgr *q, struct source *s, uint32_t list, bool v6)
{
    struct list_question *a = xcalloc(1, sizeof *a);
    *a = (struct list_question){.tag = ++q->from->list_tag, .source = s, .list = list, .v6 = v6};
    list_push(&q->from->questions, &a->link);
    q->from->open++;
    ipc_listing_request_encode(
        channel_out(q->sites.peer.channel),
        &(struct ipc_listing_request){.tag = a->tag,
                                      .address = v6 ? slice_make(s->v6, sizeof s->v6)
                                                    : slice_make(s->v4, sizeof s->v4),
                                      .zone = slice_str(q->from->conf->lists[list].zone)});
}

static bool is_due(const struct qmgr *q)
{
    const struct sources *all = q->from;
    return all->conf && all->conf->list_count && all->conf->count && q->sites.peer.channel &&
           q->scanned && !q->draining && q->now >= all->list_due;
}

void sources_lists_turn(struct qmgr *q)
{
    struct sources *all = q->from;
    if (!is_due(q))
        return;
    while (all->open < OPEN_MAX && all->list_next < all->conf->count) {
        struct source *s = all->by_position[all->list_next];
        if (s->has_v4)
            ask(q, s, (uint32_t)all->list_next_list, false);
        if (s->has_v6)
            ask(q, s, (uint32_t)all->list_next_list, true);
        if (++all->list_next_list < all->conf->list_count)
            continue;
        all->list_next_list = 0;
        all->list_next++;
    }
    if (all->open || all->list_next < all->conf->count)
        return;
    mail_alert(q);
    all->list_next = 0;
    all->list_due = q->now + all->conf->list_interval;
}

int64_t sources_next_due(const struct qmgr *q)
{
    const struct sources *all = q->from;
    int64_t save = all->dirty ? sources_save_due(q) : INT64_MAX;
    bool waits = all->conf && all->conf->list_count && all->conf->count && q->sites.peer.channel &&
                 q->scanned && !q->draining && !all->open;
    return waits && all->list_due < save ? all->list_due : save;
}

int sources_listing(struct qmgr *q, struct slice body, struct err *e)
{
    struct ipc_listing_reply in;
    if (ipc_listing_reply_decode(body, &in) < 0 || in.status > LISTING_UNKNOWN)
        return err_set(e, "malformed LISTING_REPLY");
    list_each(&q->from->questions, n)
    {
        struct list_question *a = container_of(n, struct list_question, link);
        if (a->tag != in.tag)
            continue;
        list_remove(&a->link);
        q->from->open--;
        learn(q, a, in.status, in.text);
        free(a);
        return 0;
    }
    /* the set has changed meanwhile: tags are never used twice */
    return in.tag && in.tag <= q->from->list_tag
               ? 0
               : err_set(e, "LISTING_REPLY to a question that was not asked");
}
