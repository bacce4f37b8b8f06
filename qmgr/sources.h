/*
 * The addresses that mail is sent from. sources.conf (lib/sources) says which there are
 * and which pool a message's is; this is what becomes of them: which one a message gets,
 * what each has sent to whom, and whether it may send at all.
 *
 *   sources          the set in use, reload, whether one may send at all
 *   sources_choose   which one a job gets
 *   sources_submit   jobs get theirs, and leave one that may not send any more
 *   sources_record   counts by source and provider, who sent it
 *   sources_day      days, warm-ups and daily caps: what may still be sent today
 *   sources_state    their file, so that counts outlive a restart
 *   sources_lists    block lists in the DNS
 *   control_sources  the operator's view of it
 *
 * A message keeps its source: the first choice follows from its ID, and a later attempt
 * goes where the last one went. It gets another one only if that may not send to the
 * destination (a rule says switch, the day's allowance is used up) or not at all
 * (suspended, listed, not an address of this machine).
 */
#ifndef POSTERN_QMGR_SOURCES_H
#define POSTERN_QMGR_SOURCES_H

#include "qmgr/kept_file.h"
#include "qmgr/qmgr.h"
#include "sources/sources.h"

enum {
    SOURCE_DAYS = 7,    /* of counts that are kept */
    SOURCE_SHARES = 16, /* senders of a source that are counted one by one */
    SOURCE_REASON_MAX = 200,
    SOURCE_SUSPENDED_DAYS = 366, /* by hand; longer is for good */
    LIST_POINTS = 4,             /* test points of a block list: listed and not, of either family */
    SOURCE_RECORDS_MAX = 200,    /* providers of one source; more are counted with the others */
    SOURCE_PLACES_KEPT = 50000   /* of one source, over a restart */
};

/* Recipients. */
struct source_counts {
    uint32_t accepted, deferred, rejected, blocked;
};

/* What one source has to do with one provider. */
struct source_record {
    struct source *source;
    char *provider;                         /* "" for all destinations that are not a provider's;
                                             * of source.places: the group's key */
    const struct source_ramp *ramp;         /* in the present set; NULL: the source is in none */
    uint32_t waiting;                       /* recipients in line or under way */
    uint32_t lanes;                         /* whose daily cap it counts */
    struct list of_source;                  /* of source.places: in source.place_list */
    int64_t day;                            /* since 1970, of the last count */
    struct source_counts days[SOURCE_DAYS]; /* at day % SOURCE_DAYS */
};

/* Somebody who sends from it, by recent volume: halved each day. */
struct source_share {
    char *name; /* NULL: free */
    double recipients, refused;
};

struct source {
    struct list all;
    uint16_t number;                /* in answers; from 1 on */
    const struct source_conf *conf; /* NULL: no longer in the file */
    uint32_t position;              /* in the file's order, if it is there */
    char *name, *helo;              /* helo "": smtp_helo_name */
    char v4[4], v6[16];
    bool has_v4, has_v6;
    uint32_t lanes;
    int64_t began;           /* wall seconds; 0: not used yet */
    int64_t suspended_until; /* by hand: monotonic, INT64_MAX: for good; 0: not */
    char *reason;            /* of that */
    int64_t unusable_until;  /* monotonic: it could not be bound */
    uint32_t listed;         /* bits: lists of the present set that have it */
    uint32_t found4, found6; /* the same for its addresses, as far as they were asked */
    int64_t listed_since;    /* wall microseconds */
    uint32_t forgiven;       /* of these: it is used all the same, for the operator said so */
    char *listed_zones;      /* the lists that have it, for people and the file */
    char *forgiven_zones;    /* the same of forgiven */
    char *listed_text;       /* what the list says */
    struct source_record **records;
    size_t record_count;
    struct map places;      /* of destinations that have a daily cap of their own */
    struct list place_list; /* the same, oldest first */
    struct source_share shares[SOURCE_SHARES];
    int64_t shares_day;
};

/* Whether a block list works: RFC 5782 says which addresses all lists have, and which none. */
struct list_trust {
    uint8_t answers[LIST_POINTS]; /* enum listing_status, of each in this round */
    uint8_t state;                /* enum list_state */
};
enum list_state { LIST_UNKNOWN, LIST_WORKS, LIST_BROKEN };

