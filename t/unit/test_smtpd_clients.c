/* libraries: smtpd_parts */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <sys/stat.h>

#include "core/clock.h"
#include "t/unit/smtpd_world.h"

static const struct slice v4 = {"\x7f\0\0\1", 4};
static const struct slice other = {"\x7f\0\0\2", 4};

static struct clients *clients_with(const char *settings)
{
    static struct clients c;
    struct err e = {0, ""};
    struct config *config = world_config(settings);
    if (clients_init(&c, config, &e) < 0)
        panic("%s", e.text);
    config_free(config);
    return &c;
}

/* The clients in a process's table. */
static unsigned known(const struct clients *c)
{
    unsigned n = 0;
    for (unsigned i = 0; i < CLIENT_COUNTS_SETS; i++)
        for (unsigned k = 0; k < CLIENT_COUNTS_WAYS; k++)
            n += c->table.own->sets[i].keys[k] != 0;
    return n;
}

static void test_connections_at_a_time(void **state)
{
    struct clients *c = clients_with("smtpd_client_connection_count_limit = 2\n");
    struct client_count *a, *b, *third, *elsewhere;
    (void)state;
    assert_int_equal(clients_connect(c, v4, 0, &a), CLIENT_OK);
    assert_int_equal(clients_connect(c, v4, 0, &b), CLIENT_OK);
    assert_int_equal(clients_connect(c, v4, 0, &third), CLIENT_TOO_MANY);
    assert_int_equal(clients_connect(c, other, 0, &elsewhere), CLIENT_OK);
    clients_disconnect(c, third);
    clients_disconnect(c, a);
    assert_int_equal(clients_connect(c, v4, 0, &a), CLIENT_OK);
    clients_disconnect(c, a);
    clients_disconnect(c, b);
    clients_disconnect(c, elsewhere);
    assert_int_equal(known(c), 0);
    clients_free(c);
}

static void test_an_ipv6_client_is_its_64(void **state)
{
    struct clients *c = clients_with("smtpd_client_connection_count_limit = 1\n");
    char first[16] = {0x20, 1, 0xd, (char)0xb8, 0, 0, 0, 1, 1}, same[16], next[16];
    struct client_count *a, *b, *d;
    (void)state;
    memcpy(same, first, sizeof same);
    memcpy(next, first, sizeof next);
    same[15] = 9;
    next[7] = 2;
    assert_int_equal(clients_connect(c, slice_make(first, 16), 0, &a), CLIENT_OK);
    assert_int_equal(clients_connect(c, slice_make(same, 16), 0, &b), CLIENT_TOO_MANY);
    assert_int_equal(clients_connect(c, slice_make(next, 16), 0, &d), CLIENT_OK);
    assert_ptr_equal(a, b);
    clients_free(c);
}

static void test_rates_hold_for_a_period(void **state)
{
    struct clients *c = clients_with("smtpd_client_connection_rate_limit = 2\n"
                                     "smtpd_client_message_rate_limit = 2\n"
                                     "smtpd_client_recipient_rate_limit = 3\n"
                                     "anvil_rate_time_unit = 60s\n");
    const int64_t later = 60 * CLOCK_SECOND;
    struct client_count *cl;
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(clients_connect(c, v4, 0, &cl), i < 2 ? CLIENT_OK : CLIENT_TOO_FAST);
        clients_disconnect(c, cl);
    }
    assert_int_equal(clients_connect(c, v4, later, &cl), CLIENT_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(clients_message(c, cl, later), i < 2);
        assert_int_equal(clients_recipient(c, cl, later), i < 3);
    }
    assert_true(clients_message(c, cl, 2 * later));
    clients_free(c);
}

/* An attacker with endless addresses cannot make the table grow, and who is not
 * counted is not refused. */
static void test_the_table_is_bounded(void **state)
{
    enum { MANY = 2 * CLIENT_COUNTS_SETS * CLIENT_COUNTS_WAYS };
    struct clients *c = clients_with("smtpd_client_connection_count_limit = 1\n");
    struct client_count *cl;
    unsigned uncounted = 0;
    (void)state;
    for (uint32_t i = 0; i < MANY; i++) {
        assert_int_equal(clients_connect(c, slice_make(&i, 4), 0, &cl), CLIENT_OK);
        uncounted += cl == NULL;
        assert_true(clients_message(c, cl, 0) && clients_recipient(c, cl, 0));
        if (!cl)
            clients_disconnect(c, cl);
    }
    assert_int_equal(known(c) + uncounted, MANY);
    assert_true(known(c) <= CLIENT_COUNTS_SETS * CLIENT_COUNTS_WAYS);
    clients_free(c);
}

