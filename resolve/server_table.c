#include "resolve/server_table.h"

#include <stdio.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "resolve/limits.h"
#include "tables/wire.h"

/* ---- replies ------------------------------------------------------------------ */

static enum remote_reply framed(enum table_reply_status status, const struct table_reply *r,
                                struct slice in, struct slice *reply, size_t *used)
{
    if (status == TABLE_REPLY_MORE)
        return REMOTE_REPLY_MORE;
    *reply = slice_first(in, r->used);
    *used = r->used;
    return status == TABLE_REPLY_DONE ? REMOTE_REPLY_DONE : REMOTE_REPLY_BAD;
}

static enum remote_reply parse_tcp(struct slice in, struct slice *reply, size_t *used)
{
    struct table_reply r;
    enum table_reply_status status = tcp_table_reply(in, &r);
    return framed(status, &r, in, reply, used);
}

static enum remote_reply parse_socketmap(struct slice in, struct slice *reply, size_t *used)
{
    struct table_reply r;
    enum table_reply_status status = socketmap_reply(in, &r);
    return framed(status, &r, in, reply, used);
}

static void on_reply(struct remote_query *remote, struct slice reply, const char *why)
{
    struct table_query *q = container_of(remote, struct table_query, remote);
    bool tcp = q->table->where.protocol == TABLE_TCP;
    struct table_reply r = {.result = TABLE_ERROR};
    struct buf value = BUF_INIT(TABLE_VALUE_MAX);
    char said[200];
    /* the framing was found good before: this takes the parts out */
    if (!why)
        (void)(tcp ? tcp_table_reply(reply, &r) : socketmap_reply(reply, &r));
    if (!why && r.result == TABLE_ERROR) {
        (void)snprintf(said, sizeof said, "it says: %s", log_esc_n(r.text, 120));
        why = said;
    }
    if (r.result == TABLE_FOUND &&
        (tcp ? tcp_table_decode(r.text, &value) : buf_adds(&value, r.text)) < 0) {
        r.result = TABLE_ERROR;
        why = "its value is too long";
    }
    q->answered(q, r.result, buf_slice(&value), why);
    buf_free(&value);
}

/* ---- questions ---------------------------------------------------------------- */

int server_table_ask(struct server_table *t, struct slice key, struct table_query *q)
{
    struct buf *request = &q->remote.request;
    buf_init(request, TABLE_REQUEST_MAX);
    int rc = t->where.protocol == TABLE_TCP
                 ? tcp_table_request(key, request)
                 : socketmap_request(slice_str(t->where.name), key, request);
    if (rc < 0) {
        buf_free(request);
        return -1;
    }
    q->table = t;
    q->remote.answered = on_reply;
    remote_ask(&t->remote, &q->remote);
    return 0;
}

void server_table_forget(struct table_query *q)
{
    remote_forget(&q->remote);
}

/* ---- servers ------------------------------------------------------------------ */

struct server_table *server_table_open(struct server_tables *all, struct slice spec,
                                       int64_t timeout, struct err *e)
{
    struct server_table *t = xcalloc(1, sizeof *t);
    if (table_server_parse(spec, &t->where, e) < 0) {
        free(t);
        return NULL;
    }
    t->spec = slice_dup(spec);
    t->remote =
        (struct remote){.network = &all->network,
                        .endpoint = t->where.endpoint,
                        .parse = t->where.protocol == TABLE_TCP ? parse_tcp : parse_socketmap,
                        .reply_max = TABLE_REPLY_MAX,
                        .connections_max = TABLE_CONNECTIONS_MAX,
                        .timeout = timeout * CLOCK_SECOND,
                        .idle = TABLE_IDLE_SECONDS * CLOCK_SECOND,
                        .backoff_max = TABLE_BACKOFF_MAX};
    remote_init(&t->remote);
    list_push(&all->list, &t->link);
    return t;
}

void server_table_close(struct server_table *t)
{
    if (!t)
        return;
    remote_free(&t->remote);
    list_remove(&t->link);
    free(t->spec);
    free(t);
}

void server_tables_connecting(struct server_tables *all, uint64_t tag, int fd, struct slice why)
{
    list_each(&all->list,
              n) if (remote_connecting(&container_of(n, struct server_table, link)->remote, tag, fd,
                                       why)) return;
    if (fd >= 0) /* who asked has given up meanwhile */
        close(fd);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct server_tables *all = arg;
    int64_t now = clock_mono();
    (void)fd;
    (void)what;
    list_each(&all->list, n) remote_tick(&container_of(n, struct server_table, link)->remote, now);
}

int server_tables_init(struct server_tables *all, struct err *e)
{
    const struct timeval second = {1, 0};
    list_init(&all->list);
    all->tick = event_new(all->network.base, -1, EV_PERSIST, on_tick, all);
    if (!all->tick || event_add(all->tick, &second) < 0)
        return err_set(e, "no timer");
    return 0;
}
