#include "smtpd/auth_internal.h"

#include <stdio.h>
#include <string.h>

#include "conf/sasl.h"
#include "core/log.h"
#include "core/mem.h"
#include "smtp/sasl.h"
#include "smtpd/dovecot.h"
#include "smtpd/limits.h"
#include "smtpd/reply.h"

struct mechanism {
    struct slice name; /* of our own ones: sasl_own_names */
    enum auth_step first;
    unsigned traits; /* enum sasl_trait */
    bool plus;       /* with channel binding */
};

/* Of our own accounts. */
static const struct mechanism mechanisms[SASL_OWN_COUNT] = {
    [SASL_OWN_SCRAM_PLUS] = {.first = STEP_SCRAM_FIRST, .traits = SASL_MUTUAL_AUTH, .plus = true},
    [SASL_OWN_SCRAM] = {.first = STEP_SCRAM_FIRST, .traits = SASL_MUTUAL_AUTH},
    [SASL_OWN_PLAIN] = {.first = STEP_PLAIN, .traits = SASL_PLAINTEXT},
    [SASL_OWN_LOGIN] = {.first = STEP_LOGIN_USER, .traits = SASL_PLAINTEXT},
    [SASL_OWN_EXTERNAL] = {.first = STEP_EXTERNAL},
};

void auth_configure(struct auth_setup *a, const struct config *config)
{
    a->enabled = config->smtpd_sasl_auth_enable;
    a->tls_only = config->smtpd_tls_auth_only;
    a->options = sasl_options(config->smtpd_sasl_security_options);
    a->tls_options = sasl_options(config->smtpd_sasl_tls_security_options);
}

/* ---- mechanisms -------------------------------------------------------------------- */

static bool can_bind(const struct session *s)
{
    struct secure_binding b;
    if (!s->server->config->smtpd_sasl_channel_binding)
        return false;
    secure_binding(s, &b);
    return b.exporter_len || b.endpoint_len;
}

static bool is_permitted(const struct session *s, const struct mechanism *m)
{
    const struct auth_setup *setup = &s->server->auth;
    if (!sasl_filter_permits(s->server->config->smtpd_sasl_mechanism_filter, m->name))
        return false;
    if (m->first == STEP_SCRAM_FIRST && s->server->config->scram_iterations == 0)
        return false;
    if (m->plus && !can_bind(s))
        return false;
    if (m->first == STEP_EXTERNAL && !(s->login && s->login->implied))
        return false;
    return sasl_permits(secure_is_on(s) ? setup->tls_options : setup->options, m->traits);
}

/* Goes through those that the session may use; *at is 0 at first. */
static bool next_mechanism(const struct session *s, size_t *at, struct mechanism *out)
{
    const struct dovecot *d = &s->server->dovecot;
    size_t count = d->state == DOVECOT_OFF     ? SASL_OWN_COUNT
                   : d->state == DOVECOT_READY ? d->mechanism_count
                                               : 0;
    while (*at < count) {
        size_t i = (*at)++;
        if (d->state == DOVECOT_OFF) {
            *out = mechanisms[i];
            out->name = sasl_own_names[i];
        } else
            *out = (struct mechanism){slice_str(d->mechanisms[i].name), STEP_DOVECOT,
                                      d->mechanisms[i].traits, false};
        if (is_permitted(s, out))
            return true;
    }
    return false;
}

static bool find_mechanism(const struct session *s, struct slice name, struct mechanism *out)
{
    size_t at = 0;
    while (next_mechanism(s, &at, out))
        if (slice_caseeq(name, out->name))
            return true;
    return false;
}

void auth_announce(const struct session *s, struct buf *out)
{
    const struct auth_setup *setup = &s->server->auth;
    struct mechanism m;
    size_t at = 0;
    bool any = false;
    if (!setup->announced || s->local_user || (s->login && !s->login->implied) ||
        (setup->tls_only && !secure_is_on(s)))
        return;
    while (next_mechanism(s, &at, &m)) {
        buf_addstr(out, any ? " " : "250-AUTH ");
        buf_adds(out, m.name);
        any = true;
    }
    if (any)
        buf_addstr(out, "\r\n");
}

/* ---- the end ------------------------------------------------------------------------- */

