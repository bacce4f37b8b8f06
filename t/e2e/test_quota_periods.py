"""Periods that are over, and plans that change in the middle of one: what is billed stays what
it was, and nothing that was used is forgotten."""
import datetime
import time

import faults as fault_points
import pytest
from accounts_rig import REFUNDED, Quota, Refused

PLANS = """
plan big { messages = 1000
 at_limit = surcharge
 overage = block:10 }
plan small { messages = 3
 at_limit = surcharge
 overage = block:10 }
plan both { messages = 5
 bytes = 100KB
 byte_minimum = 10KB
 at_limit = surcharge
 overage = block:50KB }
"""

pytestmark = pytest.mark.skipif(not fault_points.available(), reason="built without fault points")


class Clocked(Quota):
    """quota whose clock stands at a date; it begins on the 10th of January 2031."""

    def __init__(self, place, plans):
        self.faults = fault_points.Faults(place)
        self.at(2031, 1, 10)
        super().__init__(plans, environment=self.faults.environment)

    def at(self, *date):
        self.faults.used = 0  # written over: the clock does not stand right in between
        moment = datetime.datetime(*date, tzinfo=datetime.timezone.utc).timestamp()
        self.faults.shift("wall", int(moment - time.time()))

    def another(self, plans):
        """The same database with a new process."""
        self.stop(remove=False)
        q = Quota(plans, None, self.directory, self.faults.environment, True)
        self.__dict__.update(q.__dict__)

    def period(self, start, account="acme"):
        """The period that began then, as billed."""
        stamp = int(datetime.datetime(*start, tzinfo=datetime.timezone.utc).timestamp())
        (line,) = [u for u in self.ask("usage.report", account=account)[0]
                   if u["owner"] == account and u["start"] == stamp]
        return line

    def grants(self):
        return [(g["amount"], g["used"]) for g in self.ask("grant.list", account="acme")[0]]


@pytest.fixture
def quota(place):
    q = Clocked(place, PLANS)
    yield q
    q.stop()


def test_a_late_bounce_neither_bills_anew_nor_takes_what_was_bought_since(quota):
    quota.account(plan="big")
    ticket = quota.login().ticket
    quota.sent(ticket, recipients=10)
    late = quota.sent(ticket, state=None)
    quota.at(2031, 2, 5)
    quota.ask("account.set", account="acme", plan="small")
    quota.ask("grant.add", account="acme", amount=100, until="2031-12-31")
    quota.sent(quota.login().ticket, recipients=5)
    assert quota.grants() == [(100, 2)]
    quota.settle(late.id, REFUNDED)
    assert quota.grants() == [(100, 2)]
    january = quota.period((2031, 1, 1))
    assert (january["messages"], january["granted"], january["overage"]) == (10, 0, 0)
    assert (january["plan"], january["limit"]) == ("big", 1000)


def test_a_late_bounce_gives_back_one_of_what_was_used_and_no_more(quota):
    quota.account(plan="small")
    quota.ask("grant.add", account="acme", amount=50, until="2031-12-31")
    ticket = quota.login().ticket
    quota.sent(ticket, recipients=10)
    late = quota.sent(ticket, state=None)
    assert quota.grants() == [(50, 8)]
    quota.at(2031, 2, 5)
    quota.ask("account.set", account="acme", plan="big")
    quota.another(PLANS)
    quota.settle(late.id, REFUNDED)
    assert quota.grants() == [(50, 7)]
    january = quota.period((2031, 1, 1))
    assert (january["messages"], january["granted"], january["plan"]) == (10, 7, "small")


def test_overage_of_a_month_that_is_over_is_in_the_report(quota):
    quota.account(plan="small")
    quota.sent(quota.login().ticket, recipients=14)
    quota.at(2031, 3, 2)
    january = quota.period((2031, 1, 1))
    assert (january["plan"], january["limit"], january["overage"]) == ("small", 3, 11)
    assert (january["overage_block"], january["overage_unit"], january["overage_blocks"]) == \
        (10, "messages", 2)
    usage = [r for r in quota.ask("export")[0] if r["type"] == "usage" and r["owner"] == "acme"]
    assert quota.ask("import", records=usage) and quota.period((2031, 1, 1)) == january
    usage[0]["terms"][1] = 4  # what is imported is what is billed
    quota.ask("import", records=usage)
    assert quota.period((2031, 1, 1))["overage"] == 10
    with pytest.raises(Refused, match="usage: is not readable"):
        quota.ask("import", records=[usage[0] | {"taken": 17 * [[1, 1, False]]}])


def test_blocks_of_bytes_where_messages_are_limited_too(quota):
    quota.account(plan="both")
    quota.sent(quota.login().ticket, recipients=11, size=32000)
    usage = quota.usage()
    assert (usage["overage"], usage["overage_bytes"], usage["overage_blocks"]) == (6, 252000, 6)
    assert quota.one("plan.show", plan="both")["overage_unit"] == "bytes"
