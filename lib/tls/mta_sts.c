#include "tls/mta_sts.h"

#include "core/log.h"
#include "tls/policy.h"

static const char *const modes[] = {
    [MTA_STS_NONE] = "none", [MTA_STS_TESTING] = "testing", [MTA_STS_ENFORCE] = "enforce"};

const char *mta_sts_mode_name(enum mta_sts_mode mode)
{
    return modes[mode];
}

static bool is_alnum(char c)
{
    char low = (char)(c | 0x20);
    return (low >= 'a' && low <= 'z') || (c >= '0' && c <= '9');
}

/* ---- the TXT record (RFC 8461 3.1) ------------------------------------------ */

static int take_id(struct slice value, char id[MTA_STS_ID_MAX + 1])
{
    if (value.len == 0 || value.len > MTA_STS_ID_MAX)
        return -1;
    for (size_t i = 0; i < value.len; i++)
        if (!is_alnum(value.ptr[i]))
            return -1;
    memcpy(id, value.ptr, value.len);
    id[value.len] = '\0';
    return 0;
}

int mta_sts_record_parse(struct slice text, char id[MTA_STS_ID_MAX + 1])
{
    bool first = true, found = false;
    while (text.len) {
        struct slice value = slice_trim(slice_cut(&text, ';')), whole = value;
        struct slice name = slice_trim(slice_cut(&value, '='));
        if (first && (!slice_eq(name, SLICE("v")) || !slice_eq(slice_trim(value), SLICE("STSv1"))))
            return -1;
        first = false;
        if (whole.len == 0 || !slice_eq(name, SLICE("id")) || found)
            continue;
        if (take_id(slice_trim(value), id) < 0)
            return -1;
        found = true;
    }
    return found ? 0 : -1;
}

/* ---- the policy (RFC 8461 3.2) ---------------------------------------------- */

/* Which of the fields that may come once have come: later ones are ignored. */
struct seen {
    bool version, mode, max_age;
    unsigned mx;
};

static int take_mode(struct slice value, struct mta_sts_policy *out, struct err *e)
{
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (slice_eq(value, slice_str(modes[i]))) {
            out->mode = (enum mta_sts_mode)i;
            return 0;
        }
    return err_set(e, "unknown mode \"%s\"", log_esc_n(value, 40));
}

static int take_age(struct slice value, struct mta_sts_policy *out, struct err *e)
{
    uint64_t age;
    if (value.len > 10 || slice_u64(value, &age) < 0)
        return err_set(e, "bad max_age \"%s\"", log_esc_n(value, 40));
    out->max_age = age < MTA_STS_AGE_MAX ? (uint32_t)age : MTA_STS_AGE_MAX;
    return 0;
}

static int take_mx(struct slice value, struct seen *seen, struct mta_sts_policy *out, struct err *e)
{
    bool wildcard = slice_starts(value, SLICE("*."));
    if (!tls_is_host_name(wildcard ? slice_from(value, 2) : value))
        return err_set(e, "bad mx \"%s\"", log_esc_n(value, 80));
    if (++seen->mx > MTA_STS_MX_MAX || out->mx.max - out->mx.len < value.len + 1)
        return err_set(e, "more than %d mx patterns, or %d bytes of them", MTA_STS_MX_MAX,
                       MTA_STS_MX_BYTES);
    for (size_t i = 0; i < value.len; i++) {
        char c = value.ptr[i];
        (void)buf_addc(&out->mx, (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c));
    }
    return buf_addc(&out->mx, ' ');
}

static int take_line(struct slice line, struct seen *seen, struct mta_sts_policy *out,
                     struct err *e)
{
    struct slice value = line, name = slice_trim(slice_cut(&value, ':'));
    if (name.len == 0 && value.len == 0)
        return 0;
    if (name.len + 1 > line.len)
        return err_set(e, "\"%s\" is no name: value", log_esc_n(line, 80));
    value = slice_trim(value);
    if (slice_eq(name, SLICE("version")) && !seen->version) {
        seen->version = true;
        return slice_eq(value, SLICE("STSv1"))
                   ? 0
                   : err_set(e, "unknown version \"%s\"", log_esc_n(value, 40));
    }
    if (slice_eq(name, SLICE("mode")) && !seen->mode) {
        seen->mode = true;
        return take_mode(value, out, e);
    }
    if (slice_eq(name, SLICE("max_age")) && !seen->max_age) {
        seen->max_age = true;
        return take_age(value, out, e);
    }
    return slice_eq(name, SLICE("mx")) ? take_mx(value, seen, out, e) : 0;
}

static int check_whole(const struct seen *seen, const struct mta_sts_policy *p, struct err *e)
{
    if (!seen->version || !seen->mode || !seen->max_age)
        return err_set(e, "lacks %s",
                       !seen->version ? "version"
                       : !seen->mode  ? "mode"
                                      : "max_age");
    if (seen->mx == 0 && p->mode != MTA_STS_NONE)
        return err_set(e, "lacks mx");
    return 0;
}

int mta_sts_policy_parse(struct slice text, struct mta_sts_policy *out, struct err *e)
{
    struct seen seen = {.mx = 0};
    *out = (struct mta_sts_policy){.mx = BUF_INIT(MTA_STS_MX_BYTES)};
    int rc =
        text.len > MTA_STS_POLICY_MAX ? err_set(e, "longer than %d bytes", MTA_STS_POLICY_MAX) : 0;
    while (rc == 0 && text.len)
        rc = take_line(slice_trim(slice_cut(&text, '\n')), &seen, out, e);
    if (rc == 0)
        rc = check_whole(&seen, out, e);
    if (rc < 0)
        buf_free(&out->mx);
    return rc;
}

bool mta_sts_mx_matches(struct slice patterns, struct slice host)
{
    while (patterns.len) {
        struct slice pattern = slice_cut(&patterns, ' ');
        if (slice_starts(pattern, SLICE("*."))) {
            size_t dot = slice_chr(host, '.');
            if (dot > 0 && slice_caseeq(slice_from(host, dot), slice_from(pattern, 1)))
                return true;
        } else if (pattern.len && slice_caseeq(pattern, host))
            return true;
    }
    return false;
}
