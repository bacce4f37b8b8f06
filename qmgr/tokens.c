#include "qmgr/tokens.h"

#include <sys/random.h>

#include "core/log.h"
#include "core/mem.h"
#include "qmgr/qmgr.h"

enum {
    CHANNEL_BITS = 40, /* of the numbers on one channel: more than there is time for */
    WORD = 64
};

#define SAY_EVERY CLOCK_SECOND /* a process that was taken over does not fill the log */

void tokens_init(struct tokens *t)
{
    *t = (struct tokens){.began = clock_mono()};
    if (getrandom(t->key, sizeof t->key, 0) != sizeof t->key)
        panic("getrandom failed");
}

void tokens_connected(struct qmgr *q)
{
    struct tokens *t = &q->tokens;
    struct channel *c = q->charges.peer.channel;
    if (!t->used)
        t->used = xcalloc(TOKEN_WINDOW / WORD, sizeof *t->used);
    ipc_token_key_encode(channel_out(c),
                         &(struct ipc_token_key){.key = slice_make(t->key, sizeof t->key),
                                                 .first = ++t->channels << CHANNEL_BITS});
    channel_secret(c);
}

/* ---- used once --------------------------------------------------------------------------- */

static uint64_t *word_of(const struct tokens *t, uint64_t serial)
{
    return &t->used[serial % TOKEN_WINDOW / WORD];
}

/* The window moves up to `serial`: what comes into it was not used. */
static void advance(struct tokens *t, uint64_t serial)
{
    if (serial - t->top >= TOKEN_WINDOW)
        memset(t->used, 0, TOKEN_WINDOW / 8);
    else
        for (uint64_t n = t->top + 1; n <= serial; n++)
            *word_of(t, n) &= ~(UINT64_C(1) << n % WORD);
    t->top = serial;
}

static enum token_verdict use(struct tokens *t, uint64_t serial)
{
    if (serial > t->top)
        advance(t, serial);
    else if (t->top - serial >= TOKEN_WINDOW)
        return TOKEN_LATE;
    uint64_t *word = word_of(t, serial), bit = UINT64_C(1) << serial % WORD;
    if (*word & bit)
        return TOKEN_AGAIN;
    *word |= bit;
    return TOKEN_GOOD;
}

/* ---- COMMIT ------------------------------------------------------------------------------ */

/* As quota was told it. */
static uint64_t charged_size(const struct ipc_commit *in)
{
    return (in->large_len ? in->large_len : in->body.len) - in->added;
}

enum token_verdict tokens_check(struct tokens *t, const struct ipc_commit *in, int64_t now)
{
    const struct token_claim claim = {.id = in->id,
                                      .owner = in->account,
                                      .sender = in->sender,
                                      .recipients = in->recipient_count,
                                      .size = charged_size(in)};
    struct token token;
    if (!t->used || token_read(t->key, &claim, in->token, &token) < 0)
        return TOKEN_FALSE;
    if (token.serial >> CHANNEL_BITS > t->channels) /* no quota was given such a number */
        return TOKEN_FALSE;
    if (token.hold & ~in->flags)
        return TOKEN_NOT_HELD;
    /* its seconds are counted modulo 2^32; quota's clock may be a moment ahead of this turn's */
    if ((int32_t)((uint32_t)(now / CLOCK_SECOND) - token.at) > TOKEN_SECONDS)
        return TOKEN_LATE;
    return use(t, token.serial);
}

/* Whether a token that is not ours can be one of the qmgr before. */
static bool is_young(const struct tokens *t, int64_t now)
{
    return now - t->began < 2 * TOKEN_SECONDS * CLOCK_SECOND;
}

static void say(struct tokens *t, const char *from, const struct ipc_commit *in,
                enum token_verdict v, int64_t now)
{
    static const char *const what[] = {
        [TOKEN_FALSE] = "which was not reserved as such",
        [TOKEN_AGAIN] = "with a reservation that was used before",
        [TOKEN_NOT_HELD] = "without the hold that its reservation asks for",
        [TOKEN_NOBODY] = "though all of its clients have accounts",
    };
    char others[64] = "";
    bool honest = v == TOKEN_LATE || (v == TOKEN_FALSE && is_young(t, now));
    struct token_lines *lines = honest ? &t->warnings : &t->alarms;
    if (lines->said && now - lines->said < SAY_EVERY) {
        lines->unsaid++;
        return;
    }
    if (lines->unsaid)
        snprintf(others, sizeof others, " (and %llu more like it)",
                 (unsigned long long)lines->unsaid);
    *lines = (struct token_lines){now, 0};
    if (honest)
        log_warning("%s: not taken from %s: its reservation is too old, or of the time before this "
                    "process began; the client is told to try again%s",
                    log_esc(in->id), from, others);
    else
        log_error("%s: ALARM: not taken from %s as mail of %s, %u recipients, %s: the process may "
                  "have been taken over%s",
                  log_esc(in->id), from, in->account.len ? log_esc(in->account) : "nobody",
                  in->recipient_count, what[v], others);
}

/* An older process may go on without owners after a reload that has taken mynetworks_account
 * away, and after one that has set it again (intake_reload). */
static bool may_be_nobodys(const struct config *c, bool owners_only)
{
    return !owners_only || !*c->mynetworks_account;
}

const struct refusal *tokens_refuse(struct qmgr *q, const char *from, bool owners_only,
                                    const struct ipc_commit *in)
{
    static const struct refusal not_reserved = {451, "4.3.0",
                                                "Error: the reservation does not hold, try again"};
    const struct config *c = q->s->config;
    if (!c->accounts_enable || (in->account.len == 0 && may_be_nobodys(c, owners_only)))
        return NULL;
    enum token_verdict v = in->account.len ? tokens_check(&q->tokens, in, q->now) : TOKEN_NOBODY;
    if (v == TOKEN_GOOD)
        return NULL;
    say(&q->tokens, from, in, v, q->now);
    return &not_reserved;
}
