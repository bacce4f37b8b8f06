/* postern account import: a file's lines, in lots that quota takes as a whole. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/accounts.h"

enum { IMPORT_RECORDS = 500 };

struct import {
    struct ctl *ctl;
    const char *file;   /* its name, for messages */
    const char *counts; /* what becomes of those that the database has */
    json_t *records;    /* of this lot, and their lines: */
    unsigned long lines[IMPORT_RECORDS];
    unsigned long line;  /* that was read last */
    unsigned long taken; /* records that are in the database */
    json_t *warnings;
    json_t *kept; /* counts that were not taken, by their types */
    json_int_t without_scram;
    bool first; /* the database was empty, so all of the file is taken */
};

static json_int_t kept_of(const struct import *i, const char *type)
{
    return json_integer_value(json_object_get(i->kept, type));
}

/* Records that were not taken; a grant was, but for what is used of it. */
static unsigned long left_out(const struct import *i)
{
    return (unsigned long)(kept_of(i, "usage") + kept_of(i, "rates") + kept_of(i, "held") +
                           kept_of(i, "charge"));
}

/* Counts that are newer in the database than in the file. */
static void print_kept(const struct import *i)
{
    json_int_t usage = kept_of(i, "usage"), rates = kept_of(i, "rates"),
               grants = kept_of(i, "grant"), charges = kept_of(i, "charge"),
               held = kept_of(i, "held");
    if (strcmp(i->counts, "keep") != 0 || usage + rates + grants + charges + held == 0)
        return;
    if (usage + rates + grants)
        fprintf(stderr,
                "postern: what this database has counted itself was kept: usage records %lld, "
                "rates\n%lld, use of grants %lld.\n",
                (long long)usage, (long long)rates, (long long)grants);
    if (charges + held)
        fprintf(stderr,
                "postern: charges of messages (%lld) and mail that is held (%lld) were left out: "
                "they\nare of the queue that the file was written beside.\n",
                (long long)charges, (long long)held);
    fprintf(stderr,
            "With --usage replace those of the file are taken, and what was sent since it was\n"
            "written is forgotten. If the first import of this file stopped half-way, that is "
            "what\nis wanted.\n");
}

/* How much of the file is there, after something was wrong with the rest. */
static int stopped(const struct import *i, int status)
{
    if (i->taken == 0)
        return ctl_error(status, "nothing was imported; mend it and import the file again");
    if (i->first)
        return ctl_error(status,
                         "the first %lu records were imported, the rest was not; mend it and "
                         "import the whole file again, with --usage replace: the database is not "
                         "empty any more, and without it usage, charges and held mail of the file "
                         "may be left out",
                         i->taken);
    return ctl_error(status,
                     "the first %lu records were imported, the rest was not; mend it and import "
                     "the whole file again%s%s",
                     i->taken, strcmp(i->counts, "keep") == 0 ? "" : ", with --usage ",
                     strcmp(i->counts, "keep") == 0 ? "" : i->counts);
}

/* "record 17: ..." is about that one of the lot. */
static int refused(const struct import *i, size_t count, int status, const char *error)
{
    struct slice text = slice_str(error), number = slice_from(text, 7);
    uint64_t n;
    if (slice_starts(text, SLICE("record ")) && slice_u64(slice_cut(&number, ':'), &n) == 0 &&
        n >= 1 && n <= count)
        ctl_error(status, "%s:%lu: %.*s", i->file, i->lines[n - 1], SLICE_ARG(slice_trim(number)));
    else if (count)
        ctl_error(status, "%s, lines %lu to %lu: %s", i->file, i->lines[0], i->lines[count - 1],
                  error);
    else
        ctl_error(status, "%s: %s", i->file, error);
    return stopped(i, status);
}

