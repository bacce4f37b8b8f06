/* libraries: postern_core postern_plan */
/* Files of time zones: any bytes are refused, or give what zone_parse takes. */
#include <stdint.h>
#include <stdlib.h>

#include "plan/tzfile.h"
#include "plan/zone.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[ZONE_TEXT_MAX];
    struct zone z;
    if (tzfile_rule(slice_make(data, size), text, sizeof text) < 0) {
        (void)zone_parse(slice_make(data, size), &z); /* it may be such a text itself */
        return 0;
    }
    if (zone_parse(slice_str(text), &z) < 0)
        abort();
    for (int64_t t = 0; t < 4000000000; t += 123456789) {
        struct civil c = zone_civil(&z, t);
        if (c.month < 1 || c.month > 12 || c.hour < 0 || c.hour > 23)
            abort();
        (void)zone_time(&z, &c);
    }
    return 0;
}
