/* libraries: postern_conf postern_core */
/* master.cf: any bytes are refused with a message or become services that keep
 * the limits. */
#include <stdlib.h>

#include "conf/master_cf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = {0, ""};
    struct master_cf *m = master_cf_parse(slice_make(data, size), "master.cf", &e);
    if (!m) {
        if (!e.text[0])
            abort();
        return 0;
    }
    for (size_t i = 0; i < m->count; i++) {
        const struct master_cf_service *s = &m->services[i];
        bool port = s->command->inet && !s->local;
        if (!s->name || !s->host || !s->where || s->count > MASTER_CF_PROCESSES_MAX ||
            s->override_count > MASTER_CF_OVERRIDES_MAX || s->port > 65535 ||
            (port != (s->port != 0)) || (s->local && !s->command->inet) ||
            (s->command->single && s->count != 1))
            abort();
        for (size_t k = 0; k < s->override_count; k++)
            if (!strchr(s->overrides[k], '='))
                abort();
    }
    master_cf_free(m);
    return 0;
}
