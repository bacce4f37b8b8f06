/* What the shaper does and why, in words: for shaping list, show and why. */
#include <string.h>

#include "ctl/ctl.h"
#include "ctl/shaping.h"

#define FREE 1e6 /* a second: a rate that is none */

/* Slow ones by the hour: 100/h is not 0.0/s. */
static void print_number(int width, int digits, double rate)
{
    if (rate < 0.1)
        printf("%*.*f/h", width, rate * 3600 < 10 ? 1 : 0, rate * 3600);
    else
        printf("%*.*f/s", width, digits, rate);
}

static void print_rate(double rate)
{
    if (rate >= FREE)
        printf("%9s", "no limit");
    else
        print_number(7, 1, rate);
}

/* "gmail from 192.0.2.1 and 2001:db8::1" */
static void print_name(const json_t *line)
{
    print_safe(stdout, shaping_text(line, "destination"));
    if (*shaping_text(line, "source")) {
        printf(" from ");
        print_safe(stdout, shaping_text(line, "source"));
    }
    if (*shaping_text(line, "source6")) {
        printf(" and ");
        print_safe(stdout, shaping_text(line, "source6"));
    }
}

static void print_list_lane(const json_t *line)
{
    char age[SHAPING_AGE];
    print_rate(shaping_number(line, "rate"));
    printf(" %5.0f %5.0f %6.0f %6.0f  ", shaping_number(line, "concurrency"),
           shaping_number(line, "messages_per_connection"), shaping_number(line, "in_flight"),
           shaping_number(line, "queued"));
    print_name(line);
    printf("  (");
    print_safe(stdout, shaping_text(line, "state"));
    if (json_object_get(line, "suspended_for")) {
        shaping_age(age, shaping_number(line, "suspended_for"));
        printf(", for %s", age);
    }
    if (*shaping_text(line, "reason")) {
        printf(": ");
        print_safe(stdout, shaping_text(line, "reason"));
    }
    printf(")\n");
}

int shaping_list_line(json_t *line, void *arg)
{
    struct shaping_list *list = arg;
    const json_t *brake = json_object_get(line, "brake");
    const json_t *suspension = json_object_get(line, "suspension");
    if (list->ctl->json) {
        print_json_line(line);
        return 0;
    }
    if (suspension) {
        if (list->suspensions++ == 0)
            printf("\nSuspended by hand:\n");
        shaping_suspension(suspension);
        return 0;
    }
    if (!brake) {
        print_list_lane(line);
        return 0;
    }
    if (list->brakes++ == 0)
        printf("\nSenders that are slowed down or suspended:\n");
    shaping_brake(brake, true);
    return 0;
}

/* ---- one destination in words ---------------------------------------------------------- */

void shaping_age(char out[static SHAPING_AGE], double seconds)
{
    if (seconds < 0.1)
        snprintf(out, SHAPING_AGE, "less than 0.1s");
    else if (seconds < 10)
        snprintf(out, SHAPING_AGE, "%.1fs", seconds);
    else
        print_age(out, SHAPING_AGE, seconds);
}

void shaping_wait(const char *before, const json_t *line, const char *name)
{
    char age[SHAPING_AGE];
    if (!json_object_get(line, name))
        return;
    shaping_age(age, shaping_number(line, name));
    printf("%s%s\n", before, age);
}

static void print_greylist(const json_t *learned)
{
    char age[SHAPING_AGE];
    bool refused = json_object_get(learned, "greylist_refused");
    printf("  greylisting  ");
    if (refused) {
        shaping_age(age, shaping_number(learned, "greylist_refused"));
        printf("refused after %s", age);
    }
    if (json_object_get(learned, "greylist_passed")) {
        shaping_age(age, shaping_number(learned, "greylist_passed"));
        printf("%staken after %s", refused ? ", " : "", age);
    }
    putchar('\n');
}

/* What is learned, unless the server says less itself (relay counts for that). */
static void print_messages(const json_t *line, const json_t *learned)
{
    double own = shaping_number(line, "messages_per_connection"),
           announced = shaping_number(learned, "messages_announced");
    printf("\n  messages on one connection  ");
    if (announced > 0 && (own <= 0 || announced <= own))
        printf("%.0f   announced by the server (LIMITS MAILMAX)\n", announced);
    else if (own > 0)
        printf("%.0f%s\n", own,
               json_object_get(learned, "messages_per_connection") ? "   learned" : "");
    else
        printf("no limit\n");
}

