/* libraries: postern_rules postern_core */
#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/mem.h"
#include "rules/rules.h"
#include "unit.h"

/* ---- files in memory ----------------------------------------------------------- */

struct file {
    const char *name, *text;
};

static int read_from(const char *name, struct buf *text, void *arg, struct err *e)
{
    for (const struct file *f = arg; f->name; f++)
        if (strcmp(f->name, name) == 0)
            return buf_addstr(text, f->text);
    return err_set(e, "%s: no such file", name);
}

static struct rules *load(const char *text)
{
    struct file files[] = {{"a.conf", text}, {NULL, NULL}};
    struct err e = {0, ""};
    struct rules *r = rules_load("a.conf", read_from, files, &e);
    if (!r)
        print_error("%s\n", e.text);
    assert_non_null(r);
    return r;
}

static void refused(const char *text, const char *words)
{
    struct file files[] = {{"a.conf", text}, {NULL, NULL}};
    struct err e = {0, ""};
    struct rules *r = rules_load("a.conf", read_from, files, &e);
    if (r)
        fail_msg("taken: %s", text);
    if (!strstr(e.text, words))
        print_error("\"%s\" is not in: %s\n", words, e.text);
    assert_non_null(strstr(e.text, words));
}

static const struct rule *match(struct rules *r, enum rules_stage stage, unsigned provider,
                                const char *line)
{
    struct rules_reply reply = {.stage = stage, .provider = provider};
    assert_int_equal(rules_parse_reply(slice_str(line), &reply), 0);
    return rules_match(r, &reply);
}

static unsigned findings;
static char last_finding[2000];

static void count(const char *text, bool error, void *arg)
{
    (void)arg;
    findings++;
    snprintf(last_finding, sizeof last_finding, "%s%s", error ? "error: " : "warning: ", text);
}

/* ---- the file that is shipped --------------------------------------------------- */

static int read_disk(const char *name, struct buf *text, void *arg, struct err *e)
{
    char piece[4096];
    size_t n;
    FILE *f = fopen(name, "r");
    (void)arg;
    if (!f)
        return err_sys(e, "%s", name);
    while ((n = fread(piece, 1, sizeof piece, f)) > 0)
        buf_add(text, piece, n);
    fclose(f);
    return 0;
}

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

/* ---- limits -------------------------------------------------------------------------- */

static void test_limits_are_inherited(void **state)
{
    struct rules *r = load("default { connections = 20 message_rate = \"600/min\" tls = \"may\"\n"
                           "  source \"192.0.2.1\" { connections = 19 } }\n"
                           "provider p { mx = {\".p.test\"} connections = 10 idle_time = \"30s\"\n"
                           "  source \"192.0.2.1\" { daily_cap = 1000 cold_daily_cap = 100 } }\n"
                           "site \"mx1.p.test\" { messages_per_connection = 7 }\n"
                           "domain \"d.test\" { connections = 2 message_rate = \"36000/h\" }\n");
    struct slice hosts[] = {SLICE("MX1.p.test"), SLICE("mx.other.test")};
    struct rules_place place;
    struct rules_limits l;
    (void)state;
    rules_place(r, hosts, 2, SLICE("d.test"), &place);
    assert_string_equal(place.provider, "p");
    assert_string_equal(place.site, "mx1.p.test");
    assert_string_equal(place.domain, "d.test");
    rules_limits(r, &place, SLICE("192.0.2.1"), &l);
    assert_int_equal(l.connections, 2);
    assert_int_equal(l.messages_per_connection, 7);
    assert_int_equal(l.daily_cap, 1000);
    assert_int_equal(l.cold_daily_cap, 100);
    assert_int_equal(l.idle_time, 30 * CLOCK_SECOND);
    assert_int_equal(l.tls, RULES_TLS_MAY);
    assert_true(l.message_rate > 9.99 && l.message_rate < 10.01);
    rules_place(r, hosts + 1, 1, SLICE("x.test"), &place);
    rules_limits(r, &place, SLICE("192.0.2.1"), &l);
    assert_int_equal(l.connections, 19);
    rules_limits(r, &place, SLICE("192.0.2.2"), &l);
    assert_int_equal(l.connections, 20);
    rules_free(r);
}

