#include "spool/format.h"

#include <xxhash.h>

#include "core/mem.h"
#include "spool/wire.h"

/* Offsets in the header. */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_FLAGS = 12,
    AT_ID = 16,
    AT_ENVELOPE_LEN = 40,
    AT_RECIPIENTS = 48,
    AT_PREFIX_LEN = 56,
    AT_BODY_LEN = 64,
    AT_CONTENT_SUM = 72,
    AT_ENVELOPE_SUM = 176,
    AT_HEADER_SUM = 184,
    ID_FIELD = 24,
    FLAG_LARGE = 1,
    ENVELOPE_FIXED = 8 + 4 + 1 + 1 + 2, /* arrival, flags, ret, class, fields that follow */
    VERSION_PLAIN = 1,
    VERSION_SIGNER = 2,
    VERSION_ADDED = 3
};

static const char magic[8] = {'P', 'O', 'S', 'T', 'E', 'R', 'N', '\n'};

/* Derives every offset from the lengths; -1 if the sum overflows. */
static int place(struct spool_layout *l)
{
    uint64_t at = SPOOL_HEADER;
    bool overflow = false;
    if (l->large) {
        l->body_at = SPOOL_LARGE_BODY;
        overflow |= __builtin_add_overflow(l->body_at, l->body_len, &at);
    }
    l->envelope_at = at;
    overflow |= __builtin_add_overflow(at, l->envelope_len, &at);
    l->status_at = at;
    overflow |= __builtin_add_overflow(at, l->recipient_count, &at);
    l->prefix_at = at;
    overflow |= __builtin_add_overflow(at, l->prefix_len, &at);
    if (!l->large) {
        l->body_at = at;
        overflow |= __builtin_add_overflow(at, l->body_len, &at);
    }
    l->records_at = at;
    return overflow || at > INT64_MAX - SPOOL_RECORDS_END ? -1 : 0;
}

/* ---- recipients ------------------------------------------------------------ */

void spool_rcpt_add(struct buf *list, const struct spool_rcpt *r)
{
    char numbers[9];
    if (r->address.len > UINT32_MAX / 2 || r->orcpt.len > UINT32_MAX / 2 ||
        buf_reserve(list, sizeof numbers + r->address.len + r->orcpt.len) < 0)
        return;
    wire_put(numbers, r->address.len, 4);
    wire_put(numbers + 4, r->orcpt.len, 4);
    numbers[8] = (char)r->notify;
    buf_add(list, numbers, sizeof numbers);
    buf_adds(list, r->address);
    buf_adds(list, r->orcpt);
}

int spool_rcpt_next(struct slice *list, struct spool_rcpt *r)
{
    if (list->len == 0)
        return 0;
    struct wire w = {*list, false};
    uint64_t address = wire_number(&w, 4), orcpt = wire_number(&w, 4);
    r->notify = (uint8_t)wire_number(&w, 1);
    r->address = wire_bytes(&w, address);
    r->orcpt = wire_bytes(&w, orcpt);
    if (w.failed)
        return -1;
    *list = w.rest;
    return 1;
}

static bool recipients_match(struct slice list, uint32_t count)
{
    struct spool_rcpt r;
    uint32_t n = 0;
    int more;
    while ((more = spool_rcpt_next(&list, &r)) > 0)
        n++;
    return more == 0 && n == count;
}

/* ---- encoding ---------------------------------------------------------------- */

static void add_number(struct buf *b, uint64_t n, unsigned bytes)
{
    char wire[8];
    wire_put(wire, n, bytes);
    buf_add(b, wire, bytes);
}

static void add_counted(struct buf *b, struct slice s)
{
    add_number(b, s.len, 4);
    buf_adds(b, s);
}

/* In the envelope's two bytes of fields: what follows the recipients. */
enum { HAS_SIGNER = 1, HAS_ADDED = 2, FIELDS_KNOWN = HAS_SIGNER | HAS_ADDED };