/* From midnight to midnight UTC. */
static void print_day(const json_t *line)
{
    char age[SHAPING_AGE];
    double waiting = shaping_number(line, "waiting_today");
    shaping_age(age, shaping_number(line, "day_ends_in"));
    printf("  recipients today  %.0f of at most %.0f (%s)", shaping_number(line, "used_today"),
           shaping_number(line, "allowed_today"), shaping_text(line, "allowed_by"));
    if (waiting > 0)
        printf(", %.0f more in line or under way", waiting);
    printf("; the next day begins at midnight UTC, in %s\n", age);
}

/* A rate or number that was too much, or that the operator set, is tried beyond slowly. After a
 * change "configured" is not told. */
static void print_limits(const json_t *line)
{
    const json_t *learned = json_object_get(line, "learned");
    const json_t *given = json_object_get(line, "configured");
    printf("  rate         ");
    print_rate(shaping_number(line, "rate"));
    double careful = shaping_number(learned, "rate_failed");
    if (careful > 0 && careful < FREE) {
        printf("   careful from ");
        print_number(0, 2, careful);
        printf(" on");
    }
    if (json_object_get(given, "message_rate")) {
        printf("   configured: at most ");
        print_number(0, 1, shaping_number(given, "message_rate"));
    }
    printf("\n  connections  %9.0f", shaping_number(line, "concurrency"));
    if (json_object_get(learned, "concurrency_failed"))
        printf("   careful from %.0f on", shaping_number(learned, "concurrency_failed"));
    if (json_object_get(given, "connections"))
        printf("   configured: at most %.0f", shaping_number(given, "connections"));
    if (shaping_number(line, "open") > 0)
        printf("   open now: %.0f", shaping_number(line, "open"));
    print_messages(line, learned);
    if (shaping_number(line, "connection_rate") > 0)
        printf("  new connections  %.1f a minute%s\n", 60 * shaping_number(line, "connection_rate"),
               json_object_get(learned, "connection_rate") ? "   learned" : "");
    if (json_object_get(line, "allowed_today"))
        print_day(line);
    if (json_object_get(learned, "greylist_refused") || json_object_get(learned, "greylist_passed"))
        print_greylist(learned);
}

/* Accounts that have limits of their own there. */
static void print_accounts(const json_t *line)
{
    size_t i;
    json_t *a;
    json_array_foreach(json_object_get(line, "accounts"), i, a)
    {
        printf("  account ");
        print_safe(stdout, shaping_text(a, "account"));
        printf(": %.0f connections", shaping_number(a, "in_flight"));
        if (json_object_get(a, "connections"))
            printf(" of its %.0f", shaping_number(a, "connections"));
        if (json_object_get(a, "rate"))
            printf(", at most %.4g recipients a minute", 60 * shaping_number(a, "rate"));
        if (shaping_number(a, "waiting") > 0)
            printf("; %.0f deliveries wait for that", shaping_number(a, "waiting"));
        putchar('\n');
    }
}

static void print_events(const json_t *line, const char *indent)
{
    size_t i;
    json_t *e;
    json_array_foreach(json_object_get(line, "events"), i, e)
    {
        char age[32];
        if (i == 0)
            printf("%slast changes:\n", indent);
        print_age(age, sizeof age, shaping_number(e, "age"));
        printf("%s%8s ago  %s", indent, age, shaping_text(e, "change"));
        if (json_object_get(e, "seconds"))
            printf(" %.1fs", shaping_number(e, "seconds"));
        else if (shaping_number(e, "before") < 1e6)
            printf(" from %.2f to %.2f", shaping_number(e, "before"), shaping_number(e, "after"));
        else
            printf(" to %.2f", shaping_number(e, "after"));
        if (*shaping_text(e, "rule"))
            printf("  by rule %s, %s", shaping_text(e, "rule"), shaping_text(e, "where"));
        putchar('\n');
    }
}

static void print_last_refusal(const json_t *line, const char *indent)
{
    if (!*shaping_text(line, "last_refusal"))
        return;
    printf("%slast refusal: ", indent);
    print_safe(stdout, shaping_text(line, "last_refusal"));
    putchar('\n');
}

