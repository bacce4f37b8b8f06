#include "conf/nets.h"

#include <netinet/in.h>
#include <stdlib.h>

#include "conf/config.h"
#include "core/mem.h"

int nets_parse(struct nets *n, const char *text, struct err *e)
{
    struct slice rest = slice_str(text), element;
    size_t room = 0;
    *n = (struct nets){NULL, 0};
    while (config_list_next(&rest, &element)) {
        if (n->count == NETS_MAX) {
            nets_free(n);
            return err_set(e, "more than %d networks", NETS_MAX);
        }
        if (n->count == room) {
            room = room ? room * 2 : 8;
            n->list = xreallocarray(n->list, room, sizeof *n->list);
        }
        struct net *net = &n->list[n->count];
        net->exclude = element.ptr[0] == '!';
        if (network_parse(net->exclude ? slice_from(element, 1) : element, &net->network, e) < 0) {
            nets_free(n);
            return -1;
        }
        n->count++;
    }
    return 0;
}

void nets_free(struct nets *n)
{
    xfree(&n->list);
    n->count = 0;
}

bool nets_match(const struct nets *n, struct slice address)
{
    for (size_t i = 0; i < n->count; i++)
        if (network_has(&n->list[i].network, address))
            return !n->list[i].exclude;
    return false;
}

bool nets_match_sockaddr(const struct nets *n, const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)address;
        return nets_match(n, slice_make(&in->sin_addr, sizeof in->sin_addr));
    }
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)address;
        return nets_match(n, slice_make(&in6->sin6_addr, sizeof in6->sin6_addr));
    }
    return false;
}
