/* The table of all commands, with their help. */
#include "ctl/ctl.h"

#define SELECTORS                                                                                  \
    "Selectors; all that are given must match:\n"                                                  \
    "  ID...             queue IDs; '-' reads them from standard input\n"                          \
    "  --id ID           the same\n"                                                               \
    "  --sender PATTERN  envelope sender; '<>' is the null sender\n"                               \
    "  --recipient PATTERN\n"                                                                      \
    "  --account PATTERN account that it was submitted by\n"                                       \
    "  --site PATTERN    domain of a recipient, or host that answered last\n"                      \
    "  --source PATTERN  our address that it is being sent from\n"                                 \
    "  --reply PATTERN   text in the last reply about a recipient\n"                               \
    "  --older-than T, --newer-than T         age: 90s, 15m, 2h, 5d\n"                             \
    "  --larger-than SIZE, --smaller-than SIZE   500, 20k, 3m\n"                                   \
    "  --min-attempts N, --max-attempts N     made so far, of a recipient\n"                       \
    "  --status S        active, deferred, hold or incoming\n"                                     \
    "  --all             all messages\n"                                                           \
    "In a pattern '*' is any text and '?' any character; '@example.com' is any address\n"          \
    "of that domain.\n"

#define ACTION_OPTIONS                                                                             \
    "  --dry-run         only list what would be done\n"                                           \
    "  --json            the counts, and the IDs, in JSON\n"

#define CONFIRM "  --yes             do not ask, even for more than one message\n"
#define MANY "  --yes             do not ask, even for more than 100 messages\n"
#define DELETED                                                                                    \
    "  --deleted         messages that were deleted and are kept, instead of the queue\n"

