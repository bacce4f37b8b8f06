#include "resolve/tls_facts.h"

#include "core/mem.h"

struct tls_facts *tls_facts_new(void)
{
    struct tls_facts *f = xcalloc(1, sizeof *f);
    f->sts_holds = INT64_MAX;
    buf_init(&f->sts_mx, MTA_STS_MX_BYTES);
    buf_init(&f->hosts, TLS_FACTS_BYTES);
    return f;
}

void tls_facts_free(struct tls_facts *f)
{
    if (!f)
        return;
    buf_free(&f->sts_mx);
    buf_free(&f->hosts);
    free(f);
}

size_t tls_facts_bytes(const struct tls_facts *f)
{
    return f ? sizeof *f + f->sts_mx.cap + f->hosts.cap : 0;
}
