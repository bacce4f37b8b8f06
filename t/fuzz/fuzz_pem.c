/* libraries: postern_certs postern_core */
/* A file with a private key and certificates: any bytes. */
#include "certs/pem.h"
#include "core/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pem_parts p;
    struct err e = {0, ""};
    if (pem_split(slice_make(data, size), &p, &e) < 0) {
        if (!e.text[0] || p.key || p.chain)
            panic("an error without its text, or with a result");
        return 0;
    }
    if (p.chain && strlen(p.chain) < 50)
        panic("a short chain");
    pem_free(&p);
    return 0;
}
