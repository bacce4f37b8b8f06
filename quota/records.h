/*
 * What the database holds. Accounts, users, grants and so on are JSON objects, as
 * export and import show them; what changes with every message is binary.
 *
 *   account   NAME -> JSON            user      LOGIN -> JSON
 *   identity  ACCOUNT NUL DOMAIN or ADDRESS -> JSON
 *   member    ACCOUNT NUL 'u' LOGIN, or 'a' SUB-ACCOUNT -> nothing
 *   grant     ACCOUNT NUL id -> JSON
 *   usage     OWNER NUL start of a period -> struct plan_usage
 *   tally     OWNER -> struct tally   charge    message ID -> struct charge
 *   notice    message ID -> JSON: a message that qmgr has not taken yet
 *   failure   ACCOUNT NUL time, ID, recipient -> JSON: for reports; of an account above it:
 *             {"of": ACCOUNT}, whose record under the same time, ID, recipient it is
 *   audit     time and number -> JSON
 *   held      time, message ID -> nothing: released at that time, for its account's rate
 *   parked    OWNER NUL time, message ID -> nothing: the same, whose time came while that
 *             account, or that user, could not send: it waits for it
 *   certificate  FINGERPRINT -> LOGIN: of those that stand in users' records
 *   owner     DOMAIN NUL LOCAL PART (or nothing) NUL ACCOUNT -> nothing: identity the other way
 *   meta      "ticket key" and so on; "plan/NAME" -> JSON: as plans_file had it last
 *
 * An OWNER is an account or "account/user". Numbers in keys are big-endian, so
 * that they sort.
 */
#ifndef POSTERN_QUOTA_RECORDS_H
#define POSTERN_QUOTA_RECORDS_H

#include "core/buf.h"
#include "plan/charge.h"

enum table {
    T_META,
    T_ACCOUNT,
    T_USER,
    T_IDENTITY,
    T_MEMBER,
    T_GRANT,
    T_USAGE,
    T_TALLY,
    T_CHARGE,
    T_NOTICE,
    T_FAILURE,
    T_AUDIT,
    T_HELD,
    T_CERTIFICATE,
    T_PARKED,
    T_OWNER,
    T_COUNT
};
extern const char *const table_names[T_COUNT];
enum { TABLES_UNLISTED = T_CERTIFICATE /* the first ones: see kv_config */ };

enum {
    ACCOUNT_NAME_MAX = 64,
    LOGIN_MAX = 190,
    OWNER_MAX = 255, /* account, '/', login */
    ADDRESS_TEXT_MAX = 320,
    FINGERPRINT_MAX = 64,  /* SHA-256 in hexadecimal digits */
    CHARGE_LEVELS_MAX = 4, /* an account and those above it */
    CHARGE_RECIPIENTS_MAX = 200000
};

/* ---- names: as people give them to as they are kept (lower case) -------------------- */

/* Letters, digits, '.', '_' and '-'; 0 or -1. */
int name_account(struct slice text, char out[static ACCOUNT_NAME_MAX + 1]);
/* Printable, without space and '/'; 0 or -1. */
int name_login(struct slice text, char out[static LOGIN_MAX + 1]);
bool name_is_ascii(struct slice text);
/* A domain, or an address, with A-labels ("xn--...") for a domain of other letters; 0 or -1. */
int name_identity(struct slice text, char out[static ADDRESS_TEXT_MAX + 1]);
/* What name_identity made, with U-labels again: as databases of before have it. 0, or -1: it has
 * none. */
int name_identity_letters(const char *identity, char out[static ADDRESS_TEXT_MAX + 1]);
/* The SHA-256 fingerprint of a certificate or public key, with colons between the bytes
 * or without, as digits alone; 0 or -1. */
int name_fingerprint(struct slice text, char out[static FINGERPRINT_MAX + 1]);

/* ---- keys ---------------------------------------------------------------------------- */

struct key {
    char data[OWNER_MAX + ADDRESS_TEXT_MAX + 64];
    size_t len;
};
static inline struct slice key_slice(const struct key *k)
{
    return slice_make(k->data, k->len);
}
void key_begin(struct key *k, struct slice first); /* first, then NUL */
void key_add(struct key *k, struct slice s);
void key_number(struct key *k, uint64_t n); /* 8 bytes */
/* The number at the end of a key; 0 if it is too short. */
uint64_t key_last_number(struct slice key);

/* ---- usage, rates, the usual volume ---------------------------------------------------- */

void usage_encode(const struct plan_usage *u, struct buf *out);
int usage_decode(struct slice s, struct plan_usage *out);

enum { TALLY_UNITS = 4 }; /* enum plan_rate_unit */
/* Messages in the running minute, hour, day and month, and what is usual (spike.h). Times
 * are seconds since 1970. */
struct tally {
    struct {
        int64_t start;
        uint64_t count;
    } window[TALLY_UNITS];
    int64_t hour; /* start of the hour that is counted */
    uint64_t hour_count;
    uint64_t usual;        /* thousandths of messages an hour: the mean of busy hours */
    uint64_t usual_before; /* the same when the running day began: in a day it at most doubles */
    int64_t day;           /* start of that day */
    uint32_t busy_hours;   /* that are in the mean */
    int64_t spike_since;   /* the guard acts since then; 0: it does not */
    int64_t spike_until;   /* and until then, if nothing is beyond the limit meanwhile */
    int64_t spike_told;    /* when the owner was told last */
};
void tally_encode(const struct tally *t, struct buf *out);
int tally_decode(struct slice s, struct tally *out);

/* ---- charges ---------------------------------------------------------------------------- */

/* Where a message is counted: its account, then the accounts above it. */
struct charge_level {
    char account[ACCOUNT_NAME_MAX + 1];
    int64_t period; /* start of the period that it is counted in */
    uint64_t each;  /* bytes charged for one recipient */
};
struct charge {
    char user[LOGIN_MAX + 1];
    struct charge_level levels[CHARGE_LEVELS_MAX];
    unsigned level_count;
    uint64_t size;
    int64_t charged_at, closed_at; /* seconds; closed_at 0: recipients are open */
    int64_t held_until;            /* for its account's rate, seconds; 0: it was not */
    uint32_t recipients, open;
    uint8_t *states; /* enum charge_state, a byte for each recipient */
};
void charge_encode(const struct charge *c, struct buf *out);
/* *out's states are the caller's to free; 0 or -1. */
int charge_decode(struct slice s, struct charge *out);

#endif
