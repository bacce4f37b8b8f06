/* libraries: postern_rules postern_core */
/* etc/providers.conf: each known fact, and what replies mean. */
#include "rules_world.h"

static unsigned findings;

static struct rules *shipped(void)
{
    struct err e = {0, ""};
    struct rules *r = rules_load("etc/providers.conf", read_disk, NULL, &e);
    if (!r)
        print_error("%s\n", e.text);
    assert_non_null(r);
    return r;
}

static void say(const char *text, bool error, void *arg)
{
    (void)arg;
    findings++;
    print_error("%s: %s\n", error ? "error" : "warning", text);
}

static void test_shipped_samples_match_and_nothing_contradicts(void **state)
{
    struct rules *r = shipped();
    (void)state;
    findings = 0;
    assert_int_equal(rules_check(r, say, NULL), 0);
    assert_int_equal(findings, 0);
    assert_true(rules_count(r) >= 25 && rules_providers(r) >= 15);
    rules_free(r);
}

static void test_shipped_dimensions(void **state)
{
    static const struct {
        enum rules_stage stage;
        const char *line, *rule;
    } cases[] = {
        {RULES_GREETING, "421 4.7.0 mx Error: too many connections from 192.0.2.1", "connections"},
        {RULES_MAIL, "421 Too many messages in the session. Reconnect.", "messages-per-connection"},
        {RULES_RCPT, "450 4.7.1 <a@b>: Recipient address rejected: rate limit reached", "rate"},
        {RULES_RCPT, "450 4.2.0 <a@b>: Recipient address rejected: Greylisted", "greylisted"},
        {RULES_MAIL, "554 5.7.1 Service unavailable; client host [192.0.2.1] blocked",
         "source-blocked"},
        {RULES_DOT, "550 5.7.1 [192.0.2.1] This message looks unsolicited and has been blocked.",
         NULL},
        {RULES_RCPT, "550 5.1.1 User unknown", NULL},
        {RULES_RCPT, "452 4.2.2 Mailbox is over its storage quota", NULL},
        {RULES_DOT, "451 4.3.0 Error: queue file write error", NULL},
        {RULES_MAIL, "421 Service refuse pour 192.0.2.1. Service refused, please try later.",
         "cool-off"},
    };
    struct rules *r = shipped();
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct rule *rule = match(r, cases[i].stage, 0, cases[i].line);
        const char *name = rule ? rule->name : NULL;
        if (name ? !cases[i].rule || strcmp(name, cases[i].rule) != 0 : cases[i].rule != NULL)
            fail_msg("%s: rule %s, not %s", cases[i].line, name ? name : "none",
                     cases[i].rule ? cases[i].rule : "none");
    }
    rules_free(r);
}

static void test_shipped_providers_are_recognised(void **state)
{
    static const struct {
        const char *host, *provider;
        uint32_t connections, messages;
    } cases[] = {
        {"gmail-smtp-in.l.google.com", "gmail", 5, 50},
        {"mta5.am0.yahoodns.net", "yahoo", 0, 20},
        {"example-com.mail.protection.outlook.com", "microsoft365", 500, 50},
        {"mx01.mail.icloud.com", "apple", 10, 5},
        {"smtp-in.orange.fr", "orange", 2, 100},
        {"mx00.emig.GMX.net", "gmx", 4, 20},
        {"mx.google.com.example.org", NULL, 0, 100},
        {"evilgoogle.com", NULL, 0, 100},
    };
    struct rules *r = shipped();
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct slice host = slice_str(cases[i].host);
        struct rules_place place;
        struct rules_limits limits;
        rules_place(r, &host, 1, SLICE("example.com"), &place);
        if (cases[i].provider)
            assert_string_equal(place.provider, cases[i].provider);
        else
            assert_null(place.provider);
        rules_limits(r, &place, SLICE(""), &limits);
        assert_int_equal(limits.connections, cases[i].connections);
        assert_int_equal(limits.messages_per_connection, cases[i].messages);
    }
    rules_free(r);
}