/* The file's text is made in slices (sources_state.c). This remembers the last source and the last
 * place that are in it; when one of them goes, the one before it takes its place. What is added
 * meanwhile stands at a list's end. */
struct sources_saving {
    struct list *last; /* in sources.all, or its head */
    struct source *of; /* whose places follow; NULL: those of the last one are all there */
    struct list *place;
    size_t places; /* of that source, that are in the text */
};

struct sources {
    struct sources_conf *conf; /* NULL: none, the default source alone */
    struct list all;
    struct source *plain;        /* what is counted of mail without a source; not in `all` */
    struct source **by_position; /* of conf */
    struct source *numbers[UINT16_MAX];
    struct kept_file file;
    struct sources_saving saving;
    int64_t list_due; /* monotonic: the next round of look-ups */
    size_t list_next; /* source of the round, list_next_list: list */
    size_t list_next_list;
    uint64_t list_tag;
    struct list questions; /* struct list_question */
    uint32_t open;         /* of them */
    struct list_trust trust[SOURCES_LISTS_MAX];
    bool tested;        /* in this round: all lists have been asked about their test points */
    bool waits;         /* some mail does because no source might send it */
    struct buf alert;   /* to be mailed at the end of the round */
    int64_t complained; /* monotonic: that a list refuses us */
    char *unknown_pool; /* that was told of last */
};

/* ---- sources.c -------------------------------------------------------------------- */

void sources_init(struct qmgr *q);
/* Puts a set in use; takes it over. NULL: none. */
void sources_set(struct qmgr *q, struct sources_conf *conf);
/* Gives the job of this site a source and puts it in line there, or defers it with the
 * reason. May free the job; the caller settles its message. */
void sources_submit(struct qmgr *q, struct site *site, struct job *j);
/* The lane's jobs in line look for another source; those that find none come back. */
void sources_move(struct qmgr *q, struct lane *l);
/* The same for all lanes of a source that may not send any more. */
void sources_leave(struct qmgr *q, struct source *s);
/* Why it may not send at all, or NULL. Monotonic *until: when that may change. */
const char *source_trouble(const struct qmgr *q, const struct source *s, int64_t *until);
/* The block list for which it is kept out of use, or NULL. */
const char *source_quarantine(const struct qmgr *q, const struct source *s);
/* It is on such a list, and a pool would have no source without it: it is used all the same.
 * That pool, or NULL. */
const struct pool_conf *source_spared(const struct qmgr *q, const struct source *s);
struct source *source_find(const struct qmgr *q, struct slice name);
/* "192.0.2.1, 2001:db8::1" */
const char *source_addresses(const struct source *s, char text[static 80]);
/* The address that stands for it: IPv4, if it has one. */
static inline struct slice source_address(const struct source *s)
{
    return s->has_v4 ? slice_make(s->v4, sizeof s->v4) : slice_make(s->v6, sizeof s->v6);
}
/* The same of a lane's source; empty without one. */
static inline struct slice lane_address(const struct lane *l)
{
    return l->from ? source_address(l->from) : SLICE("");
}
/* What a delivery to an address (as text) was sent from: `s` or, without one,
 * smtp_bind_address. As text, until the next call; empty: the kernel chose, or the
 * address is none, such as a socket's path. */
struct slice source_sent_from(const struct qmgr *q, const struct source *s, struct slice peer);

/* A source of that name and addresses; its conf is the caller's to set. */
struct source *source_new(struct sources *all, const struct source_conf *c);
/* Whether it has that name and these addresses. */
bool source_is(const struct source *s, const struct source_conf *c);
/* What may be sent has changed: lanes with more in line than they may send today let the rest look
 * for another source, and mail that no source might send is tried now. */
void sources_recheck(struct qmgr *q);
/* A source may send again: the mail that no source might send is tried now. */
void sources_wake(struct qmgr *q);
/* It may send again: nothing of what was blocked by a rule is held against it, nor that it is on
 * block lists, as long as it does not come on another one. */
