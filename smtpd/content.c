#include "smtpd/content.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "smtpd/gate.h"
#include "smtpd/limits.h"
#include "smtpd/prefix.h"
#include "smtpd/reply.h"

const struct refusal content_too_large = {552, "5.3.4", "Message size exceeds fixed limit"};
static const struct refusal many_authors = {550, "5.6.0",
                                            "Error: the message has more than one From field"};
static const struct refusal need_mail = {503, "5.5.1", "Error: need MAIL command"};
static const struct refusal need_rcpt = {503, "5.5.1", "Error: need RCPT command"};
static const struct refusal no_recipients = {554, "5.5.1", "Error: no valid recipients"};
static const struct refusal no_memory = {452, "4.3.1", "Error: too much mail at a time, try later"};
static const struct refusal no_space = {452, "4.3.1", "Insufficient system storage"};
static const struct refusal no_queue = {451, "4.3.0", "Error: queue file write error"};

/* ---- what is kept -------------------------------------------------------- */

static void account(struct session *s)
{
    struct content *c = s->tx.content;
    s->server->memory += c->body.cap - c->counted;
    c->counted = c->body.cap;
}

void content_drop_memory(struct session *s)
{
    if (!s->tx.content)
        return;
    buf_free(&s->tx.content->body);
    account(s);
}

static void close_large(struct content *c)
{
    if (c->large >= 0)
        close(c->large);
    c->large = -1;
}

/* From here on the content is read to its end and not kept. */
static void drop(struct session *s)
{
    struct content *c = s->tx.content;
    if (c->dropped)
        return;
    c->dropped = c->data.discard = true;
    content_drop_memory(s);
    close_large(c);
    link_abort(&s->server->link, s);
}

static void refuse(struct session *s, const struct refusal *r)
{
    struct content *c = s->tx.content;
    if (!c->refusal)
        c->refusal = r;
    drop(s);
}

/* Bytes of a message; 0: no limit. That of a plan has words of its own. */
static uint64_t size_limit(struct session *s)
{
    struct content *c = s->tx.content;
    uint64_t ours = (uint64_t)s->server->config->message_size_limit, own = gate_size_limit(s);
    if (!own || (ours && ours <= own))
        return ours;
    snprintf(c->too_large_text, sizeof c->too_large_text, "Error: a message may have %llu bytes",
             (unsigned long long)own);
    c->too_large = (struct refusal){552, "5.3.4", c->too_large_text};
    return own;
}

static const struct refusal *too_large(const struct content *c)
{
    return c->too_large.code ? &c->too_large : &content_too_large;
}

void content_begin(struct session *s, enum data_framing framing)
{
    const struct config *config = s->server->config;
    struct content *c = s->tx.content = xcalloc(1, sizeof *c);
    /* Postfix's "no" exists because its end of data was lax; ours never is */
    bool strict = strcmp(config->smtpd_forbid_bare_newline, "reject") == 0;
    data_init(&c->data, framing, strict ? DATA_REJECT : DATA_NORMALIZE, size_limit(s),
              (uint64_t)config->line_length_limit);
    header_scan_init(&c->header,
                     &(struct header_limits){.size = (uint64_t)config->header_size_limit,
                                             .lines = (uint32_t)config->header_line_limit,
                                             .hops = (uint32_t)config->hopcount_limit});
    buf_init(&c->authors, AUTHORS_TEXT);
    header_scan_class(&c->header, slice_str(config->mail_class_header));
    if (gate_wants_authors(s))
        c->header.authors = &c->authors;
    buf_init(&c->body, (size_t)config->message_memory_limit + DATA_ROOM_MIN);
    c->large = -1;
    c->began = clock_mono();
    if (s->server->memory >= (uint64_t)config->smtpd_memory_limit)
        refuse(s, &no_memory);
}

void content_free(struct session *s)
{
    struct content *c = s->tx.content;
    if (!c)
        return;
    content_drop_memory(s);
    close_large(c);
    buf_free(&c->authors);
    if (c->large_sum)
        XXH3_freeState(c->large_sum);
    xfree(&s->tx.content);
}

/* ---- large messages ------------------------------------------------------ */

/* Writes what is collected in `b` into the large message's file. */
static void write_out(struct session *s, struct buf *b)
{
    struct content *c = s->tx.content;
    struct slice rest = buf_slice(b);
    if (c->large < 0)
        return;
    XXH3_64bits_update(c->large_sum, rest.ptr, rest.len);
    c->large_len += rest.len;
    while (rest.len) {
        ssize_t n = write(c->large, rest.ptr, rest.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            log_error("%s: cannot write the message's file: %m", s->tx.id.text);
            refuse(s, errno == ENOSPC || errno == EDQUOT ? &no_space : &no_queue);
            return;
        }
        rest = slice_from(rest, (size_t)n);
    }
    buf_clear(b);
}