/* What is publicly known of providers, fact by fact: what a reply means there. */
static const struct {
    const char *provider; /* "": any */
    enum rules_stage stage;
    const char *line;
    enum rules_action action;
    enum rules_dimension dimension;
    enum rules_scope scope;
    enum rules_outcome outcome;
    int64_t least, most; /* minutes of a suspension, or until it is tried again */
} replies[] = {
#define SLOWS RULES_SLOW, RULES_RATE
#define NOTES RULES_NOTE, RULES_NO_DIMENSION
#define WAITS RULES_SUSPEND, RULES_NO_DIMENSION
#define MOVES RULES_SWITCH, RULES_NO_DIMENSION
    {"gmail", RULES_MAIL, "421 4.7.28 unusual rate of mail from your IP address", SLOWS,
     RULES_OF_SOURCE, RULES_RETRY, 0, 0},
    {"gmail", RULES_MAIL, "421 4.7.28 unusual rate from your IP Netblock", SLOWS, RULES_OF_PROVIDER,
     RULES_RETRY, 0, 0},
    {"gmail", RULES_DOT, "421 4.7.28 unusual rate from your DKIM domain [a.example]", SLOWS,
     RULES_OF_DKIM, RULES_RETRY, 0, 0},
    {"gmail", RULES_DOT, "421 4.7.28 unusual rate from your SPF domain [a.example]", SLOWS,
     RULES_OF_DKIM, RULES_RETRY, 0, 0},
    {"gmail", RULES_DOT, "421 4.7.28 containing one of your URL domains", SLOWS, RULES_OF_DKIM,
     RULES_RETRY, 0, 0},
    {"gmail", RULES_DOT, "421 4.7.28 mail with the same Message-ID header", SLOWS, RULES_OF_ACCOUNT,
     RULES_RETRY, 0, 0},
    {"gmail", RULES_DOT, "421 4.7.26 unauthenticated", NOTES, RULES_OF_SOURCE, RULES_AS_REPLIED, 0,
     0},
    {"gmail", RULES_DOT, "550 5.7.27 SPF", NOTES, RULES_OF_SOURCE, RULES_AS_REPLIED, 0, 0},
    {"gmail", RULES_DOT, "550 5.7.30 DKIM", NOTES, RULES_OF_SOURCE, RULES_AS_REPLIED, 0, 0},
    {"gmail", RULES_DOT, "421 4.7.32 From: alignment", NOTES, RULES_OF_SOURCE, RULES_AS_REPLIED, 0,
     0},
    {"gmail", RULES_RCPT, "450 4.2.1 The user is receiving mail too quickly", NOTES,
     RULES_OF_RECIPIENT, RULES_RETRY, 5, 15},
    {"gmail", RULES_RCPT, "550 5.2.1 receiving mail at a rate. ReceivingRatePerm", NOTES,
     RULES_OF_RECIPIENT, RULES_RETRY, 5, 15},
    {"gmail", RULES_RCPT, "552 5.2.2 out of storage space. OverQuotaPerm", NOTES,
     RULES_OF_RECIPIENT, RULES_FAIL, 0, 0},
    {"yahoo", RULES_MAIL, "421 4.7.0 [TS02] Messages temporarily deferred", SLOWS, RULES_OF_SOURCE,
     RULES_RETRY, 0, 0},
    {"yahoo", RULES_MAIL, "421 4.7.1 [TS03] All messages deferred", SLOWS, RULES_OF_SOURCE,
     RULES_RETRY, 0, 0},
    {"yahoo", RULES_MAIL, "421 4.7.0 [TSS04] user complaints", WAITS, RULES_OF_SOURCE, RULES_RETRY,
     60, 300},
    {"yahoo", RULES_MAIL, "421 4.7.0 [TSS05] deferred", WAITS, RULES_OF_SOURCE, RULES_RETRY, 301,
     1440},
    {"yahoo", RULES_MAIL, "421 4.7.1 [TSS09] permanently deferred", MOVES, RULES_OF_SOURCE,
     RULES_RETRY, 1440, 1440},
    {"yahoo", RULES_MAIL, "421 4.7.1 [TSS11] permanently deferred", MOVES, RULES_OF_SOURCE,
     RULES_RETRY, 1440, 1440},
    {"yahoo", RULES_GREETING, "553 5.7.1 [BL21] Connections not accepted", MOVES, RULES_OF_SOURCE,
     RULES_RETRY, 60, 1440},
    {"yahoo", RULES_RCPT, "552 1 Requested mail action aborted, mailbox not found", NOTES,
     RULES_OF_RECIPIENT, RULES_FAIL, 0, 0},
    {"outlook", RULES_MAIL, "451 4.7.500 Server busy", SLOWS, RULES_OF_SOURCE, RULES_RETRY, 0, 0},
    {"microsoft365", RULES_MAIL, "451 4.7.699 later", SLOWS, RULES_OF_SOURCE, RULES_RETRY, 0, 0},
    {"outlook", RULES_MAIL, "451 4.7.650 rate limited due to IP reputation", SLOWS, RULES_OF_SOURCE,
     RULES_RETRY, 0, 0},
    {"outlook", RULES_MAIL, "451 4.7.899 busy", WAITS, RULES_OF_SOURCE, RULES_AS_REPLIED, 1, 15},
    {"microsoft365", RULES_MAIL, "451 4.7.850 busy", WAITS, RULES_OF_SOURCE, RULES_RETRY, 1, 15},
    {"outlook", RULES_MAIL, "550 5.7.606 Access denied, banned sending IP", MOVES, RULES_OF_SOURCE,
     RULES_RETRY, 60, 1440},
    {"microsoft365", RULES_MAIL, "550 5.7.649 Access denied", MOVES, RULES_OF_SOURCE, RULES_RETRY,
     60, 1440},
    {"outlook", RULES_MAIL, "451 4.7.652 has exceeded the maximum number of connections",
     RULES_SLOW, RULES_CONCURRENCY, RULES_OF_SOURCE, RULES_RETRY, 0, 0},
    {"microsoft365", RULES_MAIL,
     "451 4.7.652 has exceeded the maximum number of messages per connection", RULES_SLOW,
     RULES_MESSAGES, RULES_OF_SOURCE, RULES_RETRY, 0, 0},
    {"outlook", RULES_DOT, "550 5.7.515 authentication level", NOTES, RULES_OF_SOURCE,
     RULES_AS_REPLIED, 0, 0},
    {"microsoft365", RULES_DOT, "550 5.7.509 DMARC", NOTES, RULES_OF_SOURCE, RULES_AS_REPLIED, 0,
     0},
    {"microsoft365", RULES_RCPT, "550 5.4.1 Recipient address rejected: Access denied.", NOTES,
     RULES_OF_RECIPIENT, RULES_FAIL, 0, 0},
    {"comcast", RULES_GREETING, "421 4.1.0 Throttled. RL000001", RULES_SLOW, RULES_CONNECTION_RATE,
     RULES_OF_SOURCE, RULES_RETRY, 0, 0},
    {"comcast", RULES_MAIL, "421 4.1.0 Throttled. RL000010", SLOWS, RULES_OF_DKIM, RULES_RETRY, 0,
     0},
    {"orange", RULES_GREETING, "421 Trop de connexions OFR_104", RULES_SLOW, RULES_CONCURRENCY,
     RULES_OF_SOURCE, RULES_AS_REPLIED, 0, 0},
    {"orange", RULES_RCPT, "552 5.1.1 Boite pleine OFR_417", NOTES, RULES_OF_RECIPIENT, RULES_RETRY,
     0, 0},
    {"orange", RULES_MAIL, "550 Service refuse. Veuillez essayer plus tard.", SLOWS,
     RULES_OF_SOURCE, RULES_RETRY, 0, 0},
    {"gmx", RULES_GREETING, "421 gmx.net Reject due to policy restrictions", WAITS, RULES_OF_SOURCE,
     RULES_AS_REPLIED, 1, 60},
    {"gmx", RULES_GREETING, "421 gmx.net Too many connections", RULES_SLOW, RULES_CONCURRENCY,
     RULES_OF_SOURCE, RULES_RETRY, 0, 0},
    {"apple", RULES_DOT, "421 4.7.0 [HCM1] deferred", WAITS, RULES_OF_SOURCE, RULES_AS_REPLIED, 1,
     30},
    {"apple", RULES_MAIL, "421 4.7.0 [BS02] deferred", WAITS, RULES_OF_SOURCE, RULES_AS_REPLIED, 1,
     30},
    {"mail.ru", RULES_RCPT, "451 later", NOTES, RULES_OF_RECIPIENT, RULES_RETRY, 5, 15},
    {"yandex", RULES_DOT, "451 4.7.1 come back", NOTES, RULES_OF_RECIPIENT, RULES_RETRY, 5, 15},
    {"", RULES_MAIL, "421 4.7.0 Messages temporarily deferred", SLOWS, RULES_OF_SOURCE, RULES_RETRY,
     0, 0},
    {"", RULES_MAIL, "451 rate limited due to IP reputation", SLOWS, RULES_OF_SOURCE, RULES_RETRY,
     0, 0},
    {"", RULES_MAIL, "451 4.3.2 server busy", WAITS, RULES_OF_SOURCE, RULES_RETRY, 1, 15},
    {"", RULES_RCPT, "552 Too many recipients", NOTES, RULES_OF_RECIPIENT, RULES_RETRY, 0, 5},
    {"", RULES_RCPT, "550 5.5.3 no more", NOTES, RULES_OF_RECIPIENT, RULES_RETRY, 0, 5},
    {"", RULES_GREETING, "554 mx.example.com", MOVES, RULES_OF_SOURCE, RULES_RETRY, 1, 60},
    {"", RULES_CONNECT, "521 go away", MOVES, RULES_OF_SOURCE, RULES_RETRY, 1, 60},
    {"", RULES_RCPT, "550 5.7.1 listed at zen.spamhaus.org", WAITS, RULES_OF_SOURCE, RULES_RETRY, 1,
     60},
    {"", RULES_RCPT, "450 4.1.1 User unknown", NOTES, RULES_OF_RECIPIENT, RULES_FAIL, 0, 0},
};