/* Back to commands; nothing of the exchange is left. */
static void end(struct session *s)
{
    struct auth *a = s->auth;
    accounts_forget(s);
    dovecot_forget(s);
    if (!a)
        return;
    login_free(&a->login);
    buf_free(&a->last);
    explicit_bzero(a, sizeof *a);
    xfree(&s->auth);
    s->mode = INPUT_COMMAND;
    line_init(&s->line, COMMAND_LINE_MAX);
}

void auth_forget(struct session *s)
{
    end(s);
}

/* A mistake of the client's in the exchange. */
void exchange_fail(struct session *s, int code, const char *enhanced, const char *text)
{
    end(s);
    reply(s, code, enhanced, "%s", text);
}

void exchange_log_failure(const struct session *s, const char *reason, struct slice user)
{
    if (user.len)
        log_warning("%s: SASL %s authentication failed: %s, sasl_username=%s", s->peer,
                    s->auth->mechanism, reason, log_esc_n(user, SASL_USER_MAX));
    else
        log_warning("%s: SASL %s authentication failed: %s", s->peer, s->auth->mechanism, reason);
}

/* The answer that was held back. */
void exchange_tell(struct session *s)
{
    struct auth *a = s->auth;
    enum auth_status status = (enum auth_status)a->status;
    char reason[sizeof a->reason];
    memcpy(reason, a->reason, sizeof reason);
    end(s);
    switch (status) {
    case AUTH_TOO_MANY:
        s->errors++;
        reply_goodbye(s, "4.7.0", "Error: too many failed logins, try later");
        break;
    case AUTH_TEMPORARY:
        reply(s, 454, "4.7.0", "Temporary authentication failure");
        break;
    case AUTH_DENIED: /* whoever knows the password may know this, too */
        reply(s, 535, "5.7.8", "Error: authentication failed: %s", reason);
        break;
    default:
        reply(s, 535, "5.7.8", "Error: authentication failed");
        break;
    }
}

/* fail2ban's filter leaves these words alone: the client is not to blame. */
void exchange_unavailable(struct session *s)
{
    exchange_log_failure(s, "Connection lost to authentication server", SLICE(""));
    exchange_fail(s, 454, "4.7.0", "Temporary authentication failure");
}

void exchange_succeed(struct session *s)
{
    login_free(&s->login); /* that of a certificate */
    s->login = s->auth->login;
    s->auth->login = NULL;
    end(s);
    s->nobody = false;
    login_free(&s->host_login);
    reply_ready(s, 235, SLICE("235 2.7.0 Authentication successful\r\n"));
}

/* ---- to the client --------------------------------------------------------------------- */

void exchange_challenge(struct session *s, struct slice message)
{
    buf_addstr(&s->out, "334 ");
    base64_encode(message, &s->out);
    buf_addstr(&s->out, "\r\n");
    s->mode = INPUT_AUTH;
    line_init(&s->line, COMMAND_AUTH_LINE_MAX);
}

/* ---- what the client says ----------------------------------------------------------------- */

static uint32_t flags_of(const struct session *s)
{
    return secure_is_on(s) ? AUTH_TLS : 0;
}

enum { WHOLE_NAME_MAX = 2 * SASL_USER_MAX + 1 };

/* With smtpd_sasl_local_domain, if it has none. */
static struct slice whole_name(const struct session *s, struct slice name,
                               char room[static WHOLE_NAME_MAX + 1])
{
    const char *domain = s->server->config->smtpd_sasl_local_domain;
    if (!*domain || name.len == 0 || slice_chr(name, '@') < name.len)
        return name;
    int n = snprintf(room, WHOLE_NAME_MAX + 1, "%.*s@%s", SLICE_ARG(name), domain);
    return slice_make(room, n <= WHOLE_NAME_MAX ? (size_t)n : WHOLE_NAME_MAX);
}

/* Asks quota; the answer is auth_result. */
static void ask_password(struct session *s, struct slice authorization, struct slice user,
                         struct slice password)
{
    char whole[WHOLE_NAME_MAX + 1], other[WHOLE_NAME_MAX + 1];
    struct buf *out = accounts_ask(s, ABOUT_LOGIN);
    if (!out) {
        exchange_unavailable(s);
        return;
    }
    ipc_auth_password_encode(
        out, &(struct ipc_auth_password){.tag = s->question.tag,
                                         .client = session_address(s),
                                         .flags = flags_of(s),
                                         .authorization = whole_name(s, authorization, other),
                                         .user = whole_name(s, user, whole),
                                         .password = password});
    accounts_secret(s);
    s->wait = WAIT_ACCOUNTS;
}