/* The envelope's encoded length, or 0 if a limit is passed. */
static uint64_t envelope_length(const struct spool_envelope *v)
{
    const struct slice parts[] = {v->account, v->client, v->message_id,
                                  v->sender,  v->envid,  v->recipients};
    uint64_t len = ENVELOPE_FIXED + 4;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i].len > SPOOL_ENVELOPE_MAX)
            return 0;
        len += 4 + parts[i].len;
    }
    if (v->signer.len)
        len += 4 + (v->signer.len < SPOOL_ENVELOPE_MAX ? v->signer.len : SPOOL_ENVELOPE_MAX);
    if (v->added)
        len += 8;
    if (len > SPOOL_ENVELOPE_MAX || v->recipient_count > SPOOL_RECIPIENTS_MAX ||
        !recipients_match(v->recipients, v->recipient_count))
        return 0;
    return len;
}

/* Room was reserved by the caller. */
static void add_envelope(struct buf *b, const struct spool_envelope *v)
{
    add_number(b, (uint64_t)v->arrival, 8);
    add_number(b, v->flags, 4);
    add_number(b, v->ret, 1);
    add_number(b, v->mail_class, 1);
    add_number(b, (v->signer.len ? HAS_SIGNER : 0u) | (v->added ? HAS_ADDED : 0u), 2);
    add_counted(b, v->account);
    add_counted(b, v->client);
    add_counted(b, v->message_id);
    add_counted(b, v->sender);
    add_counted(b, v->envid);
    add_number(b, v->recipient_count, 4);
    add_counted(b, v->recipients);
    if (v->signer.len)
        add_counted(b, v->signer);
    if (v->added)
        add_number(b, v->added, 8);
}

static void add_status(struct buf *b, uint32_t recipients)
{
    memset(b->data + b->len, SPOOL_PENDING, recipients);
    b->len += recipients;
}

/* A large message's prefix shares the envelope's checksum. */
static uint64_t envelope_sum(struct slice envelope, struct slice prefix, bool large)
{
    uint64_t sum = XXH3_64bits(envelope.ptr, envelope.len);
    return large ? XXH3_64bits_withSeed(prefix.ptr, prefix.len, sum) : sum;
}

static void write_header(char *at, const struct spool_layout *l, uint64_t sum)
{
    memset(at, 0, SPOOL_HEADER);
    memcpy(at + AT_MAGIC, magic, sizeof magic);
    wire_put(at + AT_VERSION, l->version, 4);
    wire_put(at + AT_FLAGS, l->large ? FLAG_LARGE : 0, 4);
    memcpy(at + AT_ID, l->id.text, sizeof l->id.text);
    wire_put(at + AT_ENVELOPE_LEN, l->envelope_len, 8);
    wire_put(at + AT_RECIPIENTS, l->recipient_count, 4);
    wire_put(at + AT_PREFIX_LEN, l->prefix_len, 8);
    wire_put(at + AT_BODY_LEN, l->body_len, 8);
    wire_put(at + AT_CONTENT_SUM, l->content_sum, 8);
    wire_put(at + AT_ENVELOPE_SUM, sum, 8);
    wire_put(at + AT_HEADER_SUM, XXH3_64bits(at, AT_HEADER_SUM), 8);
}

static uint32_t lowest_version(const struct spool_envelope *v)
{
    if (v->added)
        return VERSION_ADDED;
    return v->signer.len ? VERSION_SIGNER : VERSION_PLAIN;
}

static int start_layout(struct spool_layout *l, const struct id *id, const struct spool_envelope *v,
                        struct slice prefix, uint64_t body_len, bool large)
{
    *l = (struct spool_layout){.id = *id,
                               .version = lowest_version(v),
                               .envelope_len = envelope_length(v),
                               .prefix_len = prefix.len,
                               .body_len = body_len,
                               .recipient_count = v->recipient_count,
                               .large = large};
    if (l->envelope_len == 0 || prefix.len > SPOOL_ENVELOPE_MAX || v->added > body_len)
        return -1;
    return place(l);
}

