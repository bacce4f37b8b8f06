#include "smtpd/policy.h"

const struct refusal *policy_recipient(const struct session *s, struct slice recipient)
{
    static const struct refusal no_relay = {554, "5.7.1", "Relay access denied"};
    (void)recipient; /* every recipient is somewhere else: who sends decides */
    return session_may_relay(s) ? NULL : &no_relay;
}
