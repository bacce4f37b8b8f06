/* postern account, user, domain, plan, grant, usage: one table from command lines
 * to requests. The other end: quota/requests*.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "certs/certs.h"
#include "conf/sasl.h"
#include "core/mem.h"
#include "ctl/accounts.h"

int accounts_ask(struct ctl *ctl, json_t *request, int (*line)(json_t *, void *), void *arg,
                 json_t **last)
{
    const struct config *c = ctl_config(ctl);
    if (!c || !c->accounts_enable) {
        json_decref(request);
        return !c ? CTL_FAILED
                  : ctl_error(CTL_FAILED,
                              "accounts are off; put accounts_enable = yes into "
                              "%s/main.cf and run 'postern reload'",
                              ctl->directory);
    }
    return client_ask_at(ctl, "accounts", request, line, arg, last);
}

/* ---- the table --------------------------------------------------------------------- */

enum { POSITIONS = 2 };

struct shape {
    const char *family, *name, *request;
    const char *positions[POSITIONS]; /* members that the arguments are; a '?' before: may lack */
    const char *set;                  /* "status=suspended": fixed */
    bool options;                     /* takes the options of account or grant */
    bool secret;                      /* reads a password */
    bool confirm;                     /* --yes */
};

static const struct shape shapes[] = {
    {"account", "add", "account.add", {"account"}, NULL, true, false, false},
    {"account", "set", "account.set", {"account"}, NULL, true, false, false},
    {"account", "suspend", "account.set", {"account"}, "status=suspended", false, false, false},
    {"account", "resume", "account.set", {"account"}, "status=active", false, false, false},
    {"account", "unguard", "account.unguard", {"account", "?usual"}, NULL, false, false, false},
    {"account", "show", "account.show", {"account"}, NULL, false, false, false},
    {"account", "list", "account.list", {"?prefix"}, NULL, false, false, false},
    {"account", "delete", "account.delete", {"account"}, NULL, false, false, true},
    {"account", "export", "export", {NULL}, NULL, false, false, false},
    {"account", "snapshot", "snapshot", {NULL}, NULL, false, false, false},
    {"account", "audit", "audit.list", {NULL}, NULL, false, false, false},
    {"account", "status", "status", {NULL}, NULL, false, false, false},
    {"user", "add", "user.add", {"login", "account"}, NULL, false, true, false},
    {"user", "password", "user.set", {"login"}, NULL, false, true, false},
    {"user", "set", "user.set", {"login"}, NULL, false, false, false},
    {"user", "suspend", "user.set", {"login"}, "status=suspended", false, false, false},
    {"user", "resume", "user.set", {"login"}, "status=active", false, false, false},
    {"user", "show", "user.show", {"login"}, NULL, false, false, false},
    {"user", "list", "user.list", {"?account"}, NULL, false, false, false},
    {"user", "delete", "user.delete", {"login"}, NULL, false, false, true},
    {"user",
     "add-certificate",
     "certificate.add",
     {"login", "certificate"},
     NULL,
     false,
     false,
     false},
    {"user",
     "delete-certificate",
     "certificate.delete",
     {"certificate"},
     NULL,
     false,
     false,
     false},
    {"user", "list-certificates", "certificate.list", {"?login"}, NULL, false, false, false},
    {"domain", "add", "domain.add", {"account", "domain"}, NULL, false, false, false},
    {"domain", "delete", "domain.delete", {"account", "domain"}, NULL, false, false, false},
    {"domain", "list", "domain.list", {"?account"}, NULL, false, false, false},
    {"plan", "list", "plan.list", {NULL}, NULL, false, false, false},
    {"plan", "show", "plan.show", {"plan"}, NULL, false, false, false},
    {"grant", "add", "grant.add", {"account", "amount"}, NULL, true, false, false},
    {"grant", "list", "grant.list", {"?account"}, NULL, false, false, false},
    {"grant", "delete", "grant.delete", {"account", "grant"}, NULL, false, false, false},
    {"usage", "show", "usage.show", {"account", "?user"}, NULL, false, false, false},
};

