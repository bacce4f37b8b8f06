/* What 'postern account' and its kin print: lists as tables, one thing as its members. */
#include <string.h>

#include "conf/sasl.h"
#include "ctl/accounts.h"

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

static void add_row(struct accounts_output *o, const struct columns *c, const json_t *result)
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

void accounts_print_without_scram(struct ctl *ctl, json_int_t users)
{
    const struct config *c = ctl_config(ctl);
    if (users == 0 || ctl->json || !c || c->scram_iterations == 0 ||
        !sasl_filter_permits(c->smtpd_sasl_mechanism_filter, sasl_own_names[SASL_OWN_SCRAM]))
        return;
    fprintf(stderr,
            "postern: %lld %s no SCRAM keys yet: they are made at the first login by PLAIN or\n"
            "LOGIN. Programs that try SCRAM alone get 535 until then; if there are any, see\n"
            "smtpd_sasl_mechanism_filter in the operator's guide, \"Users of another system\".\n",
            (long long)users, users == 1 ? "user has" : "users have");
}

int accounts_print_line(json_t *result, void *arg)
{
    struct accounts_output *o = arg;
    const struct columns *c = columns_of(o->request);
    o->count++;
    o->without_scram += strcmp(o->request, "user.list") == 0 && has_no_keys(result);
    if (o->ctl->json || strcmp(o->request, "export") == 0)
        print_json_line(result);
    else if (c)
        add_row(o, c, result);
    else
        show(o->ctl, result);
    return 0;
}

void accounts_print_warnings(const json_t *warnings)
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

void accounts_print_end(struct accounts_output *o)
{
    if (o->table)
        table_end(o->table);
    o->table = NULL;
    accounts_print_without_scram(o->ctl, o->without_scram);
}
