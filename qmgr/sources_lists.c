/* Looks our own addresses up in block lists, in rounds, and does what the operator wants of
 * a source that is listed: alerts with who sends from it, and no more mail from there. */
#include <stdio.h>

#include "core/log.h"
#include "core/mem.h"
#include "mail/date.h"
#include "mail/message_id.h"
#include "qmgr/sources.h"

enum { OPEN_MAX = 32, ALERT_MAX = 16 * 1024, NAMED_SENDERS = 5, COMPLAIN_SECONDS = 3600 };

/* A question to resolve: about a source, or a test point. */
struct list_question {
    struct list link; /* in sources.questions */
    uint64_t tag;
    struct source *source; /* NULL: a test point */
    uint32_t list;
    uint8_t point;
    bool v6;
};

/* RFC 5782, section 5: what a list of IPv4 or IPv6 addresses has, and what it never has. */
static const struct point {
    const char *name;
    bool v6, listed;
    char address[16];
} points[LIST_POINTS] = {
    {"127.0.0.2", false, true, {127, 0, 0, 2}},
    {"127.0.0.1", false, false, {127, 0, 0, 1}},
    {"::ffff:7f00:2", true, true, {[10] = (char)0xff, [11] = (char)0xff, 0x7f, 0, 0, 2}},
    {"::ffff:7f00:1", true, false, {[10] = (char)0xff, [11] = (char)0xff, 0x7f, 0, 0, 1}},
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
    struct buf senders = BUF_INIT(4096), what = BUF_INIT(512);
    char addresses[80];
    const struct pool_conf *spared = source_spared(q, s);
    const char *happens = "it is not used until it is off the list";
    if (!list->quarantine) {
        happens = "it is used all the same (quarantine = no)";
    } else if (spared) {
        (void)buf_printf(&what,
                         "it is used all the same: the pool %s has no other source that may "
                         "send%c",
                         spared->name, '\0');
        happens = what.data;
    }
    add_senders(s, &senders);
    (void)source_addresses(s, addresses);
    log_warning("source %s (%s) is on the block list %s: %s; who sent from it lately: %.*s; %s",
                s->name, addresses, list->zone, log_esc(text), SLICE_ARG(buf_slice(&senders)),
                happens);
    (void)buf_printf(&q->from->alert,
                     "Source %s (%s) is on the block list %s.\r\n"
                     "  The list says:  %s\r\n"
                     "  Sent from it:   %.*s\r\n"
                     "  What happens:   %s\r\n\r\n",
                     s->name, addresses, list->zone, log_esc(text), SLICE_ARG(buf_slice(&senders)),
                     happens);
    buf_free(&senders);
    buf_free(&what);
}

static char *zones_of(const struct sources_conf *c, uint32_t bits)
{
    struct buf b = BUF_INIT(SOURCES_LISTS_MAX * (SOURCES_HOST_MAX + 2));
    for (size_t i = 0; i < c->list_count; i++)
        if (bits >> i & 1)
            (void)buf_printf(&b, "%s%s", b.len ? " " : "", c->lists[i].zone);
    char *zones = slice_dup(buf_slice(&b));
    buf_free(&b);
    return zones;
}

static void set_zones(struct qmgr *q, struct source *s)
{
    free(s->listed_zones);
    free(s->forgiven_zones);
    s->listed_zones = zones_of(q->from->conf, s->listed);
    s->forgiven_zones = zones_of(q->from->conf, s->forgiven);
    q->from->file.dirty = true;
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
    if (q->from->conf->lists[list].quarantine && !(s->forgiven & bit))
        sources_leave(q, s);
}

static void note_clean(struct qmgr *q, struct source *s, uint32_t list)
{
    uint32_t bit = UINT32_C(1) << list;
    bool listed = s->listed & bit;
    if (!((s->listed | s->forgiven) & bit) || ((s->found4 | s->found6) & bit))
        return;
    s->listed &= ~bit;
    s->forgiven &= ~bit;
    set_zones(q, s);
    if (!listed) /* it was forgiven what a list said that was not believed then */
        return;
    sources_wake(q);
    log_info("source %s is off the block list %s", s->name, q->from->conf->lists[list].zone);
    (void)buf_printf(&q->from->alert, "Source %s is off the block list %s.\r\n\r\n", s->name,
                     q->from->conf->lists[list].zone);
}

