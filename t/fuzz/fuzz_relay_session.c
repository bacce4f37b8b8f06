/* libraries: relay_parts */
/*
 * A server that says anything at all, in any pieces (0xFE in the input is a
 * pause in which relay acts). Whatever it says: each job ends exactly once, every
 * recipient has an outcome, no session is left, and nobody is reported as having
 * got a message of which the server has not got the end.
 */
#include <stdio.h>

#include "../unit/relay_fixture.h"
#include "relay/connect.h"

static struct buf heard = BUF_INIT(1 << 20); /* all that the server was sent */

static void listen_to(int fd)
{
    char block[65536];
    ssize_t n;
    while ((n = recv(fd, block, sizeof block, 0)) > 0)
        if (buf_add(&heard, block, (size_t)n) < 0)
            panic("a megabyte for a message of 22 bytes");
}

static bool heard_this(struct slice s)
{
    return heard.len > 0 && memmem(heard.data, heard.len, s.ptr, s.len);
}

/* Of the job that ended last. */
static bool reported_as_sent(void)
{
    struct ipc_result m;
    struct ipc_outcome o;
    bool sent = false;
    if (rig_result.len == 0)
        return false;
    if (ipc_result_decode(slice_from(buf_slice(&rig_result), IPC_HEADER), &m) < 0)
        panic("a result that cannot be decoded");
    struct ipc_cursor cursor = ipc_list_cursor(m.outcomes);
    while (ipc_outcome_next(&cursor, &o))
        sent = sent || o.status == OUTCOME_SENT;
    return sent;
}

static struct job *new_job(const uint8_t *options)
{
    struct job *j = rig_job(1 + options[0] % 5, options[1] & 1 ? TRANSPORT_LMTP : TRANSPORT_SMTP,
                            SLICE("Subject: x\r\n\r\n.\r\nend\r\n"), -1, 22);
    if (options[1] & 2)
        j->m.flags = MESSAGE_8BIT | MESSAGE_SMTPUTF8;
    return j;
}

/* Another message over the session, once it is idle. */
static void reuse(const uint8_t *options, unsigned *jobs)
{
    if (!(options[1] & 4) || rig.job_count > 0 || *jobs == 2)
        return;
    struct job *j = new_job(options);
    struct session *s = pool_take(&rig.pool, j);
    ++*jobs;
    if (s)
        session_assign(s, j);
    else
        connect_next(&rig, j);
}

static void play(int fd, const uint8_t *options, struct slice script, unsigned *jobs)
{
    while (script.len > 0) {
        struct slice piece = slice_cut(&script, '\xfe');
        if (piece.len > 0 && send(fd, piece.ptr, piece.len, MSG_NOSIGNAL) < 0)
            return;
        rig_turn();
        listen_to(fd);
        rig_turn();
        reuse(options, jobs);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool started;
    unsigned jobs = 1;
    if (!started)
        rig_start();
    started = true;
    if (size < 2)
        return 0;
    rig_results = 0;
    buf_clear(&heard);
    buf_clear(&rig_result);
    int fd = rig_session(new_job(data), NULL);
    play(fd, data, slice_make(data + 2, size - 2), &jobs);
    listen_to(fd);
    if (reported_as_sent() && !heard_this(SLICE("\r\n\r\n..\r\nend\r\n.\r\n")) &&
        !heard_this(SLICE(" LAST\r\nSubject: x\r\n\r\n.\r\nend\r\n")))
        panic("a message that the server has not got is reported as sent");
    close(fd);
    for (int i = 0; i < 10 && rig.session_count > 0; i++)
        rig_turn();
    if (rig_results != jobs || rig.session_count != 0 || rig.job_count != 0)
        panic("%u results of %u jobs, %u sessions", rig_results, jobs, rig.session_count);
    return 0;
}
