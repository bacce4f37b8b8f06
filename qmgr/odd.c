#include "qmgr/odd.h"

#include <math.h>
#include <xxhash.h>

#include "core/clock.h"

enum {
    GAIN = 16,         /* a share follows a sixteenth of each attempt */
    MANY = 64,         /* of 255: a quarter of the attempts; chance alone is rarer */
    USUAL_GAIN = 128,  /* the usual share follows so much more slowly */
    FEW = 2048,        /* of 65536: a usual share below this is none */
    CLUSTER = 32,      /* of 255: so much more than usual is two in a row, hardly chance */
    HALF = 128,        /* of 255: where the rate is refused in other words it takes so many */
    QUIET = 16,        /* of 255: so few are none */
    RUN_MOST = 64,     /* attempts since they began: older ones count half */
    FAR_BELOW = 191,   /* of 255: so many are refused where the limit is far below */
    FEW_LEFT = 16,     /* of 255 */
    EXPERIMENT = 30,   /* attempts after which a cut has shown what it does */
    NEARLY_ALL = 223,  /* of 255: a rate that was cut would let more through */
    ROUNDS = 4,        /* so many experiments in a row before it is given up */
    UNDER_WAY = 6,     /* the first of them may have been started before it */
    OF_RATE_MOST = 3,  /* so many experiments must fail until one that helped is forgotten */
    STRANGERS = 64,    /* of 255: so few first attempts are taken where all are greylisted */
    PASSED_ENOUGH = 3, /* taken when tried again */
    BY_AGE = 16,       /* tosses of a coin in a row: hardly chance */
    PLACE_TELLS = 5,   /* messages before it; fewer may be chance */
    WORDS_MAX = 512,   /* of a reply's text that are looked at */
    SAME_ENOUGH = 3    /* refusals in a row at one place of the connection */
};

static uint8_t follow(uint8_t share, bool more)
{
    int target = more ? UINT8_MAX : 0, step = (target - share) / GAIN;
    if (step == 0 && share != target)
        step = more ? 1 : -1;
    return (uint8_t)(share + step);
}

static void count(struct odd *o, bool refused)
{
    int target = refused ? UINT16_MAX : 0;
    o->usual = (uint16_t)(o->usual + (target - o->usual) / USUAL_GAIN);
    o->share = follow(o->share, refused);
    if (o->share < QUIET || o->run == RUN_MOST) {
        o->run /= 2;
        o->run_refused /= 2;
    }
    if (refused || o->run) {
        o->run++;
        o->run_refused = (uint8_t)(o->run_refused + refused);
    }
}

/* The share that is refused, of 255: that since it began, as the other follows late. */
static uint8_t present_share(const struct odd *o)
{
    int run = o->run ? o->run_refused * UINT8_MAX / o->run : 0;
    return (uint8_t)(run > o->share ? run : o->share);
}

/* Whether so large a share after the cut (of 255) shows that it was the rate. */
static bool has_helped(const struct odd *o, int share)
{
    return 4 * share <= o->before;
}

/* What the experiment has shown, once it has run. */
static enum odd_says experiment(struct odd *o, bool refused, int64_t now)
{
    if (o->tried == 0)
        return ODD_NOTHING;
    if (++o->tried > UNDER_WAY)
        o->refused = (uint8_t)(o->refused + refused);
    if (o->tried <= EXPERIMENT)
        return ODD_NOTHING;
    int share = o->refused * UINT8_MAX / (EXPERIMENT + 1 - UNDER_WAY);
    o->tried = o->refused = 0;
    if (has_helped(o, share)) {
        o->rounds = 0;
        if (o->usual > share * (UINT16_MAX / UINT8_MAX)) /* the others were of the rate */
            o->usual = (uint16_t)(share * (UINT16_MAX / UINT8_MAX));
        o->of_rate = (int8_t)(o->of_rate < 0              ? 1
                              : o->of_rate < OF_RATE_MOST ? o->of_rate + 1
                                                          : OF_RATE_MOST);
        return ODD_NOTHING;
    }
    /* of a limit far below a cut shows little */
    bool fewer = 4 * share < 3 * o->last || (o->rounds == 0 && o->last > FAR_BELOW);
    if (fewer && share > o->usual / 256 + FEW_LEFT && share < NEARLY_ALL && ++o->rounds < ROUNDS) {
        o->tried = 1; /* it may not have been cut enough */
        o->last = (uint8_t)share;
        return ODD_NOTHING;
    }
    o->rounds = 0;
    o->of_rate = (int8_t)(o->of_rate > 0 ? o->of_rate - 1 : -1);
    if (o->of_rate > 0)
        return ODD_NOTHING;
    o->given_up = now;
    return ODD_NOT_RATE;
}

