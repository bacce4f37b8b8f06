/*
 * quota as it runs, for fuzz targets: its main.c without the skeleton around it, a database in
 * a directory of its own, and clients of its socket.
 */
#ifndef POSTERN_T_QUOTA_WORLD_H
#define POSTERN_T_QUOTA_WORLD_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* quota's own main and its callbacks, which are static */
#define main quota_main
#include "quota/main.c"
#undef main

#include "quota/book.h"
#include "quota/control.h"
#include "quota/login.h"
#include "quota/verify.h"

enum { WORLD_WAIT_MS = 8000, WORLD_ANSWER_MAX = 16 * 1024 * 1024, WORLD_PATH_MAX = 128 };

static struct {
    struct service service;
    char directory[WORLD_PATH_MAX];
    struct sockaddr_un address;
    struct buf answer; /* of the last question */
    enum table clearing;
} world;

/* Berkeley DB knows its pages in memory by offsets alone. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libdb-";
}

/* ---- turns of the loop ------------------------------------------------------------------- */

static void world_turn(int flags)
{
    event_base_loop(world.service.base, flags);
    turn(&world.service);
    channel_flush_all();
}

/* Until the condition is true; that this takes too long is a finding. */
static void world_wait(bool (*over)(void *arg), void *arg, const char *what)
{
    int64_t end = clock_mono() + WORLD_WAIT_MS * (CLOCK_SECOND / 1000);
    const struct timeval soon = {0, 2000};
    while (!over(arg)) {
        if (clock_mono() > end)
            panic("%s did not come", what);
        event_base_loopexit(world.service.base, &soon);
        world_turn(EVLOOP_ONCE);
    }
}

/* ---- clients of the accounts' socket ------------------------------------------------------- */

static int world_client(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&world.address, sizeof world.address) < 0)
        panic("the accounts' socket: %s", strerror(errno));
    return fd;
}

/* Appends what has come to world.answer; false at the end of the connection. */
static bool world_hear(int fd)
{
    static char part[65536];
    for (;;) {
        ssize_t n = recv(fd, part, sizeof part, MSG_DONTWAIT);
        if (n <= 0)
            return n < 0 && (errno == EAGAIN || errno == EINTR);
        if (buf_add(&world.answer, part, (size_t)n) < 0)
            panic("an answer without end");
    }
}

struct world_question {
    int fd;
    bool closed;
};

static bool is_answered(void *arg)
{
    struct world_question *x = arg;
    static const char *const ends[] = {"\"done\":true", "\"error\":"};
    x->closed = !world_hear(x->fd);
    struct slice s = buf_slice(&world.answer);
    if (x->closed || s.len == 0 || s.ptr[s.len - 1] != '\n')
        return x->closed;
    size_t from = s.len - 1;
    while (from > 0 && s.ptr[from - 1] != '\n')
        from--;
    char *last = slice_dup(slice_from(s, from));
    bool over = strstr(last, ends[0]) || strstr(last, ends[1]);
    free(last);
    return over;
}

/* One request, which has to be answered; true: done. */
static bool world_ask(const char *request)
{
    struct world_question x = {.fd = world_client()};
    buf_clear(&world.answer);
    if (send(x.fd, request, strlen(request), MSG_NOSIGNAL) < 0 || send(x.fd, "\n", 1, 0) < 0)
        panic("the accounts' socket: %s", strerror(errno));
    world_wait(is_answered, &x, "an answer on the accounts' socket");
    close(x.fd);
    buf_addc(&world.answer, '\0');
    return strstr(world.answer.data, "\"done\":true") != NULL;
}

/* ---- its life ------------------------------------------------------------------------------- */

static void remove_tree(const char *path)
{
    char inside[WORLD_PATH_MAX * 4];
    DIR *d = opendir(path);
    struct dirent *entry;
    while (d && (entry = readdir(d))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(inside, sizeof inside, "%.300s/%.180s", path, entry->d_name);
        if (unlink(inside) < 0)
            remove_tree(inside);
    }
    if (d)
        closedir(d);
    (void)rmdir(path);
}

static void world_plans(const char *text)
{
    char path[WORLD_PATH_MAX * 2];
    snprintf(path, sizeof path, "%s/plans.conf", world.directory);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, strlen(text)) < 0 || lseek(fd, 0, SEEK_SET) < 0)
        panic("%s: %s", path, strerror(errno));
    table(&world.service, SLICE("plans_file"), 0, slice_str(path), fd);
    if (quota.plans.count == 0)
        panic("the plans are not read");
}

static void remove_world(void)
{
    remove_tree(world.directory);
}

static void world_start(const char *config, const char *plans)
{
    struct err e = {0, ""};
    const char *memory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(world.directory, sizeof world.directory, "%s/postern-fuzz-XXXXXX", memory);
    if (!mkdtemp(world.directory) || chdir(world.directory) < 0)
        panic("%s: %s", world.directory, strerror(errno));
    log_set_level(LOG_LEVEL_PANIC);
    buf_init(&world.answer, WORLD_ANSWER_MAX);
    world.service = (struct service){.name = "quota", .event_log = -1, .ops = &ops};
    world.service.base = event_base_new();
    world.service.config = config_parse(slice_str(config), "main.cf", "/tmp", &e);
    if (!world.service.config)
        panic("%s", e.text);
    world.address.sun_family = AF_UNIX;
    snprintf(world.address.sun_path, sizeof world.address.sun_path, "%.80s/socket",
             world.directory);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0 ||
        bind(listener, (struct sockaddr *)&world.address, sizeof world.address) < 0 ||
        listen(listener, 64) < 0)
        panic("%s: %s", world.address.sun_path, strerror(errno));
    world.service.listeners[world.service.listener_count++] = listener;
    if (before_jail(&world.service, &e) < 0 || start(&world.service, &e) < 0)
        panic("%s", e.text);
    world_plans(plans);
    (void)atexit(remove_world);
}

static bool remove_one(struct slice key, struct slice value, void *arg)
{
    (void)value;
    return kv_remove(((struct buf *)arg), world.clearing, key) == 0;
}

/* Empties a table and, by a snapshot, the log. Nothing of it may be in memory. */
static void world_clear(enum table t)
{
    struct buf batch = BUF_INIT(KV_BATCH_MAX);
    struct err e;
    world.clearing = t;
    if (kv_walk(quota.kv, t, SLICE(""), remove_one, &batch, &e) < 0 ||
        kv_apply(quota.kv, buf_slice(&batch), &e) < 0 || kv_snapshot(quota.kv, &e) < 0)
        panic("%s", e.text);
    buf_free(&batch);
}

#endif