static void take_plain(struct session *s, struct slice message)
{
    struct sasl_plain p;
    if (sasl_plain_parse(message, &p) < 0)
        exchange_fail(s, 501, "5.5.2", "Error: malformed authentication message");
    else
        ask_password(s, p.authzid, p.user, p.password);
}

static void take_user(struct session *s, struct slice message)
{
    struct auth *a = s->auth;
    if (message.len == 0 || message.len > SASL_USER_MAX) {
        exchange_fail(s, 501, "5.5.2", "Error: malformed authentication message");
        return;
    }
    memcpy(a->user_text, message.ptr, message.len);
    a->user = slice_make(a->user_text, message.len);
    a->step = STEP_LOGIN_PASSWORD;
    exchange_challenge(s, SLICE("Password:"));
}

static void take_password(struct session *s, struct slice message)
{
    if (message.len == 0 || message.len > SASL_PASSWORD_MAX)
        exchange_fail(s, 501, "5.5.2", "Error: malformed authentication message");
    else
        ask_password(s, SLICE(""), s->auth->user, message);
}

static void ask_scram(struct session *s, struct buf *out, struct slice message)
{
    struct secure_binding b;
    secure_binding(s, &b);
    uint32_t flags =
        flags_of(s) | (can_bind(s) ? AUTH_OFFERED : 0) | (s->auth->plus ? (uint32_t)AUTH_PLUS : 0);
    ipc_auth_scram_encode(
        out, &(struct ipc_auth_scram){.tag = s->question.tag,
                                      .client = session_address(s),
                                      .flags = flags,
                                      .exporter = slice_make(b.exporter, b.exporter_len),
                                      .endpoint = slice_make(b.endpoint, b.endpoint_len),
                                      .message = message});
}

static void take_scram(struct session *s, struct slice message)
{
    bool first = s->auth->step == STEP_SCRAM_FIRST;
    struct buf *out = first ? accounts_ask(s, ABOUT_LOGIN) : accounts_go_on(s);
    if (!out) {
        exchange_unavailable(s);
        return;
    }
    if (first)
        ask_scram(s, out, message);
    else
        ipc_auth_response_encode(
            out, &(struct ipc_auth_response){.tag = s->question.tag, .message = message});
    s->wait = WAIT_ACCOUNTS;
}

/* The certificate has said who it is; the message is empty, or says the same. */
static void take_external(struct session *s, struct slice message)
{
    if (message.len && !slice_caseeq(message, slice_make(s->login->name, s->login->name_len))) {
        exchange_fail(s, 535, "5.7.8", "Error: authorization as another user is not possible");
        return;
    }
    s->login->implied = false;
    s->auth->login = s->login;
    s->login = NULL;
    exchange_succeed(s);
}

static void take_message(struct session *s, struct slice message)
{
    switch ((enum auth_step)s->auth->step) {
    case STEP_PLAIN:
        take_plain(s, message);
        break;
    case STEP_LOGIN_USER:
        take_user(s, message);
        break;
    case STEP_LOGIN_PASSWORD:
        take_password(s, message);
        break;
    case STEP_SCRAM_FIRST:
    case STEP_SCRAM_FINAL:
        take_scram(s, message);
        break;
    case STEP_EXTERNAL:
        take_external(s, message);
        break;
    case STEP_DOVECOT:
    case STEP_VERDICT:
        break; /* its messages are not read here */
    case STEP_LAST_WORD:
        if (message.len)
            exchange_fail(s, 501, "5.5.2", "Error: malformed authentication message");
        else
            exchange_succeed(s);
        break;
    }
}

/* A line of the exchange, or an initial response (`first`). */
static void take_text(struct session *s, struct slice text, bool first)
{
    char message[COMMAND_AUTH_LINE_MAX / 4 * 3];
    long len = base64_decode(text, message, sizeof message);
    if (len < 0)
        exchange_fail(s, 501, "5.5.2", "Error: invalid base64 data");
    else if (s->auth->step == STEP_DOVECOT)
        exchange_pass_on(s, &text, first);
    else
        take_message(s, slice_make(message, (size_t)len));
    explicit_bzero(message, sizeof message);
}