enum odd_says odd_other(struct odd *o, bool first, int64_t now)
{
    count(o, false);
    if (first) {
        o->first_taken = follow(o->first_taken, true);
        o->taken = true;
    }
    return experiment(o, false, now);
}

/* Random failures come after any number of messages. */
static bool of_connection(struct odd *o, uint32_t place)
{
    if (place < PLACE_TELLS || place != o->place)
        o->same = 0;
    o->place = place;
    if (place < PLACE_TELLS || ++o->same < SAME_ENOUGH)
        return false;
    o->same = 0;
    return true;
}

/* Its place; one that has not proved anything gives way. */
static struct odd_words *words_of(struct odd *o, uint32_t hash, uint32_t use)
{
    for (int i = 0; i < ODD_WORDS; i++)
        if (o->closed[i].hash == hash)
            return &o->closed[i];
    for (int i = 0; i < ODD_WORDS; i++) /* they differ each time, and mean the same */
        if (o->closed[i].hash && o->closed[i].use == use && use > 1)
            return &o->closed[i];
    struct odd_words *w = &o->closed[o->closed[0].again];
    if (o->closed[0].hash && !o->closed[1].hash)
        w = &o->closed[1];
    *w = (struct odd_words){.hash = hash};
    return w;
}

bool odd_closed(struct odd *o, uint32_t hash, uint32_t use, bool guess, uint32_t *other)
{
    bool first = o->closed[0].hash == 0;
    struct odd_words *w = words_of(o, hash, use);
    uint32_t before = w->use;
    w->use = use & ODD_USE_MAX;
    w->again = before == use && use > 1;
    *other = before == use ? 0 : before;
    return w->again || (first && guess && use > 2);
}

uint32_t odd_hash(struct slice text)
{
    uint32_t hash = 0;
    text = slice_first(text, WORDS_MAX);
    while (text.len) {
        struct slice word = slice_cut(&text, ' ');
        bool digits = false;
        for (size_t i = 0; i < word.len; i++)
            digits = digits || (word.ptr[i] >= '0' && word.ptr[i] <= '9');
        if (!digits)
            hash = XXH32(word.ptr, word.len, hash);
    }
    return hash ? hash : 1;
}

bool odd_takes_strangers(const struct odd *o)
{
    return o->first_taken >= STRANGERS;
}

/* How improbable it is that one had the luck of such a share (of 255) of all. */
static float tosses(int share)
{
    enum { LEAST = UINT8_MAX / 16 };
    int sure = share > LEAST ? share : LEAST;
    return -log2f((float)sure / UINT8_MAX);
}