static const struct shape *shape_of(const struct ctl_command *c)
{
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        if (strcmp(shapes[i].family, c->family) == 0 && strcmp(shapes[i].name, c->name) == 0)
            return &shapes[i];
    panic("a command without a request");
}

/* Texts of options, by the member of the request. */
static const char *const option_names[] = {"plan",
                                           "parent",
                                           "reference",
                                           "source",
                                           "class",
                                           "class_most",
                                           "began",
                                           "ends",
                                           "destination_connections",
                                           "destination_rate",
                                           "note",
                                           "from",
                                           "until"};
enum { FLAG_MAX = 32 };
enum { OPTIONS = sizeof option_names / sizeof option_names[0] };

struct line {
    const char *values[OPTIONS];
    const char *certificate, *note;
    bool any_sender, no_any_sender, bought, hash, yes, public_key;
};

static bool takes_certificate(const struct shape *s)
{
    return strcmp(s->request, "user.add") == 0 || strcmp(s->request, "certificate.add") == 0 ||
           strcmp(s->request, "certificate.delete") == 0;
}

static bool takes_class(const struct shape *s)
{
    return (strcmp(s->family, "user") == 0 &&
            (strcmp(s->name, "add") == 0 || strcmp(s->name, "set") == 0)) ||
           strcmp(s->request, "domain.add") == 0;
}

/* "class_most" to "--class-most". */
static const char *option_flag(char out[static FLAG_MAX], const char *name)
{
    snprintf(out, FLAG_MAX, "--%s", name);
    for (char *c = out; *c; c++)
        *c = *c == '_' ? '-' : *c;
    return out;
}

static int parse(struct ctl *ctl, const struct ctl_command *self, const struct shape *s,
                 struct line *l, char **argv)
{
    static char names[OPTIONS][FLAG_MAX];
    struct arg args[OPTIONS + 8] = {{NULL, NULL, NULL}};
    size_t n = 0;
    bool grant = strcmp(s->family, "grant") == 0;
    for (size_t i = 0; s->options && i < OPTIONS; i++) {
        bool of_grant = i >= OPTIONS - 3, of_account = i < OPTIONS - 2;
        if (grant ? of_grant : of_account)
            args[n++] = (struct arg){option_flag(names[i], option_names[i]), NULL, &l->values[i]};
    }
    if (s->options && !grant) {
        args[n++] = (struct arg){"--any-sender", &l->any_sender, NULL};
        args[n++] = (struct arg){"--no-any-sender", &l->no_any_sender, NULL};
    }
    if (s->options && grant)
        args[n++] = (struct arg){"--bought", &l->bought, NULL};
    for (size_t i = 0; takes_class(s) && i < OPTIONS; i++)
        if (strcmp(option_names[i], "class") == 0 ||
            (strcmp(option_names[i], "class_most") == 0 && strcmp(s->family, "user") == 0))
            args[n++] = (struct arg){option_flag(names[i], option_names[i]), NULL, &l->values[i]};
    if (s->secret)
        args[n++] = (struct arg){"--hash", &l->hash, NULL};
    if (strcmp(s->request, "user.add") == 0)
        args[n++] = (struct arg){"--certificate", NULL, &l->certificate};
    if (takes_certificate(s))
        args[n++] = (struct arg){"--public-key", &l->public_key, NULL};
    if (strcmp(s->request, "certificate.add") == 0)
        args[n++] = (struct arg){"--note", NULL, &l->note};
    if (s->confirm)
        args[n++] = (struct arg){"--yes", &l->yes, NULL};
    return args_parse(ctl, self, args, argv);
}

static void set_text(json_t *j, const char *name, const char *text)
{
    json_t *value = json_string(text);
    if (value)
        json_object_set_new(j, name, value);
}