/* A limit over all sources: what holds, what was refused, what is configured. */
static void print_whole_limit(const json_t *w, const char *name, const char *words,
                              const char *failed, const char *configured, double times)
{
    const json_t *learned = json_object_get(w, "learned");
    const json_t *given = json_object_get(w, "configured");
    if (!json_object_get(w, name))
        return;
    printf("    %s  %.5g", words, times * shaping_number(w, name));
    if (json_object_get(learned, failed))
        printf("   it refused %.5g", times * shaping_number(learned, failed));
    if (json_object_get(given, configured))
        printf("   configured: at most %.5g", times * shaping_number(given, configured));
    putchar('\n');
}

/* Where limits hold over all source addresses: as a destination of its own. */
static void print_whole(const json_t *w)
{
    static const char indent[] = "    ";
    printf("  over all source addresses of ");
    print_safe(stdout, shaping_text(w, "of"));
    printf(": %s; %.0f under way\n", shaping_text(w, "state"), shaping_number(w, "in_flight"));
    if (json_object_get(w, "next_probe_in"))
        shaping_wait("    next probe in ", w, "next_probe_in");
    else
        shaping_wait("    goes on in ", w, "next_in");
    print_whole_limit(w, "rate", "recipients a second", "rate_failed", "message_rate", 1);
    print_whole_limit(w, "concurrency", "connections", "concurrency_failed", "connections", 1);
    print_whole_limit(w, "connection_rate", "new connections a minute", "connection_rate_failed",
                      "connection_rate", 60);
    if (!json_object_get(w, "rate") && !json_object_get(w, "concurrency") &&
        !json_object_get(w, "connection_rate"))
        printf("    no limit: none is configured, and no rule has learned one\n");
    print_last_refusal(w, indent);
    print_events(w, indent);
}

static void print_brake_state(const json_t *b)
{
    char age[SHAPING_AGE];
    if (json_is_true(json_object_get(b, "suspended")) && json_object_get(b, "suspended_for")) {
        shaping_age(age, shaping_number(b, "suspended_for"));
        printf(" suspended for %s", age);
    } else if (json_is_true(json_object_get(b, "suspended"))) {
        printf(" suspended until it is resumed");
    } else if (json_is_true(json_object_get(b, "probing"))) {
        printf(" tried with one message after a suspension");
    } else {
        printf(" slowed to %.3g/s", shaping_number(b, "rate"));
    }
    printf("%s", json_is_true(json_object_get(b, "by_hand")) ? " by hand" : "");
    if (json_object_get(b, "since")) {
        shaping_age(age, shaping_number(b, "since"));
        printf(" since %s", age);
    }
    if (json_object_get(b, "next_in")) {
        shaping_age(age, shaping_number(b, "next_in"));
        printf(", the next goes in %s", age);
    }
    if (shaping_number(b, "in_line") > 0)
        printf(", %.0f in line", shaping_number(b, "in_line"));
}

void shaping_brake(const json_t *b, bool place)
{
    printf("  %s ", shaping_text(b, "kind"));
    print_safe(stdout, shaping_text(b, "who"));
    if (place) {
        printf(" at ");
        print_safe(stdout, shaping_text(b, "at"));
    }
    print_brake_state(b);
    if (*shaping_text(b, "reason")) {
        printf(": ");
        print_safe(stdout, shaping_text(b, "reason"));
    }
    putchar('\n');
}

void shaping_suspension(const json_t *s)
{
    char age[SHAPING_AGE];
    printf("  ");
    print_safe(stdout, shaping_text(s, "name"));
    if (*shaping_text(s, "source")) {
        printf(" from ");
        print_safe(stdout, shaping_text(s, "source"));
    }
    if (json_object_get(s, "suspended_for")) {
        shaping_age(age, shaping_number(s, "suspended_for"));
        printf(" suspended by hand for %s", age);
    } else {
        printf(" suspended by hand until it is resumed");
    }
    if (*shaping_text(s, "reason")) {
        printf(": ");
        print_safe(stdout, shaping_text(s, "reason"));
    }
    putchar('\n');
}

static void print_brakes(const json_t *line)
{
    size_t i;
    json_t *b;
    json_array_foreach(json_object_get(line, "brakes"), i, b) shaping_brake(b, false);
}