int spool_encode_small(struct buf *out, struct spool_layout *layout, const struct id *id,
                       const struct spool_envelope *envelope, struct slice prefix,
                       struct slice body)
{
    if (start_layout(layout, id, envelope, prefix, body.len, false) < 0 ||
        buf_reserve(out, layout->records_at + SPOOL_RECORDS_END) < 0)
        return -1;
    size_t start = out->len;
    out->len += SPOOL_HEADER;
    add_envelope(out, envelope);
    add_status(out, layout->recipient_count);
    buf_adds(out, prefix);
    buf_adds(out, body);
    add_number(out, 0, SPOOL_RECORDS_END);
    char *file = out->data + start;
    layout->content_sum = XXH3_64bits(file + layout->prefix_at, prefix.len + body.len);
    struct slice bytes = slice_make(file + layout->envelope_at, layout->envelope_len);
    write_header(file, layout, envelope_sum(bytes, prefix, false));
    return 0;
}

int spool_encode_large(struct buf *header, struct buf *trailer, struct spool_layout *layout,
                       const struct id *id, const struct spool_envelope *envelope,
                       struct slice prefix, uint64_t body_len, uint64_t body_sum)
{
    if (start_layout(layout, id, envelope, prefix, body_len, true) < 0 ||
        buf_reserve(header, SPOOL_HEADER) < 0 ||
        buf_reserve(trailer, layout->records_at - layout->envelope_at + SPOOL_RECORDS_END) < 0)
        return -1;
    size_t start = trailer->len;
    add_envelope(trailer, envelope);
    add_status(trailer, layout->recipient_count);
    buf_adds(trailer, prefix);
    add_number(trailer, 0, SPOOL_RECORDS_END);
    layout->content_sum = body_sum;
    struct slice bytes = slice_make(trailer->data + start, layout->envelope_len);
    write_header(header->data + header->len, layout, envelope_sum(bytes, prefix, true));
    header->len += SPOOL_HEADER;
    return 0;
}

/* ---- decoding ---------------------------------------------------------------- */

static enum spool_verdict corrupt(struct err *e, const char *what)
{
    err_set(e, "%s", what);
    return SPOOL_CORRUPT;
}

static enum spool_verdict newer(struct err *e, const char *what, uint64_t bits)
{
    err_set(e, "%s (%#x) of a later version than this program knows", what, (unsigned)bits);
    return SPOOL_NEWER;
}

static int read_lengths(const char *h, struct spool_layout *l)
{
    l->version = (uint32_t)wire_get(h + AT_VERSION, 4);
    l->large = wire_get(h + AT_FLAGS, 4) & FLAG_LARGE;
    l->envelope_len = wire_get(h + AT_ENVELOPE_LEN, 8);
    l->recipient_count = (uint32_t)wire_get(h + AT_RECIPIENTS, 4);
    l->prefix_len = wire_get(h + AT_PREFIX_LEN, 8);
    l->body_len = wire_get(h + AT_BODY_LEN, 8);
    l->content_sum = wire_get(h + AT_CONTENT_SUM, 8);
    if (l->envelope_len > SPOOL_ENVELOPE_MAX || l->prefix_len > SPOOL_ENVELOPE_MAX ||
        l->recipient_count > SPOOL_RECIPIENTS_MAX)
        return -1;
    return place(l);
}