/* A fingerprint as it is, or that of the certificate in a file; 0 or -1. */
static int add_certificate(json_t *j, const char *text, const struct line *l)
{
    char fingerprint[CERTS_FINGERPRINT + 1];
    struct err e;
    if (text[strspn(text, "0123456789abcdefABCDEF:")] == '\0') {
        set_text(j, "certificate", text);
        return 0;
    }
    if (certs_fingerprint(text, l->public_key, fingerprint, &e) < 0) {
        ctl_error(CTL_USAGE, "%s; give a certificate's file or its SHA-256 fingerprint", e.text);
        return -1;
    }
    set_text(j, "certificate", fingerprint);
    return 0;
}

static int add_number(json_t *j, const struct ctl_command *self, const char *name, const char *text)
{
    uint64_t n;
    if (slice_u64(slice_str(text), &n) < 0 || n > INT64_MAX) {
        ctl_usage(self, "%.40s is no number of a %s; 'postern %s list' shows them", text, name,
                  name);
        return -1;
    }
    return json_object_set_new(j, name, json_integer((json_int_t)n));
}

/* Arguments by their places; 0 or -1. */
static int add_positions(json_t *j, const struct ctl_command *self, const struct shape *s,
                         const struct line *l, int count, char **argv)
{
    int at = 0;
    for (int i = 0; i < POSITIONS && s->positions[i]; i++) {
        const char *name = s->positions[i];
        bool optional = *name == '?';
        if (at == count && !optional) {
            ctl_usage(self, "the %s is missing", name);
            return -1;
        }
        if (at == count)
            break;
        if (strcmp(name, "grant") == 0) {
            if (add_number(j, self, name, argv[at++]) < 0)
                return -1;
        } else if (strcmp(name, "certificate") == 0) {
            if (add_certificate(j, argv[at++], l) < 0)
                return -1;
        } else
            set_text(j, name + optional, argv[at++]);
    }
    if (at < count)
        ctl_usage(self, "there is no use for %s", argv[at]);
    return at < count ? -1 : 0;
}

static int add_secret(json_t *j, const struct line *l)
{
    char *secret = secret_read(l->hash ? "hash" : "password");
    if (!secret)
        return -1;
    json_t *value = json_string(secret);
    if (value)
        json_object_set_new(j, l->hash ? "hash" : "password", value);
    else
        ctl_error(CTL_USAGE, "the password must be UTF-8 text");
    secret_free(secret);
    return value ? 0 : -1;
}

/* The request, or NULL after telling what is wrong. */
static json_t *build(const struct ctl_command *self, const struct shape *s, const struct line *l,
                     int count, char **argv)
{
    json_t *j = json_pack("{s:s}", "request", s->request);
    if (add_positions(j, self, s, l, count, argv) < 0)
        goto wrong;
    if (s->set) {
        char name[20];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(s->set, "="), s->set);
        set_text(j, name, strchr(s->set, '=') + 1);
    }
    for (size_t i = 0; i < OPTIONS; i++)
        if (l->values[i])
            set_text(j, option_names[i], l->values[i]);
    if (l->any_sender || l->no_any_sender)
        json_object_set_new(j, "any_sender", json_boolean(l->any_sender));
    if (l->bought)
        json_object_set_new(j, "bought", json_true());
    bool changes = (s->options && strcmp(s->request, "account.set") == 0) ||
                   (strcmp(s->family, "user") == 0 && strcmp(s->name, "set") == 0);
    if (changes && json_object_size(j) == 2) {
        ctl_usage(self, "say what to change, for example --%s",
                  s->options ? "plan NAME" : "class bulk");
        goto wrong;
    }
    if (s->confirm && !l->yes) {
        ctl_usage(self, "this cannot be undone; give --yes as well");
        goto wrong;
    }
    if (l->certificate && add_certificate(j, l->certificate, l) < 0)
        goto wrong;
    if (l->note)
        set_text(j, "note", l->note);
    if (s->secret && !l->certificate && add_secret(j, l) < 0)
        goto wrong;
    return j;
wrong:
    json_decref(j);
    return NULL;
}

