/* BDAT (RFC 3030): content in chunks of a stated length. */
#include "smtpd/content.h"
#include "smtpd/limits.h"
#include "smtpd/reply.h"
#include "smtpd/verbs.h"

/* A chunk comes right behind the command, whatever we answer. When its length is
 * not known there is no telling where the next command begins (B22). */
static int parse(struct session *s, struct slice argument, uint64_t *size, bool *last)
{
    if (command_bdat(argument, size, last) == 0 && *size <= CHUNK_MAX)
        return 0;
    reply(s, 501, "5.5.4", "Syntax: BDAT count [LAST]");
    session_end(s);
    return -1;
}

void cmd_bdat(struct session *s, struct slice argument)
{
    uint64_t size;
    bool last;
    if (parse(s, argument, &size, &last) < 0)
        return;
    /* an empty chunk is a NOOP (B38) */
    if (size == 0 && !last && reply_to_flood(s))
        return;
    content_chunk(s, size, last);
}
