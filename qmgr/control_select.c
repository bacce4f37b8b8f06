#include "qmgr/control_select.h"

#include <arpa/inet.h>

#include "core/clock.h"
#include "qmgr/control.h"
#include "qmgr/qmgr.h"
#include "qmgr/sources.h"

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* Goes back only to the last '*', which is enough for globs: the work is at
 * most pattern times text. */
static bool glob(struct slice pattern, struct slice text, bool anywhere)
{
    size_t p = 0, t = 0, star = SIZE_MAX, star_text = 0;
    while (t < text.len) {
        if (p < pattern.len && pattern.ptr[p] == '*') {
            star = p++;
            star_text = t;
        } else if (p < pattern.len &&
                   (pattern.ptr[p] == '?' || lower(pattern.ptr[p]) == lower(text.ptr[t]))) {
            p++;
            t++;
        } else if (p == pattern.len && anywhere) {
            return true;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++star_text;
        } else if (anywhere) {
            p = 0;
            t = ++star_text;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.ptr[p] == '*')
        p++;
    return p == pattern.len;
}

bool pattern_matches(struct slice pattern, struct slice text)
{
    return glob(pattern, text, false);
}

bool pattern_within(struct slice pattern, struct slice text)
{
    return glob(pattern, text, true);
}

static struct slice domain_of(struct slice address)
{
    return slice_from(address, slice_rchr(address, '@') + 1);
}

bool pattern_address(struct slice pattern, struct slice address)
{
    if (pattern.len > 1 && pattern.ptr[0] == '@')
        return pattern_matches(slice_from(pattern, 1), domain_of(address));
    return pattern_matches(pattern, address);
}

static int take_string(struct slice *out, const char *name, const json_t *value, struct err *e)
{
    if (!json_is_string(value))
        return err_set(e, "\"%s\" must be a string", name);
    *out = slice_make(json_string_value(value), json_string_length(value));
    if (out->len > CONTROL_PATTERN_MAX)
        return err_set(e, "\"%s\" is longer than %d bytes", name, (int)CONTROL_PATTERN_MAX);
    return 0;
}

/* An empty pattern selects nothing, and left out it would select everything: a
 * script with an unset variable must not delete the queue. */
static int take_pattern(struct slice *out, const char *name, const json_t *value, struct err *e)
{
    if (take_string(out, name, value, e) < 0)
        return -1;
    return out->len > 0 ? 0 : err_set(e, "\"%s\" is empty", name);
}

static int take_number(int64_t *out, const char *name, const json_t *value, struct err *e)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return err_set(e, "\"%s\" must be a number", name);
    *out = json_integer_value(value);
    return 0;
}

static int take_flag(bool *out, const char *name, const json_t *value, struct err *e)
{
    *out = json_is_true(value);
    return json_is_boolean(value) ? 0 : err_set(e, "\"%s\" must be true or false", name);
}

static int take_age(int64_t *out, const char *name, const json_t *value, struct err *e)
{
    if (!json_is_integer(value) || json_integer_value(value) <= 0 ||
        json_integer_value(value) > INT32_MAX)
        return err_set(e, "\"%s\" must be a number of seconds above 0", name);
    *out = json_integer_value(value);
    return 0;
}

static int take_status(struct selection *s, const char *name, const json_t *value, struct err *e)
{
    static const char *const names[] = {[QUEUE_ACTIVE] = "active",
                                        [QUEUE_DEFERRED] = "deferred",
                                        [QUEUE_HOLD] = "hold",
                                        [QUEUE_INCOMING] = "incoming"};
    struct slice text;
    if (take_string(&text, name, value, e) < 0)
        return -1;
    for (int i = 0; i < 4; i++)
        if (slice_eq(text, slice_str(names[i]))) {
            s->status = i;
            return 0;
        }
    return err_set(e, "\"status\" must be active, deferred, hold or incoming");
}

static int take_ids(struct selection *s, json_t *value, struct err *e)
{
    size_t i;
    json_t *id;
    if (!json_is_array(value))
        return err_set(e, "\"ids\" must be a list");
    json_array_foreach(value, i, id)
    {
        if (!json_is_string(id))
            return err_set(e, "\"ids\" must be a list of strings");
    }
    s->ids = value;
    return 0;
}

static int take_sender(struct selection *s, const char *name, const json_t *value, struct err *e)
{
    s->has_sender = true;
    return take_string(&s->sender, name, value, e);
}

static int take_member(struct selection *s, const char *name, json_t *value, struct err *e)
{
    const struct {
        const char *name;
        struct slice *pattern;
        int64_t *age, *number;
        bool *flag;
    } members[] = {
        {"account", &s->account, NULL, NULL, NULL},
        {"recipient", &s->recipient, NULL, NULL, NULL},
        {"site", &s->site, NULL, NULL, NULL},
        {"source", &s->source, NULL, NULL, NULL},
        {"reply", &s->reply, NULL, NULL, NULL},
        {"older_than", NULL, &s->older_than, NULL, NULL},
        {"newer_than", NULL, &s->newer_than, NULL, NULL},
        {"larger_than", NULL, NULL, &s->larger_than, NULL},
        {"smaller_than", NULL, NULL, &s->smaller_than, NULL},
        {"min_attempts", NULL, NULL, &s->min_attempts, NULL},
        {"max_attempts", NULL, NULL, &s->max_attempts, NULL},
        {"all", NULL, NULL, NULL, &s->all},
        {"deleted", NULL, NULL, NULL, &s->deleted},
    };
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        if (strcmp(name, members[i].name) != 0)
            continue;
        return members[i].pattern  ? take_pattern(members[i].pattern, name, value, e)
               : members[i].age    ? take_age(members[i].age, name, value, e)
               : members[i].number ? take_number(members[i].number, name, value, e)
                                   : take_flag(members[i].flag, name, value, e);
    }
    if (strcmp(name, "ids") == 0)
        return take_ids(s, value, e);
    if (strcmp(name, "sender") == 0)
        return take_sender(s, name, value, e);
    if (strcmp(name, "status") == 0)
        return take_status(s, name, value, e);
    return err_set(e, "\"select\" has no member of this name");
}