/* ---- output ---------------------------------------------------------------------------- */

struct output {
    struct ctl *ctl;
    const struct shape *shape;
    struct table *table;
    unsigned count;
    json_int_t without_scram;
};

struct columns {
    const char *request;
    const char *members[9];
    const char *titles[10];
};
static const struct columns lists[] = {
    {"account.list",
     {"account", "status", "plan", "parent", "reference"},
     {"ACCOUNT", "STATUS", "PLAN", "PARENT", "REFERENCE", NULL}},
    {"user.list",
     {"login", "account", "status", "hash_kind", "scram", "class"},
     {"USER", "ACCOUNT", "STATUS", "HASH", "SCRAM", "CLASS", NULL}},
    {"certificate.list",
     {"fingerprint", "login", "account", "added", "note"},
     {"FINGERPRINT", "USER", "ACCOUNT", "ADDED", "NOTE", NULL}},
    {"domain.list", {"account", "domain", "class"}, {"ACCOUNT", "DOMAIN", "CLASS", NULL}},
    {"plan.list",
     {"plan", "period", "messages", "bytes", "at_limit", "user_rate", "account_rate"},
     {"PLAN", "PERIOD", ">MESSAGES", ">BYTES", "AT LIMIT", "USER RATE", "ACCOUNT RATE", NULL}},
    {"grant.list",
     {"account", "grant", "amount", "used", "unit", "from", "until", "bought", "note"},
     {"ACCOUNT", "GRANT", ">AMOUNT", ">USED", "UNIT", "FROM", "UNTIL", "BOUGHT", "NOTE", NULL}},
    {"audit.list", {"time", "uid", "what", "request"}, {"TIME", ">UID", "WHAT", "REQUEST", NULL}},
};

static const struct columns *columns_of(const char *request)
{
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        if (strcmp(lists[i].request, request) == 0)
            return &lists[i];
    return NULL;
}

static bool is_time(const char *name)
{
    static const char *const names[] = {"time",  "until",       "from",       "began",
                                        "ends",  "created",     "start",      "end",
                                        "added", "spike_since", "spike_until"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* Kinds of hashes by their names. */
static const char *word_for(const char *name, const char *text)
{
    static const char *const kinds[][2] = {
        {"$y$", "yescrypt"}, {"$gy$", "gost-yescrypt"}, {"$2a$", "bcrypt"},
        {"$2b$", "bcrypt"},  {"$2x$", "bcrypt"},        {"$2y$", "bcrypt"},
        {"$5$", "SHA-256"},  {"$6$", "SHA-512"},        {"$7$", "scrypt"}};
    for (size_t i = 0; strcmp(name, "hash_kind") == 0 && i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i][0], text) == 0)
            return kinds[i][1];
    return text;
}

/* Members that count bytes. */
static bool is_volume(const json_t *result, const char *name)
{
    const char *unit = json_string_value(json_object_get(result, "unit"));
    size_t len = strlen(name);
    if (strcmp(name, "amount") == 0 || strcmp(name, "used") == 0)
        return unit && strcmp(unit, "bytes") == 0;
    return strcmp(name, "bytes") == 0 || strcmp(name, "byte_minimum") == 0 ||
           strcmp(name, "size") == 0 || (len > 6 && strcmp(name + len - 6, "_bytes") == 0);
}

static void cell(char out[200], const json_t *result, const char *name)
{
    const json_t *value = json_object_get(result, name);
    out[0] = '\0';
    if (json_is_string(value))
        snprintf(out, 200, "%s%s", word_for(name, json_string_value(value)),
                 strcmp(name, "plan") == 0 && json_is_true(json_object_get(result, "plan_missing"))
                     ? " (missing)"
                     : "");
    else if (json_is_boolean(value))
        snprintf(out, 200, "%s", json_is_true(value) ? "yes" : "no");
    else if (json_is_integer(value) && is_time(name) && json_integer_value(value))
        print_time(out, 200, (double)json_integer_value(value));
    else if (json_is_integer(value) && is_volume(result, name))
        print_volume(out, 200, (double)json_integer_value(value));
    else if (json_is_integer(value))
        snprintf(out, 200, "%lld", (long long)json_integer_value(value));
}