static void test_a_wider_start_does_not_pass_a_narrower_bound(void **state)
{
    struct rules *r = load("default { start_connections = 5 start_rate = \"20/s\" }\n"
                           "domain \"d.test\" { connections = 2 message_rate = \"1/s\" }\n");
    struct rules_place place;
    struct rules_limits l;
    (void)state;
    rules_place(r, NULL, 0, SLICE("D.test"), &place);
    rules_limits(r, &place, SLICE(""), &l);
    assert_int_equal(l.start_connections, 2);
    assert_true(l.start_rate <= 1.0);
    rules_free(r);
}

static void test_limits_of_one_account(void **state)
{
    struct rules *r = load("default { account_message_rate = \"60/min\" account_connections = 3 }\n"
                           "provider p { mx = {\".p.test\"} account_connections_max = 5 }\n"
                           "domain \"d.test\" { account_connections_max = 2 }\n");
    struct slice host = SLICE("mx.p.test");
    struct rules_place place;
    struct rules_limits l;
    (void)state;
    rules_place(r, &host, 1, SLICE("x.test"), &place);
    rules_limits(r, &place, SLICE("192.0.2.1"), &l);
    assert_int_equal(l.account_connections_max, 5);
    assert_int_equal(l.account_connections, 3);
    assert_true(l.account_message_rate > 0.99 && l.account_message_rate < 1.01);
    rules_place(r, &host, 1, SLICE("d.test"), &place);
    rules_limits(r, &place, SLICE(""), &l);
    assert_int_equal(l.account_connections_max, 2);
    rules_free(r);
}

/* ---- mistakes ------------------------------------------------------------------------ */

#define SAMPLE " matches = {\"421 x\"} }"

static void test_mistakes_name_file_and_line(void **state)
{
    (void)state;
    refused("\n\ndefault { conections = 5 }", "a.conf:3: ");
    refused("default { connections = \"many\" }", "a.conf:1: ");
    refused("# one\n# two '\n/* three\nfour */\ndefault { x = '#' }", "a.conf:5: ");
    refused("default {\n connections = 0 }", "must be from 1");
    refused("default { message_rate = \"20/fortnight\" }", "a rate is written as");
    refused("default { connection_rate = \"0.0001/d\" }", "is at least 0.1/d");
    refused("default { idle_time = \"1 year\" }", "a time is written as");
    refused("default { tls = \"maybe\" }", "tls is one of");
    refused("default { start_rate = \"9/s\" message_rate = \"8/s\" }", "start_rate is above");
    refused("site s { total_connections = 3 }", "provider section of its own");
    refused("\ndomain d.test { total_message_rate = \"3/s\" }", "a.conf:2: domain d.test");
    refused("default { source \"192.0.2.1\" { total_connection_rate = \"3/s\" } }",
            "is over all source addresses");
    refused("provider p { mx = {\".p\"}\n source \"192.0.2.1\" { account_connections_max = 3 } }",
            "counts over all source addresses");
    refused("domain d.test { source \"192.0.2.1\" { account_message_rate = \"3/s\" } }",
            "counts over all source addresses");
    refused("default { account_connections_max = 0 }", "must be from 1");
    refused("default { account_message_rate = \"often\" }", "a rate is written as");
    refused("rule r { text = 'x' scope = \"provider\" action = \"switch\" for = \"5m\" matches = "
            "{\"421 x\"} }",
            "switch is about the source");
    refused("provider p { connections = 3 }", "by which mx");
    refused("provider p { mx = {\".a\"} }\nprovider p { mx = {\".b\"} }", "a.conf:2: ");
    refused("rule r { text = '(' " SAMPLE, "pattern, at character");
    refused("rule r {" SAMPLE, "has no code, status or text");
    refused("rule r { text = 'x' }", "at least one sample");
    refused("rule r { text = 'x' matches = {\"hello\"} }", "begins with a reply code");
    refused("rule r { text = 'x' action = \"slow\" " SAMPLE, "need a dimension");
    refused("rule r { text = 'x' action = \"suspend\" " SAMPLE, "need a time");
    refused("rule r { text = 'x' action = \"panic\" " SAMPLE, "action is one of");
    refused("rule r { text = 'x' stage = {\"hello\"} " SAMPLE, "a stage is");
    refused("rule r { text = 'x' provider = \"nobody\" " SAMPLE, "there is no provider");
    refused("rule r { text = 'x' after = 3 " SAMPLE, "after needs a period");
    refused("rule r { text = 'x' factor = 1.5 action = \"slow\" dimension = \"rate\" " SAMPLE,
            "factor is between");
    refused("rule r { text = 'x' scope = \"recipient\" action = \"suspend\" for = \"1m\" " SAMPLE,
            "cannot change limits");
    refused("rule r {\n text = 'x'\n\n action = \"slow\"\n matches = {\"421 x\",\n \"421 xx\"}\n}",
            "a.conf:1: ");
    refused("default {", "a } is missing");
    refused("include = {\"a.conf\"}", "it was read before");
}

