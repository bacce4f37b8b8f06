/* The message on standard input, and its header. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"
#include "ctl/sendmail.h"
#include "mail/address_list.h"

enum { ADDRESS_TEXT_MAX = 2048 };

/* ---- lines ------------------------------------------------------------------------ */

static int too_large(const struct sendmail *s)
{
    return compat_fatal(EX_UNAVAILABLE, "the message is larger than message_size_limit, %lld bytes",
                        (long long)s->ctl->config->message_size_limit);
}

/* A mailbox file's separator in front of the header. */
static bool is_mbox_line(struct slice line)
{
    return slice_starts(line, SLICE("From ")) || slice_starts(line, SLICE(">From "));
}

/* Reads lines that end in LF or CRLF, up to the end or, without -i, a single dot. */
static int read_lines(struct sendmail *s, FILE *in)
{
    char *text = NULL;
    size_t size = 0;
    ssize_t n;
    int rc = 0;
    while (rc == 0 && (n = getline(&text, &size, in)) > 0) {
        struct slice line = slice_make(text, (size_t)n);
        if (slice_ends(line, SLICE("\n")))
            line.len--;
        if (slice_ends(line, SLICE("\r")))
            line.len--;
        if (!s->dots && slice_eq(line, SLICE(".")))
            break;
        if (s->message.len == 0 && is_mbox_line(line))
            continue;
        rc = buf_adds(&s->message, line);
        if (rc == 0)
            rc = buf_add(&s->message, "\r\n", 2);
    }
    free(text);
    if (rc < 0)
        return too_large(s);
    if (ferror(in))
        return compat_fatal(EX_IOERR, "error reading the message: %m");
    return EX_OK;
}

/* ---- addresses -------------------------------------------------------------------- */

static int parse_address(struct sendmail *s, struct slice address, struct smtp_path *out)
{
    struct buf text = BUF_INIT(ADDRESS_TEXT_MAX);
    int rc = buf_adds(&text, address);
    if (rc == 0 && address_domain(address).len == 0)
        rc = buf_printf(&text, "@%s", s->ctl->config->myorigin);
    if (rc == 0)
        rc = address_parse(buf_slice(&text), PATH_RECIPIENT | PATH_UTF8, out) == PATH_OK ? 0 : -1;
    buf_free(&text);
    s->utf8 = s->utf8 || (rc == 0 && out->utf8);
    return rc;
}

int sendmail_add_recipient(struct sendmail *s, struct slice address)
{
    struct smtp_path path;
    if (s->count == SENDMAIL_RECIPIENTS_MAX)
        return compat_fatal(EX_UNAVAILABLE, "more than %d recipients",
                            (int)SENDMAIL_RECIPIENTS_MAX);
    if (parse_address(s, address, &path) < 0) {
        struct buf shown = BUF_INIT(ADDRESS_TEXT_MAX * 4);
        buf_add_escaped(&shown, address, 200);
        compat_fatal(EX_DATAERR, "%.*s: is not an address", SLICE_ARG(buf_slice(&shown)));
        buf_free(&shown);
        return EX_DATAERR;
    }
    s->recipients = xreallocarray(s->recipients, s->count + 1, sizeof *s->recipients);
    s->recipients[s->count++] = slice_dup(path_address(&path));
    return EX_OK;
}

/* ---- the header ------------------------------------------------------------------- */

/* One field with its folded lines; `at` is its place in the message. */
struct field {
    struct slice all, name, value;
};

/* The field at the front of *rest; false where the header ends. */
static bool next_field(struct slice *rest, struct field *f)
{
    size_t end = 0;
    do {
        size_t eol = slice_chr(slice_from(*rest, end), '\n');
        end += eol + 1;
    } while (end < rest->len && (rest->ptr[end] == ' ' || rest->ptr[end] == '\t'));
    f->all = slice_first(*rest, end);
    size_t colon = slice_chr(f->all, ':');
    f->name = slice_trim(slice_first(f->all, colon));
    f->value = slice_from(f->all, colon + 1);
    for (size_t i = 0; i < f->name.len; i++)
        if (f->name.ptr[i] <= ' ' || f->name.ptr[i] >= 0x7f)
            return false;
    if (f->name.len == 0 || colon == f->all.len)
        return false;
    *rest = slice_from(*rest, end);
    return true;
}

static bool named(const struct field *f, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (slice_caseeq(f->name, slice_str(names[i])))
            return true;
    return false;
}

