/*
 * What all sessions of this process share: configuration, texts made from it,
 * the link to qmgr, the counts per client, the timers and the one buffer that
 * everything is read into.
 */
#ifndef POSTERN_SMTPD_SERVER_H
#define POSTERN_SMTPD_SERVER_H

#include <event2/event.h>

#include "conf/config.h"
#include "conf/nets.h"
#include "smtpd/accounts.h"
#include "smtpd/auth_setup.h"
#include "smtpd/clients.h"
#include "smtpd/dovecot.h"
#include "smtpd/keys.h"
#include "smtpd/link.h"
#include "smtpd/names.h"
#include "smtpd/restrictions.h"
#include "smtpd/secure.h"
#include "smtpd/timeouts.h"

struct listeners;

struct server {
    struct event_base *base;
    const struct config *config;
    struct nets relay_networks;                /* mynetworks */
    struct nets exempt_networks;               /* smtpd_client_event_limit_exceptions */
    struct nets proxy_networks;                /* smtpd_proxy_networks */
    struct nets xclient_hosts, xforward_hosts; /* smtpd_authorized_xclient_hosts and so on */
    struct buf greeting;                       /* "220 ...\r\n" */
    struct buf ehlo;                           /* all lines of the reply to EHLO */
    struct buf domain;                         /* what our Received lines and replies call us */
    bool requiretls;                           /* EHLO says it, under TLS */
    bool submission;                           /* smtpd_service_kind */
    bool proxied;                              /* smtpd_upstream_proxy_protocol is set */
    struct link link;
    struct names names;
    struct accounts accounts;
    struct auth_setup auth;
    struct dovecot dovecot;
    struct keys keys;
    struct secure secure;
    struct restrictions restrictions;
    struct clients clients;
    struct timeouts timeouts;
    struct listeners *listeners; /* NULL: sessions come from elsewhere (tests) */
    char *input;                 /* see session.c */
    struct list sessions;
    size_t session_count;
    struct buf slice; /* large content on its way into its file */
    uint64_t memory;  /* content, recipients, kept input of all sessions: smtpd_memory_limit */
    bool draining;
    bool closing;            /* draining in a hurry: sessions end between messages */
    void (*idle)(void *arg); /* draining, and the last session is gone */
    void *idle_arg;
};

/* 0, or -1 when a value of the configuration cannot be used. The configuration
 * stays the caller's and must outlive the server. */
int server_init(struct server *sv, struct event_base *base, const struct config *config,
                struct err *e);
/* Goes over to a new configuration; the old one may be freed afterwards. -1: the
 * lists of networks and the greeting could not be made, and stay the old ones. */
int server_configure(struct server *sv, const struct config *config, struct err *e);
/* Makes all lines of the reply to EHLO, with the limits of the plan of who has logged
 * in; 0: everybody's. */
void server_ehlo(const struct config *config, uint64_t size_limit, uint64_t recipient_limit,
                 struct buf *out);
/* Takes no more connections. With `hurry` sessions end at their next pause,
 * otherwise when their clients end them (after a reload); a call with it may
 * follow one without. idle(arg) is called, perhaps at once, when none is left. */
void server_drain(struct server *sv, bool hurry, void (*idle)(void *arg), void *arg);
/* There must be no session any more. */
void server_free(struct server *sv);

#endif