static void add_row(struct output *o, const struct columns *c, const json_t *result)
{
    char texts[9][200];
    const char *cells[10] = {NULL};
    if (!o->table)
        o->table = table_new(o->ctl, c->titles);
    for (size_t i = 0; c->titles[i]; i++) {
        cell(texts[i], result, c->members[i]);
        cells[i] = texts[i];
    }
    table_row(o->table, cells);
}

/* "9660 (9.7 KB)" */
static void print_with_volume(char *out, size_t size, json_int_t bytes)
{
    char volume[40];
    print_volume(volume, sizeof volume, (double)bytes);
    snprintf(out, size, "%lld (%s)", (long long)bytes, volume);
}

/* Times and sizes as people read them; what is not limited says so. */
static void show(struct ctl *ctl, json_t *result)
{
    const char *name;
    json_t *value;
    void *safe;
    char text[200];
    json_object_foreach_safe(result, safe, name, value)
    {
        json_int_t n = json_integer_value(value);
        if (strcmp(name, "hash_kind") == 0)
            cell(text, result, name);
        else if (!json_is_integer(value))
            continue;
        else if (is_time(name) && n == 0)
            snprintf(text, sizeof text, "-");
        else if (is_time(name))
            print_time(text, sizeof text, (double)n);
        else if (n == 0 && (strcmp(name, "limit") == 0 || strcmp(name, "limit_bytes") == 0))
            snprintf(text, sizeof text, "none");
        else if (strcmp(name, "percent") == 0)
            snprintf(text, sizeof text, "%lld%%", (long long)n);
        else if (is_volume(result, name) && n >= 1000)
            print_with_volume(text, sizeof text, n);
        else
            continue;
        json_object_set_new(result, name, json_string(text));
    }
    print_json(ctl, result, 0);
}

/* Whether it has a password that SCRAM does not work with yet. */
static bool has_no_keys(const json_t *user)
{
    const char *kind = json_string_value(json_object_get(user, "hash_kind"));
    return kind && strcmp(kind, "none") != 0 && json_is_false(json_object_get(user, "scram"));
}

/* Of users who came as hashes; nothing if SCRAM is not offered. */
static void print_without_scram(const struct ctl *ctl, json_int_t users)
{
    const struct config *c = ctl_config((struct ctl *)(uintptr_t)ctl);
    if (users == 0 || ctl->json || !c || c->scram_iterations == 0 ||
        !sasl_filter_permits(c->smtpd_sasl_mechanism_filter, sasl_own_names[SASL_OWN_SCRAM]))
        return;
    fprintf(stderr,
            "postern: %lld %s no SCRAM keys yet: they are made at the first login by PLAIN or\n"
            "LOGIN. Programs that try SCRAM alone get 535 until then; if there are any, see\n"
            "smtpd_sasl_mechanism_filter in the operator's guide, \"Users of another system\".\n",
            (long long)users, users == 1 ? "user has" : "users have");
}

static int on_line(json_t *result, void *arg)
{
    struct output *o = arg;
    const struct columns *c = columns_of(o->shape->request);
    o->count++;
    o->without_scram += strcmp(o->shape->request, "user.list") == 0 && has_no_keys(result);
    if (o->ctl->json || strcmp(o->shape->request, "export") == 0)
        print_json_line(result);
    else if (c)
        add_row(o, c, result);
    else
        show(o->ctl, result);
    return 0;
}

/* What was done and is mostly a mistake. */
static void print_warnings(const json_t *warnings)
{
    size_t at;
    json_t *one;
    json_array_foreach(warnings, at, one)
    {
        fputs("postern: warning: ", stderr);
        print_safe(stderr, json_string_value(one));
        fputc('\n', stderr);
    }
}