static void test_each_section_has_its_own_line(void **state)
{
    (void)state;
    refused("\ndefault {\n connections = 5\n\n tls = \"foo\"\n}\n", "a.conf:2: default");
    refused("provider x {\n mx={\".x\"}\n source \"10.0.0.2\" { }\n source\n \"10.0.0.1\" {\n  "
            "connections = 0\n }\n}\n",
            "a.conf:4: source 10.0.0.1");
    refused("default {}\nsite 'default' {\n}\ndomain source {\n tls = \"foo\" }",
            "a.conf:4: domain");
    refused("site a {}\nsite b {\n source '10.0.0.1' {\n}\n", "a.conf:2: what begins in this line");
    refused("default {", "a.conf:1: what begins in this line is open at the end of the file: "
                         "a } is missing");
    refused("\ninclude = {\n\"b.conf\"}", "a.conf:3: include: b.conf: no such file");
    refused("include = { # \"a.conf\"\n 'a.conf' }", "a.conf:2: include \"a.conf\": it was read");
}

static void test_what_would_have_no_effect_is_refused(void **state)
{
    (void)state;
    refused("default {\n source \"not-an-ip\" { connections = 3 } }",
            "a.conf:2: source not-an-ip \"\": is not an IPv4 or IPv6 address");
    refused("default { source \"2001:db8::1\" {}\n source \"2001:DB8:0::1\" {} }",
            "was used before");
    refused("default { connections = 3 }\ndefault { tls = \"may\" }",
            "a.conf:2: default: there is one already (a.conf:1)");
    refused("provider x { mx = {\".a\"} }\nprovider y { mx = {\".b\", \".A\"} }",
            "a.conf:2: provider y: mx \".a\" is how provider x is recognised (a.conf:1)");
    refused("provider x { domains = {\"a\"} }\nprovider y { domains = {\"a\"} }", "domains \"a\"");
    refused("rule r { text = 'x' factor = 0.5 " SAMPLE, "factor goes with");
    refused("rule r { text = 'x' value = \"3\" action = \"suspend\" for = \"1m\" " SAMPLE,
            "value goes with");
    refused("rule r { text = 'x' for = \"2h\" " SAMPLE, "for goes with");
    refused("rule r { text = 'x' samples = 3 " SAMPLE, "samples goes with");
    refused("rule r { text = 'x' within = \"1m\" " SAMPLE, "within goes with");
    refused(
        "rule r { text = 'x' action = \"set\" dimension = \"concurrency\" value = \"0.5\"" SAMPLE,
        "a number of connections");
    refused(
        "rule r { text = 'x' action = \"set\" dimension = \"concurrency\" value = \"4/min\"" SAMPLE,
        "a number of connections");
    refused("rule r { text = 'x' action = \"set\" dimension = \"volume\" value = \"100/d\"" SAMPLE,
            "a volume cannot be set");
}

/* As one is written, or another way. */
static void test_addresses_are_compared_as_addresses(void **state)
{
    struct rules *r =
        load("default { source \"2001:DB8:0::1\" { connections = 3 } }\n"
             "provider x { hosts = {\".a\"} mx = {\".a\"} domains = {\".a\", \".a\"} }");
    struct rules_place place = {0};
    struct rules_limits l;
    (void)state;
    rules_limits(r, &place, SLICE("2001:db8::1"), &l);
    assert_int_equal(l.connections, 3);
    rules_free(r);
}

static void test_included_files_belong_to_the_set(void **state)
{
    struct file files[] = {
        {"a.conf",
         "include = {\"b.conf\"}\nrule r { provider = \"p\" text = 'x' matches = {\"421 x\"} }"},
        {"b.conf", "provider p { mx = {\".p.test\"} }"},
        {NULL, NULL}};
    struct err e = {0, ""};
    struct rules *r = rules_load("a.conf", read_from, files, &e);
    (void)state;
    assert_non_null(r);
    assert_int_equal(rules_at(r, 0)->provider, 1);
    rules_free(r);
    files[1].text = "provider p { mx = {\".p.test\"}\n\n speed = 3 }";
    assert_null(rules_load("a.conf", read_from, files, &e));
    assert_non_null(strstr(e.text, "b.conf:3"));
}