static void complain(struct qmgr *q, uint32_t list, struct slice text)
{
    if (q->from->complained && q->now - q->from->complained < COMPLAIN_SECONDS * CLOCK_SECOND)
        return;
    q->from->complained = q->now;
    log_warning("the block list %s does not answer our name servers: %s; ask it through a resolver "
                "of your own, or take it out of sources.conf",
                q->from->conf->lists[list].zone, log_esc(text));
}

/* ---- whether a list is believed -------------------------------------------------------------- */

/* What it has said of our sources is worth nothing. */
static void disbelieve(struct qmgr *q, uint32_t list, const char *why)
{
    const char *zone = q->from->conf->lists[list].zone;
    uint32_t bit = UINT32_C(1) << list;
    struct buf freed = BUF_INIT(1024);
    list_each(&q->from->all, n)
    {
        struct source *s = container_of(n, struct source, all);
        s->found4 &= ~bit;
        s->found6 &= ~bit;
        if (!(s->listed & bit))
            continue;
        s->listed &= ~bit; /* what the operator has forgiven stays so, if the list comes back */
        set_zones(q, s);
        (void)buf_printf(&freed, "%s%s", freed.len ? ", " : "", s->name);
    }
    if (freed.len || q->from->trust[list].state != LIST_BROKEN) {
        log_warning("the block list %s is not believed: %s; mend its name, or take it out of "
                    "sources.conf%s%.*s",
                    zone, why, freed.len ? "; what it said of these holds no more: " : "",
                    SLICE_ARG(buf_slice(&freed)));
        (void)buf_printf(&q->from->alert,
                         "The block list %s is not believed: %s.\r\n"
                         "  Freed sources:  %.*s\r\n\r\n",
                         zone, why, SLICE_ARG(freed.len ? buf_slice(&freed) : SLICE("none")));
    }
    q->from->trust[list].state = LIST_BROKEN;
    if (freed.len)
        sources_wake(q);
    buf_free(&freed);
}

/* By its answers about the test points of this round. Where nothing is known of it, as without
 * the DNS, what was known of sources holds. */
static void judge(struct qmgr *q, uint32_t list)
{
    struct list_trust *t = &q->from->trust[list];
    bool has_one = false, unknown = false, doubtful = false;
    for (int i = 0; i < LIST_POINTS; i++) {
        char why[160];
        uint8_t said = t->answers[i];
        if (said == LISTING_REFUSED || said == LISTING_WRONG) {
            snprintf(why, sizeof why, "asked about its test point %s it answers with %s",
                     points[i].name,
                     said == LISTING_WRONG ? "an address outside of 127.0.0.0/8"
                                           : "an error (127.255.255.0/24)");
            disbelieve(q, list, why);
            return;
        }
        if (said == LISTING_LISTED && !points[i].listed) {
            snprintf(why, sizeof why, "it lists %s, which no list has (RFC 5782)", points[i].name);
            disbelieve(q, list, why);
            return;
        }
        has_one = has_one || said == LISTING_LISTED;
        unknown = unknown || said == LISTING_UNKNOWN;
        doubtful = doubtful || (said == LISTING_UNKNOWN && !points[i].listed);
    }
    if (has_one && !doubtful)
        t->state = LIST_WORKS;
    else if (unknown)
        t->state = LIST_UNKNOWN;
    else
        disbelieve(q, list,
                   "it does not list its test point 127.0.0.2, which all lists have (RFC "
                   "5782)");
}

static void learn_point(struct qmgr *q, const struct list_question *ask, uint8_t status,
                        struct slice text)
{
    q->from->trust[ask->list].answers[ask->point] = status;
    if (status == LISTING_REFUSED)
        complain(q, ask->list, text.len ? text : SLICE("it gives no reason"));
}

