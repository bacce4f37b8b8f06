/* The queue from the showq socket (qmgr/showq.h), which everybody may read, in
 * the forms of mailq and postqueue -j. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/slice.h"
#include "ctl/compat.h"

enum { REASON_COLUMN = 76 };

struct reader {
    FILE *in;
    char *name, *value;
    size_t name_size, value_size;
};

struct entry {
    char *queue, *id;
    uint64_t time, size;
    bool expired;
};

/* The next name and value. 1; 0 at an empty name; -1 if the list is cut off. */
static int next_pair(struct reader *r)
{
    ssize_t n = getdelim(&r->name, &r->name_size, '\0', r->in);
    if (n <= 0 || r->name[n - 1] != '\0')
        return -1;
    if (n == 1)
        return 0;
    n = getdelim(&r->value, &r->value_size, '\0', r->in);
    return n > 0 && r->value[n - 1] == '\0' ? 1 : -1;
}

/* The next pair, which must have that name; -1 if not. */
static int expect(struct reader *r, const char *name)
{
    return next_pair(r) == 1 && strcmp(r->name, name) == 0 ? 0 : -1;
}

static int expect_number(struct reader *r, const char *name, uint64_t *out)
{
    return expect(r, name) < 0 ? -1 : slice_u64(slice_str(r->value), out);
}

/* What comes behind queue_name, up to the sender, which stays in r->value. */
static int read_entry(struct reader *r, struct entry *m)
{
    uint64_t expired;
    if (expect(r, "queue_id") < 0)
        return -1;
    free(m->id);
    m->id = xstrdup(r->value);
    if (expect_number(r, "time", &m->time) < 0 || expect_number(r, "size", &m->size) < 0 ||
        expect_number(r, "forced_expire", &expired) < 0)
        return -1;
    m->expired = expired != 0;
    return expect(r, "sender");
}

/* ---- mailq ------------------------------------------------------------------------ */

static void print_row(const char *id, uint64_t size, const char *time, const char *sender)
{
    printf("%-17s %8llu %19.19s ", id, (unsigned long long)size, time);
    print_safe(stdout, sender);
    putchar('\n');
}

static void print_entry(const struct entry *m, const char *sender)
{
    char id[64], time[32];
    const char *mark = strcmp(m->queue, "active") == 0 ? "*"
                       : strcmp(m->queue, "hold") == 0 ? "!"
                                                       : "";
    snprintf(id, sizeof id, "%s%s%s", m->id, mark, m->expired ? "#" : "");
    compat_time(time, (long long)m->time);
    print_row(id, m->size, time, sender);
}

/* The reason is printed where it changes, in front of the recipients it is for. */
static int print_recipients(struct reader *r)
{
    char *last = xstrdup("");
    int rc;
    while ((rc = next_pair(r)) == 1) {
        if (strcmp(r->name, "recipient") != 0) {
            rc = -1;
            break;
        }
        char *recipient = xstrdup(r->value);
        rc = expect(r, "reason");
        if (rc == 0 && strcmp(last, r->value) != 0) {
            const char *shown = *r->value ? r->value : "reason unavailable";
            int padding = REASON_COLUMN - (int)strlen(shown);
            printf("%*s(", padding > 0 ? padding : 0, "");
            print_safe(stdout, shown);
            fputs(")\n", stdout);
            free(last);
            last = xstrdup(r->value);
        }
        if (rc == 0) {
            printf("%-17s %8s %-19s ", "", "", "");
            print_safe(stdout, recipient);
            putchar('\n');
        }
        free(recipient);
        if (rc < 0)
            break;
    }
    free(last);
    return rc;
}

/* ---- postqueue -j ------------------------------------------------------------------ */

static void print_json_entry(const struct entry *m, const char *sender)
{
    fputs("{\"queue_name\": ", stdout);
    compat_print_quoted(m->queue);
    fputs(", \"queue_id\": ", stdout);
    compat_print_quoted(m->id);
    printf(", \"arrival_time\": %llu, \"message_size\": %llu, \"forced_expire\": %s, \"sender\": ",
           (unsigned long long)m->time, (unsigned long long)m->size, m->expired ? "true" : "false");
    compat_print_quoted(sender);
    fputs(", \"recipients\": [", stdout);
}

static int print_json_recipients(struct reader *r)
{
    int rc;
    for (const char *between = ""; (rc = next_pair(r)) == 1; between = ", ") {
        if (strcmp(r->name, "recipient") != 0)
            return -1;
        printf("%s{\"address\": ", between);
        compat_print_quoted(r->value);
        if (expect(r, "reason") < 0)
            return -1;
        if (*r->value) {
            fputs(", \"delay_reason\": ", stdout);
            compat_print_quoted(r->value);
        }
        putchar('}');
    }
    fputs("]}\n", stdout);
    return rc;
}

/* ---- both ---------------------------------------------------------------------------- */

static int print_message(struct reader *r, struct entry *m, bool json, bool first)
{
    if (strcmp(r->name, "queue_name") != 0)
        return -1;
    free(m->queue);
    m->queue = xstrdup(r->value);
    if (read_entry(r, m) < 0)
        return -1;
    if (json) {
        print_json_entry(m, r->value);
        return print_json_recipients(r);
    }
    puts(first ? "----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------" : "");
    print_entry(m, r->value);
    return print_recipients(r);
}

static int print_all(struct reader *r, bool json)
{
    struct entry m = {NULL, NULL, 0, 0, false};
    unsigned long count = 0;
    uint64_t bytes = 0;
    int rc = expect(r, "protocol") == 0 && next_pair(r) == 0 ? 1 : -1;
    while (rc >= 0 && (rc = next_pair(r)) == 1) {
        rc = print_message(r, &m, json, count == 0);
        count++;
        bytes += m.size;
    }
    free(m.queue);
    free(m.id);
    if (rc < 0)
        return compat_fatal(EX_UNAVAILABLE, "the list of the queue ended too early; there may be "
                                            "too many who ask for it, try again");
    if (!json && count == 0)
        puts("Mail queue is empty");
    else if (!json)
        printf("\n-- %llu Kbytes in %lu Request%s.\n", (unsigned long long)(bytes / 1024), count,
               count == 1 ? "" : "s");
    return EX_OK;
}

int compat_list(struct ctl *ctl, bool json)
{
    const struct config *c = ctl_config(ctl);
    if (!c)
        return EX_CONFIG;
    int fd = client_connect(c, "showq");
    if (fd < 0)
        return compat_fatal(EX_UNAVAILABLE,
                            "Queue report unavailable - mail system is down (Connect to the "
                            "Postern showq service: %s)",
                            strerror(-fd));
    struct reader r = {fdopen(fd, "r"), NULL, NULL, 0, 0};
    if (!r.in)
        panic("no memory for a stream");
    int status = print_all(&r, json);
    fclose(r.in);
    free(r.name);
    free(r.value);
    return status;
}