void auth_begin(struct session *s, struct slice name, const struct slice *initial)
{
    struct mechanism m;
    if (s->server->dovecot.state != DOVECOT_OFF && s->server->dovecot.state != DOVECOT_READY) {
        reply(s, 454, "4.7.0", "Temporary authentication failure");
        return;
    }
    if (!find_mechanism(s, name, &m)) {
        reply(s, 504, "5.5.4", "Error: authentication mechanism is not supported");
        return;
    }
    s->auth = xcalloc(1, sizeof *s->auth);
    s->auth->step = (uint8_t)m.first;
    s->auth->plus = m.plus;
    snprintf(s->auth->mechanism, sizeof s->auth->mechanism, "%.*s", SLICE_ARG(m.name));
    if (initial)
        take_text(s, *initial, true);
    else if (m.first == STEP_DOVECOT)
        exchange_pass_on(s, NULL, true);
    else
        exchange_challenge(s, m.first == STEP_LOGIN_USER ? SLICE("Username:") : SLICE(""));
}

size_t auth_take(struct session *s, struct slice in)
{
    size_t used;
    struct slice line;
    enum line_status status = line_next(&s->line, in, &used, &line);
    if (status == LINE_MORE)
        return used;
    s->taken = true;
    if (status == LINE_TOO_LONG || status == LINE_FLOOD) {
        exchange_fail(s, 500, "5.5.6", "Error: authentication line is too long");
        session_end(s);
    } else if (slice_eq(line, SLICE("*"))) {
        exchange_fail(s, 501, "5.7.0", "Authentication aborted");
    } else {
        take_text(s, line, false);
    }
    explicit_bzero((char *)(uintptr_t)in.ptr, used);
    return used;
}

/* ---- answers -------------------------------------------------------------------------------- */

void auth_lost(struct session *s)
{
    if (s->wait != WAIT_ACCOUNTS) /* between two steps: the next one will find out */
        return;
    s->wait = WAIT_NOTHING;
    exchange_unavailable(s);
    session_go_on(s);
}

void auth_challenge(struct session *s, struct slice message)
{
    s->wait = WAIT_NOTHING;
    bool wanted = s->auth->step == STEP_SCRAM_FIRST;
    s->auth->step = STEP_SCRAM_FINAL;
    if (!wanted || message.len > AUTH_CHALLENGE_MAX)
        exchange_unavailable(s);
    else
        exchange_challenge(s, message);
    session_go_on(s);
}

static void granted(struct session *s, const struct ipc_auth_result *r)
{
    struct auth *a = s->auth;
    a->login = login_of_account(a->mechanism, r, s->server->accounts.changes);
    if (!a->login || r->message.len > AUTH_CHALLENGE_MAX) {
        log_error("quota has sent a login that makes no sense");
        exchange_unavailable(s);
    } else if (r->message.len) {
        a->step = STEP_LAST_WORD;
        exchange_challenge(s, r->message);
    } else {
        exchange_succeed(s);
    }
}

void exchange_denied(struct session *s, const struct ipc_auth_result *r)
{
    struct auth *a = s->auth;
    a->status = r->status;
    snprintf(a->reason, sizeof a->reason, "%s", log_esc_n(r->reason, 40));
    if (r->status == AUTH_TEMPORARY) {
        log_warning("%s: SASL %s authentication is not possible now: %s", s->peer, a->mechanism,
                    log_esc_n(r->reason, 200));
    } else {
        exchange_log_failure(s, log_esc_n(r->reason, 200), r->user);
    }
    if (r->delay)
        nap_begin(s, r->delay, exchange_tell);
    else
        exchange_tell(s);
}

void auth_result(struct session *s, const struct ipc_auth_result *r)
{
    s->wait = WAIT_NOTHING;
    if (s->auth->step == STEP_VERDICT)
        exchange_verdict(s, r);
    else if (r->status == AUTH_OK)
        granted(s, r);
    else
        exchange_denied(s, r);
    session_go_on(s);
}