uint64_t content_large_sum(const struct content *c)
{
    return XXH3_64bits_digest(c->large_sum);
}

uint64_t content_length(const struct content *c)
{
    return c->large_len ? c->large_len : c->body.len;
}

void content_large_ready(struct session *s, int fd)
{
    struct content *c = s->tx.content;
    c->large = fd;
    c->large_sum = XXH3_createState();
    if (!c->large_sum)
        panic("out of memory");
    XXH3_64bits_reset(c->large_sum);
    write_out(s, &c->body);
    content_drop_memory(s);
}

void content_large_refused(struct session *s, int code)
{
    refuse(s, code == 452 ? &no_space : &no_queue);
}

/* Memory is full: the message goes on in a file, which qmgr opens for us. */
static void grow_large(struct session *s)
{
    const struct refusal *no = link_open_large(&s->server->link, s);
    if (no)
        refuse(s, no);
    else
        s->wait = WAIT_LARGE;
}

/* ---- taking -------------------------------------------------------------- */

/* A message whose header ends without a blank line gets one: otherwise its body
 * would read as a header, ours on top of it. Only while the place is still here. */
static void separate_header(struct content *c, struct buf *b)
{
    const struct header_scan *h = &c->header;
    if (!h->no_blank_line || h->size == 0 || h->size < c->large_len)
        return; /* with size 0 the blank line goes into our prefix */
    size_t at = (size_t)(h->size - c->large_len);
    if (at > b->len || buf_reserve(b, 2) < 0)
        return;
    memmove(b->data + at + 2, b->data + at, b->len - at);
    memcpy(b->data + at, "\r\n", 2);
    b->len += 2;
}

static void scan_header(struct session *s, struct buf *b, size_t from)
{
    struct content *c = s->tx.content;
    if (c->header.done || c->dropped)
        return;
    if (header_scan_feed(&c->header, slice_from(buf_slice(b), from)))
        separate_header(c, b);
    if (c->header.problem != HEADER_OK)
        refuse(s, header_refusal(&c->header));
}

/* The first bytes tell how much room a small message needs. */
static void make_room(struct session *s, size_t coming)
{
    struct content *c = s->tx.content;
    if (c->body.cap || c->dropped)
        return;
    size_t want = s->tx.size > coming ? (size_t)s->tx.size : coming;
    size_t most = c->body.max;
    buf_reserve(&c->body, want < most - DATA_ROOM_MIN ? want + DATA_ROOM_MIN : most);
}

/* Why the content as such cannot be taken, or NULL. */
static const struct refusal *cause(const struct content *c)
{
    const struct refusal *r = data_refusal(&c->data);
    return r && r->code == c->too_large.code ? &c->too_large : r;
}

/* Feeds until the input is used up, the message ends, or it has to wait. */
static enum data_status feed(struct session *s, struct slice in, size_t *used)
{
    struct content *c = s->tx.content;
    enum data_status status;
    *used = 0;
    make_room(s, in.len);
    do {
        struct buf *out = c->large >= 0 ? &s->server->slice : &c->body;
        size_t before = out->len, n;
        status = data_feed(&c->data, slice_from(in, *used), &n, out);
        *used += n;
        scan_header(s, out, before);
        if (c->data.discard && !c->dropped)
            drop(s); /* why, is known at its end: a line too long may also be 200 MB (B09) */
        if (c->large >= 0)
            write_out(s, out);
        else if (status == DATA_FULL && *used < in.len && !c->dropped)
            grow_large(s);
        buf_clear(&s->server->slice);
    } while (status == DATA_FULL && *used < in.len && s->wait == WAIT_NOTHING);
    account(s);
    if (s->server->memory > (uint64_t)s->server->config->smtpd_memory_limit)
        refuse(s, &no_memory);
    c->received += *used;
    return status;
}

/* Content that dribbles in keeps a session, and memory, for ever (F34). */
static bool is_too_slow(struct session *s)
{
    const struct config *config = s->server->config;
    const struct content *c = s->tx.content;
    int64_t seconds = (clock_mono() - c->began) / CLOCK_SECOND;
    if (seconds <= RATE_GRACE_SECONDS)
        return seconds > config->smtpd_data_time_limit;
    return seconds > config->smtpd_data_time_limit ||
           c->received / (uint64_t)seconds < (uint64_t)config->smtpd_min_data_rate;
}

/* Ends the session if it is. */
static bool give_up_slow(struct session *s)
{
    if (!is_too_slow(s))
        return false;
    log_info("timeout after %s (%llu bytes) from %s", s->where,
             (unsigned long long)s->tx.content->received, s->peer);
    reply_goodbye(s, "4.4.2", "Error: timeout exceeded");
    return true;
}

