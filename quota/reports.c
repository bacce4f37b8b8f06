/*
 * The report at the end of an account's period, by mail: what was sent, and the list
 * of all recipients that failed as CSV. And how long that list is kept.
 *
 * `reported` in the account's record is the end of the period that runs: once that is
 * over, the report of it is due. It is written with the letter in one transaction, so
 * a report is neither lost nor made twice. An active account gets one of each period, also of one
 * in which it sent nothing; after an outage the last REPORTS_MISSED come once, the oldest first:
 * of months that is as far back as the list of failures goes. What was counted without periods,
 * before the plan had any, is in none.
 */
#include "core/csv.h"
#include "core/log.h"
#include "core/mem.h"
#include "quota/letter.h"

enum {
    CSV_MAX = 48 * 1024,     /* a letter has to fit into a frame to qmgr */
    LOOKS_MAX = 5000,        /* failures that are looked at for one letter */
    REPORTS_MISSED = 3,      /* periods that are over and are reported at a time */
    FAILURE_DAYS = 100,      /* failures are kept for reports */
    FAILURES_SLICE = 2000,   /* looked at in one turn */
    FAILURES_SECONDS = 3600, /* from one look at all of them to the next */
    DAY = 86400
};

/* ---- the list --------------------------------------------------------------------- */

json_t *failure_read(struct quota *q, struct slice key, struct slice value)
{
    struct slice rest = key, account = slice_cut(&rest, '\0');
    json_t *out = json_loadb(value.ptr, value.len, 0, NULL);
    json_t *of = json_incref(json_object_get(out, FAILURE_OF));
    if (json_is_string(of)) {
        struct key own;
        key_begin(&own, slice_first(slice_str(json_string_value(of)), ACCOUNT_NAME_MAX));
        key_add(&own, rest);
        json_decref(out);
        out = quota_get_json(q, T_FAILURE, key_slice(&own));
    }
    if (out)
        json_object_set_new(out, "account",
                            json_is_string(of) ? json_incref(of)
                                               : json_stringn(account.ptr, account.len));
    json_decref(of);
    return out;
}

struct listing_failures {
    struct quota *q;
    const struct plan *plan; /* whose zone times are in */
    struct buf *csv;
    struct slice prefix; /* account, NUL */
    struct period period;
    unsigned listed, looks;
    bool more; /* than the letter has */
};

static void add_failure(struct buf *csv, const struct plan *plan, int64_t time,
                        const json_t *record)
{
    static const char *const columns[] = {"account", "user", "id", "recipient", "reply", NULL};
    struct buf when = BUF_INIT(2 * PLAN_NAME_MAX);
    plan_print_time(&when, plan, time);
    (void)csv_add(csv, buf_slice(&when), false);
    for (size_t i = 0; columns[i]; i++)
        (void)csv_add(csv, slice_str(json_text(record, columns[i])), !columns[i + 1]);
    buf_free(&when);
}

/* The time of a failure, whose key is account, NUL, time, ID, recipient. */
static int64_t failure_time(struct slice key, size_t prefix)
{
    return (int64_t)key_last_number(slice_first(slice_from(key, prefix), 8));
}

static bool on_failure(struct slice key, struct slice value, void *arg)
{
    struct listing_failures *l = arg;
    if (!slice_starts(key, l->prefix) || failure_time(key, l->prefix.len) >= l->period.end)
        return false;
    size_t before = l->csv->len;
    if (l->looks++ == LOOKS_MAX) {
        l->more = true;
        return false;
    }
    json_t *record = failure_read(l->q, key, value);
    if (!record)
        return true;
    add_failure(l->csv, l->plan, failure_time(key, l->prefix.len), record);
    json_decref(record);
    if (l->csv->len > CSV_MAX) {
        l->csv->len = before; /* it is full: the rest, however long, is not read */
        l->more = true;
        return false;
    }
    l->listed++;
    return true;
}

static void list_failures(struct quota *q, const struct account *a, struct period period,
                          struct buf *csv, struct listing_failures *out)
{
    struct key prefix, from;
    struct err e;
    key_begin(&prefix, slice_str(a->name));
    from = prefix;
    key_number(&from, (uint64_t)period.start);
    *out = (struct listing_failures){
        .q = q, .plan = a->plan, .csv = csv, .prefix = key_slice(&prefix), .period = period};
    buf_addstr(csv, "\"time\",\"account\",\"user\",\"id\",\"recipient\",\"reply\"\r\n");
    if (kv_walk(q->kv, T_FAILURE, key_slice(&from), on_failure, out, &e) < 0)
        panic("%s", e.text);
}

/* ---- the letter -------------------------------------------------------------------- */

