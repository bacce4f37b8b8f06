/* The audit log, the service's state, snapshots. */
#include "quota/requests.h"

static json_t *show_audit(struct client *c, struct slice key, struct slice value)
{
    (void)c, (void)key;
    return json_loadb(value.ptr, value.len, 0, NULL);
}

/* Where the entries of this time begin; empty where the request has none. */
static void audit_key(struct client *c, const char *member, struct key *k)
{
    json_int_t time = json_integer_value(json_object_get(control_request(c), member));
    k->len = 0;
    if (time > 0 && time <= INT64_MAX / CLOCK_SECOND)
        key_number(k, (uint64_t)time * CLOCK_SECOND);
}

static void list_audit(struct client *c)
{
    struct key to;
    audit_key(c, "to", &to);
    listing_go_on_until(c, &(struct listing){T_AUDIT, SLICE(""), show_audit}, key_slice(&to));
}

void audit_list(struct client *c)
{
    audit_key(c, "from", control_position(c));
    control_continue(c, list_audit);
}

void accounts_status(struct client *c)
{
    struct quota *q = control_quota(c);
    control_done(c,
                 json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:b,s:b,s:I,s:I}", "charged",
                           (json_int_t)q->book.charged, "delivered", (json_int_t)q->book.delivered,
                           "refunded", (json_int_t)q->book.refunded, "repeated",
                           (json_int_t)q->book.repeated, "strangers", (json_int_t)q->book.strangers,
                           "reservations", (json_int_t)q->reservations.count, "plans",
                           (json_int_t)q->plans.count, "qmgr", q->book.channel != NULL, "disk_full",
                           q->disk_full, "log_bytes", (json_int_t)kv_log_bytes(q->kv),
                           "accounts_without_plan", (json_int_t)q->missing.accounts));
}

static void on_snapshot(const char *error, void *arg)
{
    struct client *c = control_client_unpin(arg);
    if (!c)
        return;
    if (error)
        control_fail(c, "%s", error);
    else
        control_done(c, NULL);
}

void accounts_snapshot(struct client *c)
{
    book_apply(control_quota(c));
    if (sync_snapshot(control_quota(c), on_snapshot, control_client_pin(c)) == 0)
        return;
    if (control_client_unpin(c))
        control_fail(c, "A snapshot is being made already; try again when it is done.");
}
