/*
 * Which class a message has, and which its header may ask for. What is said of the sender's
 * address goes before what is said of its domain, that before what is said of the user, and
 * that before what is said of the account; mail_class_senders, which speaks of everybody, only
 * within what user or account may claim.
 */
#include "conf/sender_class.h"
#include "quota/gate.h"

_Static_assert(CLASS_NORMAL == 0 && CLASS_TRANSACTIONAL == 1 && CLASS_BULK == 2,
               "sender_class_word's order");

static uint8_t lower_of(uint8_t a, uint8_t b)
{
    static const uint8_t rank[] = {[CLASS_BULK] = 0, [CLASS_NORMAL] = 1, [CLASS_TRANSACTIONAL] = 2};
    return rank[a] < rank[b] ? a : b;
}

void classes_of(const struct asking *x, struct slice sender, uint8_t *mail_class, uint8_t *most)
{
    struct account *a = x->chain[0];
    struct user u;
    bool own = *x->user_name && user_find(x->q, slice_str(x->user_name), &u) == 1 && u.classed;
    *mail_class = own ? u.mail_class : a->mail_class;
    *most = own ? u.class_most : a->class_most;
    int said = account_sender_class(x->q, a, sender);
    if (said != SENDER_CLASS_NONE) {
        /* a user that has a class of its own cannot borrow a higher one by another address */
        *mail_class = own ? lower_of((uint8_t)said, *most) : (uint8_t)said;
        *most = *mail_class;
        return;
    }
    said = sender_class_find(slice_str(x->q->s->config->mail_class_senders), sender);
    if (said != SENDER_CLASS_NONE)
        *mail_class = lower_of((uint8_t)said, *most);
}
