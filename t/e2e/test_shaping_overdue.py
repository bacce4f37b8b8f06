"""Mail that stands in line, or behind a suspension, for long: its sender is warned after
delay_warning_time and it is returned after maximal_queue_lifetime, whatever holds it back:
one destination's suspension or limit, those over all sources, or its own sender's."""
import pytest

import faults as fault_points
from faults import Faults
from postern import wait_until
from test_qmgr_operator import Control
from test_shaping import MAIL, refusal, rules
from test_shaping_brakes import later
from test_shaping_memory import place  # noqa: F401 pylint: disable=unused-import
from test_shaping_wholes import TWO
from test_sources import sources

pytestmark = pytest.mark.skipif(not fault_points.available(), reason="built without fault points")

HOUR, DAY = 3600, 86400
TARGETS = [dict(host="mx1.big.test", address=b"\x7f\x00\x00\x01", port=25, preference=10)]
RULES = """
default { start_rate = "100/s" start_connections = 20 connections = 20 }
provider big { mx = {".big.test"} %s }
rule sender-away { text = 'not you' scope = "account" action = "suspend" for = "10h"
  outcome = "retry" matches = {"451 not you"} }
rule all-away { text = 'none of you' scope = "provider" action = "suspend" for = "1h" outcome = "retry"
  matches = {"421 none of you"} }
rule away { text = 'go away' action = "suspend" for = "1h" outcome = "retry" matches = {"421 go away"} }
"""


def start(directory, limits="", pools=None):
    faults = Faults(directory)
    c = Control(dict(delay_warning_time="4h", maximal_queue_lifetime="5d"), environment=faults.environment)
    c.faults = faults
    rules(c, RULES % limits)
    c.q.wait_log("providers.conf: 1 providers, 3 rules")
    if pools:
        sources(c, pools)
    return c


def first(c, **fields):
    id = c.q.commit(["a@d.test"], **fields)
    c.q.resolved(site=b"mx1.big.test", ttl=10 ** 8, targets=TARGETS)
    return id


def seen(c, pattern):
    """Awaits a line of the log; meanwhile what is asked of resolve is answered."""
    def look():
        ask = c.q.resolve.receive(0.05)
        if ask:
            c.q.resolve.send("ipc_resolve_reply", tag=ask.tag, status=0, scope=0, ttl=10 ** 8, transport=0,
                             nexthop=b"d.test", site=b"mx1.big.test", targets=TARGETS)
        else:
            later(c, 70)  # lines are looked through each minute
        return c.q.count(pattern)
    wait_until(look, 20, f"{pattern!r} in {c.q.log()[-2000:]}")


def warned_and_returned(c, id, words):
    """Five hours later its sender is warned, six days later it is returned; and only once each."""
    q = c.q
    for _ in range(2):  # the first may only bring it into line again
        later(c, 5 * HOUR)
    notice = q.bounce.expect("ipc_notice_request", 20)
    assert notice.kind == 1 and notice.id == id.encode(), notice  # NOTICE_DELAY
    q.bounce.send("ipc_notice", tag=notice.tag, content=b"From: <>\r\n\r\nlate\r\n")
    seen(c, f"{id}: sender delay notification")
    assert q.count(f"{id}: .*{words}")
    later(c, 6 * DAY)
    later(c, 2 * HOUR)  # what waits for its time does so at most for one
    seen(c, f"{id}: from=<s@client.test>, status=expired")
    assert q.count(f"{id}: sender delay notification") == 1


def by_hand_lane(c):
    id = first(c)
    c.q.result(c.q.job())
    c.ask(request="shaping.act", action="suspend", destination="big", reason="x")
    id = c.q.commit(["b@d.test"])
    c.q.wait_log(f"{id}: .*suspended: by the operator")
    return id, "suspended: by the operator"


def by_rule_lane(c):
    id = first(c)
    c.q.result(c.q.job(), scope=1, outcomes=refusal(421, "go away", MAIL))
    c.q.wait_log("shaping big: suspended: told to stay away")
    return id, "go away"


def by_hand_account(c):
    first(c, account="shop")
    c.q.result(c.q.job())
    c.ask(request="shaping.act", action="suspend", destination="big", account="shop", reason="x")
    id = c.q.commit(["b@d.test"], account="shop")
    c.q.wait_log(f"{id}: .*suspended for account shop")
    return id, "suspended for account shop: by the operator"


def by_rule_account(c):
    id = first(c, account="shop")
    c.q.result(c.q.job(), scope=1, outcomes=refusal(451, "not you", MAIL))
    c.q.wait_log("account shop suspended")
    return id, "not you"


def in_line(c):
    """A rate of one in a week: neither suspended nor refused, it only stands there."""
    first(c)
    c.q.result(c.q.job())
    id = c.q.commit(["b@d.test"])
    wait_until(lambda: c.ask(request="shaping.why", id=id)[0].get("state") in ("rate", "all_sources"), 10,
               "its place in line")
    return id, "delivery delayed in line for big: waiting for the "


CASES = {
    "destination-by-hand": (by_hand_lane, "", None),
    "destination-by-rule": (by_rule_lane, "", None),
    "account-by-hand": (by_hand_account, "", None),
    "account-by-rule": (by_rule_account, "", None),
    "rate": (in_line, 'message_rate = "0.0001/min" start_rate = "0.0001/min"', None),
    "rate-over-all": (in_line, 'total_message_rate = "0.0001/min"', TWO),
}


@pytest.mark.parametrize("case", CASES)
def test_senders_hear_of_mail_that_is_held_back(place, case):
    begin, limits, pools = CASES[case]
    c = start(place, limits, pools)
    try:
        id, words = begin(c)
        if case.endswith("by-rule"):  # each probe is refused again
            c.q.relay.close()
        warned_and_returned(c, id, words)
    finally:
        c.stop()


def test_all_sources_suspended_by_a_rule(place):
    """The provider told all addresses to stay away, and does so at each probe."""
    c = start(place, pools=TWO)
    q = c.q
    id = first(c)
    q.result(q.job(), scope=1, outcomes=refusal(421, "none of you", MAIL))
    q.wait_log("shaping big, all sources: suspended: told to stay away")
    q.relay.close()
    warned_and_returned(c, id, "none of you")
    c.stop()