static struct rules *load_two(const char *own, const char *shipped, struct err *e)
{
    struct file files[] = {{"a.conf", own}, {"b.conf", shipped}, {NULL, NULL}};
    *e = (struct err){0, ""};
    return rules_load("a.conf", read_from, files, e);
}

/* An operator's file beside the shipped one: what it says goes before, the rest stays, and each
 * change is told. */
static void test_a_section_may_override_that_of_an_included_file(void **state)
{
    static const char base[] =
        "default { message_rate = \"100/s\" connections = 20 }\n"
        "provider p { mx = {\".p.test\"} connections = 7 daily_cap = 50\n"
        "  source \"192.0.2.1\" { connections = 3 messages_per_connection = 9 } }\n";
    struct err e;
    struct rules_limits l;
    (void)state;
    struct rules *r =
        load_two("include = {\"b.conf\"}\n"
                 "default { override = true message_rate = \"5/s\" tls = \"encrypt\" }\n"
                 "provider P { override = true connections = 9\n"
                 "  source \"192.0.2.1\" { connections = 4 } }\n",
                 base, &e);
    assert_non_null(r);
    const struct slice host = SLICE("mx.p.test");
    struct rules_place place;
    rules_place(r, &host, 1, SLICE("d.test"), &place);
    rules_limits(r, &place, SLICE("192.0.2.2"), &l);
    assert_true(l.message_rate > 4.9 && l.message_rate < 5.1);
    assert_int_equal(l.tls, RULES_TLS_ENCRYPT);
    assert_int_equal(l.connections, 9);
    assert_int_equal(l.daily_cap, 50);
    rules_limits(r, &place, SLICE("192.0.2.1"), &l);
    assert_int_equal(l.connections, 4);
    assert_int_equal(l.messages_per_connection, 9);
    assert_string_equal(rules_override(r, 0),
                        "a.conf:3: changes provider p of b.conf:2; connections 9 instead of 7; "
                        "source 192.0.2.1: connections 4 instead of 3");
    assert_string_equal(rules_override(r, 1),
                        "a.conf:2: changes default of b.conf:1; message_rate 5/s instead of 100/s; "
                        "tls encrypt instead of nothing");
    assert_null(rules_override(r, 2));
    rules_free(r);
    /* how a provider is recognised */
    r = load_two("include = {\"b.conf\"}\nprovider p { override = true hosts = {\"x.test\"} }",
                 base, &e);
    const struct slice other = SLICE("x.test");
    rules_place(r, &other, 1, SLICE("d.test"), &place);
    assert_string_equal(place.provider, "p");
    rules_free(r);
}

static void test_an_override_without_its_section_is_a_mistake(void **state)
{
    static const char base[] = "default { connections = 2 }\nprovider p { mx = {\".p.test\"} }\n";
    static const struct {
        const char *own, *says;
    } cases[] = {
        {"provider q { override = true connections = 2 }",
         "a.conf:2: provider q: override = true, but"},
        {"site p { override = true connections = 2 }", "a.conf:2: site p: override = true, but"},
        {"provider p { mx = {\".p.test\"} }", "with override = true a section changes"},
        {"default { connections = 3 }", "there is one already (a.conf:2); write both as one, or"},
        {"default { override = true connections = 3 }\ndefault { override = true tls = \"may\" }",
         "a.conf:3: default: there is one already in line 2"},
    };
    struct err e;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char own[300];
        snprintf(own, sizeof own, "include = {\"b.conf\"}\n%s\n", cases[i].own);
        assert_null(load_two(own, base, &e));
        if (!strstr(e.text, cases[i].says))
            fail_msg("%s instead of %s", e.text, cases[i].says);
    }
    /* nobody changes what it does not include */
    assert_null(load_two("include = {\"b.conf\"}\ndefault { connections = 2 }\n",
                         "default { override = true connections = 3 }", &e));
    assert_non_null(strstr(e.text, "b.conf:1: default: override = true, but no file"));
}