static void print_done(const json_t *line)
{
    if (*shaping_text(line, "destination")) {
        print_safe(stdout, shaping_text(line, "destination"));
    } else {
        print_safe(stdout, shaping_text(line, "who"));
        printf(" at ");
        print_safe(stdout, shaping_text(line, "at"));
    }
    printf(": %s\n",
           strcmp(shaping_text(line, "action"), "suspend") == 0 ? "suspended" : "resumed");
}

/* Where it takes long to answer. */
static void print_sign(const char *name, const json_t *sign)
{
    if (sign)
        printf("  %s in %.2fs, usually %.2fs\n", name, shaping_number(sign, "now"),
               shaping_number(sign, "usual"));
}

/* When something goes on there. With nothing in line the next message is the probe, when it
 * comes. */
static void print_next(const json_t *line)
{
    bool shut = json_object_get(line, "suspended_for");
    if (json_object_get(line, "next_probe_in") && shaping_number(line, "queued") > 0)
        shaping_wait("  next probe in ", line, "next_probe_in");
    else if (json_object_get(line, "next_probe_in") && shut)
        shaping_wait("  nothing goes for ", line, "suspended_for");
    else if (!json_object_get(line, "next_probe_in"))
        shaping_wait("  goes on in   ", line, "next_in");
}

/* What was set by hand beyond a bound. */
static void print_bounded(const json_t *line)
{
    size_t i;
    json_t *e;
    json_array_foreach(json_object_get(line, "bounded"), i, e)
    {
        bool rate = strncmp(shaping_text(e, "setting"), "rate", 4) == 0;
        printf("  %s: ", shaping_text(e, "setting"));
        if (rate)
            print_number(0, 1, shaping_number(e, "holds"));
        else
            printf("%.0f", shaping_number(e, "holds"));
        printf(" holds, not ");
        if (rate)
            print_number(0, 1, shaping_number(e, "asked"));
        else
            printf("%.0f", shaping_number(e, "asked"));
        if (*shaping_text(e, "because")) {
            printf(", because of ");
            print_safe(stdout, shaping_text(e, "because"));
        }
        putchar('\n');
    }
}

void shaping_lane(const json_t *line, bool whole)
{
    print_name(line);
    printf(": %s; %.0f in line, %.0f under way\n", shaping_text(line, "state"),
           shaping_number(line, "queued"), shaping_number(line, "in_flight"));
    print_next(line);
    print_bounded(line);
    if (*shaping_text(line, "reason")) {
        printf("  reason: ");
        print_safe(stdout, shaping_text(line, "reason"));
        putchar('\n');
    }
    if (*shaping_text(line, "rule"))
        printf("  by rule %s, %s%s\n", shaping_text(line, "rule"), shaping_text(line, "where"),
               json_is_true(json_object_get(line, "blocked"))
                   ? ": blocked there; mail goes from other sources of its pool, if it has some"
                   : "");
    if (!whole)
        return;
    print_limits(line);
    print_accounts(line);
    if (json_is_true(json_object_get(line, "strained"))) {
        print_sign("replies come", json_object_get(line, "reply_seconds"));
        print_sign("greets", json_object_get(line, "greeting_seconds"));
    }
    print_brakes(line);
    print_last_refusal(line, "  ");
    print_events(line, "  ");
}

int shaping_show_line(json_t *line, void *arg)
{
    struct shaping_shown *shown = arg;
    const json_t *whole = json_object_get(line, "all_sources");
    if (shown->ctl->json) {
        print_json_line(line);
        return 0;
    }
    if (json_object_get(line, "suspension")) {
        shaping_suspension(json_object_get(line, "suspension"));
        return 0;
    }
    if (json_object_get(line, "ended")) {
        printf("ended:");
        shaping_suspension(json_object_get(line, "ended"));
        return 0;
    }
    if (*shaping_text(line, "action")) {
        print_done(line);
        return 0;
    }
    shaping_lane(line, true);
    if (whole && strcmp(shown->whole, shaping_text(whole, "of")) != 0) { /* once for all of them */
        snprintf(shown->whole, sizeof shown->whole, "%s", shaping_text(whole, "of"));
        print_whole(whole);
    }
    return 0;
}
