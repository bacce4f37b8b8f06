/* libraries: postern_tls */
/* What operators write about TLS, and TLSA records: what is taken is usable and
 * lies within the text. */
#include "core/mem.h"
#include "tls/policy.h"
#include "tls/protocols.h"
#include "tls/tlsa.h"

static void check_within(struct slice part, struct slice whole)
{
    if (part.len && (part.ptr < whole.ptr || part.ptr + part.len > whole.ptr + whole.len))
        panic("a part is elsewhere");
}

static void check_policy(struct slice in)
{
    struct tls_policy p;
    struct tls_protocols protocols;
    struct slice name;
    if (tls_policy_parse(in, &p, NULL) < 0)
        return;
    check_within(p.match, in);
    check_within(p.protocols, in);
    check_within(p.ciphers, in);
    check_within(p.servername, in);
    unsigned names = 0;
    for (struct slice list = p.match; tls_match_next(&list, &name); names++)
        if (!tls_is_host_name(name.ptr[0] == '.' ? slice_from(name, 1) : name))
            panic("a bad name is taken");
    if (names > TLS_NAMES_MAX || (p.match.len && names == 0))
        panic("%u names", names);
    if (p.protocols.len && (tls_protocols_parse(p.protocols, &protocols, NULL) < 0 ||
                            protocols.lowest > protocols.highest))
        panic("bad protocols are taken");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_make(data, size);
    struct tls_protocols protocols;
    struct tlsa t;
    check_policy(in);
    if (tls_protocols_parse(in, &protocols, NULL) == 0 && protocols.lowest == TLS_VERSION_OLD)
        panic("an old version is allowed");
    if (tlsa_parse(in, &t) == 0 && tlsa_usable(&t) &&
        (t.data.len == 0 || t.data.len > TLSA_DATA_MAX))
        panic("an unusable record");
    return 0;
}
