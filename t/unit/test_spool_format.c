/* libraries: postern_spool */
/* The spool file's format: what goes in comes out, and every changed bit shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <xxhash.h>

#include "core/mem.h"
#include "spool/format.h"
#include "spool/wire.h"

enum { LIMIT = 1 << 20 };

static struct id sample_id(void)
{
    struct id id;
    assert_int_equal(id_parse(SLICE("4bWxyZ1BCDz0001"), &id), 0);
    return id;
}

static void add_rcpt(struct buf *list, const char *address, const char *orcpt, uint8_t notify)
{
    spool_rcpt_add(list, &(struct spool_rcpt){.address = slice_str(address),
                                              .orcpt = slice_str(orcpt),
                                              .notify = notify});
}

static struct spool_envelope sample_envelope(struct buf *list)
{
    add_rcpt(list, "one@example.net", "", 0);
    add_rcpt(list, "two@example.org", "rfc822;two@old.example", 5);
    add_rcpt(list, "", "", 1);
    return (struct spool_envelope){.arrival = 1700000000123456,
                                   .flags = 3,
                                   .ret = 2,
                                   .mail_class = 1,
                                   .account = SLICE("acme"),
                                   .client = SLICE("c[192.0.2.1]"),
                                   .message_id = SLICE("<m@x>"),
                                   .sender = SLICE("s@example.com"),
                                   .envid = SLICE("env"),
                                   .recipient_count = 3,
                                   .recipients = buf_slice(list)};
}

static enum spool_verdict decode(struct slice file, const struct id *id, struct spool_layout *l,
                                 struct spool_envelope *v)
{
    struct err e;
    enum spool_verdict verdict = spool_decode_header(file, file.len, id, l, &e);
    if (verdict != SPOOL_GOOD)
        return verdict;
    return spool_decode_envelope(file, l,
                                 slice_first(slice_from(file, l->envelope_at), l->envelope_len),
                                 slice_first(slice_from(file, l->status_at), l->recipient_count),
                                 slice_first(slice_from(file, l->prefix_at), l->prefix_len), v, &e);
}

static void check_envelope(const struct spool_envelope *v)
{
    struct slice list = v->recipients;
    struct spool_rcpt r;
    assert_int_equal(v->arrival, 1700000000123456);
    assert_int_equal(v->flags, 3);
    assert_int_equal(v->ret, 2);
    assert_int_equal(v->mail_class, 1);
    assert_true(slice_eq(v->account, SLICE("acme")));
    assert_true(slice_eq(v->client, SLICE("c[192.0.2.1]")));
    assert_true(slice_eq(v->message_id, SLICE("<m@x>")));
    assert_true(slice_eq(v->sender, SLICE("s@example.com")));
    assert_true(slice_eq(v->envid, SLICE("env")));
    assert_int_equal(v->recipient_count, 3);
    assert_int_equal(spool_rcpt_next(&list, &r), 1);
    assert_true(slice_eq(r.address, SLICE("one@example.net")));
    assert_int_equal(spool_rcpt_next(&list, &r), 1);
    assert_true(slice_eq(r.orcpt, SLICE("rfc822;two@old.example")));
    assert_int_equal(r.notify, 5);
    assert_int_equal(spool_rcpt_next(&list, &r), 1);
    assert_int_equal(r.address.len, 0);
    assert_int_equal(spool_rcpt_next(&list, &r), 0);
}

static void make_small(struct buf *file, struct spool_layout *l, struct buf *list)
{
    struct id id = sample_id();
    struct spool_envelope v = sample_envelope(list);
    assert_int_equal(spool_encode_small(file, l, &id, &v, SLICE("Received: x\r\n"),
                                        SLICE("Subject: y\r\n\r\nbody\r\n")),
                     0);
}

static void make_signed(struct buf *file, struct spool_layout *l, struct buf *list)
{
    struct id id = sample_id();
    struct spool_envelope v = sample_envelope(list);
    v.signer = SLICE("example.com");
    assert_int_equal(spool_encode_small(file, l, &id, &v, SLICE("Received: x\r\n"),
                                        SLICE("Subject: y\r\n\r\nbody\r\n")),
                     0);
}

static void test_small_round_trip(void **state)
{
    struct buf file = BUF_INIT(LIMIT), list = BUF_INIT(LIMIT);
    struct spool_layout l, again;
    struct spool_envelope v;
    struct id id = sample_id();
    (void)state;
    make_small(&file, &l, &list);
    assert_int_equal(file.len, l.records_at + SPOOL_RECORDS_END);
    assert_int_equal(decode(buf_slice(&file), &id, &again, &v), SPOOL_GOOD);
    assert_memory_equal(file.data + again.prefix_at, "Received: x\r\nSubject: y\r\n\r\nbody\r\n",
                        35);
    assert_int_equal(again.body_at, again.prefix_at + 13);
    assert_int_equal(again.content_sum, l.content_sum);
    check_envelope(&v);
    buf_free(&file);
    buf_free(&list);
}

static void test_large_round_trip(void **state)
{
    struct buf head = BUF_INIT(LIMIT), tail = BUF_INIT(LIMIT), file = BUF_INIT(LIMIT);
    struct buf list = BUF_INIT(LIMIT);
    struct id id = sample_id();
    struct spool_layout l, again;
    struct spool_envelope in = sample_envelope(&list), v;
    (void)state;
    assert_int_equal(
        spool_encode_large(&head, &tail, &l, &id, &in, SLICE("Received: x\r\n"), 5000, 42), 0);
    buf_adds(&file, buf_slice(&head));
    while (file.len < SPOOL_LARGE_BODY + 5000)
        buf_addc(&file, 'b');
    buf_adds(&file, buf_slice(&tail));
    assert_int_equal(decode(buf_slice(&file), &id, &again, &v), SPOOL_GOOD);
    assert_true(again.large);
    assert_int_equal(again.body_at, SPOOL_LARGE_BODY);
    assert_int_equal(again.body_len, 5000);
    assert_int_equal(again.content_sum, 42);
    check_envelope(&v);
    /* the prefix is under the envelope's checksum */
    file.data[again.prefix_at] ^= 1;
    assert_int_equal(decode(buf_slice(&file), &id, &again, &v), SPOOL_CORRUPT);
    buf_free(&head);
    buf_free(&tail);
    buf_free(&file);
    buf_free(&list);
}