/* Finds a client whose set is that of `with`. */
static struct slice same_set(const struct clients *c, struct slice with, uint32_t *at)
{
    unsigned place = client_counts_place(&c->table, client_counts_key(with));
    do
        (*at)++;
    while (client_counts_place(&c->table, client_counts_key(slice_make(at, 4))) != place);
    return slice_make(at, 4);
}

static void test_who_did_least_gives_way(void **state)
{
    struct clients *c = clients_with("smtpd_client_message_rate_limit = 2\n"
                                     "anvil_rate_time_unit = 10s\n");
    struct client_count *busy, *cl;
    uint32_t at = 0;
    (void)state;
    clients_connect(c, v4, 0, &busy);
    for (int i = 0; i < 3; i++)
        clients_message(c, busy, 0);
    clients_disconnect(c, busy);
    for (int i = 0; i < 3 * CLIENT_COUNTS_WAYS; i++) {
        clients_connect(c, same_set(c, v4, &at), 1, &cl);
        assert_non_null(cl);
        clients_disconnect(c, cl);
    }
    assert_int_equal(known(c), CLIENT_COUNTS_WAYS);
    clients_connect(c, v4, 2, &cl);
    assert_ptr_equal(cl, busy);
    assert_false(clients_message(c, cl, 2));
    clients_disconnect(c, cl);
    /* when its period is over it goes like the others */
    for (int i = 0; i < CLIENT_COUNTS_WAYS; i++)
        clients_connect(c, same_set(c, v4, &at), 11 * CLOCK_SECOND, &cl);
    assert_non_null(cl);
    clients_connect(c, v4, 11 * CLOCK_SECOND, &cl);
    assert_null(cl); /* all of the set are connected */
    clients_free(c);
}

/* ---- several processes ------------------------------------------------------------ */

struct pair {
    int fd;
    struct clients a, b;
};

static void pair_open(struct pair *p, const char *settings)
{
    struct err e = {0, ""};
    struct config *config = world_config(settings);
    p->fd = client_counts_make(&e);
    assert_true(p->fd >= 0);
    for (unsigned i = 0; i < 2; i++) {
        struct clients *c = i ? &p->b : &p->a;
        assert_int_equal(clients_init(c, config, &e), 0);
        assert_int_equal(client_counts_set(p->fd, 7 * i, true, &e), 0);
        assert_int_equal(clients_share(c, p->fd, 7 * i, &e), 0);
    }
    config_free(config);
}

static void pair_close(struct pair *p)
{
    clients_free(&p->a);
    clients_free(&p->b);
    close(p->fd);
}

static void test_limits_hold_over_processes(void **state)
{
    struct pair p;
    struct client_count *a, *b, *cl;
    (void)state;
    pair_open(&p, "smtpd_client_connection_count_limit = 3\n"
                  "smtpd_client_message_rate_limit = 3\n"
                  "smtpd_client_recipient_rate_limit = 2\n"
                  "anvil_rate_time_unit = 60s\n");
    assert_int_equal(clients_connect(&p.a, v4, 0, &a), CLIENT_OK);
    assert_int_equal(clients_connect(&p.b, v4, 0, &b), CLIENT_OK);
    assert_int_equal(clients_connect(&p.a, v4, 0, &cl), CLIENT_OK);
    assert_int_equal(clients_connect(&p.b, v4, 0, &cl), CLIENT_TOO_MANY);
    assert_int_equal(clients_count(&p.b, cl, CLIENT_TOO_MANY, 0), 4);
    assert_int_equal(clients_connect(&p.b, other, 0, &cl), CLIENT_OK);
    assert_true(clients_message(&p.a, a, 0) && clients_message(&p.b, b, 0));
    assert_true(clients_message(&p.a, a, 0));
    assert_false(clients_message(&p.b, b, 0));
    assert_true(clients_recipient(&p.a, a, 0) && clients_recipient(&p.b, b, 0));
    assert_false(clients_recipient(&p.a, a, 0));
    assert_true(clients_message(&p.a, a, 60 * CLOCK_SECOND));
    pair_close(&p);
}