/* `more`: it is not the last part, so that quota waits for the others before it counts. */
static int flush(struct import *i, bool more)
{
    size_t count = json_array_size(i->records);
    json_t *request = json_pack("{s:s,s:o,s:b,s:s}", "request", "import", "records", i->records,
                                "more", more, "counts", i->counts);
    json_t *last = NULL;
    i->records = json_array();
    int status = accounts_ask_quietly(i->ctl, request, &last);
    const char *error = json_string_value(json_object_get(last, "error"));
    json_array_extend(i->warnings, json_object_get(last, "warnings"));
    i->without_scram += json_integer_value(json_object_get(last, "without_scram"));
    i->first = i->first || json_is_true(json_object_get(last, "first"));
    const char *type;
    json_t *n;
    json_object_foreach(json_object_get(last, "kept"), type, n)
        json_object_set_new(i->kept, type, json_integer(kept_of(i, type) + json_integer_value(n)));
    if (status == CTL_OK)
        i->taken += count;
    else if (error)
        refused(i, count, status, error);
    else
        stopped(i, status); /* what is wrong was told */
    json_decref(last);
    return status;
}

static int import_line(struct import *i, const char *text, size_t len)
{
    json_error_t error;
    i->line++;
    if (slice_trim(slice_make(text, len)).len == 0)
        return CTL_OK;
    json_t *record = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(record)) {
        json_decref(record);
        ctl_error(CTL_FAILED, "%s:%lu: is no JSON object in one line: %s", i->file, i->line,
                  error.text);
        return stopped(i, CTL_FAILED);
    }
    i->lines[json_array_size(i->records)] = i->line;
    json_array_append_new(i->records, record);
    return json_array_size(i->records) == IMPORT_RECORDS ? flush(i, true) : CTL_OK;
}

static void print_imported(const struct import *i)
{
    json_t *line =
        json_pack("{s:I,s:I}", "records", (json_int_t)i->taken, "without_scram", i->without_scram);
    if (json_object_size(i->kept))
        json_object_set(line, "kept", i->kept);
    if (json_array_size(i->warnings))
        json_object_set(line, "warnings", i->warnings);
    print_json_line(line);
    json_decref(line);
}

int cmd_accounts_import(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    struct import i = {.ctl = ctl, .counts = "keep"};
    const struct arg args[] = {{"--usage", NULL, &i.counts}, {NULL, NULL, NULL}};
    char *text = NULL;
    size_t size = 0;
    ssize_t len;
    int status = CTL_OK, count = args_parse(ctl, self, args, argv);
    (void)argc;
    if (count < 0)
        return args_status(count);
    if (strcmp(i.counts, "keep") != 0 && strcmp(i.counts, "replace") != 0 &&
        strcmp(i.counts, "none") != 0)
        return ctl_usage(self, "--usage: give keep, replace or none, not %.40s", i.counts);
    if (count != 1)
        return ctl_usage(self, "give the file of an export, or - for standard input");
    FILE *in = strcmp(argv[0], "-") == 0 ? stdin : fopen(argv[0], "r");
    if (!in)
        return ctl_error(CTL_FAILED, "%s: cannot be read: %s", argv[0], strerror(errno));
    i.file = in == stdin ? "standard input" : argv[0];
    i.records = json_array();
    i.warnings = json_array();
    i.kept = json_object();
    while (status == CTL_OK && (len = getline(&text, &size, in)) > 0)
        status = import_line(&i, text, (size_t)len);
    if (status == CTL_OK)
        status = flush(&i, false);
    if (text)
        explicit_bzero(text, size);
    free(text);
    if (in != stdin)
        fclose(in);
    json_decref(i.records);
    if (!ctl->json) {
        accounts_print_warnings(i.warnings);
        print_kept(&i);
    }
    if (status == CTL_OK && ctl->json)
        print_imported(&i);
    else if (status == CTL_OK)
        printf("%lu records imported\n", i.taken - left_out(&i));
    accounts_print_without_scram(ctl, i.without_scram);
    json_decref(i.warnings);
    json_decref(i.kept);
    return status;
}