/* Every single bit of header and envelope; a status byte and content excepted. */
static void check_flipped_bits(void (*make)(struct buf *file, struct spool_layout *l,
                                            struct buf *list))
{
    struct buf file = BUF_INIT(LIMIT), list = BUF_INIT(LIMIT);
    struct spool_layout l, again;
    struct spool_envelope v;
    struct id id = sample_id();
    make(&file, &l, &list);
    for (size_t bit = 0; bit < l.status_at * 8; bit++) {
        file.data[bit / 8] = (char)(file.data[bit / 8] ^ (1 << bit % 8));
        enum spool_verdict verdict = decode(buf_slice(&file), &id, &again, &v);
        /* a flipped version may look like a later one */
        bool version = bit / 8 >= 8 && bit / 8 < 12;
        assert_true(verdict == SPOOL_CORRUPT || (version && verdict == SPOOL_NEWER));
        file.data[bit / 8] = (char)(file.data[bit / 8] ^ (1 << bit % 8));
    }
    assert_int_equal(decode(buf_slice(&file), &id, &again, &v), SPOOL_GOOD);
    buf_free(&file);
    buf_free(&list);
}

static void test_B77_F40_every_flipped_bit_shows(void **state)
{
    (void)state;
    check_flipped_bits(make_small);
    check_flipped_bits(make_signed);
}

static void check_truncations(void (*make)(struct buf *file, struct spool_layout *l,
                                           struct buf *list))
{
    struct buf file = BUF_INIT(LIMIT), list = BUF_INIT(LIMIT);
    struct spool_layout l, again;
    struct spool_envelope v;
    struct id id = sample_id();
    make(&file, &l, &list);
    for (size_t len = 0; len < file.len; len++) {
        /* a copy of its own size, so that the sanitizer sees a read beyond it */
        char *cut = xmalloc(len + 1);
        memcpy(cut, file.data, len);
        assert_int_equal(decode(slice_make(cut, len), &id, &again, &v), SPOOL_CORRUPT);
        free(cut);
    }
    buf_free(&file);
    buf_free(&list);
}

static void test_B76_every_truncation_shows(void **state)
{
    (void)state;
    check_truncations(make_small);
    check_truncations(make_signed);
}

static void test_other_id_and_B79_newer_version(void **state)
{
    struct buf file = BUF_INIT(LIMIT), list = BUF_INIT(LIMIT);
    struct spool_layout l;
    struct spool_envelope v;
    struct id id = sample_id(), other = id_notice(&id, 'F', 0);
    (void)state;
    make_small(&file, &l, &list);
    assert_int_equal(decode(buf_slice(&file), &other, &l, &v), SPOOL_OTHER_ID);
    file.data[8] = SPOOL_VERSION + 1;
    assert_int_equal(decode(buf_slice(&file), &id, &l, &v), SPOOL_NEWER);
    buf_free(&file);
    buf_free(&list);
}

