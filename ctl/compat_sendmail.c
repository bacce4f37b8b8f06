/* sendmail: its options, and who sends. */
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"
#include "ctl/sendmail.h"
#include "mail/address_list.h"

/* What -b and -q ask for. */
enum mode { MODE_SEND, MODE_SMTP, MODE_LIST, MODE_FLUSH, MODE_NOTHING };

struct options {
    enum mode mode;
    const char *sender;
    const char *flush_id, *flush_site;
};

static int bad_usage(const char *what)
{
    return compat_fatal(EX_USAGE, "%s", what);
}

static int take_mode(struct options *o, struct sendmail *s, const char *mode)
{
    switch (*mode) {
    case 'm':
        o->mode = MODE_SEND;
        return EX_OK;
    case 's':
        o->mode = MODE_SMTP;
        return EX_OK;
    case 'p':
        o->mode = MODE_LIST;
        return EX_OK;
    case 'v':
        s->verify = true;
        return EX_OK;
    case 'i': /* newaliases: there are none */
        o->mode = MODE_NOTHING;
        return EX_OK;
    default:
        return bad_usage("-b takes m, s, p, v or i; 'postern start' starts the service");
    }
}

static int take_queue(struct options *o, const char *what)
{
    o->mode = MODE_FLUSH;
    if (!what || !*what)
        return EX_OK;
    if (*what >= '0' && *what <= '9') /* how often a daemon looks at its queue: there is none */
        o->mode = MODE_NOTHING;
    else if (*what == 'I' && what[1])
        o->flush_id = what + 1;
    else if (*what == 'R' && what[1])
        o->flush_site = what + 1;
    else
        return bad_usage("-q takes nothing, I and a queue ID, or R and a domain");
    return EX_OK;
}

/* As Postfix has it: the message is sent without what could not be read. */
static int ignored(char option, const char *what)
{
    compat_say("warning: bad -%c option value -- ignored: it takes %s", option, what);
    return EX_OK;
}

static int take_notify(struct sendmail *s, const char *list)
{
    struct slice rest = slice_str(list), word;
    bool never = slice_caseeq(rest, SLICE("never"));
    while (!never) {
        word = slice_cut(&rest, ',');
        if (!slice_caseeq(word, SLICE("success")) && !slice_caseeq(word, SLICE("failure")) &&
            !slice_caseeq(word, SLICE("delay")))
            return ignored('N', "never, or success, failure and delay with commas between");
        if (rest.len == 0)
            break;
    }
    s->notify = list;
    return EX_OK;
}

static int take_return(struct sendmail *s, const char *what)
{
    if (strcasecmp(what, "full") != 0 && strcasecmp(what, "hdrs") != 0)
        return ignored('R', "full or hdrs");
    s->ret = what;
    return EX_OK;
}

static int take_body(struct sendmail *s, const char *type)
{
    if (strcasecmp(type, "8BITMIME") != 0 && strcasecmp(type, "7BIT") != 0)
        return bad_usage("-B takes 8BITMIME or 7BIT");
    s->body = strcasecmp(type, "8BITMIME") == 0 ? "8BITMIME" : "7BIT";
    return EX_OK;
}

static int take_envid(struct sendmail *s, const char *id)
{
    enum { ENVID_ARGUMENT_MAX = 100 };
    if (!*id || strlen(id) > ENVID_ARGUMENT_MAX)
        return bad_usage("-V takes an envelope ID of at most 100 characters");
    s->envid = id;
    return EX_OK;
}

/* One option. Those that sendmail has and that mean nothing here are taken. */
static int take_option(struct options *o, struct sendmail *s, int option, const char *value)
{
    switch (option) {
    case 'b':
        return take_mode(o, s, value);
    case 'q':
        return take_queue(o, value);
    case 'C':
        s->ctl->directory = value;
        return EX_OK;
    case 'f':
    case 'r':
        o->sender = value;
        return EX_OK;
    case 'F':
        s->full_name = value;
        return EX_OK;
    case 'i':
        s->dots = true;
        return EX_OK;
    case 'o':
        s->dots = s->dots || strcmp(value, "i") == 0;
        return EX_OK;
    case 't':
        s->from_header = true;
        return EX_OK;
    case 'v':
        s->verbose = true;
        return EX_OK;
    case 'N':
        return take_notify(s, value);
    case 'R':
        return take_return(s, value);
    case 'B':
        return take_body(s, value);
    case 'V':
        return take_envid(s, value);
    case '?':
        return bad_usage("usage: sendmail [options] [recipient ...]");
    default:
        return EX_OK;
    }
}

