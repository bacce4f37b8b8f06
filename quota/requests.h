/* What the files of requests share. */
#ifndef POSTERN_QUOTA_REQUESTS_H
#define POSTERN_QUOTA_REQUESTS_H

#include "quota/control.h"

/* The account, user or identity that the request names in member `name`; false:
 * failed and answered. */
bool request_account(struct client *c, const char *name, char out[static ACCOUNT_NAME_MAX + 1]);
bool request_login(struct client *c, char out[static LOGIN_MAX + 1]);
bool request_identity(struct client *c, char out[static ADDRESS_TEXT_MAX + 1]);
/* The record of an account or user that there is; the caller decrefs. NULL:
 * answered. */
json_t *request_existing_account(struct client *c, const char *name);
json_t *request_existing_user(struct client *c, const char *login);
/* A list may be of one account, which has to be there then; false: answered. */
bool request_listed_account(struct client *c);
/* The time that a member gives: seconds, or "2026-12-31" at midnight in the
 * plan's zone. *out is 0 if it is not there. False: answered. */
bool request_time(struct client *c, const char *name, const struct plan *plan, int64_t *out);

/* Sets the members of an account's record from a request or an import; NULL, or
 * what is wrong with them in *e. */
int record_set_account(struct quota *q, json_t *record, const json_t *from, struct err *e);
/* Warnings for the answer: the record's source pool, or else its plan's, is none; the domain or
 * address is another account's, too. */
void record_warn_pool(struct client *c, const char *account, const json_t *record);
void record_warn_owner(struct client *c, const char *account, const char *identity);
/* A text for people, such as a note. 0 or -1. */
int record_check_text(const char *name, const json_t *value, struct err *e);
/* What a user's record may have from an import. */
int record_set_user(json_t *record, const json_t *from, struct err *e);
/* Certificates of users: their records have a list of them ("certificates"), and each
 * fingerprint leads to its user in a table. */

/* Adds one to a record, as of `added` (seconds since 1970). 0, or -1 with the reason: no
 * fingerprint, another user's, too many. */
int certificate_add(struct quota *q, json_t *record, const char *login, const char *fingerprint,
                    const char *note, int64_t added, struct err *e);
/* Adds all that `from` (an import) lists; q NULL: whose they are is looked at later. */
int certificates_add(struct quota *q, json_t *record, const char *login, const json_t *from,
                     struct err *e);
/* Their way to the user: into the batch, or out of it. */
void certificates_index(struct buf *batch, const char *login, const json_t *record);
void certificates_unindex(struct buf *batch, const json_t *record);

/* Ends the sessions of the user, or of the account's users: they log in again, if they can. */
void record_end_sessions(json_t *record);
/* The same, if a user's record differs from what it was (NULL: there was none) in its password
 * or in being suspended; an account's in its status. Otherwise they go on. */
void record_sessions(json_t *record, const json_t *before);
/* "acme", NUL, 'u', "login": the membership. */
void member_key(struct key *k, const char *account, char kind, const char *name);

/* Lists the keys of a table that begin with control_position's first bytes. */
struct listing {
    enum table table;
    struct slice prefix;
    json_t *(*show)(struct client *c, struct slice key, struct slice value);
};
/* Adds up to CONTROL_SLICE results and remembers where to go on; ends the request
 * at the end. */
void listing_go_on(struct client *c, const struct listing *l);
/* The same of keys before `end`; empty: of all. */
void listing_go_on_until(struct client *c, const struct listing *l, struct slice end);

control_serve account_add, account_set, account_show, account_list, account_delete, account_unguard;
control_serve user_add, user_set, user_show, user_list, user_delete;
control_serve user_certificate_add, user_certificate_delete, user_certificate_list;
control_serve domain_add, domain_delete, domain_list;
control_serve plan_list, plan_show, plan_used;
control_serve grant_add, grant_list, grant_delete;
control_serve usage_show, usage_list, usage_report, usage_failures;
control_serve transfer_export, transfer_import, audit_list, accounts_status, accounts_snapshot;

#endif
