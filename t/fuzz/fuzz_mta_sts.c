/* libraries: postern_tls */
/* What domains publish about TLS: MTA-STS records and policies, TLSRPT records. */
#include "core/mem.h"
#include "tls/mta_sts.h"
#include "tls/policy.h"
#include "tls/tlsrpt.h"

static void check_policy(struct slice in)
{
    struct mta_sts_policy p;
    if (mta_sts_policy_parse(in, &p, NULL) < 0)
        return;
    struct slice rest = buf_slice(&p.mx);
    if (p.max_age > MTA_STS_AGE_MAX || (p.mode != MTA_STS_NONE && rest.len == 0))
        panic("a policy without limits");
    while (rest.len) {
        struct slice pattern = slice_cut(&rest, ' ');
        bool wildcard = slice_starts(pattern, SLICE("*."));
        struct slice host = wildcard ? slice_from(pattern, 2) : pattern;
        if (!tls_is_host_name(host))
            panic("a bad pattern is taken");
        if (!wildcard && !mta_sts_mx_matches(buf_slice(&p.mx), host))
            panic("a pattern does not match itself");
    }
    buf_free(&p.mx);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_make(data, size);
    char id[MTA_STS_ID_MAX + 1];
    struct tlsrpt_record r;
    check_policy(in);
    if (mta_sts_record_parse(in, id) == 0 && (!*id || strlen(id) > MTA_STS_ID_MAX))
        panic("a bad id");
    if (tlsrpt_record_parse(in, &r) == 0)
        for (unsigned i = 0; i < r.count; i++)
            if (!strchr(r.mailbox[i], '@') || strpbrk(r.mailbox[i], "<> \r\n\"\\,;:()"))
                panic("an address that is none");
    return 0;
}
