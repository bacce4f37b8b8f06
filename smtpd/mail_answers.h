/*
 * Answers of quota to MAIL that hold for a moment, so that a busy sender does not ask for
 * each message: how much may be sent is looked at again, exactly, at the end of data.
 */
#ifndef POSTERN_SMTPD_MAIL_ANSWERS_H
#define POSTERN_SMTPD_MAIL_ANSWERS_H

#include "core/map.h"
#include "ipc/ipc.h"

struct mail_answers {
    struct map all; /* struct mail_answer, by ticket and sender */
};

void mail_answers_init(struct mail_answers *m);
void mail_answers_free(struct mail_answers *m);
/* Fills *out with the answer for a message of `size` bytes, if one still holds; what is in
 * it is valid until the next call of this file. */
bool mail_answers_find(struct mail_answers *m, struct slice ticket, struct slice sender,
                       uint64_t size, struct ipc_mail_answer *out);
/* Keeps what quota said about this ticket and sender, if it says that it holds. */
void mail_answers_keep(struct mail_answers *m, struct slice ticket, struct slice sender,
                       const struct ipc_mail_answer *a);
/* None holds any longer. */
void mail_answers_forget(struct mail_answers *m);

#endif