int cmd_accounts(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    const struct shape *s = shape_of(self);
    struct line l = {.yes = false};
    struct output o = {.ctl = ctl, .shape = s};
    json_t *last = NULL;
    (void)argc;
    int count = parse(ctl, self, s, &l, argv);
    if (count < 0)
        return args_status(count);
    json_t *request = build(self, s, &l, count, argv);
    if (!request)
        return CTL_USAGE;
    int status = accounts_ask(ctl, request, on_line, &o, &last);
    if (o.table)
        table_end(o.table);
    print_without_scram(ctl, o.without_scram);
    if (status == CTL_OK)
        json_object_del(last, "done");
    if (status == CTL_OK && !ctl->json) {
        print_warnings(json_object_get(last, "warnings"));
        json_object_del(last, "warnings");
    }
    if (status == CTL_OK && o.count == 0 && json_object_size(last) > 0) {
        if (ctl->json)
            print_json_line(last);
        else
            print_json(ctl, last, 0);
    }
    json_decref(last);
    return status;
}

/* ---- import ------------------------------------------------------------------------------ */

enum { IMPORT_RECORDS = 500 };

struct import {
    struct ctl *ctl;
    json_t *records, *warnings;
    unsigned long line, first;
    json_int_t without_scram;
};

/* `more`: it is not the last part, so that quota waits for the others before it counts. */
static int flush(struct import *i, bool more)
{
    json_t *request =
        json_pack("{s:s,s:o,s:b}", "request", "import", "records", i->records, "more", more);
    json_t *last = NULL;
    i->records = json_array();
    int status = accounts_ask(i->ctl, request, NULL, NULL, &last);
    json_array_extend(i->warnings, json_object_get(last, "warnings"));
    i->without_scram += json_integer_value(json_object_get(last, "without_scram"));
    json_decref(last);
    if (status != CTL_OK)
        ctl_error(status,
                  i->first == 1 ? "(record 1 is line %lu; nothing was imported)"
                                : "(record 1 is line %lu; the lines before it were imported)",
                  i->first);
    return status;
}

static int import_line(struct import *i, const char *text, size_t len)
{
    json_error_t error;
    i->line++;
    json_t *record = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(record)) {
        json_decref(record);
        return ctl_error(CTL_FAILED, "line %lu: is no JSON object in one line: %s", i->line,
                         error.text);
    }
    if (json_array_size(i->records) == 0)
        i->first = i->line;
    json_array_append_new(i->records, record);
    return json_array_size(i->records) == IMPORT_RECORDS ? flush(i, true) : CTL_OK;
}

static void print_imported(const struct import *i)
{
    json_t *line =
        json_pack("{s:I,s:I}", "records", (json_int_t)i->line, "without_scram", i->without_scram);
    if (json_array_size(i->warnings))
        json_object_set(line, "warnings", i->warnings);
    print_json_line(line);
    json_decref(line);
}

int cmd_accounts_import(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    const struct arg none[] = {{NULL, NULL, NULL}};
    struct import i = {.ctl = ctl};
    char *text = NULL;
    size_t size = 0;
    ssize_t len;
    int status = CTL_OK, count = args_parse(ctl, self, none, argv);
    (void)argc;
    if (count < 0)
        return args_status(count);
    if (count != 1)
        return ctl_usage(self, "give the file of an export, or - for standard input");
    FILE *in = strcmp(argv[0], "-") == 0 ? stdin : fopen(argv[0], "r");
    if (!in)
        return ctl_error(CTL_FAILED, "%s: cannot be read: %s", argv[0], strerror(errno));
    i.records = json_array();
    i.warnings = json_array();
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
    if (!ctl->json)
        print_warnings(i.warnings);
    if (status == CTL_OK && ctl->json)
        print_imported(&i);
    else if (status == CTL_OK)
        printf("%lu records imported\n", i.line);
    print_without_scram(ctl, i.without_scram);
    json_decref(i.warnings);
    return status;
}
