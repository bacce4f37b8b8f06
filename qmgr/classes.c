#include "qmgr/classes.h"

uint8_t class_in_turn(const struct config *c, const struct list lists[3], struct class_turns *t)
{
    static const uint8_t order[3] = {CLASS_TRANSACTIONAL, CLASS_NORMAL, CLASS_BULK};
    const int64_t weights[3] = {[CLASS_TRANSACTIONAL] = c->class_weight_transactional,
                                [CLASS_NORMAL] = c->class_weight_normal,
                                [CLASS_BULK] = c->class_weight_bulk};
    int32_t all = 0;
    uint8_t first = 3;
    for (int i = 0; i < 3; i++) {
        uint8_t class = order[i];
        if (list_empty(&lists[class])) {
            t->credit[class] = 0;
            continue;
        }
        t->credit[class] += (int32_t)weights[class];
        all += (int32_t)weights[class];
        if (first == 3 || t->credit[class] > t->credit[first])
            first = class;
    }
    if (first < 3)
        t->credit[first] -= all;
    return first;
}
