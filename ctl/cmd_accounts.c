/* postern account, user, domain, plan, grant, usage: one table from command lines
 * to requests. The other end: quota/requests*.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "certs/certs.h"
#include "core/mem.h"
#include "ctl/accounts.h"

/* CTL_OK, or the status after telling what is wrong. */
static int are_on(struct ctl *ctl)
{
    const struct config *c = ctl_config(ctl);
    if (!c)
        return CTL_FAILED;
    return c->accounts_enable ? CTL_OK
                              : ctl_error(CTL_FAILED,
                                          "accounts are off; put accounts_enable = yes into "
                                          "%s/main.cf and run 'postern reload'",
                                          ctl->directory);
}

int accounts_ask(struct ctl *ctl, json_t *request, int (*line)(json_t *, void *), void *arg,
                 json_t **last)
{
    int status = are_on(ctl);
    if (status == CTL_OK)
        return client_ask_at(ctl, "accounts", request, line, arg, last);
    json_decref(request);
    return status;
}

int accounts_ask_quietly(struct ctl *ctl, json_t *request, json_t **last)
{
    int status = are_on(ctl);
    *last = NULL;
    if (status == CTL_OK)
        return client_ask_quietly(ctl, "accounts", request, last);
    json_decref(request);
    return status;
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
    const char *certificate, *note, *since, *until;
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
    if (strcmp(s->request, "audit.list") == 0) {
        args[n++] = (struct arg){"--since", NULL, &l->since};
        args[n++] = (struct arg){"--until", NULL, &l->until};
    }
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

/* A moment that an option gives, or none; 0 or -1. */
static int add_moment(json_t *j, const struct ctl_command *self, const char *option,
                      const char *text, const char *member)
{
    int64_t seconds;
    if (!text)
        return 0;
    if (args_moment(text, &seconds) < 0) {
        ctl_usage(self,
                  "%s %.40s: give a date such as 2026-11-22, with a time such as \"2026-11-22 "
                  "14:30\" if need be, or an age such as 2h or 7d",
                  option, text);
        return -1;
    }
    return json_object_set_new(j, member, json_integer((json_int_t)seconds));
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
    if (add_moment(j, self, "--since", l->since, "from") < 0 ||
        add_moment(j, self, "--until", l->until, "to") < 0)
        goto wrong;
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

/* ---- the command ----------------------------------------------------------------------- */

int cmd_accounts(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    const struct shape *s = shape_of(self);
    struct line l = {.yes = false};
    struct accounts_output o = {.ctl = ctl, .request = s->request};
    json_t *last = NULL;
    (void)argc;
    int count = parse(ctl, self, s, &l, argv);
    if (count < 0)
        return args_status(count);
    json_t *request = build(self, s, &l, count, argv);
    if (!request)
        return CTL_USAGE;
    int status = accounts_ask(ctl, request, accounts_print_line, &o, &last);
    accounts_print_end(&o);
    if (status == CTL_OK)
        json_object_del(last, "done");
    if (status == CTL_OK && (!ctl->json || o.count)) { /* a list has no line for them */
        accounts_print_warnings(json_object_get(last, "warnings"));
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
