/*
 * What our own configuration asks of TLS with a next hop: smtp_tls_policy_maps,
 * else smtp_tls_security_level; and the rules for relay that follow from it
 * together with what the destination itself publishes (tls_facts.h).
 *
 * The table is searched as in Postfix: the next hop as it is written in
 * transport_maps or relayhost ("[mx.example.com]:587"), the same without its port,
 * the bare name, then .parent for each parent domain. Pattern tables see the first
 * of these only.
 */
#ifndef POSTERN_RESOLVE_TLS_POLICY_H
#define POSTERN_RESOLVE_TLS_POLICY_H

#include "conf/config.h"
#include "resolve/destination.h"
#include "resolve/tls_facts.h"
#include "tables/table.h"
#include "tls/policy.h"
#include "tls/result.h"

struct tls_policies {
    const struct config *config;
    struct table **tables; /* by position; NULL: has not come, or is unreadable */
    size_t table_count;
    int64_t warned; /* clock_mono of the last complaint about a table */
};

/* Takes a configuration, at start and after a reload. Tables whose spec did not
 * change are kept. */
void tls_policies_configure(struct tls_policies *p, const struct config *c);
/* The content of a table, at its position in smtp_tls_policy_maps; takes over fd. */
void tls_policies_table(struct tls_policies *p, unsigned position, struct slice spec, int fd);
/* Whether every table has come. */
bool tls_policies_complete(const struct tls_policies *p);
/* Which facts (enum tls_wanted_fact bits) are needed to know how a destination is
 * spoken to. */
uint8_t tls_policies_wants(struct tls_policies *p, const struct destination *d);
/* Appends the rules for a destination with these targets (ipc_target list); facts
 * may be NULL. each: they hold for these targets alone, because others with other
 * rules are in the same list. Never more than TLS_RULES_BYTES in `out`. */
void tls_policies_rules(struct tls_policies *p, const struct destination *d,
                        const struct tls_facts *facts, struct slice targets, bool each,
                        struct buf *out);

#endif
