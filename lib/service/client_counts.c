#include "service/client_counts.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { V4_BYTES = 4, V6_PREFIX_BYTES = 8 };

static const off_t table_size =
    CLIENT_COUNTS_HEADER + (off_t)CLIENT_COUNTS_REGIONS * (off_t)sizeof(struct client_region);
static const int table_seals = F_SEAL_SHRINK | F_SEAL_GROW;

/* IPv4 addresses and /64s share one space of numbers: no client has an address
 * in ff00::/8 (multicast). */
static const uint64_t v4_space = UINT64_C(0xffff) << 48;
static const uint64_t zero_prefix = UINT64_C(0xfffe) << 48; /* ::/64, where ::1 is */

static off_t region_offset(unsigned region)
{
    return CLIENT_COUNTS_HEADER + (off_t)region * (off_t)sizeof(struct client_region);
}

/* ---- master ------------------------------------------------------------------- */

int client_counts_make(struct err *e)
{
    uint64_t seed;
    int fd = memfd_create("client-counts", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_sys(e, "memfd_create");
    if (getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed &&
        ftruncate(fd, table_size) == 0 &&
        pwrite(fd, &seed, sizeof seed, offsetof(struct client_header, seed)) ==
            (ssize_t)sizeof seed &&
        fcntl(fd, F_ADD_SEALS, table_seals | F_SEAL_SEAL) == 0)
        return fd;
    err_sys(e, "the table of client counts cannot be made");
    close(fd);
    return -1;
}

int client_counts_set(int fd, unsigned region, bool used, struct err *e)
{
    const uint8_t byte = used;
    off_t at = (off_t)offsetof(struct client_header, used) + (off_t)region;
    if (pwrite(fd, &byte, 1, at) != 1 ||
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, region_offset(region),
                  (off_t)sizeof(struct client_region)) < 0)
        return err_sys(e, "client counts of region %u cannot be cleared", region);
    return 0;
}

/* ---- smtpd -------------------------------------------------------------------- */

int client_counts_map(struct client_counts *t, int fd, unsigned region, struct err *e)
{
    struct stat st;
    if (region >= CLIENT_COUNTS_REGIONS)
        return err_set(e, "client counts: there is no region %u", region);
    /* a table that shrinks would end its readers with SIGBUS */
    if (fstat(fd, &st) < 0 || st.st_size != table_size ||
        (fcntl(fd, F_GET_SEALS) & table_seals) != table_seals)
        return err_set(e, "client counts: the table has another size or is not sealed");
    char *all = mmap(NULL, (size_t)table_size, PROT_READ, MAP_SHARED, fd, 0);
    if (all == MAP_FAILED)
        return err_sys(e, "client counts cannot be mapped");
    void *own = mmap(NULL, sizeof(struct client_region), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                     region_offset(region));
    if (own == MAP_FAILED) {
        err_sys(e, "client counts cannot be mapped");
        munmap(all, (size_t)table_size);
        return -1;
    }
    *t = (struct client_counts){
        .header = (const void *)all,
        .regions = (const void *)(all + CLIENT_COUNTS_HEADER),
        .own = own,
        .region = region,
    };
    return 0;
}

void client_counts_unmap(struct client_counts *t)
{
    if (!t->own)
        return;
    munmap(t->own, sizeof *t->own);
    munmap((void *)(uintptr_t)t->header, (size_t)table_size);
    *t = (struct client_counts){0};
}

uint64_t client_counts_key(struct slice address)
{
    unsigned char bytes[V6_PREFIX_BYTES] = {0};
    bool v4 = address.len == V4_BYTES;
    uint64_t key = 0;
    memcpy(bytes, address.ptr, v4 ? V4_BYTES : V6_PREFIX_BYTES);
    for (size_t i = 0; i < (v4 ? V4_BYTES : V6_PREFIX_BYTES); i++)
        key = key << 8 | bytes[i];
    if (v4)
        return v4_space | key;
    return key ? key : zero_prefix;
}

unsigned client_counts_place(const struct client_counts *t, uint64_t key)
{
    return (unsigned)(XXH3_64bits_withSeed(&key, sizeof key, t->header->seed) % CLIENT_COUNTS_SETS);
}
