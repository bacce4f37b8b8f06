/* libraries: postern_spool */
/* What is written into a spool file is what comes out of it: envelope, recipients,
 * content, records, for any bytes in them. The input is cut into fields. */
#include "core/mem.h"
#include "spool/format.h"

enum { FILE_MAX = 1 << 20, RECIPIENTS_MAX = 40 };

/* A field of the input: a length byte, then so many bytes. */
static struct slice field(struct slice *in)
{
    if (in->len == 0)
        return SLICE("");
    size_t len = (uint8_t)in->ptr[0];
    struct slice out = slice_first(slice_from(*in, 1), len);
    *in = slice_from(*in, 1 + out.len);
    return out;
}

static uint64_t number(struct slice *in)
{
    uint64_t n = 0;
    struct slice bytes = slice_first(*in, sizeof n);
    if (bytes.len)
        memcpy(&n, bytes.ptr, bytes.len);
    *in = slice_from(*in, bytes.len);
    return n;
}

static struct spool_envelope make_envelope(struct slice *in, struct buf *recipients)
{
    struct spool_envelope v = {.arrival = (int64_t)number(in),
                               .flags = (uint32_t)number(in),
                               .ret = (uint8_t)number(in),
                               .mail_class = (uint8_t)number(in)};
    v.account = field(in);
    v.client = field(in);
    v.message_id = field(in);
    v.sender = field(in);
    v.envid = field(in);
    v.recipient_count = 1 + (uint32_t)(number(in) % RECIPIENTS_MAX);
    for (uint32_t i = 0; i < v.recipient_count; i++) {
        struct spool_rcpt r = {.address = field(in), .notify = (uint8_t)i};
        r.orcpt = field(in);
        spool_rcpt_add(recipients, &r);
    }
    v.recipients = buf_slice(recipients);
    v.signer = field(in);
    v.added = number(in) % 4;
    return v;
}

static void same_envelope(const struct spool_envelope *a, const struct spool_envelope *b)
{
    if (a->arrival != b->arrival || a->flags != b->flags || a->ret != b->ret ||
        a->mail_class != b->mail_class || a->added != b->added ||
        a->recipient_count != b->recipient_count || !slice_eq(a->account, b->account) ||
        !slice_eq(a->client, b->client) || !slice_eq(a->message_id, b->message_id) ||
        !slice_eq(a->sender, b->sender) || !slice_eq(a->envid, b->envid) ||
        !slice_eq(a->recipients, b->recipients) || !slice_eq(a->signer, b->signer))
        panic("an envelope changes in the spool");
}

static void check_file(struct slice file, const struct id *id, const struct spool_envelope *v,
                       struct slice prefix, struct slice body)
{
    struct spool_layout l;
    struct spool_envelope again;
    struct err e;
    if (spool_decode_header(file, file.len, id, &l, &e) != SPOOL_GOOD ||
        spool_decode_envelope(
            file, &l, slice_first(slice_from(file, l.envelope_at), l.envelope_len),
            slice_first(slice_from(file, l.status_at), l.recipient_count),
            slice_first(slice_from(file, l.prefix_at), l.prefix_len), &again, &e) != SPOOL_GOOD)
        panic("what was written cannot be read: %s", e.text);
    same_envelope(v, &again);
    if (!slice_eq(slice_first(slice_from(file, l.prefix_at), l.prefix_len), prefix) ||
        !slice_eq(slice_first(slice_from(file, l.body_at), l.body_len), body))
        panic("content changes in the spool");
    if (l.records_at + SPOOL_RECORDS_END != file.len)
        panic("records begin at %llu of %zu", (unsigned long long)l.records_at, file.len);
    for (const char *p = file.ptr + l.status_at; p < file.ptr + l.status_at + l.recipient_count;
         p++)
        if (*p != SPOOL_PENDING)
            panic("a recipient begins as %c", *p);
}

static void check_record(struct slice *in, const struct id *id)
{
    struct buf out = BUF_INIT(4 * SPOOL_RECORD_MAX);
    struct spool_record r = {.type = (uint8_t)(1 + number(in) % 4),
                             .notice = (uint8_t)number(in),
                             .code = (uint16_t)number(in),
                             .attempts = (uint32_t)number(in),
                             .flags = (uint32_t)number(in),
                             .when = (int64_t)number(in),
                             .next = (int64_t)number(in)};
    struct spool_record again;
    struct slice list = field(in);
    r.recipient_count = (uint32_t)(list.len / 4);
    r.recipients = slice_first(list, 4ul * r.recipient_count);
    r.enhanced = field(in);
    r.text = field(in);
    r.host = field(in);
    if (spool_record_encode(&out, id, &r) == 0) {
        struct slice rest = buf_slice(&out);
        if (spool_record_next(&rest, id, &again) != 1 || again.type != r.type ||
            again.code != r.code || again.attempts != r.attempts || again.when != r.when ||
            again.recipient_count != r.recipient_count ||
            !slice_eq(again.recipients, r.recipients) || !slice_eq(again.text, r.text))
            panic("a record changes in the spool");
    }
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_make(data, size);
    struct id id;
    struct spool_layout layout;
    if (id_parse(SLICE("4bWxyZ1BCDz0001"), &id) < 0)
        return 0;
    struct buf recipients = BUF_INIT(FILE_MAX), file = BUF_INIT(FILE_MAX);
    struct spool_envelope v = make_envelope(&in, &recipients);
    check_record(&in, &id);
    struct slice prefix = field(&in);
    if (spool_encode_small(&file, &layout, &id, &v, prefix, in) == 0)
        check_file(buf_slice(&file), &id, &v, prefix, in);
    buf_free(&recipients);
    buf_free(&file);
    return 0;
}