/* ---- the signer: a field that files of version 1 do not have ------------------------ */

enum { AT_VERSION = 8, AT_FLAGS = 12, AT_FIELDS = SPOOL_HEADER + 14 };

/* As a program would have written it that changed these bytes. */
static void mend_sums(char *file, const struct spool_layout *l)
{
    enum { AT_ENVELOPE_SUM = 176, AT_HEADER_SUM = 184 };
    wire_put(file + AT_ENVELOPE_SUM, XXH3_64bits(file + l->envelope_at, l->envelope_len), 8);
    wire_put(file + AT_HEADER_SUM, XXH3_64bits(file, AT_HEADER_SUM), 8);
}

static void test_B79_only_files_with_a_signer_need_version_2(void **state)
{
    struct buf plain = BUF_INIT(LIMIT), file = BUF_INIT(LIMIT), list = BUF_INIT(LIMIT);
    struct spool_layout l;
    struct spool_envelope v;
    struct id id = sample_id();
    (void)state;
    make_small(&plain, &l, &list);
    assert_int_equal(wire_get(plain.data + AT_VERSION, 4), 1);
    assert_int_equal(decode(buf_slice(&plain), &id, &l, &v), SPOOL_GOOD);
    assert_int_equal(l.version, 1);
    assert_int_equal(v.signer.len, 0);

    buf_clear(&list);
    make_signed(&file, &l, &list);
    assert_int_equal(wire_get(file.data + AT_VERSION, 4), 2);
    assert_int_equal(decode(buf_slice(&file), &id, &l, &v), SPOOL_GOOD);
    assert_int_equal(l.version, 2);
    assert_true(slice_eq(v.signer, SLICE("example.com")));
    check_envelope(&v);
    /* for a while such files had version 1: they are mail, too */
    file.data[AT_VERSION] = 1;
    mend_sums(file.data, &l);
    assert_int_equal(decode(buf_slice(&file), &id, &l, &v), SPOOL_GOOD);
    assert_true(slice_eq(v.signer, SLICE("example.com")));
    buf_free(&plain);
    buf_free(&file);
    buf_free(&list);
}

static void test_large_round_trip_with_a_signer(void **state)
{
    struct buf head = BUF_INIT(LIMIT), tail = BUF_INIT(LIMIT), file = BUF_INIT(LIMIT);
    struct buf list = BUF_INIT(LIMIT);
    struct id id = sample_id();
    struct spool_layout l, again;
    struct spool_envelope in = sample_envelope(&list), v;
    (void)state;
    in.signer = SLICE("example.com");
    assert_int_equal(
        spool_encode_large(&head, &tail, &l, &id, &in, SLICE("Received: x\r\n"), 5000, 42), 0);
    buf_adds(&file, buf_slice(&head));
    while (file.len < SPOOL_LARGE_BODY + 5000)
        buf_addc(&file, 'b');
    buf_adds(&file, buf_slice(&tail));
    assert_int_equal(decode(buf_slice(&file), &id, &again, &v), SPOOL_GOOD);
    assert_int_equal(again.version, 2);
    assert_true(slice_eq(v.signer, SLICE("example.com")));
    check_envelope(&v);
    buf_free(&head);
    buf_free(&tail);
    buf_free(&file);
    buf_free(&list);
}

/* Bytes of the body that the client did not send: in all files that have some, and in none
 * other. */
static void test_added_bytes_are_kept(void **state)
{
    struct id id = sample_id();
    (void)state;
    for (uint64_t added = 0; added <= 5; added++)
        for (int with_signer = 0; with_signer < 2; with_signer++) {
            struct buf file = BUF_INIT(LIMIT), list = BUF_INIT(LIMIT);
            struct spool_layout l;
            struct spool_envelope v = sample_envelope(&list), again;
            v.added = added;
            if (with_signer)
                v.signer = SLICE("example.com");
            int rc = spool_encode_small(&file, &l, &id, &v, SLICE("R: x\r\n"), SLICE("b\r\n!"));
            assert_int_equal(rc, added > 4 ? -1 : 0); /* more than there is */
            if (rc == 0) {
                assert_int_equal(decode(buf_slice(&file), &id, &l, &again), SPOOL_GOOD);
                assert_int_equal(l.version, added ? 3 : 1 + with_signer);
                assert_int_equal(again.added, added);
                assert_int_equal(again.signer.len, with_signer ? 11 : 0);
                check_envelope(&again);
            }
            if (added == 4) { /* a file that says more than it has */
                file.data[l.envelope_at + l.envelope_len - 8] = 5;
                mend_sums(file.data, &l);
                assert_int_equal(decode(buf_slice(&file), &id, &l, &again), SPOOL_CORRUPT);
            }
            buf_free(&file);
            buf_free(&list);
        }
}

