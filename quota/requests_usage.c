/* Plans, grants, usage and what reports are made of. */
#include "core/mem.h"
#include "quota/plan_json.h"
#include "quota/pools.h"
#include "quota/rates.h"
#include "quota/requests.h"
#include "quota/spike.h"

/* ---- plans ------------------------------------------------------------------------------- */

static void show_plan(struct client *c, const struct plan *p)
{
    struct buf text = BUF_INIT(2000), line = BUF_INIT(2400);
    pools_wrong(control_quota(c), p->source, &text);
    if (text.len)
        (void)buf_printf(&line, "plan %s: source = %s: %.*s", p->name, p->source,
                         SLICE_ARG(buf_slice(&text)));
    control_warn(c, buf_slice(&line));
    control_result(c, plan_json(p));
    buf_free(&text);
    buf_free(&line);
}

void plan_list(struct client *c)
{
    const struct plans *p = &control_quota(c)->plans;
    for (size_t i = 0; i < p->count; i++)
        show_plan(c, &p->list[i]);
    control_done(c, NULL);
}

void plan_show(struct client *c)
{
    const char *name = json_text(control_request(c), "plan");
    const struct plan *p = plans_find(&control_quota(c)->plans, slice_str(name));
    if (!p) {
        control_fail(c, "There is no plan of that name; 'postern plan list' shows all.");
        return;
    }
    show_plan(c, p);
    control_done(c, NULL);
}

/* ---- grants ------------------------------------------------------------------------------- */

/* Amount and unit: "amount":"5GB" or "amount":1000, "unit":"messages". */
static int grant_amount(const json_t *request, uint64_t *amount, const char **unit)
{
    const json_t *value = json_object_get(request, "amount");
    *unit = json_text(request, "unit");
    if (json_is_integer(value)) {
        *amount = (uint64_t)json_integer_value(value);
        if (!**unit)
            *unit = "messages";
        return json_integer_value(value) > 0 ? 0 : -1;
    }
    struct slice text = slice_str(json_text(request, "amount"));
    if (plan_parse_size(text, amount) < 0 || *amount == 0 || *amount > INT64_MAX)
        return -1;
    if (!**unit) {
        char last = text.ptr[text.len - 1];
        *unit = last >= '0' && last <= '9' ? "messages" : "bytes";
    }
    return strcmp(*unit, "messages") == 0 || strcmp(*unit, "bytes") == 0 ? 0 : -1;
}

/* Where what is left of a grant is credited until the year's end, it is for the running period;
 * else for the year. */
static int64_t default_until(const struct account *a, const json_t *request)
{
    int64_t now = quota_now(), year = plan_calendar_end(a->plan, PERIOD_YEAR, now);
    bool bought = json_is_true(json_object_get(request, "bought"));
    struct period running = plan_period_at(a->plan, a->began, now);
    return bought && a->plan->credit_unit && running.end < year ? running.end : year;
}

void grant_add(struct client *c)
{
    struct quota *q = control_quota(c);
    char name[ACCOUNT_NAME_MAX + 1], what[ACCOUNT_NAME_MAX + 40];
    uint64_t amount;
    int64_t from, until;
    const char *unit;
    struct key k;
    if (!request_account(c, "account", name))
        return;
    struct account *a = account_find(q, slice_str(name));
    if (!a) {
        control_fail(c, "There is no account %s.", name);
        return;
    }
    if (grant_amount(control_request(c), &amount, &unit) < 0) {
        control_fail(c, "amount: give a number of messages, or a size such as 5GB.");
        return;
    }
    if (!request_time(c, "from", a->plan, &from) || !request_time(c, "until", a->plan, &until))
        return;
    if (until == 0)
        until = default_until(a, control_request(c));
    if (until <= quota_now() || until <= from) {
        control_fail(c, "until: the grant would be over before it begins.");
        return;
    }
    if (a->grant_count >= GRANTS_MAX) {
        control_fail(c, "Account %s has %d grants, which is the limit.", name, GRANTS_MAX);
        return;
    }
    /* even numbers; a credit has the odd one after its grant's */
    uint64_t id = (uint64_t)clock_wall() & ~UINT64_C(1);
    json_t *j = json_pack("{s:I,s:i,s:s,s:I,s:I,s:b,s:s}", "amount", (json_int_t)amount, "used", 0,
                          "unit", unit, "from", (json_int_t)from, "until", (json_int_t)until,
                          "bought", json_is_true(json_object_get(control_request(c), "bought")),
                          "note", json_text(control_request(c), "note"));
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    snprintf(what, sizeof what, "grant %llu of account %s", (unsigned long long)id, name);
    book_apply(q);
    key_begin(&k, slice_str(name));
    key_number(&k, id);
    quota_put_json(&batch, T_GRANT, key_slice(&k), j);
    account_forget(q, slice_str(name));
    control_change_with(c, &batch, what, json_pack("{s:I}", "grant", (json_int_t)id));
    buf_free(&batch);
    json_decref(j);
}

