/* Which command may come when: the table of handlers, and one file for each
 * verb's own work (cmd_NAME.c). */
#ifndef POSTERN_SMTPD_VERBS_H
#define POSTERN_SMTPD_VERBS_H

#include "smtpd/session.h"

/* A command line without its end. */
void verbs_handle(struct session *s, struct slice line);

/* Handlers. They reply, and change the state if the command was accepted. */
typedef void verb_handler(struct session *s, struct slice argument);
verb_handler cmd_ehlo, cmd_helo, cmd_mail, cmd_rcpt, cmd_data, cmd_data_without_recipient, cmd_bdat,
    cmd_rset, cmd_noop, cmd_vrfy, cmd_help, cmd_quit, cmd_http, cmd_xclient, cmd_xforward,
    cmd_starttls, cmd_auth;

#endif
