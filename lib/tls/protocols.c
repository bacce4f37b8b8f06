#include "tls/protocols.h"

#include "core/log.h"

static const struct {
    const char *name;
    enum tls_version version;
} names[] = {{"SSLv2", TLS_VERSION_OLD},   {"SSLv3", TLS_VERSION_OLD},
             {"TLSv1", TLS_VERSION_OLD},   {"TLSv1.0", TLS_VERSION_OLD},
             {"TLSv1.1", TLS_VERSION_OLD}, {"TLSv1.2", TLS_VERSION_1_2},
             {"TLSv1.3", TLS_VERSION_1_3}};

static int version_of(struct slice word)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (slice_caseeq(word, slice_str(names[i].name)))
            return (int)names[i].version;
    return -1;
}

/* What the elements so far leave. */
struct range {
    enum tls_version lowest, highest;
    bool excluded[TLS_VERSION_1_3 + 1], included[TLS_VERSION_1_3 + 1], any_included;
};

static int take(struct range *r, struct slice word, struct err *e)
{
    struct slice whole = word;
    bool at_least = slice_starts(word, SLICE(">=")), at_most = slice_starts(word, SLICE("<="));
    bool not = slice_starts(word, SLICE("!"));
    word = slice_from(word, at_least || at_most ? 2 : not ? 1 : 0);
    int version = version_of(word);
    if (version < 0)
        return err_set(e, "\"%s\" is no TLS version; write >=TLSv1.2 or >=TLSv1.3",
                       log_esc_n(whole, 40));
    if (at_least)
        r->lowest = (enum tls_version)version;
    else if (at_most)
        r->highest = (enum tls_version)version;
    else if (not )
        r->excluded[version] = true;
    else
        r->any_included = r->included[version] = true;
    return 0;
}

static bool allows(const struct range *r, enum tls_version v)
{
    /* the old ones share one place: to exclude SSLv2 says nothing about TLS 1.2 */
    return v >= r->lowest && v <= r->highest && !r->excluded[v] &&
           (!r->any_included || r->included[v]);
}

int tls_protocols_parse(struct slice text, struct tls_protocols *out, struct err *e)
{
    static const char separators[] = " \t\r\n,:";
    struct range r = {.lowest = TLS_VERSION_OLD, .highest = TLS_VERSION_1_3};
    while (text.len) {
        size_t n = 0;
        while (n < text.len && !memchr(separators, text.ptr[n], sizeof separators - 1))
            n++;
        if (n && take(&r, slice_first(text, n), e) < 0)
            return -1;
        text = slice_from(text, n + 1);
    }
    bool low = allows(&r, TLS_VERSION_1_2), high = allows(&r, TLS_VERSION_1_3);
    if (!low && !high)
        return err_set(e, "leaves no version of TLS that is used (1.2 and 1.3); write >=TLSv1.2");
    out->lowest = low ? TLS_VERSION_1_2 : TLS_VERSION_1_3;
    out->highest = high ? TLS_VERSION_1_3 : TLS_VERSION_1_2;
    return 0;
}
