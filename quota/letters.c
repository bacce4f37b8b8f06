/*
 * What owners of accounts are told, by mail to the account's reference address:
 * alerts, reports, unusual volume, the end of a plan. A letter is in the database
 * from the moment its cause is counted until qmgr has it.
 */
#include "core/id.h"
#include "core/log.h"
#include "core/mem.h"
#include "mail/date.h"
#include "mail/message_id.h"
#include "quota/letter.h"
#include "quota/spike.h"

enum {
    LETTER_MAX = 72 * 1024, /* with a list; qmgr takes 80 KB */
    TEXT_MAX = 8 * 1024,
    LETTERS_UNDER_WAY = 64,
    SWEEP_ACCOUNTS = 2000, /* looked at in one turn, */
    SWEEP_TIME = 100000,   /* for so many microseconds: reports take long */
    HOUR = 3600,
    DAY = 86400
};

struct letter {
    uint64_t tag;
    char id[ID_MAX + 1];
};

static struct slice letter_key(const void *value)
{
    const struct letter *l = value;
    return slice_make(&l->tag, sizeof l->tag);
}

/* ---- handing over ------------------------------------------------------------------- */

static void hand_over(struct quota *q, struct slice id, const json_t *j)
{
    struct letter *l = xcalloc(1, sizeof *l);
    l->tag = ++q->letters.next_tag;
    snprintf(l->id, sizeof l->id, "%.*s", SLICE_ARG(id));
    map_put(&q->letters.sent, l);
    struct ipc_account_notice out = {.tag = l->tag,
                                     .id = id,
                                     .recipient = slice_str(json_text(j, "to")),
                                     .flags = MESSAGE_8BIT,
                                     .content = slice_str(json_text(j, "content"))};
    ipc_account_notice_encode(channel_out(q->book.channel), &out);
}

static bool is_under_way(const struct quota *q, struct slice id)
{
    size_t cursor = 0;
    for (const struct letter *l; (l = map_next(&q->letters.sent, &cursor));)
        if (slice_eq(slice_str(l->id), id))
            return true;
    return false;
}

static bool on_waiting(struct slice key, struct slice value, void *arg)
{
    struct quota *q = arg;
    if (q->letters.sent.count >= LETTERS_UNDER_WAY)
        return false;
    if (is_under_way(q, key))
        return true;
    json_t *j = json_loadb(value.ptr, value.len, 0, NULL);
    if (j)
        hand_over(q, key, j);
    json_decref(j);
    return true;
}

static void send_waiting(struct quota *q)
{
    struct err e;
    if (!q->book.channel || q->letters.sent.count)
        return;
    if (kv_walk(q->kv, T_NOTICE, SLICE(""), on_waiting, q, &e) < 0)
        panic("%s", e.text);
}

void letters_connected(struct quota *q)
{
    if (!q->letters.sent.key)
        map_init(&q->letters.sent, letter_key);
    map_clear(&q->letters.sent, free);
    send_waiting(q);
}

void letters_taken(struct quota *q, uint64_t tag, bool stored)
{
    struct letter *l = map_remove(&q->letters.sent, slice_make(&tag, sizeof tag));
    if (!l)
        return;
    if (stored) {
        struct buf batch = BUF_INIT(4096);
        kv_remove(&batch, T_NOTICE, slice_str(l->id));
        sync_apply(q, buf_slice(&batch), NULL, NULL);
        buf_free(&batch);
    }
    free(l);
    if (stored) /* else qmgr is asked again later */
        send_waiting(q);
}

void letters_stored(struct quota *q, struct slice id)
{
    if (kv_remove(book_extra(q), T_NOTICE, id) < 0)
        panic("a batch that is full");
}

/* ---- composing ----------------------------------------------------------------------- */

static void add_header(struct buf *out, const struct quota *q, const struct account *a,
                       const char *id, const char *subject)
{
    const struct config *c = q->s->config;
    int64_t now = clock_wall();
    struct slice date = mail_date(now);
    (void)buf_printf(out, "From: %s\r\nTo: %s\r\nSubject: %s\r\nDate: %.*s\r\nMessage-ID: ",
                     c->notice_from, a->reference, subject, SLICE_ARG(date));
    (void)message_id_make(out, now, slice_str(id), slice_str(c->myhostname));
    buf_addstr(out, "\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n");
}

static void add_text(struct buf *out, struct slice text)
{
    buf_addstr(out, "Content-Type: text/plain; charset=us-ascii\r\n\r\n");
    while (text.len) {
        struct slice line = slice_cut(&text, '\n');
        buf_adds(out, line);
        buf_addstr(out, "\r\n");
    }
}

