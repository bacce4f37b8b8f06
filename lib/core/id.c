#include "core/id.h"

#include <sys/random.h>

#include "core/clock.h"
#include "core/mem.h"

static const char digits[] = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz";

static void put(char *at, int width, uint64_t n, unsigned base)
{
    for (int i = width - 1; i >= 0; i--, n /= base)
        at[i] = digits[n % base];
}

static int digit(char c)
{
    const char *p = c ? strchr(digits, c) : NULL;
    return p ? (int)(p - digits) : -1;
}

struct id id_new(void)
{
    static int64_t last;
    static uint32_t sequence;
    if (last == 0 && getrandom(&sequence, sizeof sequence, 0) != sizeof sequence)
        panic("getrandom failed");
    int64_t now = clock_wall();
    /* never the same microsecond twice, also when the clock was set back */
    if (now <= last && last - now < CLOCK_SECOND)
        now = last + 1;
    last = now;
    struct id id = {{0}};
    put(id.text, 6, (uint64_t)(now / CLOCK_SECOND), 52);
    put(id.text + 6, 4, (uint64_t)(now % CLOCK_SECOND), 52);
    id.text[10] = 'z';
    put(id.text + 11, 4, sequence++, 51);
    return id;
}

struct id id_notice(const struct id *original, char kind, unsigned n)
{
    struct id id = *original;
    if (n > 50 || digit(kind) < 0)
        panic("notice %u of kind %c", n, kind);
    id.text[ID_LEN] = kind;
    id.text[ID_LEN + 1] = digits[n];
    id.text[ID_LEN + 2] = '\0';
    return id;
}

bool id_valid(struct slice s)
{
    if (s.len != ID_LEN && s.len != ID_NOTICE_LEN)
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (digit(s.ptr[i]) < 0)
            return false;
    return s.ptr[10] == 'z';
}

int id_parse(struct slice s, struct id *out)
{
    if (!id_valid(s))
        return -1;
    *out = (struct id){{0}};
    memcpy(out->text, s.ptr, s.len);
    return 0;
}

int64_t id_time(const struct id *id)
{
    int64_t n = 0;
    for (int i = 0; i < 6; i++)
        n = n * 52 + digit(id->text[i]);
    return n;
}
