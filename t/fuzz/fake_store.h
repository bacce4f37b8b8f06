/* A clock that is set by hand and a spool in memory, in place of the real ones. */
#ifndef POSTERN_T_FAKE_STORE_H
#define POSTERN_T_FAKE_STORE_H

#include "core/mem.h"
#include "qmgr/qmgr.h"

static int64_t now = 1000 * CLOCK_SECOND;

int64_t clock_mono(void)
{
    return now;
}

int64_t clock_wall(void)
{
    return now + 1000000000 * CLOCK_SECOND;
}

struct call {
    struct list link;
    struct store_commit *commit;
    void (*recorded)(const char *error, void *arg);
    void *arg;
};

static struct list calls; /* of the store, to be completed */

bool store_is_quarantined(const struct store *s, struct slice id)
{
    (void)s, (void)id;
    return false;
}

int store_state(const struct store *s)
{
    (void)s;
    return SPOOL_OK;
}

static void add_call(struct call c)
{
    struct call *own = xmalloc(sizeof *own);
    *own = c;
    list_push(&calls, &own->link);
}

void store_commit(struct store *s, struct store_commit *c)
{
    (void)s;
    add_call((struct call){.commit = c});
}

void store_record(struct store *s, const struct id *id, struct store_ref *ref, struct slice record,
                  void (*done)(const char *error, void *arg), void *arg)
{
    (void)s, (void)id, (void)ref, (void)record;
    if (done)
        add_call((struct call){.recorded = done, .arg = arg});
}

void store_sync(struct store *s, void (*done)(const char *error, void *arg), void *arg)
{
    (void)s;
    add_call((struct call){.recorded = done, .arg = arg});
}

static void store_turn(void)
{
    struct list *n;
    while ((n = list_pop(&calls))) {
        struct call *c = container_of(n, struct call, link);
        if (c->commit) {
            c->commit->ref = (struct store_ref){.fd = -1, .body_len = c->commit->body.len};
            c->commit->done(c->commit, NULL, 0, c->commit->arg);
        } else {
            c->recorded(NULL, c->arg);
        }
        free(c);
    }
}

void store_mark(struct store *s, const struct id *id, struct store_ref *ref, uint32_t recipient,
                enum spool_status status)
{
    (void)s, (void)id, (void)ref, (void)recipient, (void)status;
}

void store_unload(struct store *s, const struct id *id, struct store_ref *ref)
{
    (void)s, (void)id, (void)ref;
}

void store_finish(struct store *s, const struct id *id, struct store_ref *ref)
{
    (void)s, (void)id, (void)ref;
}

void store_read(struct store *s, const struct id *id, const struct store_ref *ref, uint64_t limit,
                void (*done)(struct slice prefix, struct slice body, const char *error, void *arg),
                void *arg)
{
    (void)s, (void)id, (void)ref, (void)limit;
    done(SLICE(""), SLICE("Subject: x\r\n\r\n"), NULL, arg);
}

/* ---- what the message never needs ---- */

void store_load(struct store *s, const struct id *id, const struct store_ref *ref,
                void (*done)(const struct store_found *found, const char *error, void *arg),
                void *arg)
{
    (void)s, (void)id, (void)ref, (void)done, (void)arg;
    panic("an envelope left the memory");
}

int store_reader(struct store *s, const struct id *id, const struct store_ref *ref, struct err *e)
{
    (void)s, (void)id, (void)ref;
    return err_set(e, "no large messages");
}

void store_large_create(struct store *s, const struct id *id,
                        void (*done)(int fd, const char *error, int code, void *arg), void *arg)
{
    (void)s, (void)id;
    done(-1, "no large messages", 451, arg);
}

int store_large_writer(struct store *s, const struct id *id, struct err *e)
{
    (void)s, (void)id;
    return err_set(e, "no large messages");
}

void store_large_abort(struct store *s, const struct id *id, int fd)
{
    (void)s, (void)id, (void)fd;
}

void store_yield(struct store *s, uint64_t bytes, uint64_t files)
{
    (void)s, (void)bytes, (void)files;
}

void store_stats(const struct store *s, struct store_stats *out)
{
    (void)s;
    *out = (struct store_stats){0};
}

#endif
