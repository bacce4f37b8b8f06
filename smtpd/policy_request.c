#include "smtpd/policy_request.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#include "smtpd/content.h"
#include "smtpd/limits.h"
#include "smtpd/restrictions.h"

/* A value must not end its line, nor may it be what a server takes for one. */
static void add(struct buf *out, const char *name, struct slice value)
{
    buf_addstr(out, name);
    buf_addc(out, '=');
    value = slice_first(value, POLICY_VALUE_MAX);
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        buf_addc(out, c < ' ' || c == 0x7f ? '?' : (char)c);
    }
    buf_addc(out, '\n');
}

static void add_number(struct buf *out, const char *name, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    add(out, name, slice_str(text));
}

static void add_client(const struct session *s, struct buf *out)
{
    add(out, "client_address", session_client_address(s));
    add(out, "client_name", session_client_name(s));
    add_number(out, "client_port", s->port);
    /* a name that the address does not confirm is never known here */
    add(out, "reverse_client_name", session_client_name(s));
}

/* What the client connected to: as a proxy says, or of our socket. */
static void add_server(const struct session *s, struct buf *out)
{
    struct sockaddr_storage own = {0};
    const struct sockaddr_in *in4 = (const void *)&own;
    const struct sockaddr_in6 *in6 = (const void *)&own;
    const void *bytes = s->local.address;
    char text[INET6_ADDRSTRLEN] = "";
    socklen_t len = sizeof own;
    int family = s->local.len == 4 ? AF_INET : s->local.len == 16 ? AF_INET6 : AF_UNSPEC;
    unsigned port = s->local.port;
    if (family == AF_UNSPEC && getsockname(s->fd, (struct sockaddr *)&own, &len) == 0) {
        family = own.ss_family;
        bytes = family == AF_INET6 ? (const void *)&in6->sin6_addr : (const void *)&in4->sin_addr;
        port = ntohs(family == AF_INET6 ? in6->sin6_port : in4->sin_port);
    }
    if (family == AF_INET || family == AF_INET6)
        inet_ntop(family, bytes, text, sizeof text);
    else
        port = 0;
    add(out, "server_address", slice_str(text));
    add_number(out, "server_port", port);
}

static uint64_t message_size(const struct session *s)
{
    const struct content *c = s->tx.content;
    if (s->tx.run->check != CHECK_MESSAGE)
        return s->tx.size;
    return c->large_len ? c->large_len : c->body.len;
}

static void add_message(const struct session *s, struct buf *out)
{
    const struct transaction *tx = &s->tx;
    bool at_rcpt = tx->run->check == CHECK_RECIPIENT;
    struct slice id = id_slice(&tx->id);
    add(out, "helo_name", slice_str(s->helo));
    add(out, "sender", buf_slice(&tx->sender));
    add(out, "recipient", at_rcpt ? path_address(&tx->run->recipient) : tx_single_recipient(tx));
    add_number(out, "recipient_count", at_rcpt ? 0 : tx->rcpt_count);
    add(out, "queue_id", tx->rcpt_count ? id : SLICE(""));
    add(out, "instance", id); /* the same for all requests about one message */
    add_number(out, "size", message_size(s));
}

/* A certificate counts as the client's if it verifies; fingerprints tell who it is
 * in any case. */
static void add_tls(const struct session *s, struct buf *out)
{
    const struct certificate *c = s->certificate;
    struct tls_facts facts = {.protocol = "", .cipher = ""};
    if (secure_is_on(s))
        tls_facts(s->tls, &facts);
    add(out, "ccert_subject", slice_str(c && c->verified ? c->subject : ""));
    add(out, "ccert_issuer", slice_str(c && c->verified ? c->issuer : ""));
    add(out, "ccert_fingerprint", slice_str(c ? c->fingerprint : ""));
    add(out, "ccert_pubkey_fingerprint", slice_str(c ? c->key_fingerprint : ""));
    add(out, "encryption_protocol", slice_str(facts.protocol));
    add(out, "encryption_cipher", slice_str(facts.cipher));
    add_number(out, "encryption_keysize", (uint64_t)facts.bits);
}

int policy_request(const struct session *s, const char *context, struct buf *out)
{
    add(out, "request", SLICE("smtpd_access_policy"));
    add(out, "protocol_state", slice_str(s->where));
    add(out, "protocol_name", s->esmtp ? SLICE("ESMTP") : SLICE("SMTP"));
    add_client(s, out);
    add_server(s, out);
    add_message(s, out);
    add(out, "etrn_domain", SLICE(""));
    add(out, "stress", SLICE(""));
    add(out, "sasl_method", slice_str(s->login ? s->login->method : ""));
    add(out, "sasl_username", slice_str(s->login ? s->login->user : ""));
    add(out, "sasl_sender", SLICE(""));
    add_tls(s, out);
    add(out, "policy_context", slice_str(context));
    add(out, "compatibility_level", SLICE("3.9"));
    add(out, "mail_version", SLICE(POSTERN_VERSION));
    return buf_addc(out, '\n');
}