void sources_forgive(struct qmgr *q, struct source *s);

/* ---- sources_state.c ----------------------------------------------------------------- */

/* Reads what was known of sources before the restart; before sources_set. */
void sources_load(struct qmgr *q);
/* A source, or a count of a destination that is in source.place_list, goes. */
void sources_saving_without(struct sources *all, const struct source *s);
void sources_saving_without_place(struct sources *all, const struct source_record *r);
/* What must not wait: writes it at the next turn. */
void sources_save_soon(struct qmgr *q);

/* ---- sources_lists.c ----------------------------------------------------------------- */

/* Asks what is due; each turn. */
void sources_lists_turn(struct qmgr *q);
/* Forgets what was asked, and begins a round: resolve or the set has changed. */
void sources_lists_reset(struct qmgr *q);
/* ipc_listing_reply. */
int sources_listing(struct qmgr *q, struct slice body, struct err *e);
/* When the file or the lists want a turn; INT64_MAX: never. */
int64_t sources_next_due(const struct qmgr *q);

/* ---- sources_day.c ------------------------------------------------------------------- */

/* Today, in days since 1970 (shorter days under shaping_time_divisor). */
int64_t sources_today(const struct qmgr *q);
int64_t sources_day_length(const struct qmgr *q); /* microseconds */
int64_t sources_day_ends(const struct qmgr *q);   /* monotonic */
/* Today's counts, after the days that have passed. */
struct source_counts *record_today(const struct qmgr *q, struct source_record *r);
/* Sums of the days that are kept. */
struct source_counts record_sum(const struct qmgr *q, struct source_record *r);

/* Recipients that may be sent to in a day, and those of today. */
struct day_use {
    uint64_t most; /* UINT64_MAX: any */
    uint32_t accepted, waiting;
    bool of_source; /* sources.conf says so, else providers.conf */
};
/* Of what is allowed in sources.conf; of a lane: of either file, whichever leaves less. */
void record_day(const struct qmgr *q, struct source_record *r, struct day_use *out);
void lane_day(const struct qmgr *q, const struct lane *l, struct day_use *out);
/* Recipients that may still be put in line; UINT64_MAX: any. */
uint64_t day_left(const struct day_use *u);
uint64_t lane_room(const struct qmgr *q, const struct lane *l);
/* More is sent, in line and under way than may be: what may be sent was lowered. */
bool lane_is_overdrawn(const struct qmgr *q, const struct lane *l);
/* "3 sent and 2 in line or under way of 5 a day (daily_cap in providers.conf)" */
void day_describe(const struct day_use *u, struct buf *out);
/* Appends used_today, waiting_today, allowed_today, allowed_by, day_ends_in, if it has a limit. */
void lane_show_day(const struct qmgr *q, const struct lane *l, struct buf *b);
/* Whether the source warms up there: it has a daily allowance now. NULL: no. */
bool record_is_cold(const struct qmgr *q, const struct source_record *r);

void source_places_init(struct source *s);
/* The count of a destination that has a daily cap of its own. Makes it if need be. */
struct source_record *source_place(struct source *s, struct slice place);
/* The lane's limits are other ones: what its daily cap counts, with what is in line there. */
void lane_count_cap(struct qmgr *q, struct lane *l);
/* The lane is freed. */
void lane_uncount_cap(struct lane *l);
/* Forgets counts that are of no use any more. Now and then. */
void sources_sweep(struct qmgr *q);

/* ---- sources_record.c --------------------------------------------------------------- */

/* Of a provider's name, or "". Makes it if need be. */
struct source_record *source_record(struct source *s, struct slice provider);
void source_record_free(struct source_record *r);
/* Days since the source began; 0 if it has not. */
int64_t source_age(const struct qmgr *q, const struct source *s);
/* What a job's result says of its source, before the lane learns of it. */
void sources_result(struct qmgr *q, struct job *j, const struct ipc_result *in,
                    const struct verdict *v);
void source_free(struct sources *all, struct source *s);
/* Finds or makes the place of a sender's volume; NULL for "". */
struct source_share *source_share(struct source *s, struct slice name);

#endif
