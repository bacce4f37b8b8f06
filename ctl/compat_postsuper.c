/* postsuper: deletes, holds, releases, requeues, expires. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/id.h"
#include "core/mem.h"
#include "ctl/compat.h"

#define USAGE                                                                                      \
    "usage: postsuper [-c config_dir] [-d queue_id (delete)] [-e queue_id (expire)] "              \
    "[-f queue_id (expire and/or un-hold)] [-h queue_id (hold)] [-H queue_id (un-hold)] "          \
    "[-p (purge temporary files)] [-r queue_id (requeue)] [-s (structure fix)] "                   \
    "[-S (redundant structure fix)] [-v (verbose)] [queue...]"

enum { VERBS = 6, STEPS = 2 };

/* What an option does: the actions of the control protocol one after the other,
 * each on messages of that status only (NULL: any). The last one counts. */
static const struct verb {
    char option;
    const char *one, *all; /* "ID: removed"; "Deleted: 3 messages" */
    struct {
        const char *action, *status;
    } steps[STEPS];
} verbs[VERBS] = {
    {'d', "removed", "Deleted", {{"delete", NULL}}},
    {'e', "expired", "Force-expired", {{"expire", NULL}}},
    /* an expired message leaves the queue whether it was held or not */
    {'f', "expired", "Force-expired", {{"expire", NULL}}},
    {'r', "requeued", "Requeued", {{"release", "hold"}, {"requeue", NULL}}},
    {'h', "placed on hold", "Placed on hold", {{"hold", NULL}}},
    {'H', "released from hold", "Released from hold", {{"release", "hold"}}},
};

/* The queues of Postfix that messages of ours are in, and those that are empty
 * here: naming one of these selects nothing. */
static const char *const queues[] = {"active", "deferred", "hold", "incoming"};
static const char *const empty_queues[] = {"maildrop", "bounce", "corrupt", "defer",
                                           "flush",    "saved",  "trace"};

struct job {
    const struct verb *verb;
    bool all;
    json_t *ids;
    unsigned long changed;
};

static bool is_among(const char *word, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i], word) == 0)
            return true;
    return false;
}

static int say_one(json_t *line, void *arg)
{
    const struct job *job = arg;
    const char *id = json_string_value(json_object_get(line, "id"));
    if (id)
        compat_say("%s: %s", id, job->verb->one);
    return 0;
}

/* One verb on messages of one status, or of any. */
static int run_in(struct ctl *ctl, struct job *job, const char *queue)
{
    int rc = CTL_OK;
    for (int i = 0; i < STEPS && job->verb->steps[i].action && rc == CTL_OK; i++) {
        const char *status = job->verb->steps[i].status;
        bool last = i + 1 == STEPS || !job->verb->steps[i + 1].action;
        if (status && queue && strcmp(status, queue) != 0)
            continue;
        rc = compat_act(ctl, job->verb->steps[i].action,
                        status ? status
                        : last ? queue
                               : NULL,
                        job->ids, last && !job->all ? say_one : NULL, job,
                        last ? &job->changed : NULL);
    }
    return rc;
}

static int run_job(struct ctl *ctl, struct job *job, char **names)
{
    int rc = CTL_OK;
    if (!*names)
        return run_in(ctl, job, NULL);
    for (; *names && rc == CTL_OK; names++)
        if (is_among(*names, queues, sizeof queues / sizeof queues[0]))
            rc = run_in(ctl, job, *names);
    return rc;
}

/* All IDs of one option, in requests that are not too long. */
static int run_batches(struct ctl *ctl, struct job *job, json_t *ids, char **names)
{
    int rc = CTL_OK;
    for (size_t i = 0; i < json_array_size(ids) && rc == CTL_OK; i += SELECT_BATCH) {
        job->ids = json_array();
        for (size_t k = i; k < json_array_size(ids) && k < i + SELECT_BATCH; k++)
            json_array_append(job->ids, json_array_get(ids, k));
        rc = run_job(ctl, job, names);
        json_decref(job->ids);
    }
    return rc;
}

/* What operators pipe in has the marks of mailq at times. */
static int add_id(json_t *ids, const char *text)
{
    char id[ID_MAX + 3];
    snprintf(id, sizeof id, "%s", text);
    id[strcspn(id, "*!#")] = '\0';
    if (!id_valid(slice_str(id))) {
        compat_say("warning: invalid mail queue id: %.80s", text);
        return -1;
    }
    json_array_append_new(ids, json_string(id));
    return 0;
}

static void read_ids(json_t *ids)
{
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0) {
        line[strcspn(line, " \t\r\n")] = '\0';
        if (*line)
            add_id(ids, line);
    }
    free(line);
}

/* What the options say about one verb. */
struct request {
    json_t *ids;
    bool all, given;
};

static int take(struct request *r, char option, const char *argument)
{
    r->given = true;
    if (!r->ids)
        r->ids = json_array();
    if (strcmp(argument, "ALL") == 0)
        r->all = true;
    else if (strcmp(argument, "-") == 0)
        read_ids(r->ids);
    else if (strcasecmp(argument, "ALL") == 0)
        return compat_fatal(EXIT_FAILURE, "use '-%c ALL' (upper case) to select all messages",
                            option);
    else
        add_id(r->ids, argument);
    return 0;
}

static int run_all(struct ctl *ctl, const struct request *requests, char **names)
{
    struct job jobs[VERBS] = {{.verb = NULL}};
    int rc = CTL_OK;
    for (int i = 0; i < VERBS && rc == CTL_OK; i++) {
        const struct request *r = &requests[i];
        jobs[i] = (struct job){.verb = &verbs[i], .all = r->all};
        if (r->all)
            rc = run_job(ctl, &jobs[i], names);
        else if (r->given)
            rc = run_batches(ctl, &jobs[i], r->ids, names);
    }
    for (int i = 0; i < VERBS; i++)
        if (requests[i].given)
            compat_say("%s: %lu message%s", verbs[i].all, jobs[i].changed,
                       jobs[i].changed == 1 ? "" : "s");
    return rc == CTL_OK || rc == CTL_NOT_FOUND ? EXIT_SUCCESS : EXIT_FAILURE;
}

int compat_postsuper(struct ctl *ctl, int argc, char **argv)
{
    struct request requests[VERBS] = {{NULL, false, false}};
    int option, status = EXIT_SUCCESS;
    opterr = 0;
    while (status == EXIT_SUCCESS && (option = getopt(argc, argv, "+c:d:e:f:h:H:pr:sSv")) != -1) {
        if (option == 'c')
            ctl->directory = optarg;
        else if (option == '?')
            status = compat_fatal(EXIT_FAILURE, "%s", USAGE);
        for (int i = 0; i < VERBS; i++)
            if (verbs[i].option == option)
                status = take(&requests[i], (char)option, optarg);
        /* -p -s -S: the queue manager repairs its spool by itself */
    }
    for (int i = optind; status == EXIT_SUCCESS && i < argc; i++)
        if (!is_among(argv[i], queues, sizeof queues / sizeof queues[0]) &&
            !is_among(argv[i], empty_queues, sizeof empty_queues / sizeof empty_queues[0]))
            status = compat_fatal(EXIT_FAILURE, "invalid directory name: %.80s", argv[i]);
    if (status == EXIT_SUCCESS)
        status = run_all(ctl, requests, argv + optind);
    for (int i = 0; i < VERBS; i++)
        json_decref(requests[i].ids);
    return status;
}
