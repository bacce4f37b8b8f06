/* shaping export, shaping import: what was learned about destinations, as JSON lines. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"

enum { BATCH = 40, LINE_BYTES_MAX = 1200 }; /* so a request stays below its 64 KiB */

static int export_line(json_t *line, void *arg)
{
    (void)arg;
    print_json_line(json_object_get(line, "learned"));
    return 0;
}

int cmd_shaping_export(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    const struct arg none[] = {{NULL, NULL, NULL}};
    (void)argc;
    int n = args_parse(ctl, self, none, argv);
    if (n < 0)
        return args_status(n);
    if (n != 0)
        return ctl_usage(self, "takes no arguments");
    return client_ask(ctl, json_pack("{s:s}", "request", "shaping.export"), export_line, ctl, NULL);
}

struct import {
    struct ctl *ctl;
    const char *name;
    unsigned long line, taken, older;
    json_t *batch;
};

static int send_batch(struct import *i)
{
    json_t *last = NULL;
    if (json_array_size(i->batch) == 0)
        return CTL_OK;
    int status = client_ask(
        i->ctl, json_pack("{s:s, s:O}", "request", "shaping.import", "learned", i->batch), NULL,
        NULL, &last);
    i->taken += (unsigned long)json_integer_value(json_object_get(last, "taken"));
    i->older += (unsigned long)json_integer_value(json_object_get(last, "older"));
    json_decref(last);
    json_array_clear(i->batch);
    if (status != CTL_OK)
        ctl_error(status, "%s: it was about one of the %d lines up to %lu", i->name, BATCH,
                  i->line);
    return status;
}

static int take_line(struct import *i, const char *text, size_t len)
{
    json_error_t error;
    json_t *object =
        len <= LINE_BYTES_MAX ? json_loadb(text, len, JSON_REJECT_DUPLICATES, &error) : NULL;
    if (!json_is_object(object)) {
        json_decref(object);
        return ctl_error(CTL_FAILED,
                         "%s:%lu: not a JSON object as 'postern shaping export' writes it; the "
                         "lines before it were taken",
                         i->name, i->line);
    }
    json_array_append_new(i->batch, object);
    return json_array_size(i->batch) < BATCH ? CTL_OK : send_batch(i);
}

static int import_all(struct import *i, FILE *in)
{
    char *text = NULL;
    size_t size = 0;
    ssize_t len;
    int status = CTL_OK;
    while (status == CTL_OK && (len = getline(&text, &size, in)) > 0) {
        i->line++;
        if (strspn(text, " \t\r\n") < (size_t)len)
            status = take_line(i, text, (size_t)len);
    }
    int sent = send_batch(i); /* also what came before a bad line */
    free(text);
    return status != CTL_OK ? status : sent;
}

int cmd_shaping_import(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    const struct arg none[] = {{NULL, NULL, NULL}};
    (void)argc;
    int n = args_parse(ctl, self, none, argv);
    if (n < 0)
        return args_status(n);
    if (n != 1)
        return ctl_usage(self, "give one file, or '-' for standard input");
    bool standard = strcmp(argv[0], "-") == 0;
    FILE *in = standard ? stdin : fopen(argv[0], "re");
    if (!in)
        return ctl_error(CTL_FAILED, "%s: %s", argv[0], strerror(errno));
    struct import i = {ctl, standard ? "standard input" : argv[0], 0, 0, 0, json_array()};
    int status = import_all(&i, in);
    json_decref(i.batch);
    if (!standard)
        fclose(in);
    if (ctl->json) {
        json_t *o =
            json_pack("{s:I, s:I}", "taken", (json_int_t)i.taken, "older", (json_int_t)i.older);
        print_json_line(o);
        json_decref(o);
    } else {
        printf("%lu destinations taken\n", i.taken);
        if (i.older)
            printf("%lu left out: what is known here is newer ('postern shaping reset PLACE' "
                   "forgets it)\n",
                   i.older);
    }
    return status;
}