enum spool_verdict spool_decode_header(struct slice header, uint64_t file_size,
                                       const struct id *expected, struct spool_layout *layout,
                                       struct err *e)
{
    *layout = (struct spool_layout){0};
    if (header.len < SPOOL_HEADER || file_size < SPOOL_HEADER)
        return corrupt(e, "the file is shorter than its header");
    const char *h = header.ptr;
    if (memcmp(h + AT_MAGIC, magic, sizeof magic) != 0)
        return corrupt(e, "not a spool file: the first bytes are wrong");
    /* the version comes before the checksum, which a later one may place elsewhere */
    uint64_t version = wire_get(h + AT_VERSION, 4);
    if (version > SPOOL_VERSION) {
        err_set(e, "format version %u is later than %d, which this program knows",
                (unsigned)version, SPOOL_VERSION);
        return SPOOL_NEWER;
    }
    if (wire_get(h + AT_HEADER_SUM, 8) != XXH3_64bits(h, AT_HEADER_SUM))
        return corrupt(e, "the header's checksum is wrong");
    uint64_t flags = wire_get(h + AT_FLAGS, 4);
    if (flags & ~(uint64_t)FLAG_LARGE)
        return newer(e, "the header has a flag", flags);
    struct slice id = slice_make(h + AT_ID, ID_FIELD);
    id.len = slice_chr(id, '\0');
    if (version == 0 || id_parse(id, &layout->id) < 0 || read_lengths(h, layout) < 0)
        return corrupt(e, "the header holds impossible values");
    if (!slice_eq(id, id_slice(expected))) {
        err_set(e, "the file is of message %s", layout->id.text);
        return SPOOL_OTHER_ID;
    }
    if (file_size < layout->records_at + SPOOL_RECORDS_END)
        return corrupt(e, "the file is shorter than its header says");
    return SPOOL_GOOD;
}

bool spool_status_valid(char status)
{
    return status == SPOOL_PENDING || status == SPOOL_SENT || status == SPOOL_CONFIRM ||
           status == SPOOL_BOUNCED || status == SPOOL_DROPPED;
}

/* Returns the bits of fields that are not known; what these hold is left in *w. */
static uint64_t read_envelope(struct wire *w, struct spool_envelope *v)
{
    v->arrival = (int64_t)wire_number(w, 8);
    v->flags = (uint32_t)wire_number(w, 4);
    v->ret = (uint8_t)wire_number(w, 1);
    v->mail_class = (uint8_t)wire_number(w, 1);
    uint64_t fields = wire_number(w, 2);
    v->account = wire_counted(w);
    v->client = wire_counted(w);
    v->message_id = wire_counted(w);
    v->sender = wire_counted(w);
    v->envid = wire_counted(w);
    v->recipient_count = (uint32_t)wire_number(w, 4);
    v->recipients = wire_counted(w);
    if (fields & HAS_SIGNER) /* in files of version 1, too: that was so for a while */
        v->signer = wire_counted(w);
    if (fields & HAS_ADDED)
        v->added = wire_number(w, 8);
    return fields & ~(uint64_t)FIELDS_KNOWN;
}

enum spool_verdict spool_decode_envelope(struct slice header, const struct spool_layout *layout,
                                         struct slice envelope_bytes, struct slice status,
                                         struct slice prefix, struct spool_envelope *envelope,
                                         struct err *e)
{
    *envelope = (struct spool_envelope){0};
    if (header.len < SPOOL_HEADER || envelope_bytes.len != layout->envelope_len ||
        status.len != layout->recipient_count ||
        (layout->large && prefix.len != layout->prefix_len))
        return corrupt(e, "the file ends before its envelope");
    if (wire_get(header.ptr + AT_ENVELOPE_SUM, 8) !=
        envelope_sum(envelope_bytes, prefix, layout->large))
        return corrupt(e, "the envelope's checksum is wrong");
    struct wire w = {envelope_bytes, false};
    uint64_t unknown = read_envelope(&w, envelope);
    if (unknown) { /* its checksum is right: a later program wrote it */
        *envelope = (struct spool_envelope){0};
        return newer(e, "the envelope has a field", unknown);
    }
    if (w.failed || w.rest.len || envelope->recipient_count != layout->recipient_count ||
        envelope->added > layout->body_len ||
        !recipients_match(envelope->recipients, envelope->recipient_count))
        return corrupt(e, "the envelope is malformed");
    for (size_t i = 0; i < status.len; i++)
        if (!spool_status_valid(status.ptr[i]))
            return corrupt(e, "a recipient's status is unknown");
    return SPOOL_GOOD;
}
