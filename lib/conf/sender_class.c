#include "conf/sender_class.h"

#include "conf/config.h"
#include "core/log.h"

int sender_class_word(struct slice word)
{
    static const char *const words[] = {"normal", "transactional", "bulk"};
    for (int i = 0; i < (int)(sizeof words / sizeof words[0]); i++)
        if (slice_eq(word, slice_str(words[i])))
            return i;
    return SENDER_CLASS_NONE;
}

/* "who=class"; an address may have a '=' in its local part. */
static int split(struct slice word, struct slice *who, struct slice *class)
{
    size_t at = slice_rchr(word, '=');
    if (at >= word.len || at == 0)
        return -1;
    *who = slice_first(word, at);
    *class = slice_from(word, at + 1);
    return 0;
}

int sender_class_check(struct slice list, struct err *e)
{
    struct slice word, who, class;
    while (config_list_next(&list, &word)) {
        if (split(word, &who, &class) < 0)
            return err_set(e, "%s: write address=class or domain=class", log_esc_n(word, 200));
        size_t at = slice_rchr(who, '@');
        if (at + 1 == who.len || at == 0)
            return err_set(e,
                           "%s: is no address and no domain: write news@example.com or "
                           "example.com",
                           log_esc_n(who, 200));
        if (sender_class_word(class) == SENDER_CLASS_NONE)
            return err_set(e, "%s: a class is transactional, normal or bulk", log_esc_n(word, 200));
    }
    return 0;
}

int sender_class_find(struct slice list, struct slice sender)
{
    int of_domain = SENDER_CLASS_NONE;
    size_t at = slice_rchr(sender, '@');
    struct slice word, who, class, domain = slice_from(sender, at + 1);
    if (at >= sender.len)
        return SENDER_CLASS_NONE;
    while (config_list_next(&list, &word)) {
        if (split(word, &who, &class) < 0)
            continue;
        if (slice_caseeq(who, sender))
            return sender_class_word(class);
        if (of_domain == SENDER_CLASS_NONE && slice_caseeq(who, domain))
            of_domain = sender_class_word(class);
    }
    return of_domain;
}
