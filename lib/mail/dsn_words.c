#include "mail/dsn_words.h"

/* Sorted by subject, each subject's general entry (".0") first. */
static const struct dsn_words words[] = {
    {"0.0", "The mail server gave no reason that Postern knows.",
     "The server's own words may tell more; if they do not, ask the recipient's postmaster."},

    {"1.0", "There is a problem with this address.", "Check the address for typing errors."},
    {"1.1", "There is no such mailbox at this domain.",
     "Check the part before the @ for typing errors, or ask the recipient for the current "
     "address."},
    {"1.2", "The domain of this address does not exist or takes no mail.",
     "Check the part after the @ for typing errors."},
    {"1.3", "The address is not written correctly.", "Check the address for typing errors."},
    {"1.4", "The address matches more than one recipient.",
     "Ask the recipient for the exact address."},
    {"1.6", "The recipient has moved and left no new address.",
     "Ask the recipient for the new address."},
    {"1.7", "The sender's address is not written correctly.",
     "Check the sender's address in the sending program."},
    {"1.8", "The domain of the sender's address does not exist or cannot take mail.",
     "Check the sender's address and the DNS records of its domain."},
    {"1.9", "A server on the way took the message but does not report on its delivery.",
     "Nothing needs to be done."},
    {"1.10", "The domain has declared that it takes no mail (a null MX record).",
     "Check the part after the @ for typing errors, or reach the recipient in another way."},

    {"2.0", "There is a problem with the recipient's mailbox.", "Try again later."},
    {"2.1", "The recipient's mailbox is disabled.", "Reach the recipient in another way."},
    {"2.2", "The recipient's mailbox is full.",
     "Tell the recipient in another way, and send the message again later."},
    {"2.3", "The message is larger than the recipient's mailbox takes.",
     "Send a smaller message, for instance with a link in place of an attachment."},
    {"2.4", "There is a problem with the mailing list.", "Ask the owner of the list."},

    {"3.0", "The recipient's mail system has a problem.", "Try again later."},
    {"3.1", "The recipient's mail system is full.", "Try again later."},
    {"3.2", "The recipient's mail system takes no mail at this time.", "Try again later."},
    {"3.3", "The recipient's mail system lacks something that the message needs.",
     "Send the message in a simpler form."},
    {"3.4", "The message is larger than the recipient's mail system takes.",
     "Send a smaller message, for instance with a link in place of an attachment."},
    {"3.5", "The recipient's mail system is not configured correctly.",
     "Tell the recipient's postmaster."},

    {"4.0", "The recipient's mail system could not be reached.",
     "Check the part after the @ for typing errors; else try again later."},
    {"4.1", "The recipient's mail server does not answer.",
     "Check the part after the @ for typing errors; else try again later."},
    {"4.2", "The connection to the recipient's mail server broke.", "Try again later."},
    {"4.3", "The directory (DNS) that tells where mail goes did not answer.",
     "Check the part after the @ for typing errors; else try again later."},
    {"4.4", "No way to the recipient's domain could be found.",
     "Check the part after the @ for typing errors."},
    {"4.5", "The recipient's mail system is overloaded.", "Try again later."},
    {"4.6", "The message went round in a loop.",
     "Tell the recipient's postmaster: the domain's mail servers send mail back and forth."},
    {"4.7", "The message could not be delivered in the time that is allowed for it.",
     "Send the message again, or reach the recipient in another way."},

    {"5.0", "The two mail servers did not understand each other.",
     "Tell the postmaster who is named below."},
    {"5.1", "The recipient's mail server did not accept a command.",
     "Tell the postmaster who is named below."},
    {"5.2", "The recipient's mail server found an error in a command.",
     "Tell the postmaster who is named below."},
    {"5.3", "The message has more recipients than the server takes at a time.",
     "Send the message to fewer recipients at a time."},
    {"5.4", "The recipient's mail server did not accept a command's parameters.",
     "Tell the postmaster who is named below."},

    {"6.0", "The message's form or content is not accepted.",
     "Send the message in a simpler form."},
    {"6.1", "The recipient's mail system does not take content of this kind.",
     "Send the message in a simpler form."},
    {"6.2", "The message would have to be converted, which is not permitted.",
     "Send the message in a simpler form."},
    {"6.3",
     "The message would have to be converted for the recipient's server, which is not "
     "possible.",
     "Send the message as plain text without special characters."},
    {"6.6", "The message's content is not available.", "Send the message again."},
    {"6.7", "The recipient's mail system does not take addresses with international characters.",
     "Use an address without such characters."},
    {"6.9", "The recipient's mail system does not take international mail.",
     "Use addresses and a subject without special characters."},

    {"7.0", "The recipient's mail system refused the message under its rules.",
     "Read the server's own words below: they often say why and where to ask."},
    {"7.1", "The recipient's mail system refused the message under its rules.",
     "Read the server's own words below: they often say why and where to ask."},
    {"7.2", "You are not permitted to send to this mailing list.", "Ask the owner of the list."},
    {"7.7", "The message was damaged on the way.", "Send the message again."},
    {"7.8", "The mail servers could not authenticate to each other.",
     "Tell the postmaster who is named below."},
    {"7.20", "The recipient's mail system found no valid DKIM signature.",
     "Tell the postmaster who is named below."},
    {"7.23", "The sender's domain does not permit this server to send its mail (SPF).",
     "Tell whoever looks after the DNS records of the sender's domain."},
    {"7.25", "The recipient's mail system does not accept the DNS name of the sending server.",
     "Tell the postmaster who is named below."},
    {"7.26", "The message failed the authentication checks of the sender's domain (DMARC).",
     "Tell whoever looks after the DNS records of the sender's domain."},
    {"7.27", "The sender's domain takes no mail itself, and so none is taken from it.",
     "Check the sender's address and the DNS records of its domain."},
    {"7.28", "The recipient's mail system got too many messages like this one.",
     "Send fewer messages at a time."},
};

enum { WORD_COUNT = sizeof words / sizeof words[0], NUMBER_DIGITS_MAX = 3 };

/* Takes digits and, if `dot`, the dot behind them off *s. */
static bool take_number(struct slice *s, bool dot)
{
    size_t n = 0;
    while (n < s->len && n <= NUMBER_DIGITS_MAX && s->ptr[n] >= '0' && s->ptr[n] <= '9')
        n++;
    if (n == 0 || n > NUMBER_DIGITS_MAX)
        return false;
    *s = slice_from(*s, n);
    if (!dot)
        return true;
    if (s->len == 0 || s->ptr[0] != '.')
        return false;
    *s = slice_from(*s, 1);
    return true;
}

bool dsn_status_valid(struct slice status)
{
    if (status.len < 2 || status.ptr[1] != '.' ||
        (status.ptr[0] != '2' && status.ptr[0] != '4' && status.ptr[0] != '5'))
        return false;
    struct slice rest = slice_from(status, 2);
    return take_number(&rest, true) && take_number(&rest, false) && rest.len == 0;
}

const struct dsn_words *dsn_explain(struct slice status)
{
    if (!dsn_status_valid(status))
        return &words[0];
    struct slice code = slice_from(status, 2);
    struct slice subject = slice_first(code, slice_chr(code, '.') + 1); /* "1." */
    const struct dsn_words *general = &words[0];
    for (size_t i = 0; i < WORD_COUNT; i++) {
        struct slice entry = slice_str(words[i].code);
        if (slice_eq(entry, code))
            return &words[i];
        if (general == &words[0] && slice_starts(entry, subject))
            general = &words[i];
    }
    return general;
}
