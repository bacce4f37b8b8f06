/*
 * How much each client address does: connections at a time, and connections,
 * messages and recipients in anvil_rate_time_unit. An IPv6 client is counted by
 * its /64, which is what one customer usually has.
 *
 * The figures are this process's own. What is counted is reached only through
 * the functions below, so that a table shared by all smtpd processes can take
 * the place of the map behind them.
 */
#ifndef POSTERN_SMTPD_CLIENTS_H
#define POSTERN_SMTPD_CLIENTS_H

#include "conf/config.h"
#include "core/map.h"

struct client;

struct client_limits {
    int64_t connections, connection_rate, message_rate, recipient_rate; /* 0: none */
    int64_t period;                                                     /* microseconds */
};

struct clients {
    struct map map;
    struct client_limits limits;
    int64_t next_sweep;
};

enum client_verdict { CLIENT_OK, CLIENT_TOO_MANY, CLIENT_TOO_FAST };

void clients_init(struct clients *c, const struct config *config);
/* The limits after a reload. */
void clients_configure(struct clients *c, const struct config *config);
void clients_free(struct clients *c);

/* A connection from `address` (4 or 16 bytes) opens. *out is the client to give
 * to the other functions, also when the verdict is not CLIENT_OK; it may be NULL
 * when no more can be counted. `now`: monotonic microseconds. */
enum client_verdict clients_connect(struct clients *c, struct slice address, int64_t now,
                                    struct client **out);
/* How many connections were counted, for the log: at a time (CLIENT_TOO_MANY) or
 * in this period (CLIENT_TOO_FAST). */
unsigned clients_count(const struct client *cl, enum client_verdict verdict);
/* The connection is over; cl may be NULL. */
void clients_disconnect(struct clients *c, struct client *cl);
/* One more message or recipient; false when that passes the rate. cl may be NULL. */
bool clients_message(const struct clients *c, struct client *cl, int64_t now);
bool clients_recipient(const struct clients *c, struct client *cl, int64_t now);
/* Forgets clients without a connection whose period is over; cheap when called
 * more often than that can make a difference. */
void clients_sweep(struct clients *c, int64_t now);

#endif
