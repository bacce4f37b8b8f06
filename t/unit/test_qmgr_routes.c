/* libraries: qmgr_parts */
/*
 * What becomes of routes when resolve answers (sites_resolve.c): domains whose addresses have
 * routes of their own, a table that is full, answers that are wrong.
 */
#include "qmgr/sites.h"
#include "qmgr_rig.h"

enum { LONG = 100000 };

static int resolve; /* our end; the rig does not answer by itself */

static int start(void **state)
{
    (void)state;
    int rc = rig_start("default { start_rate = \"1000000/s\" }\n");
    resolve = rig->resolve;
    rig->resolve = rig->smtpd;
    return rc;
}

/* The next question; its tag. */
static uint64_t asked(const char *recipient)
{
    static char packet[1 << 16];
    struct ipc_resolve_request ask;
    struct ipc_frame f;
    ssize_t n = recv(resolve, packet, sizeof packet, MSG_DONTWAIT);
    assert_true(n > 0);
    struct slice rest = slice_make(packet, (size_t)n);
    assert_int_equal(ipc_frame_next(&rest, &f), 1);
    assert_int_equal(f.number, IPC_NUMBER_ipc_resolve_request);
    assert_int_equal(ipc_resolve_request_decode(f.body, &ask), 0);
    assert_true(slice_eq(ask.recipient, slice_str(recipient)));
    assert_int_equal(rest.len, 0);
    return ask.tag;
}

/* It is at mx.test; for the address alone that was asked about. tls: so many bytes of rules. */
static void answer(uint64_t tag, size_t tls)
{
    static const char rules[TLS_RULES_BYTES + 1], address[] = {127, 0, 0, 1};
    struct buf frame = BUF_INIT(IPC_FRAME_MAX), targets = BUF_INIT(1024);
    struct slice host = SLICE("mx.test");
    ipc_target_add(&targets, &(struct ipc_target){.host = host,
                                                  .address = slice_make(address, sizeof address),
                                                  .port = 25});
    ipc_resolve_reply_encode(&frame, &(struct ipc_resolve_reply){.tag = tag,
                                                                 .status = RESOLVE_OK,
                                                                 .scope = 1,
                                                                 .ttl = LONG,
                                                                 .nexthop = host,
                                                                 .site = host,
                                                                 .tls = slice_make(rules, tls),
                                                                 .targets = buf_slice(&targets)});
    send_frame(resolve, &frame);
    buf_free(&targets);
    turns();
}

static struct route *known(const char *key)
{
    return map_get(&rig->q.sites.routes, slice_str(key));
}

/* The domain was asked for before all others, and nothing waits for its own entry when the answer
 * says that its addresses differ: it is the first to go where room is needed for an address. */
static void test_a_full_table_and_a_domain_whose_addresses_differ(void **state)
{
    (void)state;
    commit("a@d.test", "");
    uint64_t tag = asked("a@d.test");
    for (unsigned i = 0; rig->q.sites.routes.count < ROUTES_MAX; i++) {
        char name[32];
        int n = snprintf(name, sizeof name, "x%u.test", i);
        (void)route_get(&rig->q, slice_make(name, (size_t)n), slice_make(name, (size_t)n));
    }
    answer(tag, 0);
    assert_non_null(known("d.test"));
    assert_true(known("d.test")->by_address);
    assert_non_null(known("a@d.test"));
    assert_int_equal(rig->job_count, 1);
    taken(0);
    commit("a@d.test", "");
    assert_int_equal(rig->job_count, 1); /* nothing is asked again */
    taken(0);
    commit("b@d.test", "");
    answer(asked("b@d.test"), 0);
    assert_int_equal(rig->job_count, 1);
    taken(0);
}

/* What is known of the address stays good until there is an answer that makes sense. */
static void test_a_wrong_answer_changes_nothing(void **state)
{
    (void)state;
    commit("a@d.test", "");
    answer(asked("a@d.test"), 0);
    taken(0);
    known("d.test")->expires = 0;
    sites_sweep(&rig->q);
    assert_null(known("d.test"));
    commit("a@d.test", "");
    answer(asked("a@d.test"), TLS_RULES_BYTES + 1);
    assert_null(rig->q.sites.peer.channel); /* it is not believed any more */
    assert_int_equal(known("a@d.test")->state, ROUTE_READY);
    assert_non_null(known("a@d.test")->site);
    assert_int_equal(rig->job_count, 0);
    close(resolve);
    resolve = attach(give_resolve);
    turns();
    answer(asked("a@d.test"), 0);
    assert_int_equal(rig->job_count, 1);
    taken(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_a_full_table_and_a_domain_whose_addresses_differ, start),
        cmocka_unit_test_setup(test_a_wrong_answer_changes_nothing, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
