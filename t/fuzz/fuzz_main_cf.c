/* libraries: postern_conf postern_core */
/* main.cf: any bytes are refused with a message or become a whole configuration,
 * which survives the way to a service unchanged. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conf/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same(const struct config *a, const struct config *b)
{
    struct config_entry x, y;
    for (size_t i = 0; config_entry(a, i, &x); i++)
        if (!config_entry(b, i, &y) || strcmp(x.value, y.value) != 0)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = {0, ""};
    struct config *c = config_parse(slice_make(data, size), "main.cf", "/etc/postern", &e);
    if (!c) {
        if (!e.text[0])
            abort();
        return 0;
    }
    int fd = memfd_create("config", MFD_CLOEXEC);
    if (fd < 0 || config_write(c, fd, &e) < 0)
        abort();
    struct config *copy = config_read(fd, &e);
    if (!copy)
        abort();
    check_same(c, copy);
    config_free(copy);
    config_free(c);
    close(fd);
    return 0;
}