static void learn(struct qmgr *q, const struct list_question *ask, uint8_t status,
                  struct slice text)
{
    struct source *s = ask->source;
    if (!s) {
        learn_point(q, ask, status, text);
        return;
    }
    if (text.len == 0)
        text = SLICE("it gives no reason");
    uint32_t bit = UINT32_C(1) << ask->list, *found = ask->v6 ? &s->found6 : &s->found4;
    if (status == LISTING_REFUSED)
        complain(q, ask->list, text);
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
        intake_commit_own(q, &id, slice_str(to), 0, buf_slice(&b), on_alert_stored, NULL);
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
    all->tested = false;
    memset(all->trust, 0, sizeof all->trust);
    all->list_next = all->list_next_list = 0;
    all->list_due = q->now;
}

/* Takes *what, but for its tag. */
static void ask(struct qmgr *q, const struct list_question *what, struct slice address)
{
    struct list_question *a = xmalloc(sizeof *a);
    *a = *what;
    a->tag = ++q->from->list_tag;
    list_push(&q->from->questions, &a->link);
    q->from->open++;
    ipc_listing_request_encode(
        channel_out(q->sites.peer.channel),
        &(struct ipc_listing_request){.tag = a->tag,
                                      .address = address,
                                      .zone = slice_str(q->from->conf->lists[a->list].zone)});
}

static void ask_of_source(struct qmgr *q, struct source *s, uint32_t list)
{
    struct list_question what = {.source = s, .list = list};
    if (q->from->trust[list].state != LIST_WORKS)
        return;
    if (s->has_v4)
        ask(q, &what, slice_make(s->v4, sizeof s->v4));
    what.v6 = true;
    if (s->has_v6)
        ask(q, &what, slice_make(s->v6, sizeof s->v6));
}

static bool has_v6(const struct sources_conf *c)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->sources[i].has_v6)
            return true;
    return false;
}

/* Of IPv6 only where we have such addresses: a list of IPv4 alone may answer anything. */
static void ask_of_points(struct qmgr *q, uint32_t list, bool v6)
{
    struct list_question what = {.list = list};
    for (uint8_t i = 0; i < LIST_POINTS; i++) {
        what.point = i;
        q->from->trust[list].answers[i] = LISTING_NONE;
        if (!points[i].v6 || v6)
            ask(q, &what, slice_make(points[i].address, points[i].v6 ? 16 : 4));
    }
}

/* Each round begins with them. True: all lists have answered. */
static bool test_lists(struct qmgr *q)
{
    struct sources *all = q->from;
    bool v6 = has_v6(all->conf);
    while (all->open + LIST_POINTS <= OPEN_MAX && all->list_next_list < all->conf->list_count)
        ask_of_points(q, (uint32_t)all->list_next_list++, v6);
    if (all->open || all->list_next_list < all->conf->list_count)
        return false;
    for (uint32_t i = 0; i < all->conf->list_count; i++)
        judge(q, i);
    all->list_next_list = 0;
    return true;
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
    if (!all->tested && !(all->tested = test_lists(q)))
        return;
    while (all->open < OPEN_MAX && all->list_next < all->conf->count) {
        ask_of_source(q, all->by_position[all->list_next], (uint32_t)all->list_next_list);
        if (++all->list_next_list < all->conf->list_count)
            continue;
        all->list_next_list = 0;
        all->list_next++;
    }
    if (all->open || all->list_next < all->conf->count)
        return;
    mail_alert(q);
    all->list_next = 0;
    all->tested = false;
    all->list_due = q->now + all->conf->list_interval;
}

int64_t sources_next_due(const struct qmgr *q)
{
    const struct sources *all = q->from;
    bool waits = all->conf && all->conf->list_count && all->conf->count && q->sites.peer.channel &&
                 q->scanned && !q->draining && !all->open;
    return waits ? all->list_due : INT64_MAX;
}

int sources_listing(struct qmgr *q, struct slice body, struct err *e)
{
    struct ipc_listing_reply in;
    if (ipc_listing_reply_decode(body, &in) < 0 || in.status > LISTING_WRONG)
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
