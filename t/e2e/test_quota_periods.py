"""Periods that are over, and plans that change in the middle of one: what is billed stays what
it was, and nothing that was used is forgotten."""
import datetime
import time

import faults as fault_points
import pytest
from accounts_rig import REFUNDED, Quota, Refused
from postern import wait_until

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
        self.faults.shift("wall", int(moment - time.time()) + 1)

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

    def letter(self, subject, wait=10.0):
        """The content of the next letter of this subject; None after the wait."""
        end = time.monotonic() + wait
        while (m := self.qmgr.receive(max(0.0, end - time.monotonic()))) is not None:
            if m.name != "ipc_account_notice":
                continue
            self.qmgr.send("ipc_account_noticed", tag=m.tag)
            if subject.encode() in m.content:
                return m.content
        return None

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
    quota.ask("import", records=usage, counts="replace")
    assert quota.period((2031, 1, 1))["overage"] == 10
    with pytest.raises(Refused, match="usage: is not readable"):
        quota.ask("import", records=[usage[0] | {"taken": 17 * [[1, 1, False]]}])


def test_a_letter_says_what_of_it_is_in_the_queue_still(quota):
    """Only delivered mail counts in the end: who is told of being over is told how sure that is."""
    quota.account(plan="small", reference="owner@acme.test")
    ticket = quota.login().ticket
    quota.sent(ticket)
    answer = quota.reserve(ticket, recipients=4)
    quota.charge(answer.id, recipients=4, owner=answer.owner, wait=False)
    letter = quota.letter("Account acme is over its plan")
    assert b"Messages:  5 of 3\r\nIn queue:  4 of them; what cannot be delivered" in letter
    assert b"with what is in the queue" in letter


def test_blocks_of_bytes_where_messages_are_limited_too(quota):
    quota.account(plan="both")
    quota.sent(quota.login().ticket, recipients=11, size=32000)
    usage = quota.usage()
    assert (usage["overage"], usage["overage_bytes"], usage["overage_blocks"]) == (6, 252000, 6)
    assert quota.one("plan.show", plan="both")["overage_unit"] == "bytes"


# ---- a plan that changes in the middle of a period ------------------------------------------------

HERE = """plan stop { messages = 3
 zone = "Europe/Berlin"
 at_limit = block
 period_report = yes }
plan own_day { messages = 3
 anchor = anniversary
 zone = "Europe/Berlin"
 at_limit = block }
plan daily { messages = 3
 period = day
 at_limit = block }
"""


@pytest.fixture
def berlin(place):
    q = Clocked(place, HERE)
    q.account(plan="stop", reference="owner@acme.test", began="2031-01-05")
    q.sent(q.login().ticket, recipients=3)
    assert q.mail(q.login().ticket).code == 550
    yield q
    q.stop()


def used_up(q):
    return q.usage()["messages"] == 3 and q.usage("acme", user="web")["messages"] == 3 and \
        q.mail(q.login().ticket).code == 550


@pytest.mark.parametrize("zone", ["Europe/London", "America/New_York", "Asia/Kolkata"])
def test_another_zone_in_mid_month_forgets_nothing(berlin, zone):
    berlin.master.table("plans_file", 0, "plans.conf", HERE.replace("Europe/Berlin", zone) +
                        "plan more { messages = 1 }\n")
    berlin.master.wait_log("4 plans read from")
    assert used_up(berlin)
    assert zone in berlin.usage()["reset"]
    berlin.another(HERE.replace("Europe/Berlin", zone))
    assert used_up(berlin)
    # to the very end: in Kolkata that is at half past six in the evening, UTC
    berlin.at(2031, 1, 31, 18, 20)
    berlin.another(HERE.replace("Europe/Berlin", zone))
    end = berlin.usage()["end"]
    assert used_up(berlin)
    berlin.at(2031, 2, 2)
    assert berlin.usage()["messages"] == 0 and berlin.usage()["start"] == end
    assert berlin.mail(berlin.login().ticket).recipients == 3


@pytest.mark.parametrize("plan,still,over", [("own_day", (2031, 2, 3), (2031, 2, 6)),
                                             ("daily", (2031, 1, 10, 23), (2031, 1, 11))])