static void send_report(struct quota *q, const struct account *a, const struct plan_usage *u)
{
    struct buf csv = BUF_INIT(2 * CSV_MAX), text = BUF_INIT(4096);
    struct listing_failures l;
    char subject[160], name[ACCOUNT_NAME_MAX + 40];
    const struct civil first = zone_civil(&a->plan->zone, u->period.start);
    list_failures(q, a, u->period, &csv, &l);
    snprintf(subject, sizeof subject, "Report of account %s for %04lld-%02d-%02d", a->name,
             (long long)first.year, first.month, first.day);
    snprintf(name, sizeof name, "%s-%04lld-%02d-%02d-errors.csv", a->name, (long long)first.year,
             first.month, first.day);
    (void)buf_printf(&text, "Account %s at %s\n\nReport of the period from ", a->name,
                     q->s->config->myhostname);
    plan_print_time(&text, a->plan, u->period.start);
    buf_addstr(&text, " to ");
    plan_print_time(&text, a->plan, u->period.end);
    buf_addstr(&text, ".\nMail that is still in the queue is counted when it has left it.\n");
    letter_figures(&text, a, u);
    (void)buf_printf(&text, "\nDelivered: %llu\nFailed:    %llu\n",
                     (unsigned long long)u->delivered.messages,
                     (unsigned long long)u->refunded.messages);
    if (l.more)
        (void)buf_printf(&text,
                         "\nThe attached list has the first %u failures. There are more; ask your "
                         "provider\nfor the others.\n",
                         l.listed);
    else if (l.listed)
        (void)buf_printf(&text, "\nThe failures are in the attached list.\n");
    letter_write(q, a, subject, buf_slice(&text), name, l.listed ? buf_slice(&csv) : SLICE(""));
    buf_free(&csv);
    buf_free(&text);
}

static void set_reported(struct quota *q, struct account *a, int64_t end)
{
    json_t *j = quota_get_json(q, T_ACCOUNT, slice_str(a->name));
    if (!j)
        return;
    a->reported = end;
    json_object_set_new(j, "reported", json_integer(end));
    quota_put_json(book_extra(q), T_ACCOUNT, slice_str(a->name), j);
    json_decref(j);
}

void reports_period(struct quota *q, const struct account *a, int64_t time, struct plan_usage *out)
{
    struct period planned = plan_period_at(a->plan, a->began, time);
    bool any = party_last_usage(q, a->name, time, out) && out->period.end != INT64_MAX;
    if (any && time < out->period.end)
        return;
    if (any && planned.start < out->period.end) /* the plan was another one */
        planned.start = out->period.end;
    *out = (struct plan_usage){.period = planned};
}

/* An account that could not send, or without an address, needs no letter that says so. */
static bool is_wanted(const struct account *a, const struct plan_usage *u)
{
    if (u->charged.messages || u->delivered.messages || u->refunded.messages)
        return true;
    return *a->reference && a->status == ACCOUNT_ACTIVE && (!a->ends || a->ends > u->period.start);
}

/* Usage of the periods before the running one without a report, the latest first. */
static unsigned gather_due(struct quota *q, const struct account *a, struct period running,
                           struct plan_usage due[static REPORTS_MISSED])
{
    unsigned n = 0;
    int64_t at = running.start - 1;
    if (a->reported == 0) /* it is new, or its plan has reports now */
        return party_last_usage(q, a->name, at, &due[0]) && due[0].period.end >= running.start &&
               due[0].period.end != INT64_MAX;
    for (; n < REPORTS_MISSED && at >= a->reported - 1; n++) {
        reports_period(q, a, at, &due[n]);
        at = due[n].period.start - 1;
    }
    if (at >= a->reported - 1)
        log_warning("account %s: only the last %d periods that are over are reported; 'postern "
                    "usage report %s' has the figures of those before",
                    a->name, REPORTS_MISSED, a->name);
    return n;
}

void reports_account(struct quota *q, struct account *a)
{
    int64_t now = quota_now();
    struct plan_usage due[REPORTS_MISSED];
    if (!a->plan->period_report || a->plan->period == PERIOD_NONE) {
        if (a->reported == 0 || a->plan_missing)
            return;
        book_apply(q); /* of the record something else may be in memory only */
        set_reported(q, a, 0);
        return; /* with reports again they begin anew */
    }
    struct period running = party_find(q, a, SLICE(""))->usage.period;
    if (now < a->reported && a->reported <= running.end)
        return;
    book_apply(q); /* what was counted last, and records of accounts, may be in memory only */
    if (a->reported <= running.end) /* else with another plan it ends earlier than it was to */
        for (unsigned n = gather_due(q, a, running, due); n-- > 0;)
            if (is_wanted(a, &due[n]))
                send_report(q, a, &due[n]);
    set_reported(q, a, running.end);
}

/* ---- old failures -------------------------------------------------------------------- */

struct dropping {
    struct quota *q;
    struct buf batch;
    unsigned seen;
    int64_t before;
    bool end;
};

static bool on_old(struct slice key, struct slice value, void *arg)
{
    struct dropping *d = arg;
    struct slice rest = key, account = slice_cut(&rest, '\0');
    (void)value;
    if (d->seen++ == FAILURES_SLICE) {
        d->q->letters.failures.len = 0; /* goes on here */
        key_add(&d->q->letters.failures, key);
        d->end = false;
        return false;
    }
    if (rest.len >= 8 && failure_time(key, account.len + 1) < d->before)
        (void)kv_remove(&d->batch, T_FAILURE, key);
    return true;
}

void reports_tick(struct quota *q)
{
    struct err e;
    struct dropping d = {.q = q,
                         .batch = BUF_INIT(KV_BATCH_MAX),
                         .before = quota_now() - (int64_t)FAILURE_DAYS * DAY,
                         .end = true};
    if (clock_mono() < q->letters.next_failures)
        return;
    struct key from = q->letters.failures;
    if (kv_walk(q->kv, T_FAILURE, key_slice(&from), on_old, &d, &e) < 0)
        panic("%s", e.text);
    if (d.batch.len)
        sync_apply(q, buf_slice(&d.batch), NULL, NULL);
    if (d.end) {
        q->letters.failures.len = 0;
        q->letters.next_failures = clock_mono() + FAILURES_SECONDS * CLOCK_SECOND;
    }
    buf_free(&d.batch);
}