/* The boundary is the letter's ID, which no list has in a line of its own. */
static void add_parts(struct buf *out, const char *id, struct slice text, const char *file,
                      struct slice csv)
{
    (void)buf_printf(out, "Content-Type: multipart/mixed; boundary=\"%s\"\r\n\r\n--%s\r\n", id, id);
    add_text(out, text);
    (void)buf_printf(out,
                     "\r\n--%s\r\nContent-Type: text/csv; charset=utf-8\r\n"
                     "Content-Transfer-Encoding: 8bit\r\n"
                     "Content-Disposition: attachment; filename=\"%s\"\r\n\r\n",
                     id, file);
    buf_adds(out, csv);
    (void)buf_printf(out, "\r\n--%s--\r\n", id);
}

void letter_write(struct quota *q, const struct account *a, const char *subject, struct slice text,
                  const char *file, struct slice csv)
{
    struct buf content = BUF_INIT(LETTER_MAX);
    struct id id = id_new();
    if (!*a->reference) {
        log_warning("account %s has no reference address: nobody is told: %s", a->name, subject);
        return;
    }
    add_header(&content, q, a, id.text, subject);
    if (csv.len)
        add_parts(&content, id.text, text, file, csv);
    else
        add_text(&content, text);
    json_t *j = json_pack("{s:s,s:s%}", "to", a->reference, "content", content.data, content.len);
    if (!j)
        panic("a letter that is no text");
    quota_put_json(book_extra(q), T_NOTICE, id_slice(&id), j);
    json_decref(j);
    log_info("account %s: %s (letter %s to %s)", a->name, subject, id.text, a->reference);
    buf_free(&content);
}

static void write_letter(struct quota *q, const struct account *a, const char *subject,
                         struct slice text)
{
    letter_write(q, a, subject, text, "", SLICE(""));
}

static unsigned long long ull(uint64_t n)
{
    return n;
}

/* What was taken from grants, and what they still have, in each unit that they give. */
static void add_grants(struct buf *out, const struct account *a, const struct plan_usage *u)
{
    int64_t now = quota_now();
    uint64_t left = plan_granted_left(a->grants, a->grant_count, GRANT_MESSAGES, now);
    uint64_t left_bytes = plan_granted_left(a->grants, a->grant_count, GRANT_BYTES, now);
    if (u->granted.messages || left)
        (void)buf_printf(out, "Grants:    %llu messages used, %llu left\n",
                         ull(u->granted.messages), ull(left));
    if (u->granted.bytes || left_bytes)
        (void)buf_printf(out, "Grants:    %.1f MB used, %.1f MB left\n",
                         (double)u->granted.bytes / 1e6, (double)left_bytes / 1e6);
}

void letter_figures(struct buf *out, const struct account *a, const struct plan_usage *u)
{
    const struct plan_terms t = plan_terms_of(u, a->plan);
    struct volume over = plan_overage(&t, u);
    (void)buf_printf(out, "\nPlan:      %s\nSince:     ", t.plan);
    plan_print_time(out, a->plan, u->period.start);
    if (t.messages)
        (void)buf_printf(out, "\nMessages:  %llu of %llu\n", ull(u->charged.messages),
                         ull(t.messages));
    else
        (void)buf_printf(out, "\nMessages:  %llu\n", ull(u->charged.messages));
    if (u->charged.messages > u->delivered.messages)
        (void)buf_printf(out, "In queue:  %llu of them; what cannot be delivered is given back\n",
                         ull(u->charged.messages - u->delivered.messages));
    (void)buf_printf(out, "Volume:    %.1f", (double)u->charged.bytes / 1e6);
    if (t.bytes)
        (void)buf_printf(out, " of %.1f", (double)t.bytes / 1e6);
    buf_addstr(out, " MB\n");
    add_grants(out, a, u);
    if (over.messages)
        (void)buf_printf(out, "Over plan: %llu messages\n", ull(over.messages));
    if (over.bytes)
        (void)buf_printf(out, "Over plan: %.1f MB\n", (double)over.bytes / 1e6);
    if (t.overage_block && (over.messages || over.bytes))
        (void)buf_printf(out, "Charged:   %llu blocks of overage\n",
                         ull(plan_overage_blocks(&t, u)));
    buf_addstr(out, "Reset:     ");
    if (u->period.end == INT64_MAX)
        buf_addstr(out, "never");
    else
        plan_print_time(out, a->plan, u->period.end);
    buf_addstr(out, "\n");
}