static int add_list(struct sendmail *s, struct slice list)
{
    struct buf address = BUF_INIT(ADDRESS_TEXT_MAX);
    int rc, status = EX_OK;
    while (status == EX_OK && (rc = address_list_next(&list, &address)) != 0) {
        if (rc < 0)
            status = compat_fatal(EX_DATAERR, "unable to extract recipients: a list of addresses "
                                              "in the header cannot be read");
        else
            status = sendmail_add_recipient(s, buf_slice(&address));
    }
    buf_free(&address);
    return status;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Who is in To and in Cc gets one copy. */
static void drop_doubles(struct sendmail *s)
{
    size_t kept = 0;
    if (s->count == 0)
        return;
    qsort(s->recipients, s->count, sizeof *s->recipients, by_text);
    for (size_t i = 0; i < s->count; i++) {
        if (kept && strcmp(s->recipients[kept - 1], s->recipients[i]) == 0)
            free(s->recipients[i]);
        else
            s->recipients[kept++] = s->recipients[i];
    }
    s->count = kept;
}

/* With Resent- fields the message is resent to those that they name. */
static int extract(struct sendmail *s)
{
    static const char *const sets[2][3] = {{"To", "Cc", "Bcc"},
                                           {"Resent-To", "Resent-Cc", "Resent-Bcc"}};
    struct slice rest = buf_slice(&s->message);
    struct field f;
    bool resent = false;
    int status = EX_OK;
    while (next_field(&rest, &f))
        resent = resent || slice_casestarts(f.name, SLICE("Resent-"));
    if (buf_slice(&s->message).len - rest.len > SENDMAIL_HEADER_MAX)
        return compat_fatal(EX_DATAERR, "the header is too long");
    rest = buf_slice(&s->message);
    while (status == EX_OK && next_field(&rest, &f))
        if (named(&f, sets[resent], 3))
            status = add_list(s, f.value);
    drop_doubles(s);
    if (status == EX_OK && s->count == 0)
        status = compat_fatal(EX_DATAERR, "No recipient addresses found in message header");
    return status;
}

/* From: of the one who sends, as mail(1) and cron leave that to us. */
static int add_from(const struct sendmail *s, struct buf *out)
{
    int rc = buf_addstr(out, "From: ");
    if (rc == 0 && s->full_name && *s->full_name) {
        buf_addc(out, '"');
        for (const char *p = s->full_name; *p; p++) {
            if (*p == '"' || *p == '\\')
                buf_addc(out, '\\');
            buf_addc(out, (unsigned char)*p < ' ' || *p == 0x7f ? ' ' : *p);
        }
        rc = buf_addstr(out, "\" ");
    }
    if (rc == 0)
        rc = buf_printf(out, "<%s>\r\n",
                        s->sender.len ? s->sender.text : s->ctl->config->notice_from);
    return rc;
}

/* Copies the message without the fields that are not for others, and with what is
 * missing. */
static int rewrite(struct sendmail *s)
{
    static const char *const dropped[] = {"Bcc", "Resent-Bcc", "Return-Path", "Content-Length"};
    static const char *const from[] = {"From"};
    struct buf out = BUF_INIT(s->message.max);
    struct slice rest = buf_slice(&s->message);
    struct field f;
    bool has_from = false;
    int rc = 0;
    while (rc == 0 && next_field(&rest, &f)) {
        has_from = has_from || named(&f, from, 1);
        if (!named(&f, dropped, sizeof dropped / sizeof dropped[0]))
            rc = buf_adds(&out, f.all);
    }
    if (rc == 0 && !has_from)
        rc = add_from(s, &out);
    /* text that begins without a header gets the empty line before it */
    if (rc == 0 && !slice_starts(rest, SLICE("\r\n")))
        rc = buf_add(&out, "\r\n", 2);
    if (rc == 0)
        rc = buf_adds(&out, rest);
    buf_free(&s->message);
    s->message = out;
    return rc < 0 ? too_large(s) : EX_OK;
}

int sendmail_read(struct sendmail *s, FILE *in)
{
    int64_t limit = s->ctl->config->message_size_limit;
    /* what is in the header and not sent does not count for the limit of smtpd */
    buf_init(&s->message, (limit ? (size_t)limit : SENDMAIL_MESSAGE_MAX) + SENDMAIL_HEADER_MAX);
    int status = read_lines(s, in);
    if (status == EX_OK && s->from_header)
        status = extract(s);
    if (status == EX_OK)
        status = rewrite(s);
    return status;
}
