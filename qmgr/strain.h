/*
 * Early signs that a destination has trouble, before it refuses anything: its greeting or
 * its replies take much longer than they use to. Never a reason to suspend; growth waits
 * while it lasts, and where it gets worse a connection fewer is used.
 *
 * Times are microseconds; latencies are kept in seconds.
 */
#ifndef POSTERN_QMGR_STRAIN_H
#define POSTERN_QMGR_STRAIN_H

#include <stdbool.h>
#include <stdint.h>

struct strain_sign {
    float now, usual; /* seconds: lately, and what it uses to be; 0: not known */
};

struct strain {
    struct strain_sign greeting, reply;
    float level;    /* the worst of both, as a multiple of the usual, when it was acted on last;
                     * 0: no strain */
    uint32_t since; /* tenths of a second of the monotonic clock: the same */
};

/* A connection was greeted after `greeting`, a command of an envelope was answered after
 * `reply`: not the content, whose time is a matter of its size; 0: unknown. */
void strain_note(struct strain *s, uint64_t greeting, uint64_t reply);
/* Whether one of them takes far longer than usual. */
bool strain_is(const struct strain *s);

enum strain_change { STRAIN_SAME, STRAIN_BEGINS, STRAIN_WORSE, STRAIN_ENDS };
/* What has become of it since it was asked last; `pause`: at least so long between two
 * steps for the worse. */
enum strain_change strain_turn(struct strain *s, int64_t pause, int64_t now);

#endif