static json_t *show_grant(struct client *c, struct slice key, struct slice value)
{
    struct slice rest = key, account = slice_cut(&rest, '\0');
    json_t *out = json_pack("{s:s%,s:I}", "account", account.ptr, account.len, "grant",
                            (json_int_t)key_last_number(key));
    json_t *record = json_loadb(value.ptr, value.len, 0, NULL);
    (void)c;
    if (out && record)
        json_object_update(out, record);
    json_decref(record);
    return out;
}

static void list_grants(struct client *c)
{
    struct key k = {.len = 0};
    const char *account = json_text(control_request(c), "account");
    if (*account)
        key_begin(&k, slice_first(slice_str(account), ACCOUNT_NAME_MAX));
    listing_go_on(c, &(struct listing){T_GRANT, key_slice(&k), show_grant});
}

void grant_list(struct client *c)
{
    struct quota *q = control_quota(c);
    char name[ACCOUNT_NAME_MAX + 1];
    struct account *a = NULL;
    if (!request_listed_account(c))
        return;
    if (name_account(slice_str(json_text(control_request(c), "account")), name) == 0)
        a = account_find(q, slice_str(name));
    if (a) /* a period that is over gives its credit now */
        (void)party_find(q, a, SLICE(""));
    book_apply(q); /* amounts used are in memory */
    control_continue(c, list_grants);
}

void grant_delete(struct client *c)
{
    struct quota *q = control_quota(c);
    char name[ACCOUNT_NAME_MAX + 1], what[ACCOUNT_NAME_MAX + 40];
    struct key k;
    if (!request_account(c, "account", name))
        return;
    uint64_t id = (uint64_t)json_integer_value(json_object_get(control_request(c), "grant"));
    key_begin(&k, slice_str(name));
    key_number(&k, id);
    book_apply(q);
    if (!quota_get(q, T_GRANT, key_slice(&k))) {
        control_fail(c, "There is no grant %llu in account %s; 'postern grant list %s' shows all.",
                     (unsigned long long)id, name, name);
        return;
    }
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    snprintf(what, sizeof what, "grant %llu of account %s", (unsigned long long)id, name);
    kv_remove(&batch, T_GRANT, key_slice(&k));
    account_forget(q, slice_str(name));
    control_change(c, &batch, what);
    buf_free(&batch);
}

/* ---- usage ------------------------------------------------------------------------------------
 */

static void set_number(json_t *j, const char *name, uint64_t n)
{
    json_object_set_new(j, name, json_integer(n > INT64_MAX ? INT64_MAX : (json_int_t)n));
}

static json_t *show_usage(const char *owner, const struct plan_usage *u)
{
    json_t *j = json_pack("{s:s,s:I}", "owner", owner, "start", (json_int_t)u->period.start);
    if (u->period.end != INT64_MAX)
        json_object_set_new(j, "end", json_integer((json_int_t)u->period.end));
    set_number(j, "messages", u->charged.messages);
    set_number(j, "bytes", u->charged.bytes);
    set_number(j, "delivered", u->delivered.messages);
    set_number(j, "delivered_bytes", u->delivered.bytes);
    set_number(j, "refunded", u->refunded.messages);
    set_number(j, "refunded_bytes", u->refunded.bytes);
    set_number(j, "granted", u->granted.messages);
    set_number(j, "granted_bytes", u->granted.bytes);
    return j;
}

static void set_spike(json_t *j, const struct party *p, const struct plan *plan)
{
    bool acts = p->tally.spike_until > quota_now();
    set_number(j, "hour", p->tally.hour_count);
    set_number(j, "usual_hour", p->tally.usual / 1000);
    json_object_set_new(j, "spike", json_boolean(acts));
    if (spike_limit(&p->tally, plan) != UINT64_MAX)
        set_number(j, "hour_limit", spike_limit(&p->tally, plan));
    if (acts) {
        json_object_set_new(j, "spike_since", json_integer(p->tally.spike_since));
        json_object_set_new(j, "spike_until", json_integer(p->tally.spike_until));
    }
}

static void set_plan(json_t *j, const struct account *a)
{
    json_object_set_new(j, "plan", json_string(a->plan_missing ? a->plan_name : a->plan->name));
    if (a->plan_missing)
        json_object_set_new(j, "plan_missing", json_true());
}