/* ---- matching -------------------------------------------------------------------------- */

static void test_own_rules_before_others_and_the_stricter_holds(void **state)
{
    struct rules *r = load(
        "provider p { mx = {\".p.test\"} }\n"
        "rule mild { text = 'busy' action = \"slow\" dimension = \"rate\" matches = {\"421 busy\"} "
        "}\n"
        "rule hard { text = 'busy' action = \"suspend\" for = \"5m\" matches = {\"421 busy\"} }\n"
        "rule own { provider = \"p\" text = 'busy' matches = {\"421 busy\"} }\n");
    (void)state;
    assert_string_equal(match(r, RULES_MAIL, 0, "421 4.7.0 busy")->name, "hard");
    assert_string_equal(match(r, RULES_MAIL, 1, "421 4.7.0 busy")->name, "own");
    assert_null(match(r, RULES_MAIL, 1, "421 4.7.0 fine"));
    findings = 0;
    assert_int_equal(rules_check(r, count, NULL), 0);
    assert_int_equal(findings, 1); /* once, at the one that gives way */
    assert_non_null(strstr(last_finding, "warning: a.conf:2: rule mild: contradicts rule hard"));
    rules_free(r);
}

#define BUSY(name, words) "rule " name " { text = 'busy' " words " matches = {\"421 busy\"} }\n"

/* Whichever stands first, one of the two holds, and the other is warned of. */
static void one_holds(const char *strict, const char *loose, const char *why)
{
    for (int turn = 0; turn < 2; turn++) {
        char text[1000], words[200];
        snprintf(text, sizeof text, BUSY("one", "%s") BUSY("two", "%s"), turn ? loose : strict,
                 turn ? strict : loose);
        const char *holds = turn ? "two" : "one";
        struct rules *r = load(text);
        assert_string_equal(match(r, RULES_MAIL, 0, "421 busy")->name, holds);
        findings = 0;
        assert_int_equal(rules_check(r, count, NULL), 0);
        assert_int_equal(findings, 1);
        snprintf(words, sizeof words, "; %s holds, which %s, for: 421 busy", holds, why);
        if (!strstr(last_finding, words))
            fail_msg("\"%s\" is not in: %s", words, last_finding);
        rules_free(r);
    }
}

static void test_the_stricter_holds_in_whatever_order(void **state)
{
    const char *stricter = "is the stricter one";
    (void)state;
    one_holds("action=\"set\" dimension=\"rate\" value=\"1/s\"",
              "action=\"set\" dimension=\"rate\" value=\"100/s\"", stricter);
    one_holds("action=\"slow\" dimension=\"rate\" factor=0.1", "action=\"slow\" dimension=\"rate\"",
              stricter);
    one_holds("action=\"slow\" dimension=\"rate\"", "action=\"slow\" dimension=\"rate\" factor=0.9",
              stricter);
    one_holds("action=\"suspend\" for=\"9h\"", "action=\"suspend\" for=\"1h\"", stricter);
    one_holds("action=\"suspend\" for=\"1h\" scope=\"provider\"", "action=\"suspend\" for=\"1h\"",
              stricter);
    one_holds("action=\"suspend\" for=\"1h\"", "action=\"set\" dimension=\"rate\" value=\"1/d\"",
              stricter);
    one_holds("scope=\"recipient\" outcome=\"retry\"", "scope=\"recipient\" outcome=\"fail\"",
              "keeps the mail");
    one_holds("scope=\"recipient\"", "scope=\"recipient\" outcome=\"fail\"", "keeps the mail");
}

static void test_where_none_is_stricter_the_first_holds(void **state)
{
    struct rules *r = load(BUSY("one", "action=\"slow\" dimension=\"rate\"")
                               BUSY("two", "action=\"slow\" dimension=\"concurrency\""));
    (void)state;
    assert_string_equal(match(r, RULES_MAIL, 0, "421 busy")->name, "one");
    findings = 0;
    assert_int_equal(rules_check(r, count, NULL), 0);
    assert_int_equal(findings, 1);
    assert_non_null(strstr(last_finding, "rule two: contradicts rule one (a.conf:1) in dimension; "
                                         "one holds, which stands first"));
    rules_free(r);
}

