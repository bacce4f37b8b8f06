#include "relay/rules.h"

#include "ipc/ipc.h"
#include "tls/tlsa.h"

static int check_tlsa(const struct ipc_tls_rule *r, struct err *e)
{
    struct ipc_cursor c = ipc_list_cursor(r->tlsa);
    struct ipc_tlsa t;
    unsigned count = 0;
    while (ipc_tlsa_next(&c, &t)) {
        struct tlsa record = {t.usage, t.selector, t.matching, t.data};
        if (!tlsa_usable(&record) || ++count > TLSA_RECORDS_MAX)
            return err_set(e, "a rule about TLS with an unusable TLSA record");
    }
    return c.failed ? err_set(e, "a malformed list of TLSA records") : 0;
}

int rules_check(struct slice list, struct err *e)
{
    struct ipc_cursor c = ipc_list_cursor(list);
    struct ipc_tls_rule r;
    unsigned count = 0;
    if (list.len > TLS_RULES_BYTES)
        return err_set(e, "%zu bytes of rules about TLS", list.len);
    while (ipc_tls_rule_next(&c, &r)) {
        if (r.level >= TLS_LEVELS || r.origin >= TLS_ORIGINS || r.result >= TLS_RESULTS ||
            ++count > TLS_RULES_MAX)
            return err_set(e, "a rule about TLS with an undeclared level, origin or result");
        if (check_tlsa(&r, e) < 0)
            return -1;
    }
    return c.failed ? err_set(e, "a malformed list of rules about TLS") : 0;
}

/* The rule of the host, or that of all others; false: there is none. */
static bool find(struct slice list, struct slice host, struct ipc_tls_rule *out)
{
    struct ipc_cursor c = ipc_list_cursor(list);
    struct ipc_tls_rule r;
    bool found = false;
    while (ipc_tls_rule_next(&c, &r)) {
        if (r.host.len > 0 && slice_caseeq(r.host, host)) {
            *out = r;
            return true;
        }
        if (r.host.len == 0) {
            *out = r;
            found = true;
        }
    }
    return found;
}

static void forbid(struct tls_need *out, struct slice why)
{
    out->level = TLS_LEVEL_FORBIDDEN;
    out->why = why;
}

/* RFC 8689 section 4.2.1: an authenticated server whose name is beyond doubt. */
static void require(struct tls_need *out, bool authentic)
{
    out->required = true;
    out->testing = false;
    if (out->level == TLS_LEVEL_FORBIDDEN)
        return;
    if (!authentic) {
        forbid(out, SLICE("the message requires TLS (REQUIRETLS), and neither DNSSEC nor MTA-STS "
                          "vouches for the name of this server"));
        return;
    }
    if (out->level == TLS_LEVEL_NONE || out->level == TLS_LEVEL_MAY ||
        out->level == TLS_LEVEL_ENCRYPT) {
        out->level = TLS_LEVEL_VERIFY;
        out->names = SLICE("hostname");
    }
}

/* RFC 8689 section 5: what the recipient's domain asks for is set aside, what our
 * own operator asks for is not. */
static void relax(struct tls_need *out, enum tls_level floor)
{
    bool insists = floor == TLS_LEVEL_DANE_ONLY || floor >= TLS_LEVEL_VERIFY;
    if (insists || (out->origin != TLS_ORIGIN_DANE && out->origin != TLS_ORIGIN_STS))
        return;
    out->level = floor == TLS_LEVEL_ENCRYPT ? TLS_LEVEL_ENCRYPT : TLS_LEVEL_MAY;
    out->testing = false;
    out->result = TLS_RESULT_SUCCESS;
    out->tlsa = SLICE("");
}

void rules_find(const struct job *j, struct slice host, struct tls_need *out)
{
    struct ipc_tls_rule r = {.level = TLS_LEVEL_NONE};
    *out = (struct tls_need){.level = TLS_LEVEL_NONE};
    if (find(j->m.tls, host, &r))
        *out = (struct tls_need){.level = (enum tls_level)r.level,
                                 .origin = (enum tls_origin)r.origin,
                                 .testing = (r.flags & TLS_RULE_TESTING) != 0,
                                 .names = r.names,
                                 .protocols = r.protocols,
                                 .ciphers = r.ciphers,
                                 .servername = r.servername,
                                 .result = (enum tls_result)r.result,
                                 .why = r.why,
                                 .tlsa = r.tlsa};
    if ((out->level == TLS_LEVEL_DANE || out->level == TLS_LEVEL_DANE_ONLY) && out->tlsa.len == 0)
        forbid(out, SLICE("it has no TLSA records that could be used"));
    if (j->m.transport == TRANSPORT_LMTP)
        return; /* the last hop, the operator's own: as configured, whatever the message wants */
    if (j->tls_wish == TLS_WISH_REQUIRED)
        require(out, (r.flags & TLS_RULE_AUTHENTIC) != 0);
    else if (j->tls_wish == TLS_WISH_OPTIONAL)
        relax(out, (enum tls_level)r.floor);
}