void odd_again(struct odd *o, int64_t age, bool taken, bool alone)
{
    enum { PARTS = CLOCK_SECOND / 10 };
    uint32_t tenths = age / PARTS < UINT32_MAX ? (uint32_t)(age / PARTS) : UINT32_MAX;
    bool fits = taken ? tenths >= o->too_early : o->old_enough == 0 || tenths <= o->old_enough;
    if (!fits) { /* one that was younger was taken, or one that was older refused */
        o->by_age = 0;
        o->too_early = o->old_enough = 0;
    }
    if (taken && (o->old_enough == 0 || tenths < o->old_enough))
        o->old_enough = tenths;
    if (!taken && tenths > o->too_early)
        o->too_early = tenths;
    if (alone)
        o->by_age += tosses(taken ? o->first_taken : UINT8_MAX - o->first_taken);
    if (o->by_age > BY_AGE)
        o->by_age = BY_AGE;
    if (taken && o->passed < UINT8_MAX)
        o->passed++;
    o->taken = o->taken || taken;
}

/* Some are greylisted, and others are taken at once: a limit of the rate, or chance, would not
 * ask for how long they are known. */
static bool is_by_age(const struct odd *o)
{
    return o->by_age >= BY_AGE && o->first_taken <= UINT8_MAX - MANY && o->of_rate <= 0;
}

bool odd_is_greylisting(const struct odd *o)
{
    return o->passed >= PASSED_ENOUGH && o->of_rate <= 0 &&
           (!odd_takes_strangers(o) || is_by_age(o));
}

/* It is a matter of recipients: a cut that is on trial was made in vain. */
static enum odd_says greylisted(struct odd *o, int64_t now)
{
    if (o->tried == 0)
        return ODD_STRANGER;
    odd_stop(o);
    o->of_rate = -1;
    o->given_up = now;
    return ODD_NOT_RATE;
}

/* So large a share makes the rate suspect. */
static int enough(const struct odd *o)
{
    int more = o->usual / 256 + CLUSTER;
    if (o->says_rate)
        return more > HALF ? more : HALF;
    return o->of_rate > 0 && o->usual < FEW ? 0 : more > MANY ? more : MANY;
}

enum odd_says odd_refused(struct odd *o, enum odd_who who, uint32_t place, int64_t forgets,
                          int64_t now)
{
    if (who == ODD_FIRST)
        o->first_taken = follow(o->first_taken, false);
    if (of_connection(o, place))
        return ODD_CONNECTION;
    if (who != ODD_KNOWN && (odd_is_greylisting(o) || is_by_age(o)))
        return greylisted(o, now);
    if (!o->taken) /* at the pace to begin with: it has nothing to do with that yet */
        return ODD_NOTHING;
    count(o, true);
    enum odd_says says = experiment(o, true, now);
    if (says != ODD_NOTHING)
        return says;
    if (o->of_rate < 0 && (now - o->given_up > forgets || o->share > o->before + CLUSTER))
        o->of_rate = 0;
    bool round = o->tried == 1 && o->rounds > 0;
    if (o->of_rate < 0 || (o->share <= enough(o) && !round))
        return ODD_NOTHING;
    if (o->tried > 1 && (o->of_rate <= 0 || (o->tried > UNDER_WAY && o->share <= MANY)))
        return ODD_NOTHING; /* what a cut has left may be chance: it is being found out */
    if (o->tried == 0) {
        o->before = o->last = present_share(o);
        o->tried = 1;
    }
    return ODD_RATE;
}

enum shaper_signal odd_signal(const struct odd *o, struct shaper *s, enum odd_says says,
                              struct shaper_report *r)
{
    switch (says) {
    case ODD_RATE:
        if (o->tried == 1 && o->rounds == 0) /* a new one: the cut of the last stays */
            shaper_end_trial(s);
        r->trial = o->of_rate > 0 ? SHAPER_TRIAL_PROVEN : SHAPER_TRIAL_UNPROVEN;
        return SHAPER_TOO_FAST;
    case ODD_NOT_RATE:
        r->trial = SHAPER_TRIAL_FAILED;
        return SHAPER_NEUTRAL;
    case ODD_CONNECTION:
        r->value = o->place;
        return SHAPER_TOO_LONG;
    case ODD_STRANGER:
        return SHAPER_OK;
    default:
        return SHAPER_NEUTRAL;
    }
}
