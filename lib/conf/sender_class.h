/*
 * mail_class_senders: which class mail of a sender has. Words "address=class" or
 * "domain=class"; an address goes before its domain, and of two words for the same sender
 * the first holds. Letters' case does not count.
 */
#ifndef POSTERN_CONF_SENDER_CLASS_H
#define POSTERN_CONF_SENDER_CLASS_H

#include "core/err.h"
#include "core/slice.h"

enum { SENDER_CLASS_NONE = -1 };

/* "normal", "transactional", "bulk" to enum mail_class (ipc/ipc.h); SENDER_CLASS_NONE: another
 * word. */
int sender_class_word(struct slice word);
/* Whether the list can be used. 0 or -1 (*e names the word that is wrong). */
int sender_class_check(struct slice list, struct err *e);
/* The class of an envelope sender (without <>; empty: the null sender, which has none), or
 * SENDER_CLASS_NONE. The list has been checked. */
int sender_class_find(struct slice list, struct slice sender);

#endif
