/*
 * Questions to DNS, through libunbound's event API on the service's own loop:
 * no threads, no blocking. Name servers are those of resolver_nameservers, else
 * those of /etc/resolv.conf, else libunbound asks the DNS from the root itself.
 */
#ifndef POSTERN_RESOLVE_DNS_H
#define POSTERN_RESOLVE_DNS_H

#include <event2/event.h>

#include "core/err.h"
#include "core/list.h"
#include "resolve/dns_answer.h"

struct dns;
struct dns_query;

/* The answer's records are valid until the callback returns. */
typedef void dns_callback(const struct dns_answer *answer, unsigned tag, void *arg);

/* nameservers: a list of addresses, each with @port if wanted; empty: recursion
 * from the root. anchors: DS or DNSKEY records that DNSSEC validation begins with,
 * one a line; empty: nothing is validated. */
struct dns *dns_new(struct event_base *base, const char *nameservers, struct slice anchors,
                    struct err *e);
/* Asks. The callback comes later, never from inside dns_ask. The question is
 * put into `owner`, the caller's list of its open questions, and leaves it when
 * it is answered. */
void dns_ask(struct dns *d, const char *name, enum dns_type type, struct list *owner, unsigned tag,
             dns_callback *callback, void *arg);
/* Whether so many questions wait that no lookup should begin. */
bool dns_is_busy(const struct dns *d);
/* The caller does not want the answers to the questions in its list any more. */
void dns_abandon(struct list *owner);
/* Once per turn of the loop: sends what waits for a place. */
void dns_turn(struct dns *d);
/* Replaced by another: puts d into the list `retired`. Lookups that began with
 * it may go on to use it for as long as they have open questions. */
void dns_retire(struct dns *d, struct list *retired);
/* dns_turn for those in the list; frees the ones that have no open questions. */
void dns_turn_retired(struct list *retired);

#endif