/* An account's running period beside what its plan and grants give it. */
static json_t *show_account_usage(struct account *a, const struct party *p)
{
    const struct plan_terms t = plan_terms_of(&p->usage, a->plan);
    struct volume over = plan_overage(&t, &p->usage);
    struct buf reset = BUF_INIT(200);
    int64_t now = quota_now();
    json_t *j = show_usage(p->owner, &p->usage);
    set_plan(j, a);
    set_number(j, "reserved", p->pending.messages);
    set_number(j, "percent", plan_percent(a->plan, &p->usage, a->grants, a->grant_count, now));
    set_number(j, "limit", a->plan->messages);
    set_number(j, "limit_bytes", a->plan->bytes);
    set_number(j, "grants_left", plan_granted_left(a->grants, a->grant_count, GRANT_MESSAGES, now));
    set_number(j, "grants_left_bytes",
               plan_granted_left(a->grants, a->grant_count, GRANT_BYTES, now));
    set_number(j, "overage", over.messages);
    set_number(j, "overage_bytes", over.bytes);
    set_number(j, "overage_blocks", plan_overage_blocks(&t, &p->usage));
    if (p->usage.period.end != INT64_MAX) {
        plan_print_time(&reset, a->plan, p->usage.period.end);
        json_object_set_new(j, "reset", json_stringn(reset.data, reset.len));
    }
    buf_free(&reset);
    set_spike(j, p, a->plan);
    return j;
}

/* The running period of an account with what its plan says, or of one of its users. */
void usage_show(struct client *c)
{
    struct quota *q = control_quota(c);
    char name[ACCOUNT_NAME_MAX + 1], login[LOGIN_MAX + 1];
    const char *user = json_text(control_request(c), "user");
    if (!request_account(c, "account", name))
        return;
    struct account *a = account_find(q, slice_str(name));
    if (!a || (*user && name_login(slice_str(user), login) < 0)) {
        control_fail(c, "There is no account %s.", name);
        return;
    }
    struct party *p = party_find(q, a, *user ? slice_str(login) : SLICE(""));
    struct user u;
    bool theirs = *user && user_find(q, slice_str(login), &u) == 1 && strcmp(u.account, name) == 0;
    if (*user && !theirs && p->usage.charged.messages == 0) {
        control_fail(c, "There is no user %s in account %s.", login, name);
        return;
    }
    rates_roll(&p->tally, a->plan, *user ? a->plan->user_rates : a->plan->account_rates,
               quota_now());
    json_t *j;
    if (*user) {
        j = show_usage(p->owner, &p->usage);
        set_plan(j, a);
        set_number(j, "reserved", p->pending.messages);
    } else {
        j = show_account_usage(a, p);
    }
    control_result(c, j);
    control_done(c, NULL);
}

/* ---- usage of all accounts ------------------------------------------------------------ */

struct names_slice {
    char names[CONTROL_SLICE][ACCOUNT_NAME_MAX + 1];
    unsigned count;
    struct key *next;
    bool end;
};

static bool on_account_name(struct slice key, struct slice value, void *arg)
{
    struct names_slice *s = arg;
    (void)value;
    if (s->count == CONTROL_SLICE) {
        s->next->len = 0;
        key_add(s->next, key);
        s->end = false;
        return false;
    }
    snprintf(s->names[s->count++], sizeof s->names[0], "%.*s", SLICE_ARG(key));
    return true;
}

/* First the names, then what is in memory of them: that may write while nothing is read. */
static void list_usage(struct client *c)
{
    struct quota *q = control_quota(c);
    struct names_slice *s = xcalloc(1, sizeof *s);
    struct key from = *control_position(c);
    struct err e;
    s->next = control_position(c);
    s->end = true;
    if (kv_walk(q->kv, T_ACCOUNT, key_slice(&from), on_account_name, s, &e) < 0) {
        control_fail(c, "%s", e.text);
        free(s);
        return;
    }
    for (unsigned i = 0; i < s->count; i++) {
        struct account *a = account_find(q, slice_str(s->names[i]));
        if (!a)
            continue;
        struct party *p = party_find(q, a, SLICE(""));
        rates_roll(&p->tally, a->plan, a->plan->account_rates, quota_now());
        control_result(c, show_account_usage(a, p));
    }
    if (s->end)
        control_done(c, NULL);
    free(s);
    accounts_trim(q);
}

void usage_list(struct client *c)
{
    control_continue(c, list_usage);
}

/* ---- reports: all periods of an account and its users ------------------------------------------
 */