static void test_a_dead_process_leaves_nothing(void **state)
{
    struct pair p;
    struct client_count *cl;
    struct err e;
    (void)state;
    pair_open(&p, "smtpd_client_connection_count_limit = 2\n");
    clients_connect(&p.a, v4, 0, &cl);
    clients_connect(&p.a, v4, 0, &cl);
    assert_int_equal(clients_connect(&p.b, v4, 0, &cl), CLIENT_TOO_MANY);
    clients_disconnect(&p.b, cl);
    assert_int_equal(client_counts_set(p.fd, 0, false, &e), 0);
    assert_int_equal(known(&p.a), 0);
    assert_int_equal(clients_connect(&p.b, v4, 0, &cl), CLIENT_OK);
    pair_close(&p);
}

/* Whatever a process that was taken over writes, into its own region and into
 * ours, counts may be wrong but nothing else is. */
static void test_lies_harm_counts_only(void **state)
{
    struct pair p;
    struct client_count *cl;
    uint32_t at = 0;
    (void)state;
    pair_open(&p, "smtpd_client_connection_count_limit = 3\n"
                  "smtpd_client_connection_rate_limit = 5\n"
                  "smtpd_client_message_rate_limit = 3\n");
    for (unsigned char fill = 0;; fill = (unsigned char)(fill + 85)) {
        clients_connect(&p.a, v4, 0, &cl);
        memset(p.a.table.own, fill, sizeof *p.a.table.own);
        memset(p.b.table.own, fill, sizeof *p.b.table.own);
        (void)clients_message(&p.a, cl, 1);
        (void)clients_count(&p.a, cl ? cl : p.a.table.own->sets[0].counts, CLIENT_TOO_MANY, 1);
        clients_disconnect(&p.a, cl);
        for (int i = 0; i < 20; i++) {
            clients_connect(&p.a, same_set(&p.a, v4, &at), 2, &cl);
            clients_disconnect(&p.a, cl);
        }
        if (fill == 255)
            break;
    }
    pair_close(&p);
}

static void test_other_tables_are_refused(void **state)
{
    struct err e;
    struct client_counts t;
    int good = client_counts_make(&e), unsealed = memfd_create("x", MFD_ALLOW_SEALING);
    struct stat st;
    (void)state;
    assert_true(good >= 0 && unsealed >= 0);
    assert_int_equal(fstat(good, &st), 0);
    assert_int_equal(ftruncate(good, st.st_size - 1), -1);
    assert_int_equal(client_counts_map(&t, good, CLIENT_COUNTS_REGIONS, &e), -1);
    assert_int_equal(client_counts_map(&t, unsealed, 0, &e), -1);
    assert_int_equal(ftruncate(unsealed, st.st_size), 0);
    assert_int_equal(client_counts_map(&t, unsealed, 0, &e), -1);
    assert_int_equal(client_counts_map(&t, good, 0, &e), 0);
    client_counts_unmap(&t);
    close(good);
    close(unsealed);
}

static void test_addresses_have_keys_of_their_own(void **state)
{
    static const char *const addresses[] = {"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1",
                                            "\0\0\0\0\x7f\0\0\1\0\0\0\0\0\0\0\0",
                                            "\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\1"};
    uint64_t seen[5];
    (void)state;
    for (size_t i = 0; i < 3; i++)
        seen[i] = client_counts_key(slice_make(addresses[i], 16));
    seen[3] = client_counts_key(v4);
    seen[4] = client_counts_key(slice_make("\0\0\0\0", 4));
    for (size_t i = 0; i < 5; i++) {
        assert_true(seen[i] != 0);
        for (size_t k = 0; k < i; k++)
            assert_true(seen[i] != seen[k]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connections_at_a_time),
        cmocka_unit_test(test_an_ipv6_client_is_its_64),
        cmocka_unit_test(test_rates_hold_for_a_period),
        cmocka_unit_test(test_the_table_is_bounded),
        cmocka_unit_test(test_who_did_least_gives_way),
        cmocka_unit_test(test_limits_hold_over_processes),
        cmocka_unit_test(test_a_dead_process_leaves_nothing),
        cmocka_unit_test(test_lies_harm_counts_only),
        cmocka_unit_test(test_other_tables_are_refused),
        cmocka_unit_test(test_addresses_have_keys_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