static void log_message_id(struct session *s)
{
    const struct header_scan *h = &s->tx.content->header;
    const char *value = log_esc(slice_make(h->message_id, h->message_id_len));
    if (!s->server->config->compatible_log_names) {
        log_info("%s: message-id=%s", s->tx.id.text, value[0] ? value : "<>");
        return;
    }
    char line[64 + 4 * HEADER_MESSAGE_ID_MAX];
    struct buf b = {line, 0, sizeof line, sizeof line - 1};
    buf_printf(&b, "%s: message-id=%s", s->tx.id.text, value[0] ? value : "<>");
    log_info_as("postfix/cleanup", buf_slice(&b));
}

static void refused(struct session *s, const struct refusal *r)
{
    reject(s, tx_single_recipient(&s->tx), r);
    tx_reset(s);
}

static const struct refusal *verdict(const struct content *c)
{
    if (c->refusal)
        return c->refusal;
    const struct refusal *r = cause(c);
    if (!r)
        r = header_refusal(&c->header);
    /* RFC 5322 section 3.6: which one is shown is anybody's guess (B34) */
    return !r && c->header.count[HEADER_FROM] > 1 ? &many_authors : r;
}

/* qmgr takes the message over, if the account may send it. */
static void hand_over(struct session *s, const struct refusal *no)
{
    if (no) {
        refused(s, no);
        return;
    }
    log_message_id(s);
    if (link_commit(&s->server->link, s))
        s->wait = WAIT_COMMIT;
    else
        refused(s, &no_queue);
}

/* smtpd_end_of_data_restrictions have been checked. */
static void message_decided(struct session *s, enum check_result result)
{
    if (result == CHECK_PASSED) {
        prefix_prepare(s);
        gate_message(s, hand_over);
        return;
    }
    restrictions_refuse(s, tx_single_recipient(&s->tx));
    tx_reset(s);
}

/* The whole message is here. */
static void complete(struct session *s)
{
    struct content *c = s->tx.content;
    struct buf *out = c->large >= 0 ? &s->server->slice : &c->body;
    c->body.max += DATA_ROOM_MIN;
    size_t before = out->len;
    data_finish(&c->data, out);
    scan_header(s, out, before);
    write_out(s, out);
    buf_clear(&s->server->slice);
    header_scan_end(&c->header);
    close_large(c);
    s->where = "END-OF-MESSAGE";
    const struct refusal *r = verdict(c);
    if (r) {
        refused(s, r);
        return;
    }
    enum check_result result = restrictions_check_message(s, CHECK_MESSAGE, message_decided);
    if (result != CHECK_WAITS)
        message_decided(s, result);
}

static void chunk_over(struct session *s)
{
    struct content *c = s->tx.content;
    const struct refusal *r = verdict(c);
    s->mode = INPUT_COMMAND;
    if (r)
        refused(s, r);
    else if (c->last_chunk)
        complete(s);
    else
        reply(s, 250, "2.0.0", "Ok: %llu bytes so far", (unsigned long long)c->received);
}

size_t content_take(struct session *s, struct slice in)
{
    size_t used;
    if (give_up_slow(s))
        return 0;
    if (s->mode == INPUT_CHUNK) {
        struct content *c = s->tx.content;
        feed(s, slice_first(in, c->chunk_left < in.len ? (size_t)c->chunk_left : in.len), &used);
        c->chunk_left -= used;
        if (c->chunk_left == 0)
            chunk_over(s);
    } else if (feed(s, in, &used) == DATA_END) {
        s->mode = INPUT_COMMAND;
        complete(s);
    }
    return used;
}

static bool is_beyond_limit(const struct session *s, uint64_t more)
{
    uint64_t limit = s->tx.content->data.size_limit;
    return limit && s->tx.content->received + more > limit; /* more is at most CHUNK_MAX */
}

/* smtpd_data_restrictions have been checked; the first chunk comes in any case. */
static void chunk_decided(struct session *s, enum check_result result)
{
    if (result == CHECK_REFUSED)
        refuse(s, &s->tx.run->refusal);
    if (s->tx.content->chunk_left == 0)
        chunk_over(s);
}

void content_chunk(struct session *s, uint64_t size, bool last)
{
    bool first = !s->tx.content;
    bool no_transaction = s->state == STATE_GREETED || s->state == STATE_READY;
    if (first)
        content_begin(s, DATA_BDAT);
    else if (give_up_slow(s))
        return;
    if (no_transaction)
        refuse(s, &need_mail);
    else if (s->state == STATE_MAIL)
        refuse(s, s->tx.refused ? &no_recipients : &need_rcpt);
    else if (is_beyond_limit(s, size))
        refuse(s, too_large(s->tx.content));
    if (!no_transaction)
        s->state = STATE_BDAT;
    s->tx.content->chunk_left = size;
    s->tx.content->last_chunk = last;
    s->mode = INPUT_CHUNK;
    enum check_result result = CHECK_PASSED;
    if (first && !s->tx.content->refusal)
        result = restrictions_check_message(s, CHECK_DATA, chunk_decided);
    if (result != CHECK_WAITS)
        chunk_decided(s, result);
}