def test_another_anchor_or_length_in_mid_month_forgets_nothing(berlin, plan, still, over):
    late = berlin.period((2030, 12, 31, 23))
    berlin.ask("account.set", account="acme", plan=plan)
    assert used_up(berlin)
    berlin.at(*still)
    assert used_up(berlin)
    berlin.at(*over)
    assert berlin.mail(berlin.login().ticket).recipients == 3
    berlin.sent(berlin.login().ticket, recipients=2)
    assert berlin.usage()["messages"] == 2 and berlin.usage("acme", user="web")["messages"] == 2
    # back in the first plan: what the month had of the other one's period is still there
    berlin.ask("account.set", account="acme", plan="stop")
    assert berlin.usage()["messages"] == 2
    billed = berlin.period((2030, 12, 31, 23))
    assert (billed["messages"], billed["plan"]) == (3, plan) and late["plan"] == "stop"


def test_a_message_of_before_the_change_is_refunded_where_it_was_charged(berlin):
    berlin.ask("grant.add", account="acme", amount=1, until="2031-12-31")
    late = berlin.sent(berlin.login().ticket, state=None)
    berlin.ask("account.set", account="acme", plan="daily")
    berlin.settle(late.id, REFUNDED)
    assert used_up(berlin) is False and berlin.usage()["messages"] == 3
    assert berlin.grants() == [(1, 0)]


def test_the_report_of_a_period_whose_zone_changed(berlin):
    """It comes once, and has what was sent before the change."""
    berlin.another(HERE.replace("Europe/Berlin", "America/New_York"))
    assert used_up(berlin)
    berlin.at(2031, 2, 2)  # reports come at full hours
    letter = berlin.letter("Report of account acme for ")
    assert b"Messages:  3 of 3" in letter and b"Delivered: 3\r\n" in letter
    berlin.sent(berlin.login().ticket)  # behind the answer to the letter
    berlin.another(HERE.replace("Europe/Berlin", "America/New_York"))
    berlin.at(2031, 2, 2, 3)
    assert berlin.letter("Report of account acme", wait=3) is None


# ---- which month a period is billed in -----------------------------------------------------------

YEARLY = """plan yearly { messages = 5
 period = year
 zone = "Europe/Berlin"
 at_limit = surcharge
 overage = block:2 }
plan once { messages = 5
 period = none
 at_limit = allow
 overage = block:2 }
plan small { messages = 3
 zone = "America/New_York"
 at_limit = surcharge
 overage = block:10 }
"""


def billed_in(q, year, month):
    """Owner -> line of the accounts that `usage report --month` has."""
    def first(y, m):
        return int(datetime.datetime(y + (m - 1) // 12, (m - 1) % 12 + 1, 1,
                                     tzinfo=datetime.timezone.utc).timestamp())
    return {u["owner"]: u for u in q.ask("usage.report", account="", **{
        "from": first(year, month), "to": first(year, month + 1)})[0] if "/" not in u["owner"]}


def test_a_period_is_billed_in_the_month_in_which_it_ends(place):
    q = Clocked(place, YEARLY)
    try:
        for plan in ("yearly", "once", "small"):
            q.account(plan, plan=plan, user=plan, domain=None)
            q.ask("account.set", account=plan, any_sender=True)
            q.sent(q.login(plan).ticket, recipients=8, sender=f"a@{plan}.test")
        assert billed_in(q, 2031, 1)["small"]["running"] is True
        q.at(2031, 8, 2)
        assert [sorted(billed_in(q, 2031, m)) for m in range(1, 12)] == [["small"]] + 10 * [[]]
        assert billed_in(q, 2031, 1)["small"]["running"] is False
        assert billed_in(q, 2031, 12)["yearly"]["running"] is True
        q.at(2032, 1, 2)
        year = billed_in(q, 2031, 12)
        assert list(year) == ["yearly"] and year["yearly"]["running"] is False
        assert year["yearly"]["overage_blocks"] == 2
        assert billed_in(q, 2032, 1) == {}
        # another zone later on does not move what was billed
        q.another(YEARLY.replace("Europe/Berlin", "Asia/Kolkata").replace("America/New_York", "UTC"))
        assert list(billed_in(q, 2031, 12)) == ["yearly"] and list(billed_in(q, 2031, 1)) == ["small"]
        # a volume without a period: wherever no month is asked for, and nowhere else
        (once,) = [u for u in q.ask("usage.report", account="once")[0] if u["owner"] == "once"]
        assert once["overage_blocks"] == 2 and once["running"] is True
    finally:
        q.stop()


