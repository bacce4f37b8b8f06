/* libraries: qmgr_parts postern_service postern_ipc postern_core */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "qmgr/control_select.h"

/* A selection from a client of the control socket: never an error that is
 * taken for a selection, and patterns that end. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct selection s;
    struct err e;
    struct slice input = slice_make(data, size), text = input;
    struct slice pattern = slice_cut(&text, '\n');
    json_t *select = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (select && selection_parse(&s, select, &e) == 0 && json_object_size(select) == 0)
        abort();
    json_decref(select);
    if (pattern.len > 64 || text.len > 4096)
        return 0;
    bool whole = pattern_matches(pattern, text);
    if (whole && !pattern_within(pattern, text))
        abort();
    pattern_address(pattern, text);
    return 0;
}
