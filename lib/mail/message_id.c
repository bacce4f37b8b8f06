#include "mail/message_id.h"

#include <time.h>

#include "core/clock.h"

int message_id_make(struct buf *out, int64_t wall, struct slice id, struct slice host)
{
    time_t now = (time_t)(wall / CLOCK_SECOND);
    struct tm t = {0};
    char date[32];
    size_t before = out->len;
    gmtime_r(&now, &t);
    size_t n = strftime(date, sizeof date, "%Y%m%d%H%M%S", &t);
    if (buf_addc(out, '<') == 0 && buf_add(out, date, n) == 0 && buf_addc(out, '.') == 0 &&
        buf_adds(out, id) == 0 && buf_addc(out, '@') == 0 && buf_adds(out, host) == 0 &&
        buf_addc(out, '>') == 0)
        return 0;
    out->len = before;
    return -1;
}
