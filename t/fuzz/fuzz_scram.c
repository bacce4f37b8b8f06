/* libraries: quota_parts */
/* What clients send in a SCRAM exchange, hashes of an import, names, and records of
 * the database: any bytes are taken or refused. Nobody gets in without the keys. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "quota/hash.h"
#include "quota/records.h"
#include "quota/scram.h"

static void exchange(struct slice first, struct slice final)
{
    struct scram s;
    struct scram_keys keys;
    struct buf out = BUF_INIT(SCRAM_MESSAGE_MAX);
    scram_fake(SLICE("secret"), SLICE("user"), 4096, &keys);
    struct scram_binding binding = {.exporter = SLICE("exporter"), .endpoint = SLICE("endpoint")};
    /* the three ways in which a client can have come here */
    binding.offered = first.len % 3 > 0;
    binding.plus = first.len % 3 > 1;
    scram_init(&s);
    if (scram_first(&s, first, &binding) == 0 && scram_challenge(&s, &keys, "servernonce") == 0 &&
        scram_final(&s, final, &out) == 0)
        abort();
    scram_free(&s);
    buf_free(&out);
}

static void records(struct slice s)
{
    struct charge c;
    struct plan_usage u;
    struct tally t;
    struct buf again = BUF_INIT(1 << 24);
    if (charge_decode(s, &c) == 0) {
        struct charge second;
        charge_encode(&c, &again);
        if (charge_decode(buf_slice(&again), &second) < 0 || second.open != c.open)
            abort();
        free(second.states);
        free(c.states);
    }
    (void)usage_decode(s, &u);
    (void)tally_decode(s, &t);
    buf_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice all = slice_make(data, size), rest = all, first = slice_cut(&rest, '\n');
    struct scram_keys keys;
    char account[ACCOUNT_NAME_MAX + 1], login[LOGIN_MAX + 1], identity[ADDRESS_TEXT_MAX + 1];
    exchange(first, rest);
    struct slice hash = first;
    (void)hash_known(&hash);
    (void)scram_parse(first, &keys);
    if ((name_account(first, account) == 0 && strchr(account, '/') != NULL) ||
        (name_login(first, login) == 0 && strchr(login, '/') != NULL))
        abort();
    (void)name_identity(first, identity);
    records(all);
    return 0;
}
