/* status and site.show. */
#include "core/clock.h"
#include "core/json.h"
#include "qmgr/control_client.h"

static void counters(struct buf *b, const char *name, const struct queue_counters *k)
{
    json_member(b, name);
    json_int(b, "accepted", (int64_t)k->accepted);
    json_int(b, "accepted_bytes", (int64_t)k->accepted_bytes);
    json_int(b, "refused", (int64_t)k->refused);
    json_int(b, "delivered", (int64_t)k->delivered);
    json_int(b, "deferred", (int64_t)k->deferred);
    json_int(b, "bounced", (int64_t)k->bounced);
    json_int(b, "expired", (int64_t)k->expired);
    json_int(b, "removed", (int64_t)k->removed);
    json_int(b, "notices", (int64_t)k->notices);
    json_int(b, "bad_peers", (int64_t)k->bad_peers);
    json_end(b);
}

static const char *spool_name(int state)
{
    static const char *const names[] = {
        [SPOOL_OK] = "ok", [SPOOL_FULL] = "full", [SPOOL_BAD] = "bad", [SPOOL_BUSY] = "busy"};
    return state >= 0 && state < 4 ? names[state] : "unknown";
}

static void queue_line(struct control_client *c)
{
    struct queue_figures f;
    queue_figures(c->control->queue, &f);
    struct buf *b = control_line_begin(c);
    json_str(b, "version", SLICE(POSTERN_VERSION));
    json_seconds(b, "started", f.started);
    json_seconds(b, "now", clock_wall());
    json_str(b, "spool", slice_str(spool_name(f.spool_state)));
    json_bool(b, "scanning", f.scanning);
    json_int(b, "messages", (int64_t)f.messages);
    json_int(b, "active", (int64_t)f.active);
    json_int(b, "held", (int64_t)f.held);
    json_int(b, "deleted", (int64_t)f.deleted);
    json_int(b, "deleted_bytes", (int64_t)f.deleted_bytes);
    json_int(b, "jobs_queued", (int64_t)f.jobs_queued);
    json_int(b, "jobs_in_flight", (int64_t)f.jobs_in_flight);
    json_int(b, "body_bytes", (int64_t)f.body_bytes);
    json_int(b, "sites", (int64_t)f.sites);
    json_int(b, "sources_listed", f.sources_listed);
    json_int(b, "relays", f.relays);
    json_int(b, "smtpds", f.smtpds);
    json_bool(b, "resolve", f.resolve);
    json_bool(b, "bounce", f.bounce);
    json_int(b, "disk_bytes_free", (int64_t)f.store.bytes_free);
    json_int(b, "disk_inodes_free", (int64_t)f.store.inodes_free);
    json_int(b, "free_files", f.store.free_files);
    json_int(b, "heap_bytes", (int64_t)f.heap_bytes);
    json_int(b, "heap_free_bytes", (int64_t)f.heap_free_bytes);
    counters(b, "total", &f.total);
    counters(b, "last_minute", &f.a_minute);
    control_line_end(c);
}

void control_ping(struct control_client *c)
{
    control_done(c, NULL);
}

void control_status(struct control_client *c)
{
    struct control_request *r = &c->request;
    struct channel *master = c->control->service->master;
    queue_line(c);
    if (!master) { /* gone, and we are about to follow (F17) */
        control_done(c, NULL);
        return;
    }
    r->status_tag = ++c->control->next_tag;
    r->status_deadline = clock_mono() + CONTROL_STATUS_SECONDS * CLOCK_SECOND;
    const struct ipc_status_request ask = {.tag = r->status_tag};
    ipc_status_request_encode(channel_out(master), &ask);
}

static void site_known(struct slice json, void *arg)
{
    struct control_client *c = arg;
    if (!control_unpin(c))
        return;
    json_raw(control_line_begin(c), "site", json);
    control_line_end(c);
    control_done(c, NULL);
}

void control_site_show(struct control_client *c)
{
    const json_t *domain = control_asked(c, "domain");
    if (!json_is_string(domain) || json_string_length(domain) == 0 ||
        json_string_length(domain) > ADDRESS_MAX) {
        control_fail(c, "\"domain\" must be a domain or a recipient's address.");
        return;
    }
    control_pin(c);
    queue_show_site(c->control->queue,
                    slice_make(json_string_value(domain), json_string_length(domain)), site_known,
                    c);
}
