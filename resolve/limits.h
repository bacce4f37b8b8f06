/* Every limit of resolve: what mail, DNS servers or a busy queue can drive. */
#ifndef POSTERN_RESOLVE_LIMITS_H
#define POSTERN_RESOLVE_LIMITS_H

enum {
    /* DNS answers */
    DNS_NAME_MAX = 253,         /* text of a name, without the final dot (RFC 1035 2.3.4) */
    DNS_LABEL_MAX = 63,         /* RFC 1035 2.3.4 */
    DNS_POINTERS_MAX = 64,      /* compression pointers followed in one name */
    DNS_RECORDS_MAX = 1024,     /* records of one answer that are looked at (B65) */
    DNS_SECTION_MAX = 4096,     /* records of a section that are stepped over */
    DNS_NEGATIVE_TTL = 60,      /* s: a negative answer without SOA */
    DNS_NEGATIVE_TTL_MAX = 300, /* s: a new domain starts to work within this */
    DNS_OUTSTANDING_MAX = 256,  /* questions at a time */
    DNS_ASKED_MAX = 1024,       /* those included that nobody waits for any more */
    DNS_WAITING_MAX = 65536,    /* questions that wait to be asked; lookups are refused then */
    DNS_CNAME_MAX = 11,         /* what libunbound follows; beyond it fails (B64) */

    /* destinations */
    MX_HOSTS_MAX = 50,           /* MX hosts of one domain whose addresses are looked up (B65) */
    ADDRESSES_PER_HOST_MAX = 50, /* of each family */
    SITE_NAME_MAX = 255,
    DESTINATIONS_MAX = 4, /* next hops in one comma-separated list */
    NEXTHOP_MAX = 600,    /* bytes of such a list */
    UNIX_PATH_MAX = 107,  /* sun_path without its NUL */

    /* names of clients: a flood of connections must not keep mail from being
     * resolved, so they get a part of the questions only */
    NAME_LOOKUPS_MAX = 64,     /* under way; each has one question at a time */
    NAME_WAITING_MAX = 2000,   /* lookups that wait for a place; beyond: unknown */
    NAME_REQUESTS_MAX = 20000, /* of smtpd, at a time; beyond: unknown */
    NAMES_PER_ADDRESS_MAX = 4, /* names that are asked for the address, one after another */
    NAME_SECONDS = 10,         /* for one address; smtpd waits less, but the answer is kept */

    /* lookup tables that are servers */
    TABLE_CONNECTIONS_MAX = 8, /* to one of them; more questions wait */
    TABLE_IDLE_SECONDS = 60,   /* then a connection is closed */
    TABLE_BACKOFF_MAX = 30,    /* s that one which fails is left alone at most */
    TABLE_REQUEST_MAX = 5000,  /* bytes; a longer key is in no table */

    /* the service */
    CACHE_ENTRIES_MAX = 20000,  /* destinations remembered; the least recently used go */
    CACHE_BYTES_MAX = 64 << 20, /* of the answers remembered */
    REQUESTS_MAX = 20000,       /* questions of qmgr at a time */
    FAILURE_TTL = 15,           /* s: a failed lookup is not repeated within this (F32) */
    TABLES_TTL = 30,            /* s: use of an answer when transport_maps may change it */
    DECIDED_TTL = 3600,         /* s: an answer that depends on nothing */
    BUSY_TTL = 1,               /* s: a refusal for want of room */
    TABLES_WAIT = 10,           /* s that requests wait for tables after a start */
    DEADLINE_TICK_MS = 200,
    RESOLV_CONF_MAX = 64 * 1024,
    OWN_ADDRESSES_MAX = 1024
};

#endif
