/* shaping why: what a message waits for, until when, and who decides. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "ctl/ctl.h"
#include "ctl/shaping.h"

enum { TIME_SIZE = 64 };

struct shown {
    struct ctl *ctl;
    char *lane; /* whose limits were shown last, so that they come once */
};

/* "until 14:03:22, in 4m"; behind others that time is the destination's, not its own. */
static void print_until(const json_t *line)
{
    char at[TIME_SIZE], age[SHAPING_AGE];
    bool others = shaping_number(line, "before_it") + shaping_number(line, "others") > 0;
    if (!json_object_get(line, "until") || (others && !json_object_get(line, "brake")))
        return;
    bool ends = json_object_get(line, "ends");
    bool open = !ends && json_object_get(line, "suspension");
    print_time(at, sizeof at, shaping_number(line, ends ? "ends" : "until"));
    shaping_age(age, shaping_number(line, ends ? "ends_in" : "next_in"));
    if (open)
        printf("  until it is resumed; looked at again at %s, in %s\n", at, age);
    else
        printf("  until %s, in %s\n", at, age);
    if (ends && shaping_number(line, "next_in") < shaping_number(line, "ends_in")) {
        print_time(at, sizeof at, shaping_number(line, "until"));
        printf("  looked at again at %s\n", at);
    }
}

static void print_place(const json_t *line)
{
    double before = shaping_number(line, "before_it"), others = shaping_number(line, "others");
    if (!json_object_get(line, "before_it"))
        return;
    if (before > 0)
        printf("  %.0f of its sender's go before it", before);
    else
        printf("  the next of its sender's");
    if (others > 0)
        printf("; it shares the destination with %.0f other sender%s", others,
               plural((long long)others));
    putchar('\n');
    shaping_wait("  at the present rate its turn comes in about ", line, "expected_in");
}

/* A delivery to the place that takes long: until it ends nothing else goes there. */
static void print_busy(const json_t *busy)
{
    char age[SHAPING_AGE];
    if (!busy)
        return;
    shaping_age(age, shaping_number(busy, "for"));
    printf("  it waits for a delivery there that is under way for %s, of ", age);
    print_safe(stdout, shaping_text(busy, "id"));
    printf(": %s\n", json_is_true(json_object_get(busy, "sent"))
                         ? "the server has all of it, and does not answer"
                         : "the server does not go on");
}

static void print_heading(const json_t *line)
{
    double recipients = shaping_number(line, "recipients");
    print_safe(stdout, shaping_text(line, "recipient"));
    if (recipients > 1)
        printf(" and %.0f more", recipients - 1);
    printf(": %s", shaping_text(line, "waits"));
    if (shaping_number(line, "attempts") > 0)
        printf(" (%.0f attempt%s so far)", shaping_number(line, "attempts"),
               plural((long long)shaping_number(line, "attempts")));
    putchar('\n');
}

/* Its limits and history once, then its state only. */
static void print_lane_once(struct shown *s, const json_t *lane)
{
    char *name = NULL;
    if (!lane)
        return;
    if (asprintf(&name, "%s %s", shaping_text(lane, "destination"), shaping_text(lane, "source")) <
        0)
        name = NULL;
    bool again = name && s->lane && strcmp(name, s->lane) == 0;
    printf("  ");
    shaping_lane(lane, !again && json_object_get(lane, "learned"));
    free(s->lane);
    s->lane = name;
}

static int why_line(json_t *line, void *arg)
{
    struct shown *s = arg;
    if (s->ctl->json) {
        print_json_line(line);
        return 0;
    }
    print_heading(line);
    print_until(line);
    shaping_wait("  for ", line, "for");
    print_place(line);
    print_busy(json_object_get(line, "busy"));
    if (json_object_get(line, "suspension"))
        shaping_suspension(json_object_get(line, "suspension"));
    if (json_object_get(line, "brake"))
        shaping_brake(json_object_get(line, "brake"), true);
    if (*shaping_text(line, "because")) {
        printf("  last answer: ");
        print_safe(stdout, shaping_text(line, "because"));
        putchar('\n');
    }
    print_lane_once(s, json_object_get(line, "lane"));
    return 0;
}

/* Whose it is, how old, and how long it is kept at most. */
static void print_message(const json_t *last)
{
    char age[SHAPING_AGE], left[SHAPING_AGE];
    double now = (double)time(NULL);
    if (json_object_get(last, "left_out"))
        printf("and %.0f more recipients\n", shaping_number(last, "left_out"));
    if (!json_object_get(last, "arrival"))
        return;
    printf("The message is from <");
    print_safe(stdout, shaping_text(last, "sender"));
    printf(">");
    if (*shaping_text(last, "account")) {
        printf(", account ");
        print_safe(stdout, shaping_text(last, "account"));
    }
    shaping_age(age, now - shaping_number(last, "arrival"));
    shaping_age(left, shaping_number(last, "expires") - now);
    printf(", class %s, %s old%s; what cannot be delivered is returned to its sender in %s.\n",
           shaping_text(last, "class"), age,
           json_is_true(json_object_get(last, "on_disk")) ? ", on the disk only" : "", left);
}

int cmd_shaping_why(struct ctl *ctl, const struct ctl_command *self, int argc, char **argv)
{
    const struct arg none[] = {{NULL, NULL, NULL}};
    struct shown shown = {.ctl = ctl};
    json_t *last = NULL;
    (void)argc;
    int n = args_parse(ctl, self, none, argv);
    if (n < 0)
        return args_status(n);
    if (n != 1)
        return ctl_usage(self, "give one queue ID");
    int status = client_ask(ctl, json_pack("{s:s, s:s}", "request", "shaping.why", "id", argv[0]),
                            why_line, &shown, &last);
    if (status == CTL_OK && ctl->json)
        print_json_line(last);
    else if (status == CTL_OK)
        print_message(last);
    json_decref(last);
    free(shown.lane);
    return status;
}
