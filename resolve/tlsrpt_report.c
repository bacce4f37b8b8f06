/* One report as a message: RFC 8460 sections 4.4 (JSON) and 5.3 (mail). */
#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <time.h>
#include <zlib.h>

#include "core/clock.h"
#include "core/mem.h"
#include "mail/date.h"
#include "resolve/tlsrpt.h"

enum { STAMP_MAX = 32, ID_TEXT_MAX = 320, BASE64_LINE = 57 }; /* 76 characters (RFC 2045 6.8) */

/* What all parts of one report have in common. */
struct report {
    const struct tlsrpt *all;
    const struct tlsrpt_domain *d;
    int64_t begin, end; /* s since 1970 */
    char begin_text[STAMP_MAX], end_text[STAMP_MAX], id[ID_TEXT_MAX];
};

static void stamp(int64_t seconds, char out[STAMP_MAX])
{
    time_t t = (time_t)seconds;
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(out, STAMP_MAX, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static void start(struct report *r)
{
    int64_t period = r->all->config->smtp_tlsrpt_period;
    r->begin = r->d->before.number * period;
    r->end = r->begin + period - 1;
    stamp(r->begin, r->begin_text);
    stamp(r->end, r->end_text);
    snprintf(r->id, sizeof r->id, "%s_%s", r->begin_text, r->d->domain);
}

/* ---- JSON ---------------------------------------------------------------------------- */

static json_t *text(const char *s)
{
    json_t *j = json_string(s);
    return j ? j : json_string("");
}

/* Where no server was spoken to there is no address either. */
static void add_known(json_t *j, const char *name, const char *value)
{
    if (*value)
        json_object_set_new(j, name, text(value));
}

static json_t *failure(const struct tlsrpt_failure *f)
{
    json_t *j = json_object();
    json_object_set_new(j, "result-type", text(tls_result_name((enum tls_result)f->result)));
    add_known(j, "sending-mta-ip", f->source);
    add_known(j, "receiving-mx-hostname", f->host);
    add_known(j, "receiving-ip", f->address);
    json_object_set_new(j, "failed-session-count", json_integer((json_int_t)f->count));
    if (*f->why)
        json_object_set_new(j, "failure-reason-code", text(f->why));
    return j;
}

/* The policy as it is known now: its lines, and the names of its hosts. */
static void describe_sts(const struct report *r, json_t *policy)
{
    struct tls_facts *facts = tls_facts_new();
    json_t *lines = json_array(), *hosts = json_array();
    char line[320];
    sts_result(r->all->sts, slice_str(r->d->domain), facts);
    if (facts->sts) {
        json_array_append_new(lines, text("version: STSv1"));
        snprintf(line, sizeof line, "mode: %s", mta_sts_mode_name(facts->sts_mode));
        json_array_append_new(lines, text(line));
    }
    struct slice mx = buf_slice(&facts->sts_mx);
    while (mx.len) {
        struct slice name = slice_cut(&mx, ' ');
        snprintf(line, sizeof line, "mx: %.*s", SLICE_ARG(name));
        json_array_append_new(lines, text(line));
        json_array_append_new(hosts, text(line + 4));
    }
    if (facts->sts) { /* RFC 8460 section 4.4: the whole policy, line by line */
        snprintf(line, sizeof line, "max_age: %u", facts->sts_max_age);
        json_array_append_new(lines, text(line));
    }
    json_object_set_new(policy, "policy-string", lines);
    json_object_set_new(policy, "mx-host", hosts);
    tls_facts_free(facts);
}

static json_t *lines_of(const struct buf *b)
{
    struct slice rest = buf_slice(b);
    json_t *list = json_array();
    while (rest.len) {
        struct slice line = slice_cut(&rest, '\n');
        json_array_append_new(list, json_stringn(line.ptr, line.len));
    }
    return list;
}

static void describe_tlsa(const struct report *r, json_t *policy)
{
    json_object_set_new(policy, "policy-string", lines_of(&r->d->tlsa));
    json_object_set_new(policy, "mx-host", lines_of(&r->d->hosts));
}

static json_t *policy(const struct report *r, enum tlsrpt_policy type)
{
    static const char *const names[] = {
        [TLSRPT_NONE] = "no-policy-found", [TLSRPT_STS] = "sts", [TLSRPT_TLSA] = "tlsa"};
    const struct tlsrpt_counts *c = &r->d->before.policies[type];
    json_t *j = json_object(), *what = json_object(), *summary = json_object();
    json_object_set_new(what, "policy-type", text(names[type]));
    json_object_set_new(what, "policy-domain", text(r->d->domain));
    if (type == TLSRPT_STS)
        describe_sts(r, what);
    else if (type == TLSRPT_TLSA)
        describe_tlsa(r, what);
    json_object_set_new(summary, "total-successful-session-count",
                        json_integer((json_int_t)c->good));
    json_object_set_new(summary, "total-failure-session-count",
                        json_integer((json_int_t)c->failed));
    json_object_set_new(j, "policy", what);
    json_object_set_new(j, "summary", summary);
    if (!list_empty(&c->failures)) {
        json_t *details = json_array();
        list_each(&c->failures, n)
            json_array_append_new(details, failure(container_of(n, struct tlsrpt_failure, link)));
        json_object_set_new(j, "failure-details", details);
    }
    return j;
}

/* The caller frees. */
static char *make_json(const struct report *r)
{
    const struct config *c = r->all->config;
    json_t *j = json_object(), *range = json_object(), *policies = json_array();
    json_object_set_new(range, "start-datetime", text(r->begin_text));
    json_object_set_new(range, "end-datetime", text(r->end_text));
    json_object_set_new(j, "organization-name", text(c->myorigin));
    json_object_set_new(j, "date-range", range);
    json_object_set_new(j, "contact-info", text(c->notice_contact));
    json_object_set_new(j, "report-id", text(r->id));
    for (int i = 0; i < TLSRPT_POLICIES; i++) {
        const struct tlsrpt_counts *counts = &r->d->before.policies[i];
        if (counts->good + counts->failed > 0)
            json_array_append_new(policies, policy(r, (enum tlsrpt_policy)i));
    }
    json_object_set_new(j, "policies", policies);
    char *out = json_dumps(j, JSON_COMPACT);
    json_decref(j);
    return out;
}

/* ---- the message ------------------------------------------------------------------------ */

static int compress_text(const char *json, struct buf *out)
{
    size_t len = strlen(json);
    z_stream z = {.next_in = (Bytef *)(uintptr_t)json, .avail_in = (uInt)len};
    if (deflateInit2(&z, Z_BEST_COMPRESSION, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY) !=
        Z_OK)
        return -1;
    size_t room = deflateBound(&z, (uLong)len);
    int rc = buf_reserve(out, room);
    if (rc == 0) {
        z.next_out = (Bytef *)out->data;
        z.avail_out = (uInt)room;
        rc = deflate(&z, Z_FINISH) == Z_STREAM_END ? 0 : -1;
        out->len = z.total_out;
    }
    deflateEnd(&z);
    return rc;
}

static int add_base64(struct slice data, struct buf *out)
{
    while (data.len) {
        unsigned char line[4 * (BASE64_LINE / 3) + 1];
        struct slice part = slice_first(data, BASE64_LINE);
        int n = EVP_EncodeBlock(line, (const unsigned char *)part.ptr, (int)part.len);
        if (buf_add(out, line, (size_t)n) < 0 || buf_addstr(out, "\r\n") < 0)
            return -1;
        data = slice_from(data, part.len);
    }
    return 0;
}

static int add_header(const struct report *r, const char *mailbox, struct buf *out)
{
    const struct config *c = r->all->config;
    (void)buf_printf(out, "From: %s TLS reports <%s>\r\n", c->mail_name, c->smtp_tlsrpt_from);
    (void)buf_printf(out, "To: <%s>\r\n", mailbox);
    (void)buf_printf(out, "Subject: Report Domain: %s Submitter: %s\r\n Report-ID: <%s@%s>\r\n",
                     r->d->domain, c->myorigin, r->id, c->myhostname);
    (void)buf_printf(out, "Date: %.*s\r\n", SLICE_ARG(mail_date(clock_wall())));
    (void)buf_printf(out, "Message-ID: <%s.%llu@%s>\r\n", r->id, (unsigned long long)r->d->place,
                     c->myhostname);
    (void)buf_printf(out, "TLS-Report-Domain: %s\r\nTLS-Report-Submitter: %s\r\n", r->d->domain,
                     c->myorigin);
    return buf_addstr(out, "TLS-Required: No\r\nAuto-Submitted: auto-generated\r\n"
                           "MIME-Version: 1.0\r\n"
                           "Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n"
                           " boundary=\"=_tlsrpt\"\r\n\r\n");
}

static int add_text(const struct report *r, struct buf *out)
{
    return buf_printf(out,
                      "--=_tlsrpt\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
                      "This is a report about TLS with the mail servers of %s,\r\n"
                      "from %s to %s, sent by %s because\r\n"
                      "_smtp._tls.%s asks for it (RFC 8460).\r\n\r\n",
                      r->d->domain, r->begin_text, r->end_text, r->all->config->myhostname,
                      r->d->domain);
}

int tlsrpt_pack(const struct tlsrpt *all, const struct tlsrpt_domain *d, struct buf *out)
{
    struct report r = {.all = all, .d = d};
    start(&r);
    char *json = make_json(&r);
    int rc = json ? compress_text(json, out) : -1;
    free(json);
    return rc;
}

int tlsrpt_compose(const struct tlsrpt *all, const struct tlsrpt_domain *d, const char *mailbox,
                   struct buf *out)
{
    struct report r = {.all = all, .d = d};
    struct buf packed = BUF_INIT(out->max);
    start(&r);
    int rc = tlsrpt_pack(all, d, &packed);
    if (rc == 0)
        rc = add_header(&r, mailbox, out);
    if (rc == 0)
        rc = add_text(&r, out);
    if (rc == 0)
        rc = buf_printf(out,
                        "--=_tlsrpt\r\nContent-Type: application/tlsrpt+gzip\r\n"
                        "Content-Transfer-Encoding: base64\r\n"
                        "Content-Disposition: attachment;\r\n"
                        " filename=\"%s!%s!%lld!%lld!001.json.gz\"\r\n\r\n",
                        all->config->myorigin, d->domain, (long long)r.begin, (long long)r.end);
    if (rc == 0)
        rc = add_base64(buf_slice(&packed), out);
    if (rc == 0)
        rc = buf_addstr(out, "--=_tlsrpt--\r\n");
    buf_free(&packed);
    return rc;
}
