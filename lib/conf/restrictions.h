/*
 * The lists of restrictions: smtpd_client_restrictions and so on. An element is a
 * word, or check_policy_service with a server:
 *
 *   check_policy_service inet:127.0.0.1:10040
 *   check_policy_service unix:private/policy
 *   check_policy_service { inet:[::1]:10040, timeout=10s, { default_action = 451 later } }
 */
#ifndef POSTERN_CONF_RESTRICTIONS_H
#define POSTERN_CONF_RESTRICTIONS_H

#include "conf/config.h"

enum restriction_list {
    RESTRICT_CLIENT,
    RESTRICT_HELO,
    RESTRICT_SENDER,
    RESTRICT_RECIPIENT,
    RESTRICT_DATA,
    RESTRICT_END_OF_DATA,
    RESTRICTION_LISTS
};

enum restriction_kind {
    RESTRICTION_PERMIT,
    RESTRICTION_REJECT,
    RESTRICTION_DEFER,
    RESTRICTION_PERMIT_NETWORKS,
    RESTRICTION_PERMIT_LOGIN,
    RESTRICTION_PERMIT_CERTIFICATE, /* relay_clientcerts has it */
    RESTRICTION_REJECT_UNAUTH,
    RESTRICTION_SERVICE
};

/* Slices borrow from the list. */
struct restriction {
    enum restriction_kind kind;
    /* of RESTRICTION_SERVICE: */
    struct slice endpoint;       /* "inet:127.0.0.1:10040" */
    struct slice default_action; /* empty: smtpd_policy_service_default_action */
    struct slice context;        /* empty: smtpd_policy_service_policy_context */
    int64_t timeout;             /* seconds; 0: smtpd_policy_service_timeout */
};

/* The text of a list. */
const char *restrictions_text(const struct config *c, enum restriction_list list);
/* Takes the next element off *list. 1, 0 at the end, -1 with *e. */
int restriction_next(struct slice *list, struct restriction *out, struct err *e);
/* Checks a whole list. */
int restrictions_check(const char *text, struct err *e);

#endif
