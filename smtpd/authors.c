#include "smtpd/authors.h"

#include "mail/address_list.h"
#include "smtp/address.h"
#include "smtpd/content.h"
#include "smtpd/limits.h"

static const struct refusal unreadable = {
    550, "5.6.0",
    "Error: the addresses in From: or Sender: cannot be read (a name with an @ needs quotes)"};
static const struct refusal too_many = {550, "5.6.0",
                                        "Error: too many addresses in From: or Sender:"};

/* One field. 0 or -1. */
static int add_field(struct slice field, unsigned *count, struct buf *out)
{
    char text[ADDRESS_MAX + 1];
    struct buf address = {text, 0, sizeof text, sizeof text};
    struct smtp_path path;
    unsigned before = *count;
    int rc;
    while ((rc = address_list_named(&field, &address)) == 1) {
        struct slice bare = buf_slice(&address);
        if (++*count > AUTHORS_MAX)
            return 0;
        if (address_parse(bare, PATH_RECIPIENT | PATH_UTF8, &path) != PATH_OK)
            return -1;
        ipc_author_add(out, &(struct ipc_author){.address = path_address(&path)});
    }
    return rc < 0 || *count == before ? -1 : 0;
}

const struct refusal *authors_list(const struct session *s, struct buf *out)
{
    const struct header_scan *h = &s->tx.content->header;
    struct slice rest = h->authors ? buf_slice(h->authors) : SLICE("");
    unsigned count = 0;
    if (h->authors_cut)
        return &too_many;
    (void)slice_cut(&rest, '\0'); /* each field has a NUL before it */
    while (rest.len)
        if (add_field(slice_cut(&rest, '\0'), &count, out) < 0)
            return &unreadable;
    return count > AUTHORS_MAX ? &too_many : NULL;
}
