/* Whose turn it is among the classes of mail. */
#ifndef POSTERN_QMGR_CLASSES_H
#define POSTERN_QMGR_CLASSES_H

#include "qmgr/qmgr.h"

/* Which class goes first this time, of the lists that are not empty: each gets a share by its
 * weight among those that have anything, so that bulk mail never starves; 3: all are empty. */
uint8_t class_in_turn(const struct config *c, const struct list lists[3], struct class_turns *t);

#endif
