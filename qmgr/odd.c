#include "qmgr/odd.h"

#include <xxhash.h>

enum {
    GAIN = 16,         /* a share follows a sixteenth of each attempt */
    MANY = 64,         /* of 255: a quarter of the attempts; chance alone is rarer */
    USUAL_GAIN = 128,  /* the usual share follows so much more slowly */
    FEW = 2048,        /* of 65536: a usual share below this is none */
    CLUSTER = 32,      /* of 255: so much more than usual is two in a row, hardly chance */
    EXPERIMENT = 30,   /* attempts after which a cut has shown what it does */
    NEARLY_ALL = 223,  /* of 255: a rate that was cut would let more through */
    ROUNDS = 4,        /* so many experiments in a row before it is given up */
    UNDER_WAY = 6,     /* the first of them may have been started before it */
    OF_RATE_MOST = 3,  /* so many experiments must fail until one that helped is forgotten */
    STRANGERS = 64,    /* of 255: so few first attempts are taken where all are greylisted */
    PASSED_ENOUGH = 3, /* taken when tried again */
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
    if (share > MANY && share < NEARLY_ALL && ++o->rounds < ROUNDS) {
        o->tried = 1; /* some are taken, and many are not: it may not have been cut enough */
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
    if (first)
        o->first_taken = follow(o->first_taken, true);
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
    w->use = use;
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

bool odd_is_greylisting(const struct odd *o)
{
    return o->passed >= PASSED_ENOUGH && !odd_takes_strangers(o) && o->of_rate <= 0;
}

/* So large a share makes the rate suspect. */
static int enough(const struct odd *o)
{
    int more = o->usual / 256 + CLUSTER;
    return o->of_rate > 0 && o->usual < FEW ? 0 : more > MANY ? more : MANY;
}

enum odd_says odd_refused(struct odd *o, bool first, uint32_t place, int64_t forgets, int64_t now)
{
    if (first)
        o->first_taken = follow(o->first_taken, false);
    if (of_connection(o, place))
        return ODD_CONNECTION;
    if (first && odd_is_greylisting(o))
        return ODD_STRANGER;
    count(o, true);
    enum odd_says says = experiment(o, true, now);
    if (says != ODD_NOTHING)
        return says;
    if (o->of_rate < 0 && (now - o->given_up > forgets || o->share > o->before + CLUSTER))
        o->of_rate = 0;
    if (o->of_rate < 0 || o->share <= enough(o))
        return ODD_NOTHING;
    if (o->tried > UNDER_WAY && o->share <= MANY)
        return ODD_NOTHING; /* what a cut of one has left may be chance: it is being found out */
    if (o->tried == 0) {
        o->before = o->share;
        o->tried = 1;
    }
    return ODD_RATE;
}

enum shaper_signal odd_signal(const struct odd *o, struct shaper *s, enum odd_says says,
                              struct shaper_report *r)
{
    switch (says) {
    case ODD_RATE:
        if (o->tried == 1) /* a new one: the cut of the last stays */
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