static void test_each_known_reply_gets_its_action(void **state)
{
    struct rules *r = shipped();
    (void)state;
    for (size_t i = 0; i < sizeof replies / sizeof replies[0]; i++) {
        unsigned provider = *replies[i].provider ? rules_provider_index(r, replies[i].provider) : 0;
        assert_true(provider > 0 || !*replies[i].provider);
        const struct rule *rule = match(r, replies[i].stage, provider, replies[i].line);
        if (!rule)
            fail_msg("%s: %s: no rule", replies[i].provider, replies[i].line);
        int64_t minutes = (rule->time > 0 ? rule->time : rule->retry_after) / (60 * CLOCK_SECOND);
        if (rule->action != replies[i].action || rule->dimension != replies[i].dimension ||
            rule->scope != replies[i].scope || rule->outcome != replies[i].outcome ||
            (replies[i].most && (minutes < replies[i].least || minutes > replies[i].most)))
            fail_msg("%s: %s: rule %s means something else (%lld minutes)", replies[i].provider,
                     replies[i].line, rule->name, (long long)minutes);
    }
    const struct rule *unknown = match(r, RULES_RCPT, 0, "450 4.1.1 User unknown");
    assert_true(unknown->after > 1); /* when it is repeated */
    rules_free(r);
}

/* The same, for limits. */
static void test_each_known_limit_is_there(void **state)
{
    static const struct {
        const char *host;
        uint32_t total, connections, start, messages;
        unsigned seconds; /* idle */
        enum rules_tls tls;
        double rate, connection_rate;
    } facts[] = {
        {"mx.example.com", 0, 0, 5, 100, 60, RULES_TLS_UNSET, 100, 100.0 / 60},
        {"aspmx.l.google.com", 5, 5, 5, 50, 60, RULES_TLS_ENCRYPT, 100, 100.0 / 60},
        {"mx.googlemail.com", 5, 5, 5, 50, 60, RULES_TLS_ENCRYPT, 100, 100.0 / 60},
        {"mta7.am0.yahoodns.net", 0, 0, 5, 20, 60, RULES_TLS_UNSET, 100, 100.0 / 60},
        {"a.olc.protection.outlook.com", 0, 500, 5, 50, 60, RULES_TLS_UNSET, 100, 100.0 / 60},
        {"a.mail.protection.outlook.com", 0, 500, 5, 50, 60, RULES_TLS_UNSET, 100, 100.0 / 60},
        {"a.p-v1.mx.microsoft", 0, 500, 5, 50, 60, RULES_TLS_UNSET, 100, 100.0 / 60},
        {"mx01.mail.icloud.com", 0, 10, 5, 5, 60, RULES_TLS_UNSET, 100, 100.0 / 60},
        {"mx1.comcast.net", 0, 25, 5, 1000, 30, RULES_TLS_ENCRYPT, 100, 100.0 / 60},
        {"smtp-in.orange.fr", 0, 2, 2, 100, 60, RULES_TLS_ENCRYPT, 100, 100.0 / 60},
        {"mx00.emig.gmx.net", 0, 4, 4, 20, 60, RULES_TLS_ENCRYPT, 100, 100.0 / 60},
        {"mx-ha02.web.de", 0, 4, 4, 20, 60, RULES_TLS_ENCRYPT, 100, 100.0 / 60},
        {"mx00.mail.com", 0, 0, 5, 100, 60, RULES_TLS_UNSET, 100, 100.0 / 60},
        {"eu-smtp-inbound-1.mimecast.com", 0, 10, 5, 100, 60, RULES_TLS_UNSET, 100, 100.0 / 60},
        {"mx.kpnmail.nl", 0, 10, 5, 10, 60, RULES_TLS_UNSET, 100, 100.0 / 60},
        {"mx1.qq.com", 0, 4, 4, 8, 60, RULES_TLS_UNSET, 100, 100.0 / 60},
        {"163mx01.mxmail.netease.com", 0, 4, 4, 7, 60, RULES_TLS_UNSET, 100, 100.0 / 60},
        {"mx1.mail.yahoo.co.jp", 0, 2, 2, 20, 60, RULES_TLS_UNSET, 10, 100.0 / 60},
        {"mxs.mail.ru", 0, 20, 10, 100, 60, RULES_TLS_UNSET, 100, 100.0 / 60},
        {"mx.yandex.net", 0, 20, 10, 100, 60, RULES_TLS_UNSET, 100, 100.0 / 60},
    };
    struct rules *r = shipped();
    (void)state;
    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++) {
        struct slice host = slice_str(facts[i].host);
        struct rules_place place;
        struct rules_limits l;
        rules_place(r, &host, 1, SLICE("example.com"), &place);
        rules_limits(r, &place, SLICE(""), &l);
        print_message("%s\n", facts[i].host);
        assert_int_equal(l.total_connections, facts[i].total);
        assert_int_equal(l.connections, facts[i].connections);
        assert_int_equal(l.start_connections, facts[i].start);
        assert_int_equal(l.messages_per_connection, facts[i].messages);
        assert_int_equal(l.idle_time, facts[i].seconds * CLOCK_SECOND);
        assert_int_equal(l.tls, facts[i].tls);
        assert_true(l.message_rate >= facts[i].rate - 0.01 &&
                    l.message_rate <= facts[i].rate + 0.01);
        assert_true(l.connection_rate >= facts[i].connection_rate - 0.01 &&
                    l.connection_rate <= facts[i].connection_rate + 0.01);
    }
    rules_free(r);
}

/* A source that is cold. */
static void test_known_limits_of_cold_sources(void **state)
{
    struct rules *r = shipped();
    struct slice host = SLICE("mta7.am0.yahoodns.net"), other = SLICE("mx.example.com");
    struct rules_place place;
    struct rules_limits l;
    (void)state;
    rules_place(r, &host, 1, SLICE("example.com"), &place);
    rules_limits(r, &place, SLICE(""), &l);
    assert_true(l.cold_message_rate > 99.0 / 3600 && l.cold_message_rate < 101.0 / 3600);
    rules_place(r, &other, 1, SLICE("example.com"), &place);
    rules_limits(r, &place, SLICE(""), &l);
    assert_true(l.cold_message_rate <= 0);
    rules_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shipped_samples_match_and_nothing_contradicts),
        cmocka_unit_test(test_shipped_dimensions),
        cmocka_unit_test(test_shipped_providers_are_recognised),
        cmocka_unit_test(test_each_known_reply_gets_its_action),
        cmocka_unit_test(test_each_known_limit_is_there),
        cmocka_unit_test(test_known_limits_of_cold_sources),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
