/* What the shaper does and why, in words: what the commands on shaping share. */
#ifndef POSTERN_CTL_SHAPING_H
#define POSTERN_CTL_SHAPING_H

#include <jansson.h>
#include <stdbool.h>

enum { SHAPING_AGE = 32 };

/* Members of a result; 0 and "" if they are not there. */
static inline double shaping_number(const json_t *o, const char *name)
{
    return json_number_value(json_object_get(o, name));
}
static inline const char *shaping_text(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "";
}
/* As print_age, with tenths of a second below ten. */
void shaping_age(char out[static SHAPING_AGE], double seconds);
/* A line with that text and the time of a member in seconds, if it is there. */
void shaping_wait(const char *before, const json_t *line, const char *name);
/* A line on a brake: "  account shop suspended for 2h: complaints"; `place`: with " at gmail". */
void shaping_brake(const json_t *b, bool place);
/* A line on a suspension by hand: "  gmail suspended by hand for 2h: delisting". */
void shaping_suspension(const json_t *s);
/* A destination from a source; `whole`: with its limits and history. */
void shaping_lane(const json_t *lane, bool whole);
/* For client_ask: lines of shaping.list, with a struct shaping_list; of shaping.show and
 * shaping.act, with a struct shaping_shown. */
struct shaping_list {
    struct ctl *ctl;
    unsigned brakes, suspensions; /* that were printed */
};
int shaping_list_line(json_t *line, void *arg);
struct shaping_shown {
    struct ctl *ctl;
    char whole[1024]; /* whose limits over all sources were printed last */
};
int shaping_show_line(json_t *line, void *arg);

#endif