static bool has_filter(const struct selection *s)
{
    return s->has_sender || s->account.len || s->recipient.len || s->site.len || s->source.len ||
           s->reply.len || s->older_than || s->newer_than || s->larger_than >= 0 ||
           s->smaller_than >= 0 || s->min_attempts >= 0 || s->max_attempts >= 0 || s->status >= 0;
}

bool selection_is_all(const struct selection *s)
{
    return s->all && !s->ids && !has_filter(s);
}

int selection_parse(struct selection *s, json_t *select, struct err *e)
{
    const char *name;
    json_t *value;
    *s = (struct selection){.status = -1,
                            .larger_than = -1,
                            .smaller_than = -1,
                            .min_attempts = -1,
                            .max_attempts = -1};
    if (!json_is_object(select))
        return err_set(e, "\"select\" must be an object; {\"all\":true} selects all messages");
    json_object_foreach(select, name, value)
    {
        if (take_member(s, name, value, e) < 0)
            return -1;
    }
    if (!s->all && !s->ids && !has_filter(s))
        return err_set(e, "\"select\" selects nothing; {\"all\":true} selects all messages");
    return 0;
}

/* Attempts are counted up to UINT8_MAX: what is beyond is at least that. */
static bool attempts_match(const struct selection *s, int64_t attempts)
{
    return (s->min_attempts < 0 || attempts >= s->min_attempts || attempts == UINT8_MAX) &&
           (s->max_attempts < 0 || attempts <= s->max_attempts);
}

static bool reply_matches(const struct selection *s, const struct answer *a)
{
    if (!a)
        return false;
    struct buf words = BUF_INIT(2 * CONTROL_PATTERN_MAX);
    answer_wire(a, &words, CONTROL_PATTERN_MAX);
    bool matches = pattern_within(s->reply, buf_slice(&words));
    buf_free(&words);
    return matches;
}

static bool recipient_matches(const struct selection *s, const struct queue_recipient *r)
{
    if (s->recipient.len && !pattern_address(s->recipient, r->address))
        return false;
    if (s->site.len && !pattern_matches(s->site, domain_of(r->address)) &&
        !(r->answer && pattern_matches(s->site, answer_host(r->answer))))
        return false;
    return attempts_match(s, r->attempts) && (!s->reply.len || reply_matches(s, r->answer));
}

static bool is_address(const struct selection *s, int family, const void *address)
{
    char text[INET6_ADDRSTRLEN];
    return inet_ntop(family, address, text, sizeof text) &&
           pattern_matches(s->source, slice_str(text));
}

/* One of the addresses from which a job of it is, or will be, sent. */
static bool source_matches(const struct selection *s, const struct message *m)
{
    list_each(&m->env->jobs, n)
    {
        const struct job *j = container_of(n, struct job, of_message);
        const struct source *from = j->queue ? j->queue->lane->from : NULL;
        if (from && ((from->has_v4 && is_address(s, AF_INET, from->v4)) ||
                     (from->has_v6 && is_address(s, AF_INET6, from->v6))))
            return true;
    }
    return false;
}

static bool message_matches(const struct selection *s, const struct message *m, int64_t now)
{
    int64_t age = (now - m->arrival) / CLOCK_SECOND, size = (int64_t)message_size(m);
    if ((s->older_than && age <= s->older_than) || (s->newer_than && age >= s->newer_than))
        return false;
    if ((s->larger_than >= 0 && size <= s->larger_than) ||
        (s->smaller_than >= 0 && size >= s->smaller_than))
        return false;
    if (s->status >= 0 && (int)queue_status(m) != s->status)
        return false;
    if (s->account.len && !pattern_matches(s->account, message_account(m)))
        return false;
    if (s->source.len && !source_matches(s, m))
        return false;
    return !s->has_sender || pattern_address(s->sender, message_sender(m));
}

bool selection_matches(struct qmgr *q, const struct selection *s, const struct message *m,
                       int64_t now)
{
    bool by_recipient = s->recipient.len || s->site.len || s->reply.len || s->min_attempts >= 0 ||
                        s->max_attempts >= 0;
    if (!message_matches(s, m, now))
        return false;
    for (uint32_t i = 0; by_recipient && i < m->recipient_count; i++) {
        struct queue_recipient r;
        queue_recipient(q, m, i, &r);
        if (r.state != RCPT_DONE && recipient_matches(s, &r))
            return true;
    }
    return !by_recipient;
}