/* What an account's period is billed by, and what it comes to. */
static void set_billed(json_t *j, const struct plan_usage *u)
{
    struct volume over = plan_overage(&u->terms, u);
    json_object_set_new(j, "plan", json_string(u->terms.plan));
    set_number(j, "limit", u->terms.messages);
    set_number(j, "limit_bytes", u->terms.bytes);
    set_number(j, "overage", over.messages);
    set_number(j, "overage_bytes", over.bytes);
    set_number(j, "overage_block", u->terms.overage_block);
    if (u->terms.overage_block)
        json_object_set_new(j, "overage_unit",
                            json_string(u->terms.overage_bytes ? "bytes" : "messages"));
    set_number(j, "overage_blocks", plan_overage_blocks(&u->terms, u));
}

/* A period belongs to the month in which it ends, by the calendar of its account: it is billed
 * once, when it is final. One that never ends belongs to none. from, to: the month's seconds as
 * if its zone were UTC. Where the account has another zone by now, or is gone, half a day before
 * the end is in the right month for all zones from -12 to +12: what was billed does not move. */
static bool ends_within(struct quota *q, struct slice account, const struct period *p, int64_t from,
                        int64_t to)
{
    enum { HALF_DAY = 43200 };
    if (p->end == INT64_MAX)
        return false;
    const struct account *a = account_find(q, account);
    int64_t last = p->end - 1, local = a ? last + zone_offset(&a->plan->zone, last) : 0;
    if (!a || (local + 1) % (2 * HALF_DAY) != 0)
        local = last - HALF_DAY;
    return local >= from && local < to;
}

static json_t *show_period(struct client *c, struct slice key, struct slice value)
{
    struct plan_usage u;
    char owner[OWNER_MAX + 1];
    struct slice rest = key, name = slice_cut(&rest, '\0'), of = name;
    int64_t from = json_integer_value(json_object_get(control_request(c), "from"));
    int64_t to = json_integer_value(json_object_get(control_request(c), "to"));
    const char *account = json_text(control_request(c), "account");
    size_t len = strlen(account);
    /* "acme" and "acme/user", not "acme2" */
    if (*account && name.len > len && name.ptr[len] != '/')
        return NULL;
    if (usage_decode(value, &u) < 0)
        return NULL;
    if ((from || to) &&
        !ends_within(control_quota(c), slice_cut(&of, '/'), &u.period, from, to ? to : INT64_MAX))
        return NULL;
    snprintf(owner, sizeof owner, "%.*s", SLICE_ARG(name));
    json_t *j = show_usage(owner, &u);
    json_object_set_new(j, "running", json_boolean(u.period.end > quota_now()));
    if (*u.terms.plan && !strchr(owner, '/')) /* records of before do not say it */
        set_billed(j, &u);
    return j;
}

static void list_periods(struct client *c)
{
    const char *account = json_text(control_request(c), "account");
    listing_go_on(c, &(struct listing){T_USAGE, slice_str(account), show_period});
}

void usage_report(struct client *c)
{
    book_apply(control_quota(c));
    control_continue(c, list_periods);
}

/* A failure belongs to the month of the period in which it was heard of: what the letter of the
 * period lists, its month lists. Without periods months are those of the account's calendar. */
static bool failed_within(struct quota *q, struct slice account, int64_t time, int64_t from,
                          int64_t to)
{
    struct plan_usage u;
    const struct account *a = account_find(q, account);
    if (a && a->plan->period != PERIOD_NONE) {
        reports_period(q, a, time, &u);
        return ends_within(q, account, &u.period, from, to);
    }
    if (a)
        time += zone_offset(&a->plan->zone, time);
    return time >= from && time < to;
}

static json_t *show_failure(struct client *c, struct slice key, struct slice value)
{
    struct slice rest = key, account = slice_cut(&rest, '\0');
    int64_t time = (int64_t)key_last_number(slice_first(rest, 8));
    int64_t from = json_integer_value(json_object_get(control_request(c), "from"));
    int64_t to = json_integer_value(json_object_get(control_request(c), "to"));
    if ((from || to) && !failed_within(control_quota(c), account, time, from, to ? to : INT64_MAX))
        return NULL;
    json_t *out = failure_read(control_quota(c), key, value);
    bool above = out && !slice_eq(account, slice_str(json_text(out, "account")));
    if (above && !*json_text(control_request(c), "account")) { /* the list of all has it once */
        json_decref(out);
        return NULL;
    }
    if (out)
        set_number(out, "time", (uint64_t)time);
    return out;
}

static void list_failures(struct client *c)
{
    struct key k = {.len = 0};
    const char *account = json_text(control_request(c), "account");
    if (*account)
        key_begin(&k, slice_first(slice_str(account), ACCOUNT_NAME_MAX));
    listing_go_on(c, &(struct listing){T_FAILURE, key_slice(&k), show_failure});
}

void usage_failures(struct client *c)
{
    book_apply(control_quota(c));
    control_continue(c, list_failures);
}