# ---- failures of accounts below -------------------------------------------------------------------

FAMILY = """plan fam { messages = 100
 at_limit = block
 zone = "America/New_York"
 period_report = yes }
plan sub { }
"""


def test_reports_have_the_failures_of_accounts_below(place):
    q = Clocked(place, FAMILY)
    try:
        q.account("fam", plan="fam", reference="owner@fam.test", user="top", domain="fam.test")
        q.account("kid", plan="sub", parent="fam", user="low", domain="kid.test")
        for user, account in (("top", "fam"), ("low", "kid")):
            sent = q.sent(q.login(user).ticket, None, sender=f"a@{account}.test",
                          authors=(f"a@{account}.test",))
            q.settle(sent.id, REFUNDED, [0], address=f"of-{account}@dst.test", reply="550 5.1.1 no")

        def listed(account):
            return sorted((f["account"], f["user"], f["recipient"])
                          for f in q.ask("usage.failures", account=account)[0])
        of_fam, of_kid = ("fam", "top", "of-fam@dst.test"), ("kid", "low", "of-kid@dst.test")
        assert listed("fam") == listed("") == [of_fam, of_kid] and listed("kid") == [of_kid]
        q.at(2031, 2, 2)
        letter = q.letter("Report of account fam for ").decode()
        assert "Failed:    2" in letter
        lines = [l for l in letter.splitlines() if "@dst.test" in l]
        assert ["New_York" in l for l in lines] == [True, True]  # as the figures are
        assert sorted(l.split(",")[1] for l in lines) == ['"fam"', '"kid"']
    finally:
        q.stop()


# ---- reports of each month -------------------------------------------------------------------------

MONTHLY = """plan endless { period = none }
plan quiet { messages = 1000
 at_limit = block }
plan told { messages = 1000
 at_limit = block
 period_report = yes }
"""


@pytest.fixture
def told(place):
    q = Clocked(place, MONTHLY)
    q.account(plan="told", reference="owner@acme.test")
    q.at(2031, 1, 11)  # accounts are looked at when the hour is another one
    wait_until(lambda: q.ask("account.list")[0][0].get("reported"), 20, "the look at all accounts")
    yield q
    q.stop()


def reports(q, count):
    """The first days of the periods of the next reports. One too many is among those of the next
    call: they come in their order."""
    letters = [q.letter("Report of account ", 20) for _ in range(count)]
    return [m.split(b"Subject: Report of account acme for ")[1][:10].decode() for m in letters]


def looked(q, year, month):
    """All accounts were looked at, and what was due is reported: acme's period ends then."""
    end = int(datetime.datetime(year, month, 1, tzinfo=datetime.timezone.utc).timestamp())
    wait_until(lambda: q.ask("account.list")[0][0].get("reported") == end, 20, "the look at acme")


def looked_again(q, name):
    """The same where nothing is due: at another account, a new one, which stands behind acme."""
    q.ask("account.add", account=name, plan="told")
    return lambda: wait_until(lambda: [a for a in q.ask("account.list")[0]
                                       if a["account"] == name and a.get("reported")], 20, name)


def test_a_month_without_mail_is_reported_too(told):
    q = told
    q.at(2031, 2, 1, 1)
    letter = q.letter("Report of account acme for 2031-01-01")
    assert b"Messages:  0 of 1000" in letter and b"Delivered: 0" in letter and b"csv" not in letter
    again = looked_again(q, "behind")
    q.at(2031, 2, 2)
    again()
    # nobody is told of an account that could not send
    q.ask("account.set", account="acme", status="suspended")
    q.at(2031, 3, 1, 1)
    looked(q, 2031, 4)
    q.ask("account.set", account="acme", status="active")
    q.at(2031, 4, 1, 1)
    assert reports(q, 1) == ["2031-03-01"]


def test_reports_that_an_outage_missed_come_once(told):
    q = told
    q.sent(q.login().ticket)
    q.another(MONTHLY)
    q.at(2031, 4, 2)
    assert reports(q, 3) == ["2031-01-01", "2031-02-01", "2031-03-01"]
    again = looked_again(q, "behind")
    q.another(MONTHLY)
    q.at(2031, 4, 3)
    again()
    # no more than the list of failures goes back
    q.at(2032, 1, 2)
    assert reports(q, 3) == ["2031-10-01", "2031-11-01", "2031-12-01"]
    assert "only the last 3 periods that are over are reported" in q.master.log()


