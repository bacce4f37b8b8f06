#include "smtpd/verbs.h"

#include "core/log.h"
#include "smtpd/reply.h"

/* Verbs that every state knows. BDAT is among them because its content follows
 * at once and has to be swallowed even when it is refused (RFC 3030 section 2). */
#define ANYWHERE                                                                                   \
    [VERB_EHLO] = cmd_ehlo, [VERB_HELO] = cmd_helo, [VERB_RSET] = cmd_rset,                        \
    [VERB_NOOP] = cmd_noop, [VERB_VRFY] = cmd_vrfy, [VERB_HELP] = cmd_help,                        \
    [VERB_QUIT] = cmd_quit, [VERB_BDAT] = cmd_bdat, [VERB_HTTP] = cmd_http,                        \
    [VERB_XCLIENT] = cmd_xclient, [VERB_XFORWARD] = cmd_xforward, [VERB_STARTTLS] = cmd_starttls,  \
    [VERB_AUTH] = cmd_auth

/* A hole is a verb that the state does not allow. */
static verb_handler *const handlers[STATES][VERB_COUNT] = {
    [STATE_GREETED] = {ANYWHERE, [VERB_MAIL] = cmd_mail},
    [STATE_READY] = {ANYWHERE, [VERB_MAIL] = cmd_mail},
    [STATE_MAIL] = {ANYWHERE, [VERB_RCPT] = cmd_rcpt, [VERB_DATA] = cmd_data_without_recipient},
    [STATE_RCPT] = {ANYWHERE, [VERB_RCPT] = cmd_rcpt, [VERB_DATA] = cmd_data},
    [STATE_BDAT] = {ANYWHERE},
};

/* What to say about a hole. */
static const struct refusal out_of_order[STATES] = {
    [STATE_GREETED] = {503, "5.5.1", "Error: need MAIL command"},
    [STATE_READY] = {503, "5.5.1", "Error: need MAIL command"},
    [STATE_MAIL] = {503, "5.5.1", "Error: nested MAIL command"},
    [STATE_RCPT] = {503, "5.5.1", "Error: nested MAIL command"},
    [STATE_BDAT] = {503, "5.5.1", "Error: only BDAT or RSET may follow BDAT"},
};
static const struct refusal unknown = {500, "5.5.2", "Error: command not recognized"};
static const struct refusal absent = {502, "5.5.1", "Error: command not implemented"};
static const struct refusal control_bytes = {500, "5.5.2",
                                             "Error: control characters in the command"};

static const struct refusal before_tls = {530, "5.7.0", "Must issue a STARTTLS command first"};

/* Where encryption is required these are all that is served without it. */
static bool is_too_early(const struct session *s, enum smtp_verb verb)
{
    if (!s->server->secure.required || s->local_user || secure_is_on(s))
        return false;
    switch (verb) {
    case VERB_EHLO:
    case VERB_HELO:
    case VERB_STARTTLS:
    case VERB_AUTH: /* has its own reply to that (RFC 4954 section 6) */
    case VERB_NOOP:
    case VERB_QUIT:
    case VERB_HTTP:
    case VERB_XCLIENT:
    case VERB_XFORWARD:
    case VERB_UNKNOWN:
        return false;
    default:
        return true;
    }
}

/* The content of a BDAT that is not wanted must not be taken for commands. */
static void send_to_tls(struct session *s)
{
    reply_refusal(s, &before_tls);
    if (s->verb == VERB_BDAT)
        session_end(s);
}

static bool is_implemented(enum smtp_verb verb)
{
    for (int state = 0; state < STATES; state++)
        if (handlers[state][verb])
            return true;
    return false;
}

void verbs_handle(struct session *s, struct slice line)
{
    struct smtp_command c;
    int parsed = command_parse(line, &c);
    s->verb = (uint8_t)c.verb;
    s->where = command_name(c.verb);
    s->counts[c.verb].all++;
    verb_handler *handler = handlers[s->state][c.verb];
    if (parsed < 0)
        reply_refusal(s, &control_bytes);
    else if (is_too_early(s, c.verb))
        send_to_tls(s);
    else if (handler)
        handler(s, c.argument);
    else if (c.verb == VERB_UNKNOWN)
        reply_refusal(s, &unknown);
    else
        reply_refusal(s, is_implemented(c.verb) ? &out_of_order[s->state] : &absent);
}
