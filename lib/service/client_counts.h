/*
 * The table of what each client address does, in memory that all smtpd processes
 * share. A process writes its own region and reads the others', so there are no
 * locks; master clears a region when its process is gone, so a crash leaves
 * nothing behind.
 *
 * Every region is an array of small sets, and a client's set has the same place
 * in all of them: to know a client's whole sum is to look at one set per region.
 * The place follows from a random seed, so that nobody can choose addresses that
 * meet in one set.
 *
 * What a region says is a neighbour's claim. There are only numbers in it, no
 * index and no length, so a process that lies (or one that was taken over and
 * scribbles over all regions) can falsify counts and nothing else. Master never
 * reads any of it.
 */
#ifndef POSTERN_SERVICE_CLIENT_COUNTS_H
#define POSTERN_SERVICE_CLIENT_COUNTS_H

#include <stdint.h>

#include "core/err.h"
#include "core/slice.h"

enum {
    CLIENT_COUNTS_REGIONS = 128, /* processes that count together, draining ones included */
    CLIENT_COUNTS_SETS = 8192,   /* of one region; a power of two */
    CLIENT_COUNTS_WAYS = 8,      /* clients in one set */
    CLIENT_COUNTS_HEADER = 4096  /* bytes before the regions */
};

/* What one process has counted of one client. */
struct client_count {
    int64_t period_end; /* monotonic microseconds: until then the next three hold */
    uint32_t connections, messages, recipients;
    uint32_t open; /* connections at this moment */
};

struct client_set {
    uint64_t keys[CLIENT_COUNTS_WAYS]; /* 0: the place is free */
    struct client_count counts[CLIENT_COUNTS_WAYS];
};

struct client_region {
    struct client_set sets[CLIENT_COUNTS_SETS];
};

struct client_header {
    uint64_t seed;
    uint8_t used[CLIENT_COUNTS_REGIONS]; /* 1: a process writes there */
};

_Static_assert(sizeof(struct client_header) <= CLIENT_COUNTS_HEADER, "the header has its page");
_Static_assert(sizeof(struct client_region) % CLIENT_COUNTS_HEADER == 0, "regions are whole pages");

/* A process's view of the table. */
struct client_counts {
    const struct client_header *header;
    const struct client_region *regions; /* CLIENT_COUNTS_REGIONS of them, read-only */
    struct client_region *own;           /* the same memory as regions[region], writable */
    unsigned region;
};

/* ---- master ---- */

/* A new, empty table, whose size is sealed: a descriptor, or -1. Only pages that
 * are written take memory. */
int client_counts_make(struct err *e);
/* Empties a region and says whether a process writes there. 0 or -1. */
int client_counts_set(int fd, unsigned region, bool used, struct err *e);

/* ---- smtpd ---- */

/* Maps the table; fd stays the caller's and may be closed afterwards. Refuses
 * what does not have the table's size, or could be made shorter. */
int client_counts_map(struct client_counts *t, int fd, unsigned region, struct err *e);
void client_counts_unmap(struct client_counts *t);
/* The number that stands for a client: of an IPv6 address its /64. Never 0. */
uint64_t client_counts_key(struct slice address);
/* Where in a region the key's set is. */
unsigned client_counts_place(const struct client_counts *t, uint64_t key);

#endif
