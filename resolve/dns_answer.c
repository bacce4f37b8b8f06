#include "resolve/dns_answer.h"

enum { HEADER = 12, RCODE_NXDOMAIN = 3, CLASS_IN = 1, TTL_MAX = 604800 };

struct reader {
    struct slice message;
    size_t at;
    bool failed;
};

/* One resource record. */
struct rr {
    uint16_t type, class;
    uint32_t ttl;
    size_t data, data_len; /* in the message */
};

static bool has(struct reader *r, size_t n)
{
    if (r->failed || r->message.len - r->at < n)
        r->failed = true;
    return !r->failed;
}

static uint8_t byte_at(const struct reader *r, size_t at)
{
    return (uint8_t)r->message.ptr[at];
}

static uint16_t get16(struct reader *r)
{
    if (!has(r, 2))
        return 0;
    uint16_t v = (uint16_t)(byte_at(r, r->at) << 8 | byte_at(r, r->at + 1));
    r->at += 2;
    return v;
}

static uint32_t get32(struct reader *r)
{
    uint32_t high = get16(r);
    return high << 16 | get16(r);
}

/* Steps over a name. It ends at the root label or with its first pointer. */
static void skip_name(struct reader *r)
{
    while (has(r, 1)) {
        uint8_t len = byte_at(r, r->at);
        if (len >= 0xc0) {
            if (has(r, 2))
                r->at += 2;
            return;
        }
        if (len > DNS_LABEL_MAX || !has(r, (size_t)len + 1)) {
            r->failed = true;
            return;
        }
        r->at += (size_t)len + 1;
        if (len == 0)
            return;
    }
}

/* The name at `at` as text; labels must end before `end` unless a pointer leads
 * elsewhere. A pointer must lead backwards, so loops cannot be (B59). */
static int expand_name(const struct reader *r, size_t at, size_t end, char *text, size_t *len)
{
    unsigned pointers = 0;
    size_t lowest = at;
    *len = 0;
    for (;;) {
        if (at >= end)
            return -1;
        uint8_t n = byte_at(r, at);
        if (n >= 0xc0) {
            if (end - at < 2 || ++pointers > DNS_POINTERS_MAX)
                return -1;
            size_t to = (size_t)(n & 0x3f) << 8 | byte_at(r, at + 1);
            if (to >= lowest)
                return -1;
            at = lowest = to;
            end = r->message.len;
            continue;
        }
        if (n == 0)
            return 0;
        if (n > DNS_LABEL_MAX || end - at <= n || *len + n + 1u > DNS_NAME_MAX + 1u)
            return -1;
        /* A dot inside a label would make another name of it. */
        if (memchr(r->message.ptr + at + 1, '.', n))
            return -1;
        memcpy(text + *len, r->message.ptr + at + 1, n);
        text[*len + n] = '.';
        *len += n + 1u;
        at += n + 1u;
    }
}

static void next_rr(struct reader *r, struct rr *out)
{
    skip_name(r);
    out->type = get16(r);
    out->class = get16(r);
    out->ttl = get32(r);
    out->data_len = get16(r);
    out->data = r->at;
    if (has(r, out->data_len))
        r->at += out->data_len;
}

static int read_mx(const struct reader *r, const struct rr *rr, struct dns_record *out)
{
    char text[DNS_NAME_MAX + 2];
    size_t len;
    if (rr->data_len < 3)
        return -1;
    out->preference = (uint16_t)(byte_at(r, rr->data) << 8 | byte_at(r, rr->data + 1));
    out->address_len = 0;
    if (expand_name(r, rr->data + 2, rr->data + rr->data_len, text, &len) < 0)
        return -1;
    if (len == 0) {
        out->host.text[0] = '\0';
        return 0;
    }
    return domain_parse(slice_make(text, len), &out->host);
}

static int read_ptr(const struct reader *r, const struct rr *rr, struct dns_record *out)
{
    char text[DNS_NAME_MAX + 2];
    size_t len;
    out->preference = 0;
    out->address_len = 0;
    if (expand_name(r, rr->data, rr->data + rr->data_len, text, &len) < 0)
        return -1;
    return domain_parse(slice_make(text, len), &out->host);
}

