#include "smtpd/mail_answers.h"

#include "core/clock.h"
#include "core/mem.h"
#include "smtp/address.h"
#include "smtpd/limits.h"
#include "smtpd/login.h"

enum {
    ANSWERS_MAX = 1000,   /* then it starts anew */
    GOOD_FOR_MAX = 10000, /* milliseconds */
    MORE_STATUS_MAX = 12, /* bytes of the reply beyond the recipients: "4.5.3" */
    MORE_TEXT_MAX = 300,  /* and its text */
    KEY_MAX = 2 + LOGIN_TICKET_MAX + ADDRESS_MAX
};

struct mail_answer {
    int64_t until; /* monotonic */
    uint64_t size;
    uint64_t size_limit;
    uint32_t recipients, recipient_limit;
    uint16_t more_code;
    char more_enhanced[MORE_STATUS_MAX], more_text[MORE_TEXT_MAX];
    size_t more_enhanced_len, more_text_len;
    size_t key_len;
    char key[];
};

static struct slice answer_key(const void *value)
{
    const struct mail_answer *a = value;
    return slice_make(a->key, a->key_len);
}

void mail_answers_init(struct mail_answers *m)
{
    map_init(&m->all, answer_key);
}

void mail_answers_forget(struct mail_answers *m)
{
    map_clear(&m->all, free);
}

void mail_answers_free(struct mail_answers *m)
{
    mail_answers_forget(m);
    map_free(&m->all);
}

/* Where the ticket ends is part of the key, so that no two pairs have the same; empty if
 * they are too long. */
static struct slice make_key(char out[KEY_MAX], struct slice ticket, struct slice sender)
{
    if (ticket.len > LOGIN_TICKET_MAX || sender.len > ADDRESS_MAX)
        return SLICE("");
    out[0] = (char)(ticket.len & 0xff);
    out[1] = (char)(ticket.len >> 8);
    memcpy(out + 2, ticket.ptr, ticket.len);
    if (sender.len)
        memcpy(out + 2 + ticket.len, sender.ptr, sender.len);
    return slice_make(out, 2 + ticket.len + sender.len);
}

bool mail_answers_find(struct mail_answers *m, struct slice ticket, struct slice sender,
                       uint64_t size, struct ipc_mail_answer *out)
{
    char text[KEY_MAX];
    struct slice key = make_key(text, ticket, sender);
    struct mail_answer *a = key.len ? map_get(&m->all, key) : NULL;
    if (!a || size > a->size)
        return false;
    if (a->until <= clock_mono()) {
        free(map_remove(&m->all, key));
        return false;
    }
    *out = (struct ipc_mail_answer){
        .recipients = a->recipients,
        .size_limit = a->size_limit,
        .recipient_limit = a->recipient_limit,
        .more_code = a->more_code,
        .more_enhanced = slice_make(a->more_enhanced, a->more_enhanced_len),
        .more_text = slice_make(a->more_text, a->more_text_len),
    };
    return true;
}

void mail_answers_keep(struct mail_answers *m, struct slice ticket, struct slice sender,
                       const struct ipc_mail_answer *a)
{
    char text[KEY_MAX];
    struct slice key = make_key(text, ticket, sender);
    if (a->code || a->good_for == 0 || a->good_for > GOOD_FOR_MAX || key.len == 0 ||
        a->more_text.len > MORE_TEXT_MAX || a->more_enhanced.len > MORE_STATUS_MAX)
        return;
    if (m->all.count >= ANSWERS_MAX)
        mail_answers_forget(m);
    struct mail_answer *x = xcalloc(1, sizeof *x + key.len);
    x->until = clock_mono() + (int64_t)a->good_for * (CLOCK_SECOND / 1000);
    x->size = a->good_size;
    x->recipients = a->recipients;
    x->size_limit = a->size_limit;
    x->recipient_limit = a->recipient_limit;
    x->more_code = a->more_code;
    x->more_enhanced_len = a->more_enhanced.len;
    x->more_text_len = a->more_text.len;
    if (a->more_enhanced.len)
        memcpy(x->more_enhanced, a->more_enhanced.ptr, a->more_enhanced.len);
    if (a->more_text.len)
        memcpy(x->more_text, a->more_text.ptr, a->more_text.len);
    x->key_len = key.len;
    memcpy(x->key, key.ptr, key.len);
    free(map_put(&m->all, x));
}