const struct ctl_command ctl_commands[] = {
    {NULL, "start", cmd_start, "", "Starts Postern and waits until it answers",
     "Example:\n"
     "  postern start\n"},
    {NULL, "stop", cmd_stop, "", "Stops Postern after the sessions under way",
     "Mail that is not delivered stays in the queue.\n\n"
     "Example:\n"
     "  postern stop\n"},
    {NULL, "reload", cmd_reload, "", "Makes Postern read its configuration again",
     "Sessions under way go on with the old configuration. If the new one is not usable\n"
     "the old one stays, and the log says why.\n\n"
     "Example:\n"
     "  postern check && postern reload\n"},
    {NULL, "status", cmd_status, "[--json]", "Shows processes, queue figures and the spool's state",
     "Exit status 3 tells that Postern is not running.\n\n"
     "Example:\n"
     "  postern status\n"},
    {NULL, "check", cmd_check, "[--json]", "Finds what is wrong with the installation",
     "Looks at configuration, users, directories, programs, lookup tables, ports, disk\n"
     "space and name servers. One line for each finding, with what to do. Exit status 1 if\n"
     "there is an error; warnings do not count. Run it as root to see everything.\n\n"
     "Example:\n"
     "  postern -c /etc/postern check\n"},
    {NULL, "config", cmd_config, "[-n|-d] [--value] [--json] [NAME...]",
     "Shows parameters of main.cf",
     "  -n        only what main.cf sets\n"
     "  -d        defaults instead of values\n"
     "  --value   values without names\n\n"
     "Examples:\n"
     "  postern config -n\n"
     "  postern config --value queue_directory\n"},
    {"queue", "list", cmd_queue_list, "[SELECTORS] [--limit N] [--json]",
     "Lists messages, a line for each recipient that is not finished",
     SELECTORS "  --limit N         at most N messages\n" DELETED "\n"
               "Examples:\n"
               "  postern queue list\n"
               "  postern queue list --recipient @example.com --older-than 1h\n"
               "  postern queue list --reply 'rate limit' --json\n"
               "  postern queue list --deleted\n"},
    {"queue", "summary", cmd_queue_summary, "[SELECTORS] [--json]",
     "Counts the queue by domains of recipients",
     SELECTORS DELETED "\nExample:\n"
                       "  postern queue summary --status deferred\n"},
    {"queue", "flush", cmd_queue_action, "[SELECTORS] [--dry-run] [--json]",
     "Tries messages now; without selectors the whole queue",
     SELECTORS ACTION_OPTIONS "\nExample:\n"
                              "  postern queue flush --site example.com\n"},
    {"queue", "hold", cmd_queue_action, "SELECTORS [--yes] [--dry-run] [--json]",
     "Keeps messages back until they are released",
     SELECTORS ACTION_OPTIONS MANY "\nExample:\n"
                                   "  postern queue hold --sender @customer.example\n"},
    {"queue", "release", cmd_queue_action, "SELECTORS [--yes] [--dry-run] [--json]",
     "Lets messages go that are on hold",
     SELECTORS ACTION_OPTIONS MANY "\nExample:\n"
                                   "  postern queue release --status hold\n"},
    {"queue", "requeue", cmd_queue_action, "SELECTORS [--yes] [--dry-run] [--json]",
     "Tries messages now, and looks up their destinations anew",
     SELECTORS ACTION_OPTIONS MANY "\nExample:\n"
                                   "  postern queue requeue --recipient @moved.example\n"},
    {"queue", "expire", cmd_queue_action, "SELECTORS [--yes] [--dry-run] [--json]",
     "Returns messages to their senders as undeliverable",
     SELECTORS ACTION_OPTIONS CONFIRM "\nExample:\n"
                                      "  postern queue expire --older-than 2d --site "
                                      "down.example\n"},
    {"queue", "delete", cmd_queue_action, "SELECTORS [--deleted] [--yes] [--dry-run] [--json]",
     "Takes messages out of the queue; nobody is told",
     "They are kept for queue_undelete_time and can be brought back with 'postern queue\n"
     "undelete', unless the disk gets full. With --deleted they are gone for good at "
     "once.\n" SELECTORS DELETED ACTION_OPTIONS CONFIRM "\nExamples:\n"
     "  postern queue delete --sender spam@customer.example --dry-run\n"
     "  postern queue delete --account bulk --larger-than 5m --older-than 6h\n"
     "  postern queue list --json | jq -r .id | postern queue delete --yes -\n"},
    {"queue", "undelete", cmd_queue_action, "SELECTORS [--yes] [--dry-run] [--json]",
     "Brings deleted messages back into the queue",
     "Who was delivered to already is not sent to again. 'postern queue list --deleted' shows\n"
     "what there is, and when each is purged.\n" SELECTORS ACTION_OPTIONS MANY "\nExample:\n"
     "  postern queue undelete --sender @customer.example\n"},
    {"message", "show", cmd_message_show, "ID [--envelope] [--headers] [--body] [--raw] [--json]",
     "Shows a message that is in the queue, or was deleted and is kept",
     "  --envelope  sender, recipients, schedule, last replies\n"
     "  --headers   the header\n"
     "  --body      the body\n"
     "  --raw       header and body exactly as they will be sent\n"
     "Without any of these: envelope and header.\n\n"
     "Examples:\n"
     "  postern message show 4XyzAbCdeFz0001\n"
     "  postern message show 4XyzAbCdeFz0001 --raw > message.eml\n"},
    {NULL, "trace", cmd_trace, "ID|MESSAGE-ID|ADDRESS [--limit N] [--file FILE] [--json]",
     "Tells what became of a message",
     "Reads the JSON event log (event_log_file) and asks the queue.\n"
     "  --limit N    at most N messages, the latest; default 20\n"
     "  --file FILE  another event log, e.g. a rotated one\n\n"
     "Examples:\n"
     "  postern trace 4XyzAbCdeFz0001\n"
     "  postern trace '<20241121202946.123@customer.example>'\n"
     "  postern trace bob@example.com\n"},
    {"site", "show", cmd_site_show, "DOMAIN|ADDRESS [--json]",
     "Shows how mail for a domain is delivered, and how that goes",
     "Hosts and addresses, the queue, limits, suspension, last replies.\n\n"
     "Example:\n"
     "  postern site show example.com\n"},
    {NULL, "help", cmd_help, "[COMMAND]", "Explains a command", ""},
};
const size_t ctl_command_count = sizeof ctl_commands / sizeof ctl_commands[0];
