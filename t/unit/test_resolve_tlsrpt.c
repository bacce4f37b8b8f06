/* libraries: resolve_parts */
/* Reports about TLS: where they go, what is remembered, and what HTTPS leaves behind. */
#include "unit.h"

#include <event2/event.h>
#include <malloc.h>
#include <stdio.h>

#include "core/mem.h"
#include "resolve/https.h"
#include "resolve/tlsrpt.h"
#include "tls/result.h"

static void test_places_of_a_record(void **state)
{
    struct tlsrpt_record r;
    (void)state;
    assert_int_equal(
        tlsrpt_record_parse(SLICE("v=TLSRPTv1; rua=mailto:a@b.test,https://r.test:8443/x?y=1,"
                                  "https://r.test,https://third.test/"),
                            &r),
        0);
    assert_int_equal(r.count, 1);
    assert_int_equal(r.url_count, 2);
    assert_string_equal(r.url[0], "https://r.test:8443/x?y=1");
    assert_string_equal(r.url[1], "https://r.test");
}

static void test_urls(void **state)
{
    static const char *const bad[] = {
        "http://r.test/",        "https://",          "https://r.test:0/",
        "https://r.test:65536/", "https://u@r.test/", "https://[::1]/",
        "https://r.test/a b",    "https://r.test/#x", "https://r.test/\xc3\xa4",
        "https://r.test?x",      "https:///x",        "https://r.test:8a/",
    };
    struct tlsrpt_url u;
    (void)state;
    assert_int_equal(tlsrpt_url_parse(SLICE("HTTPS://r.test/in/%20?a=b&c"), &u), 0);
    assert_slice_is(u.host, "r.test");
    assert_slice_is(u.path, "/in/%20?a=b&c");
    assert_int_equal(u.port, 443);
    assert_int_equal(tlsrpt_url_parse(SLICE("https://r.test:8443"), &u), 0);
    assert_int_equal(u.port, 8443);
    assert_int_equal(u.path.len, 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(tlsrpt_url_parse(slice_str(bad[i]), &u), -1);
}

/* A domain that wants reports and had nothing to report gives way to a new one; one that
 * had does not. */
static void test_room_for_new_domains(void **state)
{
    struct tlsrpt all;
    char name[32];
    (void)state;
    tlsrpt_init(&all);
    for (int i = 0; i < TLSRPT_DOMAINS_MAX + 500; i++) {
        snprintf(name, sizeof name, "d%d.test", i);
        struct tlsrpt_domain *d = tlsrpt_domain_get(&all, slice_str(name));
        assert_non_null(d);
        d->wanted = true;
        d->now.used = i < 50;
    }
    assert_true(all.domains.count <= TLSRPT_DOMAINS_MAX);
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "d%d.test", i);
        assert_non_null(map_get(&all.domains, slice_str(name)));
    }
    assert_null(map_get(&all.domains, SLICE("d50.test")));
    snprintf(name, sizeof name, "d%d.test", TLSRPT_DOMAINS_MAX + 499);
    assert_non_null(map_get(&all.domains, slice_str(name)));
    tlsrpt_free(&all);
}

/* An answer that comes after the report was dropped, because a whole period has passed, is
 * not about the next one. */
static void test_late_answer_about_a_report_that_was_dropped(void **state)
{
    const struct config config = {.smtp_tlsrpt_period = 86400};
    const struct ipc_tls_session m = {.domain = SLICE("a.test"), .result = TLS_RESULT_SUCCESS};
    struct tlsrpt all;
    struct err e;
    (void)state;
    tlsrpt_init(&all);
    all.config = &config;
    struct tlsrpt_domain *d = tlsrpt_domain_get(&all, m.domain);
    d->wanted = d->now.used = d->before.used = true;
    d->record.count = 2;
    d->tag = 7;
    all.outstanding = 1;
    assert_int_equal(tlsrpt_count(&all, &m, &e), 0); /* a new period */
    assert_int_equal(all.outstanding, 0);
    tlsrpt_taken(&all, &(struct ipc_tls_reported){.tag = 7, .taken = 1});
    assert_int_equal(d->place, 0);
    assert_true(d->before.used);
    assert_int_equal(all.outstanding, 0);
    tlsrpt_free(&all);
}

static void test_records_survive_a_restart(void **state)
{
    static const char text[] = "domain a.test t@r.test https://r.test/x\n"
                               "tlsa _25._tcp.mx.a.test. IN TLSA 3 1 1 AB\n"
                               "tlsa _25._tcp.my.a.test. IN TLSA 3 1 1 CD\n"
                               "host mx.a.test\nhost my.a.test\n"
                               "period now 7\npolicy 2 1 2\nfailure 6 2    none of it\n";
    struct tlsrpt all;
    struct buf out = BUF_INIT(STATE_MAX);
    (void)state;
    tlsrpt_init(&all);
    tlsrpt_read(&all, slice_str(text));
    tlsrpt_write(&all, &out);
    assert_slice_is(buf_slice(&out), text);
    buf_free(&out);
    tlsrpt_free(&all);
}

/* ---- HTTPS ------------------------------------------------------------------------------- */

enum { DOMAINS = 10000, AT_A_TIME = 50, GROWTH_MAX = 256 * 1024 };

static unsigned ended;

static void on_end(struct slice body, const char *why, enum https_end end, void *arg)
{
    (void)body, (void)why, (void)arg;
    assert_int_equal(end, HTTPS_FAILED);
    ended++;
}

static void fetch_many(struct https *h, struct event_base *base, unsigned from, unsigned count)
{
    for (unsigned i = from; i < from + count; i++) {
        char host[64];
        snprintf(host, sizeof host, "mta-sts.domain-number-%u.test", i);
        struct https_request r = {.host = host,
                                  .path = "/.well-known/mta-sts.txt",
                                  .addresses = "127.0.0.1",
                                  .port = 1, /* nobody listens there */
                                  .seconds = 20,
                                  .limit = 1000};
        assert_non_null(https_get(h, &r, on_end, NULL));
        while (i + 1 - ended >= AT_A_TIME)
            event_base_loop(base, EVLOOP_ONCE);
    }
    while (ended < from + count)
        event_base_loop(base, EVLOOP_ONCE);
}

/* Each domain's policy server is a name of its own: nothing of it may stay. */
static void test_ten_thousand_servers_leave_nothing(void **state)
{
    static struct event_base *base; /* both stay for as long as the process */
    static struct https *h;
    struct err e;
    (void)state;
    base = event_base_new();
    assert_int_equal(https_prepare(&e), 0);
    h = https_new(base, &e);
    assert_non_null(h);
    https_authorities(h, SLICE("no certificate, and none is needed\n"));
    fetch_many(h, base, 0, 200);
    size_t before = mallinfo2().uordblks;
    fetch_many(h, base, 200, DOMAINS);
    size_t after = mallinfo2().uordblks;
    assert_true(after < before + GROWTH_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places_of_a_record),
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_room_for_new_domains),
        cmocka_unit_test(test_late_answer_about_a_report_that_was_dropped),
        cmocka_unit_test(test_records_survive_a_restart),
        cmocka_unit_test(test_ten_thousand_servers_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
