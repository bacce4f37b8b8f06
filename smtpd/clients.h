/*
 * How much each client address does: connections at a time, and connections,
 * messages and recipients in anvil_rate_time_unit. An IPv6 client is counted by
 * its /64, which is what one customer usually has.
 *
 * The limits hold over all smtpd processes: each counts what its own sessions do
 * in its region of a shared table (service/client_counts.h) and adds what the
 * others say there. A process that master gave no table counts alone.
 *
 * The table is bounded. When a client's set is full, who has no connection and
 * did least gives way; if all have connections, the new one is not counted.
 */
#ifndef POSTERN_SMTPD_CLIENTS_H
#define POSTERN_SMTPD_CLIENTS_H

#include "conf/config.h"
#include "service/client_counts.h"

struct client_limits {
    int64_t connections, connection_rate, message_rate, recipient_rate; /* 0: none */
    int64_t period;                                                     /* microseconds */
};

struct clients {
    struct client_counts table;
    struct client_limits limits;
};

enum client_verdict { CLIENT_OK, CLIENT_TOO_MANY, CLIENT_TOO_FAST };

/* Begins with a table of its own; 0 or -1. */
int clients_init(struct clients *c, const struct config *config, struct err *e);
/* Goes over to the shared table. No client may be connected: what was counted so
 * far is forgotten. On an error the old table stays. fd stays the caller's. */
int clients_share(struct clients *c, int fd, unsigned region, struct err *e);
/* The limits after a reload. */
void clients_configure(struct clients *c, const struct config *config);
void clients_free(struct clients *c);

/* A connection from `address` (4 or 16 bytes) opens. *out is the client to give
 * to the other functions, also when the verdict is not CLIENT_OK; it may be NULL
 * when no more can be counted. `now`: monotonic microseconds. */
enum client_verdict clients_connect(struct clients *c, struct slice address, int64_t now,
                                    struct client_count **out);
/* How many connections were counted, for the log: at a time (CLIENT_TOO_MANY) or
 * in this period (CLIENT_TOO_FAST). */
uint64_t clients_count(const struct clients *c, const struct client_count *cl,
                       enum client_verdict verdict, int64_t now);
/* The connection is over; cl may be NULL. */
void clients_disconnect(struct clients *c, struct client_count *cl);
/* One more message or recipient; false when that passes the rate. cl may be NULL. */
bool clients_message(const struct clients *c, struct client_count *cl, int64_t now);
bool clients_recipient(const struct clients *c, struct client_count *cl, int64_t now);

#endif
