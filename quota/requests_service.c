/* The audit log, the service's state, snapshots. */
#include "quota/requests.h"

static json_t *show_audit(struct client *c, struct slice key, struct slice value)
{
    int64_t from = json_integer_value(json_object_get(control_request(c), "from"));
    json_t *record = json_loadb(value.ptr, value.len, 0, NULL);
    (void)key;
    if (record && json_integer_value(json_object_get(record, "time")) >= from)
        return record;
    json_decref(record);
    return NULL;
}

static void list_audit(struct client *c)
{
    listing_go_on(c, &(struct listing){T_AUDIT, SLICE(""), show_audit});
}

void audit_list(struct client *c)
{
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
