/*
 * What this process remembers of servers' addresses for a while: those that do not
 * answer are tried last, and after how many messages one closes without a word is told
 * to qmgr. A fixed table: an address may push another one out, which costs a connection
 * attempt and nothing else.
 */
#ifndef POSTERN_RELAY_HOSTS_H
#define POSTERN_RELAY_HOSTS_H

#include <stdbool.h>
#include <stdint.h>

/* The address did not answer, or did not greet us. first: microseconds for which it is
 * tried last; doubles up to eight times while it goes on. */
void hosts_failed(const char *address, uint16_t port, int64_t first, int64_t now);
/* It greeted us. */
void hosts_worked(const char *address, uint16_t port);
/* A connection to it greeted us, and is open; it is closed. */
void hosts_opened(const char *address, uint16_t port);
void hosts_left(const char *address, uint16_t port);
/* Whether such a connection is open: what drops another one before its greeting is then alive,
 * and has enough of them. */
bool hosts_serves(const char *address, uint16_t port);
/* Whether it is to be tried last. When its time is over it says "no" to the first who
 * asks, who finds out, and "yes" to others for `meanwhile` microseconds more. */
bool hosts_last(const char *address, uint16_t port, int64_t meanwhile, int64_t now);
/* It closed a connection, which had nothing to do, right after so many messages. */
void hosts_closed(const char *address, uint16_t port, uint32_t messages);
/* That number, once; 0: none. */
uint32_t hosts_take_closed(const char *address, uint16_t port);

#endif
