/* MAIL: the sender and what the transaction asks for. */
#include "core/clock.h"
#include "core/log.h"
#include "smtpd/content.h"
#include "smtpd/gate.h"
#include "smtpd/reply.h"
#include "smtpd/verbs.h"

static const struct refusal no_helo = {503, "5.5.1", "Error: send HELO/EHLO first"};

/* Path and parameters; 0, or -1 when it was answered. */
static int parse(struct session *s, struct slice argument, struct smtp_path *sender,
                 struct mail_params *params)
{
    struct refusal why;
    if (command_keyword(&argument, SLICE("FROM:")) < 0) {
        reply(s, 501, "5.5.4", "Syntax: MAIL FROM:<address>");
        return -1;
    }
    enum path_error error = path_parse(&argument, PATH_SENDER | PATH_UTF8, sender);
    if (error == PATH_OK && mail_params_parse(argument, params, &why) < 0) {
        reply_refusal(s, &why);
        return -1;
    }
    if (error == PATH_OK && sender->utf8 && !params->smtputf8)
        error = PATH_NOT_ASCII;
    if (error == PATH_OK)
        return 0;
    why = path_refusal(error, PATH_SENDER);
    reply_refusal(s, &why);
    return -1;
}

/* The gate has been asked. */
static void decided(struct session *s, const struct refusal *no)
{
    if (no) {
        reject(s, SLICE(""), no);
        tx_reset(s);
        return;
    }
    s->state = STATE_MAIL;
    reply_ready(s, 250, SLICE("250 2.1.0 Ok\r\n"));
}

void cmd_mail(struct session *s, struct slice argument)
{
    struct server *sv = s->server;
    struct smtp_path sender;
    struct mail_params params;
    if (!s->helo && sv->config->smtpd_helo_required) {
        reply_refusal(s, &no_helo);
        return;
    }
    if (parse(s, argument, &sender, &params) < 0)
        return;
    if (params.requiretls && !s->tls) {
        reply(s, 555, "5.5.4", "REQUIRETLS is for connections with TLS");
        return;
    }
    uint64_t limit = (uint64_t)sv->config->message_size_limit;
    if (limit && params.size > limit) {
        reject(s, SLICE(""), &content_too_large);
        return;
    }
    const struct refusal *no = link_refuses(&sv->link);
    if (no) {
        reject(s, SLICE(""), no);
        return;
    }
    if (s->limited && !clients_message(&sv->clients, s->client, clock_mono())) {
        log_warning("Message delivery request rate limit exceeded from %s", s->peer);
        reject_text(s, SLICE(""), 450, "4.7.1", "Error: too much mail from %s", s->peer);
        return;
    }
    tx_begin(&s->tx, &sender, &params);
    gate_mail(s, decided);
}
