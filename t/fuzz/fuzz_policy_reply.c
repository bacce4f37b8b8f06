/* libraries: postern_smtp */
/* What a policy server answers, and actions: any split gives the same reply; a
 * refusal has a code and its class; a header line is one. */
#include "core/mem.h"
#include "smtp/policy_reply.h"

static void check_action(struct slice action)
{
    struct policy_action a;
    policy_action_parse(action, &a);
    bool refuses = a.verb == POLICY_REFUSE || a.verb == POLICY_DEFER_IF_PERMIT ||
                   a.verb == POLICY_DEFER_IF_REJECT;
    if (refuses != (a.code != 0))
        panic("code %d", a.code);
    if (refuses && (a.code < 400 || a.code > 599 || a.enhanced[0] != '0' + a.code / 100 ||
                    a.enhanced[1] != '.' || strlen(a.enhanced) > 9))
        panic("enhanced code %s", a.enhanced);
    if (a.text.len &&
        (a.text.ptr < action.ptr || a.text.ptr + a.text.len > action.ptr + action.len))
        panic("the text is elsewhere");
    for (size_t i = 0; a.verb == POLICY_PREPEND && i < a.text.len; i++)
        if ((a.text.ptr[i] < ' ' && a.text.ptr[i] != '\t') || a.text.ptr[i] > '~')
            panic("byte %d in a header line", a.text.ptr[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_make(data, size), action, other;
    size_t used, at;
    enum policy_reply_status status = policy_reply_parse(in, &action, &used);
    if (status == POLICY_REPLY_DONE) {
        if (used == 0 || used > size || used > POLICY_REPLY_MAX)
            panic("%zu of %zu bytes used", used, size);
        check_action(action);
    }
    if (status == POLICY_REPLY_MORE && size >= POLICY_REPLY_MAX)
        panic("it goes on without end");
    for (size_t n = 0; n < size; n++) {
        enum policy_reply_status s = policy_reply_parse(slice_first(in, n), &other, &at);
        if (s == POLICY_REPLY_DONE && (status != POLICY_REPLY_DONE || at != used))
            panic("the split changes the reply");
        if (s == POLICY_REPLY_BAD && status != POLICY_REPLY_BAD)
            panic("refused too early");
    }
    check_action(in);
    return 0;
}
