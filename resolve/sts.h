/*
 * MTA-STS policies of domains (RFC 8461): asked for by DNS, fetched by HTTPS, kept
 * for as long as the domain says, over restarts too. A policy that cannot be had
 * anew changes nothing about the one that is known; where none is known, mail goes
 * as if there were none (B75).
 *
 * What is known is fetched anew long before it expires, mail or no mail, and again and
 * again if that fails: whoever can keep a policy server from answering for a while must
 * not get mail to go without its policy (section 10.2).
 */
#ifndef POSTERN_RESOLVE_STS_H
#define POSTERN_RESOLVE_STS_H

#include "conf/config.h"
#include "resolve/dns.h"
#include "resolve/https.h"
#include "resolve/policy.h"
#include "resolve/tls_facts.h"
#include "tls/result.h"

enum {
    STS_DOMAINS_MAX = 20000,     /* remembered; the least recently used go */
    STS_FETCHES_MAX = 32,        /* at a time; beyond: as if it failed */
    STS_ADDRESSES_MAX = 8,       /* of a policy server that are tried */
    STS_RETRY_SECONDS = 300,     /* before a policy that could not be had is tried again */
    STS_REFRESH_SECONDS = 86400, /* age at which a policy is fetched anew (section 10.2), or
                                  * half of its life, whichever comes first */
    STS_REFRESH_RETRY = 8,       /* part of what is left of its life, before that is tried again */
    STS_REFRESH_RETRY_MAX = 6 * 3600, /* s; at least STS_CHECK_MIN */
    STS_REFRESH_LOOK = 2,             /* s between two looks for what is to be fetched anew */
    STS_REFRESHES_MAX = 16,           /* of these at a time; the other places are for new ones */
    STS_CHECK_MIN = 60, /* s that a TXT record, that there is none, or a policy holds */
    STS_CHECK_MAX = 3600,
    STS_SAVE_SECONDS = 5 /* between a change and the disk */
};

struct sts;
struct sts_waiter;

/* Before the jail: opens the files of what is known. */
struct sts *sts_open(const char *data_directory, struct err *e);
/* In the jail. *dns is asked about policies that nobody waits for; it may change. */
int sts_start(struct sts *all, struct event_base *base, const struct config *config,
              const struct policy *policy, struct dns *const *dns, struct err *e);
void sts_configure(struct sts *all, const struct config *config);
/* PEM certificates that policy servers are verified with. */
void sts_authorities(struct sts *all, struct slice pem);
/* Makes sure that the domain's policy is known as well as it can be. NULL: it is;
 * else `done` is called later, unless sts_forget comes first. */
struct sts_waiter *sts_find(struct sts *all, struct dns *dns, struct slice domain,
                            void (*done)(void *arg), void *arg);
/* May be NULL. */
void sts_forget(struct sts_waiter *w);
/* What is known about the domain into out->sts...; of a domain without a policy only how
 * long that is to be believed. */
void sts_result(struct sts *all, struct slice domain, struct tls_facts *out);
/* What went wrong with the last search for a policy that there should be, once each: the
 * result, or TLS_RESULT_SUCCESS. *why, printable, is the caller's to free. */
enum tls_result sts_failure(struct sts *all, struct slice domain, char **why);
/* Writes down what has changed, at the end. */
void sts_save(struct sts *all);

#endif
