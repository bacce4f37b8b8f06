/* postcat: a queued message. Its records come over the control socket, as no
 * other process may read the spool; only -q is possible therefore. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/id.h"
#include "ctl/compat.h"

#define USAGE                                                                                      \
    "usage: postcat [-b (body text)] [-c config_dir] [-d (decimal record type)] "                  \
    "[-e (envelope records)] [-h (header text)] [-q (access queue)] [-v] [file(s)...]"

enum { CONTENT_MAX = 64 * 1024 * 1024 };

struct shown {
    bool envelope, header, body;
    json_t *message;
    struct buf content;
};

static int take_line(json_t *line, void *arg)
{
    struct shown *s = arg;
    const char *content = json_string_value(json_object_get(line, "content"));
    if (content && message_base64(&s->content, content) < 0)
        return compat_fatal(CTL_FAILED, "the content cannot be decoded");
    if (!content && !s->message)
        s->message = json_incref(line);
    return 0;
}

static const char *text_of(const json_t *o, const char *name)
{
    const char *text = json_string_value(json_object_get(o, name));
    return text ? text : "";
}

/* "*** MESSAGE CONTENTS deferred/4Xyz ***" */
static void print_marker(const struct shown *s, const char *title)
{
    printf("*** %s %s/%s ***\n", title, text_of(s->message, "status"), text_of(s->message, "id"));
}

static void print_record(const char *name, const char *value)
{
    printf("%s: ", name);
    print_safe(stdout, value);
    putchar('\n');
}

static void print_envelope(const struct shown *s)
{
    char time[32];
    size_t i;
    json_t *r;
    compat_time(time, (long long)json_number_value(json_object_get(s->message, "arrival")));
    printf("message_size: %lld\n",
           (long long)json_integer_value(json_object_get(s->message, "size")));
    printf("message_arrival_time: %s\n", time);
    printf("create_time: %s\n", time);
    if (json_object_get(s->message, "envid"))
        print_record("dsn_envelope_id", text_of(s->message, "envid"));
    print_record("sender", text_of(s->message, "sender"));
    json_array_foreach(json_object_get(s->message, "recipients"), i, r)
    {
        if (json_object_get(r, "orcpt"))
            print_record("dsn_original_recipient", text_of(r, "orcpt"));
        print_record("original_recipient", text_of(r, "address"));
        print_record("recipient", text_of(r, "address"));
    }
    long long left =
        (long long)json_integer_value(json_object_get(s->message, "recipients_left_out"));
    if (left)
        compat_say("warning: %lld more recipients are not shown", left);
}

/* Lines end with LF here, as in Postfix's files. */
static void print_lines(const struct ctl *ctl, struct slice s)
{
    while (s.len) {
        const char *end = memmem(s.ptr, s.len, "\r\n", 2);
        size_t n = end ? (size_t)(end - s.ptr) : s.len;
        message_print(ctl, slice_first(s, n));
        putchar('\n');
        s = slice_from(s, end ? n + 2 : n);
    }
}

static void print_message(const struct ctl *ctl, const struct shown *s)
{
    struct slice content = buf_slice(&s->content);
    size_t at = message_body_at(content);
    size_t header = at >= 4 && at <= content.len && memcmp(content.ptr + at - 2, "\r\n", 2) == 0 &&
                            memcmp(content.ptr + at - 4, "\r\n", 2) == 0
                        ? at - 2
                        : at; /* without the empty line, which is the body's first */
    if (s->envelope) {
        print_marker(s, "ENVELOPE RECORDS");
        print_envelope(s);
        print_marker(s, "MESSAGE CONTENTS");
    }
    if (s->header)
        print_lines(ctl, slice_first(content, header));
    if (s->body)
        print_lines(ctl, slice_from(content, header));
    if (s->envelope) {
        print_marker(s, "HEADER EXTRACTED");
        print_marker(s, "MESSAGE FILE END");
    }
}

static int show(struct ctl *ctl, struct shown *s, const char *id)
{
    json_t *last = NULL;
    if (!id_valid(slice_str(id)))
        return compat_fatal(EXIT_FAILURE, "bad mail queue ID: %.80s", id);
    s->message = NULL;
    s->content = (struct buf)BUF_INIT(CONTENT_MAX);
    /* the envelope by queue.list: that a message is not there is no error to it, and is
     * said in Postfix's words here */
    int rc =
        client_ask(ctl, json_pack("{s:s, s:{s:[s]}}", "request", "queue.list", "select", "ids", id),
                   take_line, s, NULL);
    bool found = rc == CTL_OK && !json_object_get(s->message, "missing");
    if (rc == CTL_OK && !found)
        rc = compat_fatal(CTL_FAILED, "open queue file %s: No such file or directory", id);
    if (found && (s->header || s->body))
        rc = client_ask(
            ctl, json_pack("{s:s, s:s, s:b}", "request", "message.show", "id", id, "content", true),
            take_line, s, &last);
    if (rc == CTL_OK && s->message)
        print_message(ctl, s);
    long long total = (long long)json_integer_value(json_object_get(last, "content_total"));
    if (rc == CTL_OK && s->body && total > (long long)s->content.len)
        rc = compat_fatal(CTL_FAILED, "%s: only the first %zu of %lld bytes can be shown", id,
                          s->content.len, total);
    json_decref(last);
    json_decref(s->message);
    buf_free(&s->content);
    return rc == CTL_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

int compat_postcat(struct ctl *ctl, int argc, char **argv)
{
    struct shown s = {.message = NULL};
    bool queue = false;
    int option, status = EXIT_SUCCESS;
    opterr = 0;
    while ((option = getopt(argc, argv, "+bc:dehoqrs:v")) != -1) {
        if (option == 'b')
            s.body = true;
        else if (option == 'c')
            ctl->directory = optarg;
        else if (option == 'e')
            s.envelope = true;
        else if (option == 'h')
            s.header = true;
        else if (option == 'q')
            queue = true;
        else if (option == '?')
            return compat_fatal(EXIT_FAILURE, "%s", USAGE);
    }
    if (!s.body && !s.envelope && !s.header)
        s.body = s.envelope = s.header = true;
    if (!queue)
        return compat_fatal(EXIT_FAILURE, "the spool's files are of another format than Postfix's; "
                                          "use: postcat -q queue_id");
    for (int i = optind; i < argc && status == EXIT_SUCCESS; i++)
        status = show(ctl, &s, argv[i]);
    return status;
}
