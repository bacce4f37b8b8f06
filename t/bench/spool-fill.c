/*
 * spool-fill: puts messages straight into a spool that no queue manager uses at
 * the moment, as many as a benchmark wants to find there.
 *
 *   spool-fill QUEUE_DIRECTORY COUNT [DOMAINS [BYTES [DEFER]]]
 *
 * COUNT messages of BYTES of content (default 2048), of one recipient each, at
 * dst0.test, dst1.test ... in turn (DOMAINS of them, default 1). With DEFER each
 * has failed once and waits for so many seconds, up to half as long again; without it they
 * are due. Files get the owner of QUEUE_DIRECTORY/new. Nothing is synced: this is
 * no way to keep mail.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/clock.h"
#include "core/mem.h"
#include "spool/format.h"

enum { BUCKET_SHIFT = 10, CONTENT_MAX = 48 * 1024, DOMAINS_MAX = 1000000 };

struct fill {
    unsigned long count, domains, bytes, defer;
    int new_fd, bucket_fd;
    int64_t bucket;
    struct stat owner;
    char content[CONTENT_MAX];
    struct buf file, recipients, record;
};

static void die(const char *what)
{
    fprintf(stderr, "spool-fill: %s: %s\n", what, strerror(errno));
    exit(1);
}

static unsigned long number(const char *text, unsigned long most)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || n > most) {
        fprintf(stderr, "spool-fill: '%s' is not a number up to %lu\n", text, most);
        exit(2);
    }
    return n;
}

static void open_bucket(struct fill *f, int64_t bucket)
{
    char name[32];
    if (f->bucket_fd >= 0)
        close(f->bucket_fd);
    snprintf(name, sizeof name, "%llx", (unsigned long long)bucket);
    if (mkdirat(f->new_fd, name, 0700) < 0 && errno != EEXIST)
        die(name);
    f->bucket_fd = openat(f->new_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f->bucket_fd < 0 || fchown(f->bucket_fd, f->owner.st_uid, f->owner.st_gid) < 0)
        die(name);
    f->bucket = bucket;
}

static void encode(struct fill *f, const struct id *id, unsigned long i)
{
    char address[64];
    struct spool_layout layout;
    snprintf(address, sizeof address, "user%lu@dst%lu.test", i, i % f->domains);
    buf_clear(&f->recipients);
    buf_clear(&f->file);
    spool_rcpt_add(&f->recipients, &(struct spool_rcpt){.address = slice_str(address)});
    const struct spool_envelope envelope = {
        .arrival = clock_wall(),
        .client = SLICE("client.bench.test[192.0.2.1]"),
        .message_id = SLICE("<1@bench.test>"),
        .sender = SLICE("sender@bench.test"),
        .recipient_count = 1,
        .recipients = buf_slice(&f->recipients),
    };
    if (spool_encode_small(&f->file, &layout, id, &envelope, SLICE(""),
                           slice_make(f->content, f->bytes)) < 0)
        die("a message");
    if (!f->defer)
        return;
    int64_t wait = (int64_t)(f->defer + i % (f->defer / 2 + 1)) * CLOCK_SECOND;
    const struct spool_record record = {
        .type = SPOOL_RECORD_DEFERRED,
        .attempts = 1,
        .code = 450,
        .when = clock_wall(),
        .next = clock_wall() + wait,
        .recipient_count = 1,
        .recipients = slice_make("\0\0\0\0", 4),
        .enhanced = SLICE("4.2.0"),
        .text = SLICE("4.2.0 Mailbox busy, try again later"),
        .host = SLICE("mx.dst.test"),
    };
    f->file.len = (size_t)layout.records_at;
    buf_clear(&f->record);
    spool_record_encode(&f->record, id, &record);
    buf_adds(&f->file, buf_slice(&f->record));
    buf_add(&f->file, "\0\0\0\0\0\0\0", SPOOL_RECORDS_END);
}

static void put(struct fill *f, unsigned long i)
{
    struct id id = id_new();
    if (id_time(&id) >> BUCKET_SHIFT != f->bucket)
        open_bucket(f, id_time(&id) >> BUCKET_SHIFT);
    encode(f, &id, i);
    int fd = openat(f->bucket_fd, id.text, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, f->file.data, f->file.len) != (ssize_t)f->file.len ||
        fchown(fd, f->owner.st_uid, f->owner.st_gid) < 0)
        die(id.text);
    close(fd);
}

int main(int argc, char **argv)
{
    static struct fill f = {.bucket_fd = -1, .bucket = -1};
    if (argc < 3 || argc > 6) {
        fprintf(stderr, "usage: spool-fill QUEUE_DIRECTORY COUNT [DOMAINS [BYTES [DEFER]]]\n");
        return 2;
    }
    f.count = number(argv[2], UINT32_MAX);
    f.domains = argc > 3 ? number(argv[3], DOMAINS_MAX) : 1;
    f.bytes = argc > 4 ? number(argv[4], CONTENT_MAX) : 2048;
    f.defer = argc > 5 ? number(argv[5], 1000000) : 0;
    if (f.domains == 0)
        f.domains = 1;
    int top = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f.new_fd = top < 0 ? -1 : openat(top, "new", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f.new_fd < 0 || fstat(f.new_fd, &f.owner) < 0)
        die(argv[1]);
    for (unsigned long i = 0; i < f.bytes; i++)
        f.content[i] = i % 64 == 62 ? '\r' : i % 64 == 63 ? '\n' : 'x';
    memcpy(f.content, "Subject: x\r\n\r\n", f.bytes < 14 ? f.bytes : 14);
    f.file = f.recipients = f.record = BUF_INIT(SIZE_MAX);
    for (unsigned long i = 0; i < f.count; i++)
        put(&f, i);
    buf_free(&f.file);
    buf_free(&f.recipients);
    buf_free(&f.record);
    return 0;
}
