#include "conf/table_server.h"

#include <stdio.h>

#include "conf/endpoint.h"
#include "core/log.h"

bool table_is_server(struct slice spec)
{
    return slice_starts(spec, SLICE("tcp:")) || slice_starts(spec, SLICE("socketmap:"));
}

static int copy(struct slice from, char *to, size_t max)
{
    if (from.len > max || (from.len && memchr(from.ptr, '\0', from.len)))
        return -1;
    memcpy(to, from.ptr, from.len);
    to[from.len] = '\0';
    return 0;
}

/* A name is sent before a space, so it has none; nor control bytes. */
static bool is_name(struct slice name)
{
    for (size_t i = 0; i < name.len; i++)
        if (name.ptr[i] <= ' ' || name.ptr[i] > '~')
            return false;
    return name.len > 0;
}

int table_server_parse(struct slice spec, struct table_server *out, struct err *e)
{
    struct endpoint where;
    struct slice rest = spec, type = slice_cut(&rest, ':');
    bool good = true;
    *out = (struct table_server){.protocol = TABLE_TCP};
    if (slice_eq(type, SLICE("tcp"))) {
        char text[TABLE_ENDPOINT_MAX + 1];
        good = snprintf(text, sizeof text, "inet:%.*s", SLICE_ARG(rest)) < (int)sizeof text &&
               copy(slice_str(text), out->endpoint, TABLE_ENDPOINT_MAX) == 0 &&
               slice_chr(rest, ':') < rest.len;
    } else {
        size_t colon = slice_rchr(rest, ':');
        struct slice name = slice_from(rest, colon + 1);
        out->protocol = TABLE_SOCKETMAP;
        good = slice_eq(type, SLICE("socketmap")) && is_name(name) &&
               copy(name, out->name, TABLE_NAME_MAX) == 0 &&
               copy(slice_first(rest, colon), out->endpoint, TABLE_ENDPOINT_MAX) == 0;
    }
    if (good && endpoint_parse(slice_str(out->endpoint), "", &where, NULL) == 0)
        return 0;
    return err_set(e,
                   "%s: write tcp:ADDRESS:PORT, socketmap:inet:ADDRESS:PORT:NAME or "
                   "socketmap:unix:PATH:NAME, with a numeric address",
                   log_esc_n(spec, 160));
}