/* -f, or the user, at myorigin. */
static int find_sender(struct sendmail *s, const struct options *o, const struct passwd *user)
{
    const char *given = o->sender, *origin = s->ctl->config->myorigin;
    struct slice address = slice_str(given);
    char *text;
    if (!given && !user)
        return compat_fatal(EX_OSERR, "user ID %ld has no name; give the sender with -f",
                            (long)getuid());
    if (slice_starts(address, SLICE("<")) && slice_ends(address, SLICE(">")))
        address = slice_make(address.ptr + 1, address.len - 2);
    if (given && address.len == 0)
        return EX_OK; /* the null sender */
    if (!given)
        text = xasprintf("%s@%s", user->pw_name, origin);
    else if (address_domain(address).len == 0)
        text = xasprintf("%.*s@%s", SLICE_ARG(address), origin);
    else
        text = slice_dup(address);
    bool good = address_parse(slice_str(text), PATH_SENDER | PATH_UTF8, &s->sender) == PATH_OK;
    free(text);
    s->utf8 = s->utf8 || s->sender.utf8;
    return good ? EX_OK
                : compat_fatal(EX_USAGE, "-f option specified malformed sender: %.200s",
                               given ? given : user->pw_name);
}

/* "Joe Doe,Room 7,,": the name is what comes before the first comma. */
static char *gecos_name(const struct passwd *user)
{
    const char *given = getenv("NAME");
    if (given && *given)
        return xstrdup(given);
    struct slice all = slice_str(user ? user->pw_gecos : "");
    return slice_dup(slice_first(all, slice_chr(all, ',')));
}

static int send_message(struct sendmail *s, const struct options *o, char **recipients)
{
    const struct passwd *user = getpwuid(getuid());
    char *name = gecos_name(user);
    int status = EX_OK;
    if (!s->full_name)
        s->full_name = name;
    if (s->verify && s->from_header)
        status = bad_usage("-t option cannot be used with -bv");
    else if (!*recipients && !s->from_header)
        status = compat_fatal(EX_USAGE,
                              "%s(%ld): Recipient addresses must be specified on the "
                              "command line or via the -t option",
                              user ? user->pw_name : "unknown", (long)getuid());
    if (status == EX_OK)
        status = find_sender(s, o, user);
    /* what is one argument may be a list, as in mailq's days */
    for (; status == EX_OK && *recipients; recipients++) {
        struct slice list = slice_str(*recipients);
        struct buf address = BUF_INIT(2048);
        int rc;
        while (status == EX_OK && (rc = address_list_next(&list, &address)) != 0)
            status = rc < 0 ? compat_fatal(EX_DATAERR, "%.200s: is not an address", *recipients)
                            : sendmail_add_recipient(s, buf_slice(&address));
        buf_free(&address);
    }
    if (status == EX_OK && !s->verify)
        status = sendmail_read(s, stdin);
    if (status == EX_OK)
        status = sendmail_submit(s);
    free(name);
    return status;
}

static int run(struct sendmail *s, const struct options *o, int argc, char **argv)
{
    if (o->mode == MODE_NOTHING)
        return EX_OK;
    if (o->mode != MODE_SEND && optind < argc)
        return bad_usage("this mode takes no recipients");
    if (!ctl_config(s->ctl))
        return EX_CONFIG;
    if (o->mode == MODE_LIST)
        return compat_list(s->ctl, false);
    if (o->mode == MODE_SMTP)
        return sendmail_session(s->ctl);
    if (o->mode == MODE_SEND)
        return send_message(s, o, argv + optind);
    if (o->flush_id)
        return compat_flush_id(s->ctl, o->flush_id);
    return o->flush_site ? compat_flush_site(s->ctl, o->flush_site) : compat_flush(s->ctl);
}

int compat_sendmail(struct ctl *ctl, int argc, char **argv)
{
    struct sendmail s = {.ctl = ctl};
    struct options o = {.mode = MODE_SEND};
    int option, status = EX_OK;
    opterr = 0;
    while (status == EX_OK &&
           (option = getopt(argc, argv, "+A:B:C:F:GIL:N:O:R:UV:X:b:ce:f:h:imno:p:r:q::tvx")) != -1)
        status = take_option(&o, &s, option, optarg);
    if (status == EX_OK)
        status = run(&s, &o, argc, argv);
    for (size_t i = 0; i < s.count; i++)
        free(s.recipients[i]);
    free(s.recipients);
    buf_free(&s.message);
    return status;
}
