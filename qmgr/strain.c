#include "qmgr/strain.h"

#include "core/clock.h"

/* Far longer: so many times as long as usual, and half a second beside; a server that
 * answers in a millisecond may take five. */
#define FAR_TIMES 4.0F
#define FAR_SECONDS 0.5F
/* It gets worse: so many times what it was at the last step. */
#define WORSE 1.5F
/* The present value follows an eighth of each sample; the usual one goes down as fast, and
 * up so slowly that an hour's trouble does not become the norm. */
#define FOLLOWS 8.0F
#define USUAL_RISES 512.0F

/* Seconds: no reply is waited for so long, whatever a delivery process says. */
#define LONGEST 3600.0F

static void follow(struct strain_sign *s, uint64_t sample)
{
    float x = (float)sample / (float)CLOCK_SECOND;
    x = x < LONGEST ? x : LONGEST;
    if (sample == 0)
        return;
    if (s->usual <= 0)
        s->usual = s->now = x;
    s->now += (x - s->now) / FOLLOWS;
    s->usual += (x - s->usual) / (x < s->usual ? FOLLOWS : USUAL_RISES);
}

void strain_note(struct strain *s, uint64_t greeting, uint64_t reply)
{
    follow(&s->greeting, greeting);
    follow(&s->reply, reply);
}

static bool is_far(const struct strain_sign *s)
{
    return s->now > FAR_TIMES * s->usual + FAR_SECONDS;
}

bool strain_is(const struct strain *s)
{
    return is_far(&s->greeting) || is_far(&s->reply);
}

static float times_of(const struct strain_sign *s)
{
    return is_far(s) ? s->now / (s->usual + FAR_SECONDS) : 0;
}

enum strain_change strain_turn(struct strain *s, int64_t pause, int64_t now)
{
    float greeting = times_of(&s->greeting), reply = times_of(&s->reply);
    float worst = greeting > reply ? greeting : reply, before = s->level;
    uint32_t tenths = (uint32_t)(now / (CLOCK_SECOND / 10));
    if (worst <= 0) {
        s->level = 0;
        return before > 0 ? STRAIN_ENDS : STRAIN_SAME;
    }
    if (before > 0 &&
        (worst < WORSE * before || tenths - s->since < (uint32_t)(pause / (CLOCK_SECOND / 10))))
        return STRAIN_SAME;
    s->level = worst;
    s->since = tenths;
    return before > 0 ? STRAIN_WORSE : STRAIN_BEGINS;
}
