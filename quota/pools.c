#include "quota/pools.h"

#include "core/log.h"
#include "core/mem.h"
#include "sources/sources.h"

void pools_read(struct quota *q, struct slice text, const char *path)
{
    struct err e = {0, ""};
    struct sources_conf *fresh = sources_conf_parse(text, path, &e);
    if (!fresh) {
        log_error("source_config_file: %s; the names of pools stay as they are", e.text);
        return;
    }
    sources_conf_free(q->sources);
    q->sources = fresh;
    pools_check_plans(q);
}

void pools_wrong(const struct quota *q, const char *pool, struct buf *out)
{
    const char *path = q->s->config->source_config_file;
    buf_clear(out);
    if (!*pool || (q->sources && sources_pool(q->sources, slice_str(pool))))
        return;
    if (q->sources)
        (void)buf_printf(out, "%s has no pool %s: the mail goes from the default one", path, pool);
    else if (!*path)
        (void)buf_printf(out,
                         "source_config_file is not set, so there is no pool %s: the mail goes "
                         "from the default addresses",
                         pool);
}

void pools_check_plans(const struct quota *q)
{
    struct buf text = BUF_INIT(2000);
    for (size_t i = 0; i < q->plans.count; i++) {
        const struct plan *p = &q->plans.list[i];
        pools_wrong(q, p->source, &text);
        if (text.len)
            log_warning("%s: plan %s: source = %s: %.*s", q->s->config->plans_file, p->name,
                        p->source, SLICE_ARG(buf_slice(&text)));
    }
    buf_free(&text);
}