static void usage_letter(struct quota *q, const struct account *a, const struct party *p,
                         const char *subject, const char *sentence)
{
    struct buf text = BUF_INIT(TEXT_MAX);
    (void)buf_printf(&text, "Account %s at %s\n\n%s\n", a->name, q->s->config->myhostname,
                     sentence);
    letter_figures(&text, a, &p->usage);
    write_letter(q, a, subject, buf_slice(&text));
    buf_free(&text);
}

/* ---- occasions ------------------------------------------------------------------------ */

/* What follows when all is used, and what follows from it now. */
static const char *words_of_limit(const struct plan *p, bool reached)
{
    static const char *const words[][2] = {
        [AT_LIMIT_BLOCK] = {"When all of it is used mail is refused until the reset; then it is\n"
                            "taken again by itself.",
                            "From now on mail is refused until the reset; then it is taken again\n"
                            "by itself. Ask your provider if you need more before that."},
        [AT_LIMIT_ALLOW] = {"When all of it is used mail is still taken.", "Mail is still taken."},
        [AT_LIMIT_SURCHARGE] =
            {"When all of it is used mail is still taken; what is over is charged\n"
             "extra.",
             "Mail is still taken; what is over is charged extra."},
    };
    if (p->at_limit == AT_LIMIT_BLOCK && p->period == PERIOD_NONE) /* there is no reset */
        return reached ? "From now on mail is refused. Ask your provider if you need more."
                       : "When all of it is used mail is refused.";
    return words[p->at_limit][reached];
}

static void alert(struct quota *q, struct account *a, struct party *p, unsigned percent)
{
    char subject[128], sentence[256];
    snprintf(subject, sizeof subject, "%u%% of the volume of account %s is used", percent, a->name);
    snprintf(sentence, sizeof sentence, "%u%% of the volume of this period is used.\n%s", percent,
             words_of_limit(a->plan, percent >= 100));
    usage_letter(q, a, p, subject, sentence);
}

void letters_after_charge(struct quota *q, struct account *a, struct party *p)
{
    const struct plan *plan = a->plan;
    if (!plan->messages && !plan->bytes)
        return;
    unsigned percent = plan_percent(plan, &p->usage, a->grants, a->grant_count, quota_now());
    int latest = -1;
    for (int i = 0; i < PLAN_PERCENTS_MAX && plan->alert_percents[i]; i++)
        if (percent >= plan->alert_percents[i] && !(p->usage.alerts & 1u << i)) {
            p->usage.alerts |= 1u << i;
            latest = i; /* several at once: the highest is told */
        }
    unsigned step = plan->report_percent, reached = percent < 100 ? percent : 100;
    bool report = step && reached / step * step > p->usage.reported;
    if (report)
        p->usage.reported = (uint8_t)(reached / step * step);
    const struct plan_terms t = plan_terms_of(&p->usage, plan);
    struct volume over = plan_overage(&t, &p->usage);
    bool begun = (over.messages || over.bytes) && !p->usage.over_told;
    if (begun)
        p->usage.over_told = true;
    if (latest < 0 && !report && !begun)
        return;
    char subject[128];
    if (latest >= 0) {
        alert(q, a, p, plan->alert_percents[latest]);
    } else if (report) {
        snprintf(subject, sizeof subject, "Usage report of account %s: %u%%", a->name, percent);
        usage_letter(q, a, p, subject,
                     "This is the regular report of what is used in this period.");
    }
    if (begun) {
        snprintf(subject, sizeof subject, "Account %s is over its plan", a->name);
        usage_letter(q, a, p, subject,
                     "The plan's volume and all grants are used up, with what is in the queue.\n"
                     "Mail is still taken.");
    }
}

void letters_spike(struct quota *q, struct account *a, const struct party *p, bool held)
{
    char subject[128];
    struct buf text = BUF_INIT(TEXT_MAX);
    uint64_t usual = p->tally.usual / 1000;
    int64_t now = quota_now();
    snprintf(subject, sizeof subject, "Unusual volume of account %s", a->name);
    (void)buf_printf(&text,
                     "Account %s at %s\n\nThe account sends far more than usual: %llu messages "
                     "since\n",
                     a->name, q->s->config->myhostname,
                     ull(p->tally.hour_count + p->pending.messages));
    plan_print_time(&text, a->plan, now - now % HOUR);
    if (usual)
        (void)buf_printf(&text, ", where about %llu in an hour are usual.\n", ull(usual));
    else
        buf_addstr(&text, "; it has hardly sent anything before.\n");
    if (held)
        buf_addstr(&text,
                   "All its mail is taken, and held back until your provider has looked at it.\n");
    else
        (void)buf_printf(&text, "No more than %llu messages an hour are taken of it.\n",
                         ull(spike_limit(&p->tally, a->plan)));
    buf_addstr(&text,
               "\nIf it is not yours, a password may have been stolen: change it, and tell your\n"
               "provider. If it is yours, tell your provider, too, who can let it go.\n");
    write_letter(q, a, subject, buf_slice(&text));
    buf_free(&text);
}

