/* postqueue and mailq. */
#include <string.h>
#include <unistd.h>

#include "conf/nets.h"
#include "core/id.h"
#include "ctl/compat.h"

#define USAGE                                                                                      \
    "usage: postqueue -f | postqueue -i queueid | postqueue -j | postqueue -p | postqueue -s site"

/* What the control socket's statuses are in sysexits(3). */
static int exit_status(int status)
{
    switch (status) {
    case CTL_OK:
    case CTL_NOT_FOUND:
        return EX_OK; /* Postfix, too, does not say that a message is gone */
    case CTL_NOT_RUNNING:
        return EX_UNAVAILABLE;
    case CTL_DENIED:
        return EX_NOPERM;
    default:
        return EX_SOFTWARE;
    }
}

static int flush(struct ctl *ctl, json_t *select)
{
    int status = client_probe(ctl);
    if (status == CTL_NOT_RUNNING) {
        json_decref(select);
        return compat_fatal(EX_UNAVAILABLE, "Cannot flush mail queue - mail system is down");
    }
    return exit_status(client_ask(ctl,
                                  json_pack("{s:s, s:s, s:o}", "request", "queue.action", "action",
                                            "flush", "select", select),
                                  NULL, NULL, NULL));
}

int compat_flush(struct ctl *ctl)
{
    return flush(ctl, json_pack("{s:b}", "all", true));
}

int compat_flush_id(struct ctl *ctl, const char *id)
{
    if (!id_valid(slice_str(id)))
        return compat_fatal(EX_UNAVAILABLE, "Cannot flush queue ID - invalid name: \"%.100s%s\"",
                            id, strlen(id) > 100 ? "..." : "");
    return flush(ctl, json_pack("{s:[s]}", "ids", id));
}

/* A domain or an address literal: nothing that is a pattern. */
static bool is_site(struct slice site)
{
    unsigned char bytes[16];
    if (site.len > 2 && site.ptr[0] == '[' && site.ptr[site.len - 1] == ']') {
        struct slice inside = slice_make(site.ptr + 1, site.len - 2);
        if (slice_casestarts(inside, SLICE("IPv6:")))
            inside = slice_from(inside, 5);
        return network_address(inside, bytes) > 0;
    }
    for (size_t i = 0; i < site.len; i++) {
        unsigned char c = (unsigned char)site.ptr[i];
        bool letter = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
        if (!letter && c != '-' && c != '.' && c != '_' && c < 0x80)
            return false;
    }
    return site.len > 0 && site.len <= 255 && site.ptr[0] != '.';
}

int compat_flush_site(struct ctl *ctl, const char *site)
{
    if (!is_site(slice_str(site)))
        return compat_fatal(EX_UNAVAILABLE,
                            "Cannot flush mail queue - invalid destination: \"%.100s%s\"", site,
                            strlen(site) > 100 ? "..." : "");
    return flush(ctl, json_pack("{s:s}", "site", site));
}

int compat_postqueue(struct ctl *ctl, int argc, char **argv)
{
    int mode = 0, option;
    const char *argument = NULL;
    opterr = 0;
    while ((option = getopt(argc, argv, "+c:fi:jps:v")) != -1) {
        if (option == 'c')
            ctl->directory = optarg;
        else if (option == 'v')
            continue;
        else if (option == '?' || mode)
            return compat_fatal(EX_UNAVAILABLE, "%s", USAGE);
        else
            mode = option, argument = optarg;
    }
    if (!mode || optind < argc)
        return compat_fatal(EX_UNAVAILABLE, "%s", USAGE);
    if (mode == 'p' || mode == 'j')
        return compat_list(ctl, mode == 'j');
    if (!ctl_config(ctl))
        return EX_CONFIG;
    if (mode == 'i')
        return compat_flush_id(ctl, argument);
    return mode == 's' ? compat_flush_site(ctl, argument) : compat_flush(ctl);
}

/* As sendmail -bp, which is what mailq is: its other options change nothing. */
int compat_mailq(struct ctl *ctl, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "-c") == 0 || strcmp(argv[i], "-C") == 0) {
            if (i + 1 == argc)
                return compat_fatal(EX_USAGE, "usage: mailq [-C config_dir]");
            ctl->directory = argv[++i];
        }
    return compat_list(ctl, false);
}