/* A bit that this program does not know says that there is more: neither damaged nor to be
 * delivered without it. */
static void test_B79_unknown_bits_are_of_a_later_version(void **state)
{
    struct buf file = BUF_INIT(LIMIT), list = BUF_INIT(LIMIT);
    struct spool_layout l, again;
    struct spool_envelope v;
    struct id id = sample_id();
    (void)state;
    make_signed(&file, &l, &list);
    for (size_t bit = 2; bit < 16; bit++) {
        char *at = file.data + AT_FIELDS + bit / 8;
        *at = (char)(*at ^ (1 << bit % 8));
        assert_int_equal(decode(buf_slice(&file), &id, &again, &v), SPOOL_CORRUPT);
        mend_sums(file.data, &l);
        assert_int_equal(decode(buf_slice(&file), &id, &again, &v), SPOOL_NEWER);
        assert_int_equal(v.recipients.len, 0);
        *at = (char)(*at ^ (1 << bit % 8));
    }
    for (size_t bit = 1; bit < 32; bit++) {
        char *at = file.data + AT_FLAGS + bit / 8;
        *at = (char)(*at ^ (1 << bit % 8));
        mend_sums(file.data, &l);
        assert_int_equal(decode(buf_slice(&file), &id, &again, &v), SPOOL_NEWER);
        *at = (char)(*at ^ (1 << bit % 8));
    }
    /* a field that is announced and not there, or there and not announced */
    for (char fields = 0; fields < 4; fields++) {
        file.data[AT_FIELDS] = fields;
        mend_sums(file.data, &l);
        assert_int_equal(decode(buf_slice(&file), &id, &again, &v),
                         fields == 1 ? SPOOL_GOOD : SPOOL_CORRUPT);
    }
    buf_free(&file);
    buf_free(&list);
}

static void test_B83_unknown_status(void **state)
{
    struct buf file = BUF_INIT(LIMIT), list = BUF_INIT(LIMIT);
    struct spool_layout l;
    struct spool_envelope v;
    struct id id = sample_id();
    (void)state;
    make_small(&file, &l, &list);
    for (const char *good = "PSBD"; *good; good++) {
        file.data[l.status_at + 1] = *good;
        assert_int_equal(decode(buf_slice(&file), &id, &l, &v), SPOOL_GOOD);
    }
    file.data[l.status_at + 1] = 'x';
    assert_int_equal(decode(buf_slice(&file), &id, &l, &v), SPOOL_CORRUPT);
    buf_free(&file);
    buf_free(&list);
}

static void test_encoder_refuses_what_it_could_not_read(void **state)
{
    struct buf file = BUF_INIT(LIMIT), list = BUF_INIT(LIMIT);
    struct spool_layout l;
    struct id id = sample_id();
    struct spool_envelope v = sample_envelope(&list);
    struct slice none = {NULL, 0};
    (void)state;
    v.recipient_count = 2;
    assert_int_equal(spool_encode_small(&file, &l, &id, &v, none, none), -1);
    v.recipient_count = 3;
    v.recipients.len--;
    assert_int_equal(spool_encode_small(&file, &l, &id, &v, none, none), -1);
    v.recipients.len++;
    file.max = 300;
    assert_int_equal(spool_encode_small(&file, &l, &id, &v, none, none), -1);
    assert_int_equal(spool_encode_large(&file, &file, &l, &id, &v, none, UINT64_MAX - 100, 0), -1);
    buf_free(&file);
    buf_free(&list);
}

static struct spool_record sample_record(void)
{
    static const char indices[] = {1, 0, 0, 0, 0, 1, 0, 0};
    return (struct spool_record){.type = SPOOL_RECORD_DEFERRED,
                                 .notice = 7,
                                 .code = 451,
                                 .attempts = 3,
                                 .flags = 32,
                                 .when = 1,
                                 .next = 2,
                                 .recipient_count = 2,
                                 .recipients = slice_make(indices, 8),
                                 .enhanced = SLICE("4.7.1"),
                                 .text = SLICE("later"),
                                 .host = SLICE("mx.example")};
}

