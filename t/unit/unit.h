/* What every unit test includes: cmocka and its prerequisites. */
#ifndef POSTERN_UNIT_H
#define POSTERN_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/slice.h"

/* Equality of a slice with a C string, showing both when they differ. */
#define assert_slice_is(s, text)                                                                   \
    do {                                                                                           \
        struct slice unit_s_ = (s);                                                                \
        if (!slice_eq(unit_s_, slice_str(text)))                                                   \
            fail_msg("\"%.*s\" is not \"%s\"", (int)unit_s_.len, unit_s_.ptr ? unit_s_.ptr : "",   \
                     text);                                                                        \
    } while (0)

#endif
