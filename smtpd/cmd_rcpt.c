/* RCPT: one recipient, taken or refused by itself. */
#include "core/clock.h"
#include "core/log.h"
#include "smtpd/gate.h"
#include "smtpd/limits.h"
#include "smtpd/policy.h"
#include "smtpd/reply.h"
#include "smtpd/report.h"
#include "smtpd/verbs.h"

static const struct refusal too_many = {452, "4.5.3", "Error: too many recipients"};

/* Path and parameters; 0, or -1 when it was answered. */
static int parse(struct session *s, struct slice argument, struct smtp_path *recipient,
                 struct rcpt_params *params)
{
    struct refusal why;
    bool utf8 = (s->tx.flags & MESSAGE_SMTPUTF8) != 0;
    if (command_keyword(&argument, SLICE("TO:")) < 0) {
        reply(s, 501, "5.5.4", "Syntax: RCPT TO:<address>");
        return -1;
    }
    unsigned flags = PATH_RECIPIENT | (utf8 ? PATH_UTF8 : 0u);
    enum path_error error = path_parse(&argument, flags, recipient);
    if (error != PATH_OK) {
        why = path_refusal(error, flags);
        reply_refusal(s, &why);
        return -1;
    }
    if (rcpt_params_parse(argument, utf8, params, &why) < 0) {
        reply_refusal(s, &why);
        return -1;
    }
    return 0;
}

/* RFC 5321 section 4.5.5 wants <postmaster> without a domain: it is ours. */
static int complete(const struct session *s, struct smtp_path *recipient)
{
    const char *origin = s->server->config->myorigin;
    if (recipient->local_len != recipient->len)
        return 0;
    struct buf b = {recipient->text, recipient->len, sizeof recipient->text,
                    sizeof recipient->text - 1};
    if (buf_printf(&b, "@%s", origin) < 0)
        return -1;
    recipient->text[b.len] = '\0';
    recipient->len = (uint16_t)b.len;
    return 0;
}

/* A client that has more recipients than the message may have is no offender: it sends
 * the others separately (B30, RFC 5321 section 4.5.3.1.10), and it must get to the end of
 * data for those that were taken. Who had none taken, or does not stop, still is one. */
static void forgive(struct session *s)
{
    if (s->tx.rcpt_count == 0 || s->tx.refused > RCPT_OVERSHOOT)
        return;
    s->errors--;
    s->penalty = false;
}

/* Whether the limits allow one more; answers if not. */
static bool has_room(struct session *s, struct slice address)
{
    struct server *sv = s->server;
    if (s->tx.rcpt_count >= sv->config->smtpd_recipient_limit) {
        reject(s, address, &too_many);
        forgive(s);
        return false;
    }
    if (s->limited && !clients_recipient(&sv->clients, s->client, clock_mono())) {
        log_warning("Recipient address rate limit exceeded from %s", s->peer);
        reject_text(s, address, 450, "4.7.1", "Error: too many recipients from %s", s->peer);
        forgive(s);
        return false;
    }
    if (gate_recipient(s, address))
        return true;
    forgive(s);
    return false;
}

static void accept_recipient(struct session *s, struct slice address,
                             const struct rcpt_params *params)
{
    if (tx_add_recipient(s, address, params) < 0) {
        reject(s, address, &too_many);
        forgive(s);
        return;
    }
    s->tx.refused--;
    if (s->tx.rcpt_count == 1)
        report_client(s);
    s->state = STATE_RCPT;
    reply_ready(s, 250, SLICE("250 2.1.5 Ok\r\n"));
}

/* The restrictions have been checked, after a wait. */
static void decided(struct session *s, enum check_result result)
{
    const struct check_run *run = s->tx.run;
    struct slice address = path_address(&run->recipient);
    if (result == CHECK_REFUSED)
        restrictions_refuse(s, address);
    else
        accept_recipient(s, address, &run->params);
}

void cmd_rcpt(struct session *s, struct slice argument)
{
    struct smtp_path recipient;
    struct rcpt_params params;
    s->tx.refused++; /* until it is taken */
    if (parse(s, argument, &recipient, &params) < 0)
        return;
    if (complete(s, &recipient) < 0) {
        reply(s, 553, "5.1.3", "Error: the address is too long");
        return;
    }
    struct slice address = path_address(&recipient);
    const struct refusal *no = policy_recipient(s, address);
    if (no) {
        reject_text(s, address, no->code, no->enhanced, "<%s>: %s", log_esc_n(address, ADDRESS_MAX),
                    no->text);
        return;
    }
    if (!has_room(s, address))
        return;
    enum check_result result = restrictions_check_recipient(s, &recipient, &params, decided);
    if (result == CHECK_PASSED)
        accept_recipient(s, address, &params);
    else if (result == CHECK_REFUSED)
        restrictions_refuse(s, address);
}