static void test_records_round_trip(void **state)
{
    struct buf out = BUF_INIT(LIMIT);
    struct id id = sample_id(), other = id_notice(&id, 'D', 1);
    struct spool_record in = sample_record(), r;
    (void)state;
    assert_int_equal(spool_record_encode(&out, &id, &in), 0);
    size_t first = out.len;
    in.type = 99; /* of a later program: passed over */
    assert_int_equal(spool_record_encode(&out, &id, &in), 0);
    in.type = SPOOL_RECORD_FLAGS;
    assert_int_equal(spool_record_encode(&out, &id, &in), 0);
    size_t mine = out.len;
    assert_int_equal(spool_record_encode(&out, &other, &in), 0);

    struct slice rest = buf_slice(&out);
    assert_int_equal(spool_record_next(&rest, &id, &r), 1);
    assert_int_equal(r.code, 451);
    assert_int_equal(r.attempts, 3);
    assert_int_equal(r.next, 2);
    assert_int_equal(spool_record_recipient(&r, 0), 1);
    assert_int_equal(spool_record_recipient(&r, 1), 256);
    assert_true(slice_eq(r.enhanced, SLICE("4.7.1")) && slice_eq(r.text, SLICE("later")));
    assert_true(slice_eq(r.host, SLICE("mx.example")));
    assert_int_equal(spool_record_next(&rest, &id, &r), 1);
    assert_int_equal(r.type, SPOOL_RECORD_FLAGS);
    assert_int_equal(spool_record_next(&rest, &id, &r), 0); /* another message's */

    bool more;
    assert_int_equal(spool_records_length(buf_slice(&out), &id, &more), mine);
    assert_false(more);
    assert_int_equal(spool_records_length(slice_first(buf_slice(&out), first + 20), &id, &more),
                     first);
    assert_true(more);
    buf_free(&out);
}

static void test_torn_record_ends_the_list(void **state)
{
    struct buf out = BUF_INIT(LIMIT);
    struct id id = sample_id();
    struct spool_record in = sample_record(), r;
    (void)state;
    spool_record_encode(&out, &id, &in);
    for (size_t i = 0; i < out.len; i++) {
        struct slice all = buf_slice(&out);
        out.data[i] ^= 0x10;
        assert_int_equal(spool_record_next(&all, &id, &r), 0);
        out.data[i] ^= 0x10;
    }
    buf_free(&out);
}

static void test_record_limits(void **state)
{
    struct buf out = BUF_INIT(LIMIT);
    struct id id = sample_id();
    struct spool_record in = sample_record(), r;
    static char text[100000], many[4 * 1025];
    (void)state;
    in.text = in.host = in.enhanced = slice_make(text, sizeof text);
    in.recipients = slice_make(many, 4 * SPOOL_RECORD_RECIPIENTS_MAX);
    in.recipient_count = SPOOL_RECORD_RECIPIENTS_MAX;
    assert_int_equal(spool_record_encode(&out, &id, &in), 0);
    assert_true(out.len <= SPOOL_RECORD_MAX);
    struct slice all = buf_slice(&out);
    assert_int_equal(spool_record_next(&all, &id, &r), 1);
    assert_int_equal(r.text.len, SPOOL_RECORD_TEXT_MAX);
    in.recipients.len += 4;
    in.recipient_count++;
    assert_int_equal(spool_record_encode(&out, &id, &in), -1);
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_round_trip),
        cmocka_unit_test(test_large_round_trip),
        cmocka_unit_test(test_B77_F40_every_flipped_bit_shows),
        cmocka_unit_test(test_B76_every_truncation_shows),
        cmocka_unit_test(test_other_id_and_B79_newer_version),
        cmocka_unit_test(test_B79_only_files_with_a_signer_need_version_2),
        cmocka_unit_test(test_large_round_trip_with_a_signer),
        cmocka_unit_test(test_added_bytes_are_kept),
        cmocka_unit_test(test_B79_unknown_bits_are_of_a_later_version),
        cmocka_unit_test(test_B83_unknown_status),
        cmocka_unit_test(test_encoder_refuses_what_it_could_not_read),
        cmocka_unit_test(test_records_round_trip),
        cmocka_unit_test(test_torn_record_ends_the_list),
        cmocka_unit_test(test_record_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
