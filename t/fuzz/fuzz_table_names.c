/* libraries: postern_conf */
/* Names of tables that are servers, and UNIX sockets in the text of a table: each
 * that is found is an absolute path that stands in the text. */
#include "conf/endpoint.h"
#include "conf/lmtp_sockets.h"
#include "conf/table_server.h"
#include "core/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = slice_make(data, size);
    struct table_server t;
    struct endpoint endpoint;
    struct err e;
    if (table_server_parse(text, &t, &e) == 0 &&
        (endpoint_parse(slice_str(t.endpoint), "", &endpoint, &e) < 0 || !table_is_server(text) ||
         (t.protocol == TABLE_SOCKETMAP) != (t.name[0] != '\0')))
        panic("a table that is no server");
    struct buf list = BUF_INIT(4096);
    int rc = lmtp_sockets_collect(text, &list);
    if (rc < 0 && list.max - list.len > ENDPOINT_PATH_MAX)
        panic("full too early");
    for (struct slice rest = buf_slice(&list); rest.len;) {
        struct slice path = slice_cut(&rest, '\n');
        if (path.len < 2 || path.len > ENDPOINT_PATH_MAX || path.ptr[0] != '/' ||
            !memmem(text.ptr, text.len, path.ptr, path.len) || lmtp_sockets_have(rest, path))
            panic("\"%.*s\" is not there, or twice", SLICE_ARG(path));
    }
    buf_free(&list);
    return 0;
}
