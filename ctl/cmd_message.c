/* message show, site show. */
#include <string.h>

#include "core/buf.h"
#include "core/clock.h"
#include "ctl/ctl.h"

enum { CONTENT_MAX = 64 * 1024 * 1024 };

/* ---- site show ---------------------------------------------------------------------- */

static int site_line(json_t *line, void *arg)
{
    struct ctl *ctl = arg;
    if (ctl->json)
        print_json_line(line);
    else
        print_json(ctl, json_object_get(line, "site"), 0);
    return 0;
}

int cmd_site_show(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    const struct arg none[] = {{NULL, NULL, NULL}};
    (void)argc;
    int n = args_parse(ctl, self, none, argv);
    if (n < 0)
        return args_status(n);
    if (n != 1)
        return ctl_usage(self, "give one domain or address");
    return client_ask(ctl, json_pack("{s:s, s:s}", "request", "site.show", "domain", argv[0]),
                      site_line, ctl, NULL);
}

/* ---- message show --------------------------------------------------------------------- */

struct shown {
    struct ctl *ctl;
    bool envelope;
    struct buf content;
};

static int digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

int message_base64(struct buf *b, const char *text)
{
    for (; text[0] && text[1] && text[2] && text[3]; text += 4) {
        int bits = 0, bytes = text[2] == '=' ? 1 : text[3] == '=' ? 2 : 3;
        for (int i = 0; i < 4; i++) {
            int d = i <= bytes ? digit(text[i]) : 0;
            if (d < 0)
                return -1;
            bits = bits << 6 | d;
        }
        const char out[3] = {(char)(bits >> 16), (char)(bits >> 8), (char)bits};
        if (buf_add(b, out, (size_t)bytes) < 0)
            return -1;
    }
    return *text ? -1 : 0;
}

static void print_field(const char *name, const char *text)
{
    printf("%-12s ", name);
    print_safe(stdout, text);
    putchar('\n');
}

static void print_when(const char *name, const json_t *value)
{
    char text[64];
    if (!json_is_number(value))
        return;
    print_time(text, sizeof text, json_number_value(value));
    print_field(name, text);
}

static void print_string(const json_t *o, const char *member, const char *name)
{
    const char *text = json_string_value(json_object_get(o, member));
    if (text)
        print_field(name, *text ? text : "<>");
}

static void print_recipient(struct ctl *ctl, const json_t *r)
{
    char text[64];
    printf("%s%-12s%s ", colour(ctl, COLOUR_BOLD), "Recipient:", colour(ctl, COLOUR_OFF));
    print_safe(stdout, json_string_value(json_object_get(r, "address")));
    putchar('\n');
    print_string(r, "orcpt", "  original:");
    print_string(r, "state", "  state:");
    snprintf(text, sizeof text, "%lld",
             (long long)json_integer_value(json_object_get(r, "attempts")));
    print_field("  attempts:", text);
    print_when("  next:", json_object_get(r, "next"));
    print_string(r, "reply", "  last reply:");
    print_when("  replied:", json_object_get(r, "reply_time"));
}

static void print_envelope(struct ctl *ctl, const json_t *m)
{
    char size[48];
    size_t i;
    json_t *r;
    print_string(m, "id", "Message:");
    print_string(m, "status", "Status:");
    print_when("Arrived:", json_object_get(m, "arrival"));
    snprintf(size, sizeof size, "%lld bytes",
             (long long)json_integer_value(json_object_get(m, "size")));
    print_field("Size:", size);
    print_string(m, "account", "Account:");
    print_string(m, "envid", "Envelope ID:");
    print_string(m, "sender", "Sender:");
    print_when("Next:", json_object_get(m, "next"));
    json_array_foreach(json_object_get(m, "recipients"), i, r)
    {
        print_recipient(ctl, r);
    }
    if (json_object_get(m, "recipients_left_out"))
        printf("and %lld more recipients\n",
               (long long)json_integer_value(json_object_get(m, "recipients_left_out")));
}

static int show_line(json_t *line, void *arg)
{
    struct shown *s = arg;
    const char *content = json_string_value(json_object_get(line, "content"));
    if (s->ctl->json)
        print_json_line(line);
    else if (!content && s->envelope)
        print_envelope(s->ctl, line);
    else if (content && message_base64(&s->content, content) < 0)
        return ctl_error(CTL_FAILED, "the queue manager sent content that cannot be decoded");
    return 0;
}

/* On a terminal without control bytes (B44). */
void message_print(const struct ctl *ctl, struct slice s)
{
    if (!ctl->terminal) {
        fwrite(s.ptr, 1, s.len, stdout);
        return;
    }
    while (s.len) {
        bool line_end = slice_starts(s, SLICE("\r\n"));
        size_t n = *s.ptr == '\n' || *s.ptr == '\t' ? 0 : print_control(s);
        if (line_end)
            n = 0;
        else if (n == 0)
            putchar(*s.ptr);
        for (size_t i = 0; i < n; i++)
            printf("\\x%02x", (unsigned char)s.ptr[i]);
        s = slice_from(s, n ? n : 1);
    }
}

/* Offset of the body; the header ends with the empty line before it. */
size_t message_body_at(struct slice content)
{
    const char *end = content.len ? memmem(content.ptr, content.len, "\r\n\r\n", 4) : NULL;
    return end ? (size_t)(end - content.ptr) + 4 : content.len;
}

int cmd_message_show(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    bool headers = false, body = false, envelope = false, raw = false;
    const struct arg args[] = {{"--headers", &headers, NULL},
                               {"--body", &body, NULL},
                               {"--envelope", &envelope, NULL},
                               {"--raw", &raw, NULL},
                               {NULL, NULL, NULL}};
    (void)argc;
    int n = args_parse(ctl, self, args, argv);
    if (n < 0)
        return args_status(n);
    if (n != 1)
        return ctl_usage(self, "give one queue ID");
    if (!headers && !body && !envelope && !raw)
        headers = envelope = true;
    if (raw)
        headers = body = true;
    struct shown s = {ctl, envelope, BUF_INIT(CONTENT_MAX)};
    json_t *last = NULL;
    int status = client_ask(ctl,
                            json_pack("{s:s, s:s, s:b}", "request", "message.show", "id", argv[0],
                                      "content", headers || body),
                            show_line, &s, &last);
    if (status == CTL_OK && !ctl->json) {
        struct slice content = buf_slice(&s.content);
        size_t at = message_body_at(content);
        if (envelope && content.len)
            putchar('\n');
        if (headers)
            message_print(ctl, slice_first(content, at));
        if (body)
            message_print(ctl, slice_from(content, at));
        fflush(stdout);
        long long total = (long long)json_integer_value(json_object_get(last, "content_total"));
        if (body && total > (long long)content.len)
            status = ctl_error(CTL_FAILED, "only the first %zu of %lld bytes can be shown",
                               content.len, total);
    }
    json_decref(last);
    buf_free(&s.content);
    return status;
}