def test_a_plan_without_reports_in_between_is_not_reported_later(told):
    q = told
    q.ask("account.set", account="acme", plan="quiet")
    q.at(2031, 1, 12)
    wait_until(lambda: not q.ask("account.list")[0][0].get("reported"), 20, "the look at acme")
    q.at(2031, 4, 2)
    q.ask("account.set", account="acme", plan="told")
    q.at(2031, 4, 3)
    looked(q, 2031, 5)
    q.at(2031, 5, 1, 1)
    assert reports(q, 1) == ["2031-04-01"]


@pytest.mark.parametrize("before", ["endless", ""])
def test_mail_of_before_the_plan_had_periods_is_in_no_report(place, before):
    """What never ends is not over; and a failure of then is in its month."""
    q = Clocked(place, MONTHLY)
    try:
        q.account(plan=before, reference="owner@acme.test")
        sent = q.sent(q.login().ticket, None)
        q.settle(sent.id, REFUNDED, [0], address="r@dst.test", reply="550 5.1.1 no")
        q.ask("account.set", account="acme", plan="told")
        q.at(2031, 1, 11)
        looked(q, 2031, 2)

        def failures(**bounds):
            stamps = {name: int(datetime.datetime(2031, m, 1, tzinfo=datetime.timezone.utc)
                                .timestamp()) for name, m in bounds.items()}
            return len(q.ask("usage.failures", account="acme", **stamps)[0])
        assert failures(**{"from": 1, "to": 2}) == failures(**{"from": 1}) == 1
        assert failures(**{"from": 2, "to": 3}) == failures(**{"from": 2}) == 0
        assert failures() == failures(to=2) == 1
        q.at(2031, 2, 1, 1)
        assert reports(q, 1) == ["2031-01-01"]
    finally:
        q.stop()


def test_a_report_with_very_many_failures_has_the_first(told):
    q = told
    sent = q.reserve(q.login().ticket, recipients=90)
    q.charge(sent.id, recipients=90)
    reply = "550 5.1.1 " + "x" * 280
    for i in range(90):
        q.settle(sent.id, REFUNDED, [i], address="a" * 250 + f"{i}@dst.test", reply=reply)
    q.at(2031, 2, 2)
    letter = q.letter("Report of account acme for ").decode()
    listed = len([l for l in letter.splitlines() if "@dst.test" in l])
    assert 60 < listed < 90
    assert f"The attached list has the first {listed} failures. There are more" in letter
    assert "Failed:    90" in letter


# ---- failures by month ---------------------------------------------------------------------------------


def test_failures_of_a_month_are_those_of_its_letter(place):
    """By the calendar of the account, and by when the failure was known."""
    q = Clocked(place, FAMILY)
    try:
        q.account("fam", plan="fam", reference="owner@fam.test", user="top", domain="fam.test")

        def bounced(id, recipient):
            q.settle(id, REFUNDED, [0], address=f"{recipient}@dst.test", reply="550 5.1.1 no")

        def sent():
            return q.sent(q.login("top").ticket, None, sender="a@fam.test",
                          authors=("a@fam.test",)).id
        late = sent()
        q.at(2031, 1, 31, 23)
        bounced(sent(), "jan")
        q.at(2031, 2, 1, 3)  # January still, in New York
        bounced(sent(), "jan-there")
        q.at(2031, 2, 1, 6)
        bounced(late, "of-january")
        letter = q.letter("Report of account fam for ").decode()

        def listed(month):
            def first(m):
                return int(datetime.datetime(2031, m, 1, tzinfo=datetime.timezone.utc).timestamp())
            return sorted(f["recipient"] for account in ("fam", "")
                          for f in q.ask("usage.failures", account=account,
                                         **{"from": first(month), "to": first(month + 1)})[0])
        assert listed(1) == sorted(2 * ["jan@dst.test", "jan-there@dst.test"])
        assert listed(2) == 2 * ["of-january@dst.test"]
        assert "jan-there@dst.test" in letter and "of-january@dst.test" not in letter
        assert b"of-january" in (q.at(2031, 3, 1, 6) or q.letter("Report of account fam for "))
    finally:
        q.stop()