static int read_record(const struct reader *r, const struct rr *rr, struct dns_record *out)
{
    out->data = slice_make(r->message.ptr + rr->data, rr->data_len);
    if (rr->type == DNS_TYPE_TXT || rr->type == DNS_TYPE_TLSA) {
        out->preference = 0;
        out->address_len = 0;
        out->host.text[0] = '\0';
        return rr->data_len ? 0 : -1;
    }
    if (rr->type == DNS_TYPE_MX)
        return read_mx(r, rr, out);
    if (rr->type == DNS_TYPE_PTR || rr->type == DNS_TYPE_CNAME)
        return read_ptr(r, rr, out);
    size_t want = rr->type == DNS_TYPE_A ? 4 : 16;
    if (rr->data_len != want)
        return -1;
    out->preference = 0;
    out->host.text[0] = '\0';
    out->address_len = (uint8_t)want;
    memcpy(out->address, r->message.ptr + rr->data, want);
    return 0;
}

/* How long "there is nothing" may be believed: from the SOA (RFC 2308 5). */
static uint32_t negative_ttl(struct reader *r, unsigned authorities)
{
    struct rr rr;
    for (unsigned i = 0; i < authorities && i < DNS_SECTION_MAX; i++) {
        next_rr(r, &rr);
        if (r->failed)
            break;
        if (rr.type != DNS_TYPE_SOA || rr.data_len < 22)
            continue;
        struct reader minimum = {r->message, rr.data + rr.data_len - 4, false};
        uint32_t ttl = get32(&minimum);
        ttl = rr.ttl < ttl ? rr.ttl : ttl;
        return ttl < DNS_NEGATIVE_TTL_MAX ? ttl : DNS_NEGATIVE_TTL_MAX;
    }
    return DNS_NEGATIVE_TTL;
}

/* The name that a record at `at` bears. */
static void read_owner(const struct reader *r, size_t at, struct domain *out)
{
    char text[DNS_NAME_MAX + 2];
    size_t len;
    if (expand_name(r, at, r->message.len, text, &len) < 0 ||
        domain_parse(slice_make(text, len), out) < 0)
        out->text[0] = '\0';
}

/*
 * Records of the type are taken whatever name they bear: libunbound has matched
 * the question, followed the chain of CNAMEs and left nothing else in here.
 */
static void read_answers(struct reader *r, unsigned answers, enum dns_type type,
                         struct dns_record *records, size_t max, struct dns_answer *out)
{
    struct rr rr;
    out->ttl = TTL_MAX;
    for (unsigned i = 0; i < answers && i < DNS_SECTION_MAX; i++) {
        size_t at = r->at;
        next_rr(r, &rr);
        if (r->failed)
            return;
        if (rr.ttl < out->ttl)
            out->ttl = rr.ttl;
        if (rr.type != (uint16_t)type || rr.class != CLASS_IN || out->count == max)
            continue;
        if (out->count == 0 && (type == DNS_TYPE_A || type == DNS_TYPE_AAAA))
            read_owner(r, at, &out->owner);
        if (read_record(r, &rr, &records[out->count]) == 0)
            out->count++;
        else
            out->dropped++;
    }
}

int dns_txt(struct slice data, struct buf *out)
{
    while (data.len) {
        size_t len = (uint8_t)data.ptr[0];
        if (data.len <= len || buf_add(out, data.ptr + 1, len) < 0)
            return -1;
        data = slice_from(data, len + 1);
    }
    return 0;
}

void dns_answer_parse(struct slice message, enum dns_type type, struct dns_record *records,
                      size_t max, struct dns_answer *out)
{
    struct reader r = {message, 0, false};
    *out = (struct dns_answer){.result = DNS_FAILED, .records = records};
    if (message.len < HEADER)
        return;
    get16(&r);
    unsigned rcode = get16(&r) & 0xf, questions = get16(&r), answers = get16(&r),
             authorities = get16(&r);
    get16(&r);
    if (questions != 1 || (rcode != 0 && rcode != RCODE_NXDOMAIN))
        return;
    skip_name(&r);
    get32(&r);
    read_answers(&r, answers, type, records, max, out);
    if (r.failed) {
        out->count = 0;
        return;
    }
    if (out->count > 0 && rcode == 0)
        out->result = DNS_FOUND;
    else if (out->dropped > 0)
        out->result = DNS_FAILED;
    else {
        out->count = 0;
        out->ttl = negative_ttl(&r, authorities);
        out->result = rcode == RCODE_NXDOMAIN ? DNS_NXDOMAIN : DNS_NODATA;
    }
}
