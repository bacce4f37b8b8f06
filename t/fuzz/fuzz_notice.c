/* libraries: bounce_parts postern_ipc postern_mail postern_core */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "bounce/notice.h"
#include "mail/dsn_field.h"

/* Whatever a request holds, the notice is CRLF lines of a permitted length that
 * fit into a frame. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct notice_identity identity = {.hostname = {"relay.example.net", 17},
                                                    .from = {"MAILER-DAEMON@example.net", 25},
                                                    .contact = {"postmaster@example.net", 22}};
    struct ipc_notice_request request;
    struct err e;
    uint32_t flags;
    if (size > IPC_FRAME_MAX - IPC_HEADER ||
        ipc_notice_request_decode(slice_make(data, size), &request) < 0)
        return 0;
    struct buf out = BUF_INIT(NOTICE_CONTENT_MAX);
    if (notice_compose(&request, &identity, request.arrival, &out, &flags, &e) == 0) {
        size_t line = 0;
        if (out.len < 4 || out.data[out.len - 1] != '\n' || out.data[out.len - 3] != '-')
            abort();
        for (size_t i = 0; i < out.len; i++) {
            if (out.data[i] == '\r' && i + 1 < out.len && out.data[i + 1] == '\n') {
                line = 0;
                i++;
            } else if (out.data[i] == '\r' || out.data[i] == '\n' || !out.data[i] ||
                       ++line > DSN_LINE_MAX) {
                abort();
            }
        }
    }
    buf_free(&out);
    return 0;
}