/* ---- ends of plans ------------------------------------------------------------------------ */

/* The days of the last warning whose time has come; 0: none has. */
static uint32_t warning_due(const struct account *a, int64_t now)
{
    uint32_t days = 0;
    for (unsigned i = 0; i < PLAN_WARNINGS_MAX && a->plan->end_warnings[i]; i++)
        if (now >= a->ends - (int64_t)a->plan->end_warnings[i] * DAY)
            days = a->plan->end_warnings[i];
    return days;
}

static uint32_t days_told(const struct account *a)
{
    uint32_t days = a->warned;
    for (unsigned i = 0; !a->warned && i < PLAN_WARNINGS_MAX && a->plan->end_warnings[i]; i++)
        if (a->warned_bits >> i & 1)
            days = a->plan->end_warnings[i];
    return days;
}

static void warn_of_end(struct quota *q, struct account *a)
{
    int64_t now = quota_now();
    uint32_t due = a->ends > now ? warning_due(a, now) : 0, told = days_told(a);
    if (due == 0 || (told && due >= told))
        return;
    long long days = (a->ends - now + DAY - 1) / DAY;
    json_t *j = quota_get_json(q, T_ACCOUNT, slice_str(a->name));
    struct buf text = BUF_INIT(1000);
    /* what the letter says: another plan's list of days may have one between the two */
    a->warned = days < due ? (uint32_t)days : due;
    json_object_set_new(j, RECORD_WARNED, json_integer(a->warned));
    json_object_del(j, RECORD_WARNED_BITS);
    quota_put_json(book_extra(q), T_ACCOUNT, slice_str(a->name), j);
    (void)buf_printf(&text, "Account %s at %s\n\nThe plan of this account ends at ", a->name,
                     q->s->config->myhostname);
    plan_print_time(&text, a->plan, a->ends);
    buf_addstr(&text, ".\nIt is not renewed by itself: without a renewal no more mail is taken\n"
                      "from then on.\n");
    char subject[128];
    snprintf(subject, sizeof subject, "The plan of account %s ends in %lld day%s", a->name, days,
             days == 1 ? "" : "s");
    write_letter(q, a, subject, buf_slice(&text));
    json_decref(j);
    buf_free(&text);
}

struct looking {
    const struct quota *q;
    char names[SWEEP_ACCOUNTS][ACCOUNT_NAME_MAX + 1];
    unsigned count, seen;
    struct key *next;
    bool end;
};

/* Only those with an end, or a report now or before, are looked at closer. */
static bool on_account(struct slice key, struct slice value, void *arg)
{
    struct looking *l = arg;
    if (l->seen++ == SWEEP_ACCOUNTS) {
        l->next->len = 0;
        key_add(l->next, key);
        l->end = false;
        return false;
    }
    json_t *j = json_loadb(value.ptr, value.len, 0, NULL);
    const struct plan *p = plans_find(&l->q->plans, slice_str(json_text(j, "plan")));
    if ((json_integer_value(json_object_get(j, "ends")) ||
         json_integer_value(json_object_get(j, "reported")) || (p && p->period_report)) &&
        key.len <= ACCOUNT_NAME_MAX)
        snprintf(l->names[l->count++], ACCOUNT_NAME_MAX + 1, "%.*s", SLICE_ARG(key));
    json_decref(j);
    return true;
}

void letters_tick(struct quota *q)
{
    struct err e;
    send_waiting(q);
    reports_tick(q);
    if (q->letters.sweep.len == 0 && q->letters.hour == quota_now() / HOUR)
        return;
    q->letters.hour = quota_now() / HOUR; /* reports are due at full hours */
    struct looking *l = xcalloc(1, sizeof *l);
    l->q = q;
    struct key from = q->letters.sweep;
    l->next = &q->letters.sweep;
    l->end = true;
    if (kv_walk(q->kv, T_ACCOUNT, key_slice(&from), on_account, l, &e) < 0)
        panic("%s", e.text);
    int64_t began = clock_mono();
    for (unsigned i = 0; i < l->count; i++) {
        if (clock_mono() - began > SWEEP_TIME) {
            l->next->len = 0; /* goes on here */
            key_add(l->next, slice_str(l->names[i]));
            l->end = false;
            break;
        }
        struct account *a = account_find(q, slice_str(l->names[i]));
        if (a && a->ends)
            warn_of_end(q, a);
        if (a)
            reports_account(q, a);
    }
    if (l->end)
        q->letters.sweep.len = 0;
    free(l);
}