/* A sample has no stage: each that both rules have counts. */
static void test_rules_that_meet_at_one_stage_alone_contradict(void **state)
{
    struct rules *r = load("rule a { stage={\"mail\",\"dot\"} text='slow' action=\"suspend\" "
                           "for=\"1m\" matches={\"421 slow\"} }\n"
                           "rule b { stage={\"dot\"} text='slow|fast' matches={\"421 fast\"} }\n"
                           "rule c { stage={\"rcpt\"} text='slow' action=\"suspend\" for=\"3m\" "
                           "matches={\"421 slow\"} }\n");
    (void)state;
    findings = 0;
    assert_int_equal(rules_check(r, count, NULL), 0);
    assert_int_equal(findings, 1);
    assert_non_null(
        strstr(last_finding, "a.conf:2: rule b: contradicts rule a (a.conf:1) in action"));
    rules_free(r);
}

static void test_code_status_stage_must_all_match(void **state)
{
    struct rules *r =
        load("rule r { code = '^45' status = '^4\\.7\\.' stage = {\"rcpt\"} text = 'x'\n"
             "  matches = {\"450 4.7.1 x\"} }");
    (void)state;
    assert_non_null(match(r, RULES_RCPT, 0, "451 4.7.9 x"));
    assert_null(match(r, RULES_MAIL, 0, "451 4.7.9 x"));
    assert_null(match(r, RULES_RCPT, 0, "421 4.7.9 x"));
    assert_null(match(r, RULES_RCPT, 0, "451 4.2.9 x"));
    assert_null(match(r, RULES_RCPT, 0, "451 x"));
    rules_free(r);
}

static void test_samples_are_tried(void **state)
{
    struct rules *r = load("rule r { text = 'x' matches = {\"421 y\"} passes = {\"421 x\"} }");
    (void)state;
    findings = 0;
    assert_int_equal(rules_check(r, count, NULL), 2);
    struct err e = {0, ""};
    assert_int_equal(rules_samples_hold(r, &e), -1);
    assert_string_equal(e.text, "a.conf:1: rule r: does not match its sample: 421 y");
    rules_free(r);
    r = load("rule r { text = 'x' matches = {\"421 x\"} passes = {\"421 y\"} }");
    assert_int_equal(rules_samples_hold(r, &e), 0);
    rules_free(r);
}

static void costly(const struct rule *rule, void *arg)
{
    *(const struct rule **)arg = rule;
}

static void test_a_catastrophic_pattern_is_skipped_and_reported(void **state)
{
    struct rules *r =
        load("rule slow { text = '^(\\w+\\s?)+$(?=y)' action = \"suspend\" for = \"5m\""
             " matches = {\"421 x\"} }\n"
             "rule other { text = 'aaa' matches = {\"421 aaa\"} }");
    const struct rule *reported = NULL;
    char line[1200] = "421 ";
    (void)state;
    memset(line + 4, 'a', 1000);
    strcpy(line + 1004, "!");
    rules_on_costly(r, costly, &reported);
    int64_t before = clock_mono();
    assert_string_equal(match(r, RULES_MAIL, 0, line)->name, "other");
    assert_true(clock_mono() - before < CLOCK_SECOND / 2);
    assert_non_null(reported);
    assert_string_equal(reported->name, "slow");
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
        cmocka_unit_test(test_limits_are_inherited),
        cmocka_unit_test(test_limits_of_one_account),
        cmocka_unit_test(test_a_wider_start_does_not_pass_a_narrower_bound),
        cmocka_unit_test(test_mistakes_name_file_and_line),
        cmocka_unit_test(test_each_section_has_its_own_line),
        cmocka_unit_test(test_what_would_have_no_effect_is_refused),
        cmocka_unit_test(test_addresses_are_compared_as_addresses),
        cmocka_unit_test(test_included_files_belong_to_the_set),
        cmocka_unit_test(test_a_section_may_override_that_of_an_included_file),
        cmocka_unit_test(test_an_override_without_its_section_is_a_mistake),
        cmocka_unit_test(test_the_stricter_holds_in_whatever_order),
        cmocka_unit_test(test_where_none_is_stricter_the_first_holds),
        cmocka_unit_test(test_rules_that_meet_at_one_stage_alone_contradict),
        cmocka_unit_test(test_own_rules_before_others_and_the_stricter_holds),
        cmocka_unit_test(test_code_status_stage_must_all_match),
        cmocka_unit_test(test_samples_are_tried),
        cmocka_unit_test(test_a_catastrophic_pattern_is_skipped_and_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
