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

#define ACCOUNT_OPTIONS                                                                            \
    "  --plan PLAN          of plans_file; without one nothing is limited\n"                       \
    "  --parent ACCOUNT     the account that this one is part of, and counted in\n"                \
    "  --reference ADDRESS  gets alerts and reports\n"                                             \
    "  --class CLASS        normal, transactional or bulk: its place in the queue\n"               \
    "  --class-most CLASS   the highest that a message's header may ask for; default: --class\n"   \
    "  --source POOL        source addresses\n"                                                    \
    "  --destination-connections N   deliveries at a time to any one destination\n"                \
    "  --destination-rate N/hour     recipients there (minute, hour, day, month)\n"                \
    "  --any-sender, --no-any-sender   whether it may send as any address\n"                       \
    "  --began DATE         of the plan; default: now\n"                                           \
    "  --ends DATE          no mail is taken from then on (2027-06-30)\n"                          \
    "  --note TEXT\n"

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
     "the old one stays, and the log says why. Exit status 1 then, and also if accounts have\n"
     "a plan that is not in plans_file any more: their mail gets 451.\n\n"
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
     "Reads the JSON event log (event_log_file) and asks the queue. Of a recipient's address\n"
     "it tells what became of that recipient, of a sender's, an ID or a Message-ID all.\n"
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
    {"account", "add", cmd_accounts, "NAME [OPTIONS] [--json]", "Makes an account",
     ACCOUNT_OPTIONS "\nExample:\n"
                     "  postern account add acme --plan business --reference admin@acme.example\n"},
    {"account", "set", cmd_accounts, "NAME [OPTIONS] [--json]", "Changes an account",
     ACCOUNT_OPTIONS "An empty value takes away what is set.\n\n"
                     "Examples:\n"
                     "  postern account set acme --plan dedicated --ends 2027-06-30\n"
                     "  postern account set acme --ends ''\n"},
    {"account", "suspend", cmd_accounts, "NAME [--json]",
     "Takes no more mail of an account and those below it",
     "Logins fail and MAIL is refused at once, in open sessions, too. Mail in the queue is\n"
     "still delivered.\n\n"
     "Example:\n"
     "  postern account suspend acme && postern queue hold --sender @acme.example\n"},
    {"account", "resume", cmd_accounts, "NAME [--json]", "Takes mail of an account again",
     "Example:\n"
     "  postern account resume acme\n"},
    {"account", "unguard", cmd_accounts, "NAME [USUAL] [--json]",
     "Ends what the spike guard does about an account",
     "From now on its mail is taken as before, and this hour counts anew. What is held stays\n"
     "on hold: release or delete it. USUAL is how many messages the account sends in an hour\n"
     "from now on, where its history does not tell (a new customer, a customer who has grown).\n\n"
     "Example:\n"
     "  postern account unguard acme\n"
     "  postern account unguard acme 5000\n"},
    {"account", "show", cmd_accounts, "NAME [--json]", "Shows an account",
     "Example:\n"
     "  postern account show acme\n"},
    {"account", "list", cmd_accounts, "[PREFIX] [--json]", "Lists accounts",
     "Example:\n"
     "  postern account list --json | jq -r .account\n"},
    {"account", "delete", cmd_accounts, "NAME --yes [--json]", "Deletes an account without users",
     "Its usage stays for reports.\n\n"
     "Example:\n"
     "  postern account delete acme --yes\n"},
    {"account", "export", cmd_accounts, "", "Writes all accounts as JSON lines",
     "Accounts, users with their hashes, domains, grants, usage: keep it as secret as the\n"
     "database itself.\n\n"
     "Example:\n"
     "  (umask 077; postern account export > accounts.jsonl)\n"},
    {"account", "import", cmd_accounts_import, "FILE|- [--usage keep|replace|none] [--json]",
     "Reads an export, or users of another system",
     "One record a line, an account before what belongs to it. Accounts, users, domains and\n"
     "grants that are there are replaced.\n"
     "  {\"type\":\"account\",\"account\":\"acme\",\"plan\":\"business\"}\n"
     "  "
     "{\"type\":\"user\",\"login\":\"web@acme.example\",\"account\":\"acme\",\"hash\":\"$2y$...\"}"
     "\n"
     "  {\"type\":\"domain\",\"account\":\"acme\",\"domain\":\"acme.example\"}\n"
     "Hashes of yescrypt, bcrypt, SHA-512, SHA-256 and PBKDF2 are taken, with Dovecot's\n"
     "prefix or without.\n"
     "An empty database takes the counts of the file, too. Where accounts are in service:\n"
     "  --usage keep      (default) counts that the database has itself are kept; what it does\n"
     "                    not have is taken; what was not taken is told\n"
     "  --usage replace   those of the file are taken: what was sent since is forgotten\n"
     "  --usage none      definitions only\n\n"
     "Examples:\n"
     "  postern account import accounts.jsonl\n"
     "  postern account import --usage none accounts.jsonl\n"},
    {"account", "snapshot", cmd_accounts, "[--json]", "Makes a copy of the accounts' database",
     "In accounts_directory/snapshot, while everything goes on. One is made each day by\n"
     "itself, and when the log has grown.\n\n"
     "Example:\n"
     "  postern account snapshot && cp -a /var/lib/postern/accounts/snapshot /backup/\n"},
    {"account", "audit", cmd_accounts, "[--since TIME] [--until TIME] [--json]",
     "Lists who changed what, and when",
     "Changes by 'postern' and by imports, with the user's number; plans that plans_file has\n"
     "added, changed or lost, and what quota itself changed, have the number of its user.\n"
     "It does not have that plans_file itself was taken out of main.cf.\n"
     "  --since TIME   from then on: a date such as 2026-11-22, \"2026-11-22 14:30\", or an age\n"
     "                 such as 2h or 7d\n"
     "  --until TIME   before that\n\n"
     "Examples:\n"
     "  postern account audit --since 2d\n"
     "  postern account audit --since 2026-11-01 --until 2026-12-01 --json\n"},
    {"account", "status", cmd_accounts, "[--json]", "Shows the counters of the accounts' service",
     "Since it started: messages charged, recipients delivered and refunded, and repeated\n"
     "charges, which count once. strangers: charges of accounts that do not exist.\n"
     "reservations: messages being received. qmgr: whether its channel is there. disk_full:\n"
     "less than accounts_minfree is left, no mail of accounts is taken.\n"
     "accounts_without_plan: their plan is not in plans_file, and their mail gets 451.\n\n"
     "Example:\n"
     "  postern account status\n"},
    {"user", "add", cmd_accounts,
     "LOGIN ACCOUNT [--hash | --certificate FILE|FINGERPRINT [--public-key]] [--class CLASS] "
     "[--class-most CLASS] [--json]",
     "Makes a user, who can log in for an account",
     "The password is asked for, or read as one line from standard input.\n"
     "  --hash           it is the hash of one, of another system\n"
     "  --certificate C  no password: the client shows this certificate; see add-certificate\n"
     "  --class, --class-most  see 'user set'\n\n"
     "Examples:\n"
     "  postern user add web@acme.example acme\n"
     "  openssl rand -base64 18 | tee password | postern user add web@acme.example acme\n"},
    {"user", "password", cmd_accounts, "LOGIN [--hash] [--json]", "Sets a user's password",
     "As for 'user add'. Sessions that the user has open have to log in again.\n\n"
     "Example:\n"
     "  postern user password web@acme.example\n"},
    {"user", "set", cmd_accounts, "LOGIN [--class CLASS] [--class-most CLASS] [--json]",
     "Changes the class of a user's mail",
     "Which holds instead of the account's, also where that is higher. An empty CLASS takes it\n"
     "away.\n"
     "  --class CLASS        normal, transactional or bulk\n"
     "  --class-most CLASS   the highest that a message's header may ask for; default: --class\n\n"
     "Example:\n"
     "  postern user set newsletter@acme.example --class bulk\n"},
    {"user", "suspend", cmd_accounts, "LOGIN [--json]", "Takes no more mail of one user",
     "Logins fail and MAIL is refused at once, in open sessions, too.\n\n"
     "Example:\n"
     "  postern user suspend web@acme.example\n"},
    {"user", "resume", cmd_accounts, "LOGIN [--json]", "Takes mail of a user again",
     "Example:\n"
     "  postern user resume web@acme.example\n"},
    {"user", "show", cmd_accounts, "LOGIN [--json]", "Shows a user",
     "Example:\n"
     "  postern user show web@acme.example\n"},
    {"user", "list", cmd_accounts, "[ACCOUNT] [--json]", "Lists users, of one account or all",
     "HASH: how the password is kept; none: a certificate only, or SCRAM keys only.\n"
     "SCRAM: whether SCRAM-SHA-256 works; for a user who came as a hash it does after the first\n"
     "login by PLAIN or LOGIN.\n\n"
     "Example:\n"
     "  postern user list acme\n"},
    {"user", "delete", cmd_accounts, "LOGIN --yes [--json]", "Deletes a user",
     "Example:\n"
     "  postern user delete web@acme.example --yes\n"},
    {"user", "add-certificate", cmd_accounts,
     "LOGIN FILE|FINGERPRINT [--public-key] [--note TEXT] [--json]",
     "Gives a user a client certificate",
     "Whoever shows it in the TLS handshake is that user, without a password: plan, limits,\n"
     "senders and suspension are as after a login. No authority needs to have signed it. Give\n"
     "its file (PEM), or its SHA-256 fingerprint. Clients are asked for certificates where\n"
     "smtpd_tls_ask_ccert = yes.\n"
     "  --public-key   of FILE the key's fingerprint: holds for renewals with the same key\n"
     "  --note TEXT    shown in lists\n\n"
     "Example:\n"
     "  postern user add-certificate web@acme.example printer.pem --note 'printer, 2nd floor'\n"},
    {"user", "delete-certificate", cmd_accounts, "FILE|FINGERPRINT [--public-key] [--json]",
     "Takes a certificate from its user",
     "Sessions that the user has open are over at their next message.\n\n"
     "Example:\n"
     "  postern user delete-certificate printer.pem\n"},
    {"user", "list-certificates", cmd_accounts, "[LOGIN] [--json]",
     "Lists client certificates, of one user or all",
     "Example:\n"
     "  postern user list-certificates web@acme.example\n"},
    {"domain", "add", cmd_accounts, "ACCOUNT DOMAIN|ADDRESS [--class CLASS] [--json]",
     "Lets an account send as a domain, or as one address",
     "In MAIL FROM and in From:. Accounts below it may, too.\n"
     "  --class CLASS   of mail with this MAIL FROM: normal, transactional or bulk, whatever is\n"
     "                  the account's; its header may ask for less. For a domain that is there\n"
     "                  already it changes the class; an empty one takes it away\n\n"
     "Examples:\n"
     "  postern domain add acme acme.example\n"
     "  postern domain add acme news.acme.example --class bulk\n"},
    {"domain", "delete", cmd_accounts, "ACCOUNT DOMAIN|ADDRESS [--json]",
     "Takes a domain or address away from an account",
     "Example:\n"
     "  postern domain delete acme acme.example\n"},
    {"domain", "list", cmd_accounts, "[ACCOUNT] [--json]", "Lists domains and addresses",
     "Example:\n"
     "  postern domain list acme\n"},
    {"plan", "list", cmd_accounts, "[--json]", "Lists the plans of plans_file",
     "Example:\n"
     "  postern plan list\n"},
    {"plan", "show", cmd_accounts, "NAME [--json]", "Shows a plan",
     "Example:\n"
     "  postern plan show business\n"},
    {"grant", "add", cmd_accounts,
     "ACCOUNT AMOUNT [--from DATE] [--until DATE] [--bought] [--note TEXT] [--json]",
     "Gives an account volume in addition to its plan",
     "AMOUNT is a number of messages, or a size such as 5GB. It is used when the plan's\n"
     "volume is used up, those first that end first.\n"
     "  --from DATE    it holds from then on; default: now\n"
     "  --until DATE   until then; default: the end of the year, with --bought where the plan\n"
     "                 credits what is left the end of the running period\n"
     "  --bought       what is left of it may be credited, as the plan says\n"
     "Prints the grant's number.\n\n"
     "Example:\n"
     "  postern grant add acme 5GB --bought --until 2026-12-01\n"},
    {"grant", "list", cmd_accounts, "[ACCOUNT] [--json]", "Lists grants and what is used of them",
     "Example:\n"
     "  postern grant list acme\n"},
    {"grant", "delete", cmd_accounts, "ACCOUNT GRANT [--json]", "Takes a grant away",
     "Example:\n"
     "  postern grant delete acme 1795305600000000\n"},
    {"usage", "list", cmd_usage_list, "[--least PERCENT] [--json]",
     "Lists what all accounts have used of their plans, the fullest first",
     "MESSAGES and VOLUME of the running period, OF what plan and grants give; RESET is its\n"
     "end. NOTE: over its plan, or stopped by the spike guard.\n"
     "  --least N   accounts that have used at least N percent\n\n"
     "Examples:\n"
     "  postern usage list --least 80\n"
     "  postern usage list --json | jq -r 'select(.spike) | .owner'\n"},
    {"usage", "show", cmd_accounts, "ACCOUNT [USER] [--json]",
     "Shows what is used in the running period",
     "messages, bytes      reserved or delivered: what counts for the plan\n"
     "delivered, refunded  what arrived; what bounced or was deleted, and does not count\n"
     "granted              of messages: taken from grants\n"
     "reserved             being received just now\n"
     "limit, grants_left   what the plan gives; what grants still give\n"
     "percent              used of plan and grants; the larger of messages and bytes\n"
     "overage              beyond both, and how many blocks are charged for it\n"
     "hour, usual_hour, hour_limit   this hour's messages; what the spike guard compares\n"
     "                     them with, and from when on it acts (spike_since, spike_until)\n\n"
     "Example:\n"
     "  postern usage show acme\n"},
    {"usage", "report", cmd_usage_report, "[ACCOUNT] [--month YYYY-MM] [--errors] [--json]",
     "Writes usage, or failed recipients, as CSV",
     "Each period of each account and user; of accounts also the plan that it is billed by,\n"
     "what was over it, and how many blocks of overage that is.\n"
     "  --month M   periods that end in this month; default: all that is there. `running`: it is\n"
     "              not over yet\n"
     "  --errors    recipients that could not be delivered to, and why, of accounts below, too:\n"
     "              with --month those of the periods that end in it, as in the letters. What "
     "counts\n"
     "              is when the failure was known: a message of January that bounces in February\n"
     "              is in February's list, though January's figures have it as refunded\n\n"
     "Example:\n"
     "  postern usage report acme --month 2026-11 --errors > errors.csv\n"},
    {"shaping", "list", cmd_shaping_list, "[--all] [--json]",
     "Lists destinations with the limits that hold for them now",
     "Rate (recipients a second), connections, messages on one connection, deliveries\n"
     "under way, messages in line, and what holds the next one back; then all senders\n"
     "(accounts, domains) that are slowed down or suspended somewhere, with since when,\n"
     "how, and by which rule or whose hand. Before these: what was suspended by hand.\n"
     "  --all  also destinations without mail and without anything learned\n\n"
     "Example:\n"
     "  postern shaping list\n"},
    {"shaping", "show", cmd_shaping_show, "DESTINATION|DOMAIN [SOURCE] [--json]",
     "Shows a destination's limits, what was learned, and the last changes",
     "Each change names the rule of providers.conf that caused it, with file and line.\n\n"
     "Examples:\n"
     "  postern shaping show gmail\n"
     "  postern shaping show example.com\n"},
    {"shaping", "why", cmd_shaping_why, "ID [--json]", "Tells what a message waits for",
     "Whatever keeps it: its place in line and about when its turn comes, the destination's\n"
     "limits, its sender's, a suspension, greylisting, its own next attempt, a hold, and so on;\n"
     "also of messages that are on the disk only. A line for each part of the message.\n\n"
     "Example:\n"
     "  postern shaping why 4XyzAbCdeFz0001\n"},
    {"shaping", "suspend", cmd_shaping_act,
     "DESTINATION [--source SOURCE] [--account NAME] [--domain NAME] [--for TIME] "
     "[--reason TEXT] [--json]",
     "Stops deliveries to a destination",
     "A provider or section of providers.conf, a destination of 'postern shaping list', a host or\n"
     "a domain, also one without mail; with all addresses and sources that come later, over\n"
     "restarts, until its end or 'postern shaping resume'. No flush ends it.\n"
     "  --source SOURCE   from this source alone, its address or name: others of the pool send\n"
     "                    ('postern source suspend': from it to everybody)\n"
     "  --account NAME    of this account alone; DESTINATION 'all' stands for all of them;\n"
     "                    @DOMAIN: of mail without an account from its owner's domains\n"
     "  --domain NAME     of mail that this domain or one below it signs (DKIM), or is From\n"
     "  --for TIME        30m, 2h, 1d; without it until 'postern shaping resume'\n"
     "  --reason TEXT     kept with it, and shown\n\n"
     "Examples:\n"
     "  postern shaping suspend gmail --for 2h --reason 'listed, delisting asked for'\n"
     "  postern shaping suspend yahoo --account shop --for 1d --reason 'complaints'\n"},
    {"shaping", "resume", cmd_shaping_act,
     "DESTINATION [--source SOURCE] [--account NAME] [--domain NAME] [--json]",
     "Ends a suspension: what waits for it goes",
     "  --account NAME, --domain NAME  takes off what slows down or suspends that sender there\n"
     "                                 (also if a rule did it); 'postern shaping list' has all\n\n"
     "After one that was not by hand one message probes.\n\n"
     "Examples:\n"
     "  postern shaping resume gmail\n"
     "  postern shaping resume yahoo --account shop\n"},
    {"shaping", "set", cmd_shaping_act,
     "DESTINATION [--source ADDRESS] [--rate N] [--connections N] [--messages N] [--json]",
     "Sets limits, from which the shaper goes on learning",
     "  --rate N         recipients a second\n"
     "  --connections N  at a time\n"
     "  --messages N     on one connection\n"
     "For bounds that stay, write them into providers.conf.\n\n"
     "Example:\n"
     "  postern shaping set yahoo --rate 5\n"},
    {"shaping", "reset", cmd_shaping_act, "DESTINATION [--source ADDRESS] [--json]",
     "Forgets what was learned about a destination",
     "\nExample:\n"
     "  postern shaping reset gmail\n"},
    {"shaping", "export", cmd_shaping_export, "", "Prints what was learned, a JSON object a line",
     "For another machine with the same addresses, or as a copy: Postern itself keeps it over\n"
     "restarts.\n\n"
     "Example:\n"
     "  postern shaping export > learned.json\n"},
    {"shaping", "import", cmd_shaping_import, "FILE|- [--json]",
     "Takes over what 'shaping export' printed",
     "What is known about the same destination and source address is replaced, unless that is\n"
     "newer than the entry; limits of providers.conf hold as ever. What is older than 30 days is\n"
     "not used.\n\n"
     "Example:\n"
     "  postern shaping import learned.json\n"},
    {"shaping", "replay", cmd_shaping_replay,
     "EVENTLOG --rules FILE [--against FILE] [--samples N] [--json]",
     "Shows what other rules would have made of replies in an event log",
     "Counts for each rule how many refusals it matched, under the rules in use and under\n"
     "those of FILE, and lists where they differ, with the first such replies. A log that was\n"
     "rotated and compressed (.gz) is read as it is; '-' reads standard input. A file that is\n"
     "no event log is an error, which counts the lines that were not understood.\n"
     "  --rules FILE     the rules to try, in the syntax of providers.conf\n"
     "  --against FILE   compared with these; default: provider_config_file\n"
     "  --samples N      replies shown for each difference; default 3\n\n"
     "Example:\n"
     "  postern shaping replay /var/log/postern/events.json --rules providers.new\n"},
    {"provider", "check", cmd_provider_check, "[--json]",
     "Checks providers.conf: every rule against its samples, and against the others",
     "\nExample:\n"
     "  postern provider check\n"},
    {"provider", "test", cmd_provider_check, "FILE [--json]",
     "The same for a file that is not in use",
     "\nExample:\n"
     "  postern provider test /etc/postern/providers.new\n"},
    {"source", "list", cmd_source_list, "[--json]",
     "Lists the addresses that mail is sent from, with volume and reputation",
     "Recipients taken today and in seven days; of all that were answered in seven days the\n"
     "shares that were deferred, rejected and blocked; recipients that wait.\n\n"
     "Example:\n"
     "  postern source list\n"},
    {"source", "show", cmd_source_show, "SOURCE [--json]",
     "Shows a source by provider: volume, reputation, warm-up; and who sends from it",
     "\nExample:\n"
     "  postern source show out1\n"},
    {"source", "pools", cmd_source_pools, "[--json]",
     "Lists the pools of sources, with advice on their size",
     "\nExample:\n"
     "  postern source pools\n"},
    {"source", "suspend", cmd_source_act, "SOURCE [--for TIME] [--reason TEXT] [--json]",
     "Sends no more from a source; others of its pool take over",
     "Deliveries under way go on. It holds over restarts.\n"
     "  --for TIME      30m, 2h, 1d; without it until 'postern source resume'\n"
     "  --reason TEXT   shown in lists, and in the log\n\n"
     "Example:\n"
     "  postern source suspend out1 --for 2d --reason 'listed, delisting asked for'\n"},
    {"source", "resume", cmd_source_act, "SOURCE [--json]",
     "Sends from a source again; what was blocked by rules is tried, too",
     "\nExample:\n"
     "  postern source resume out1\n"},
    {NULL, "help", cmd_help, "[COMMAND]", "Explains a command", ""},
};
const size_t ctl_command_count = sizeof ctl_commands / sizeof ctl_commands[0];
