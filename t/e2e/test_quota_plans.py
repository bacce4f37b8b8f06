"""What relay services sell, each row with quota itself. The arithmetic has unit tests."""
import datetime
import os
import time

import pytest
import faults as fault_points
from accounts_rig import OK, Quota
from postern import wait_until
from qmgr_peers import new_id

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PLANS = """
plan mailbox { user_rate = {3/day, 10/month}
 rate_action = defer
 recipients = 50
 size = 50MB }
plan shared { account_rate = {4/day}
 rate_action = defer }
plan queued { account_rate = {2/minute}
 rate_action = queue
 recipients = 1 }
plan volume { bytes = 1MB
 byte_minimum = 10KB
 at_limit = block }
plan credited { bytes = 1GB
 credit_unit = 500MB
 credit_minimum = 2GB
 credit_until = year }
plan burst { messages = 5
 at_limit = surcharge
 overage = block:1000 }
plan trial { messages = 2
 period = none
 at_limit = block }
plan once { messages = 2
 period = none
 at_limit = block
 alerts = {50, 100} }
plan bigger { messages = 3
 period = month
 at_limit = block }
plan ending { messages = 100
 end_warnings = {30, 7, 1} }
plan shorter { messages = 100
 end_warnings = {14, 3} }
"""


@pytest.fixture
def quota():
    q = Quota(PLANS)
    yield q
    q.stop()


def test_shipped_plans_are_taken():
    with open(os.path.join(ROOT, "etc/plans.conf"), encoding="utf-8") as f:
        q = Quota(f.read())
    plans = {p["plan"]: p for p in q.ask("plan.list")[0]}
    assert plans["mailbox"]["user_rate"] == "50 a day, 200 a month"
    assert plans["volume-500"]["bytes"] == 500000000 and plans["dedicated"]["source"]
    q.stop()


def test_rate_of_each_user(quota):
    quota.account(plan="mailbox")
    quota.ask("user.add", login="two", account="acme", password="secret")
    ticket = quota.login().ticket
    assert quota.mail(ticket).recipients == 3
    for _ in range(3):
        quota.sent(ticket)
    refused = quota.mail(ticket)
    assert refused.code == 450 and b"the user may send 3 a day" in refused.text
    assert quota.mail(quota.login("two").ticket).recipients == 3


def test_rate_of_all_users_counted_over_all_processes(quota):
    quota.account(plan="shared")
    quota.ask("user.add", login="two", account="acme", password="secret")
    first, second = quota.login().ticket, quota.login("two").ticket
    other = quota.master.peer("smtpd", 1)
    other.expect("ipc_quota_state")
    quota.sent(first)
    quota.sent(second)
    other.send("ipc_mail_request", tag=1, ticket=second, client=b"", sender="a@acme.test")
    assert other.expect("ipc_mail_answer").recipients == 2
    quota.sent(first, recipients=2)
    other.send("ipc_mail_request", tag=2, ticket=second, client=b"", sender="a@acme.test")
    assert other.expect("ipc_mail_answer").code == 450
    other.close()


def test_rates_outlive_a_crash(quota):
    quota.account(plan="mailbox")
    for _ in range(3):
        quota.sent(quota.login().ticket)
    quota.kill()
    q = quota.again(PLANS)
    quota.__dict__.update(q.__dict__)
    assert q.mail(q.login().ticket).code == 450


@pytest.mark.skipif(not fault_points.available(), reason="built without fault points")
def test_beyond_the_rate_mail_is_held_and_released(place):
    faults = fault_points.Faults(place)
    quota = Quota(PLANS, environment=faults.environment)
    quota.account(plan="queued")
    ticket = quota.login().ticket
    begin = 15 if time.time() % 60 > 45 else 0  # the minute must not end under the test's feet
    faults.shift("wall", begin)
    answers = [quota.sent(ticket) for _ in range(3)]
    assert [a.flags for a in answers] == [0, 0, 128]
    skip = ("ipc_charged", "ipc_charges_query", "ipc_account_notice")
    early = quota.qmgr.receive(2)
    assert early is None or early.name in skip, "released before the minute is over"
    faults.clear()
    faults.shift("wall", begin + 60)
    release = quota.qmgr.expect("ipc_charges_release", 10, skip=skip)
    assert release.id.decode() == answers[2].id
    quota.stop()


def test_recipients_and_size_of_a_message(quota):
    quota.account(plan="mailbox")
    answer = quota.login()
    assert answer.size_limit == 50000000 and answer.recipient_limit == 50
    assert quota.mail(answer.ticket, size=50000001).code == 552
    assert quota.reserve(answer.ticket, size=50000001).code == 552
    quota.ask("account.set", account="acme", plan="queued")
    answer = quota.mail(quota.login().ticket)
    assert answer.recipients == 1 and answer.more_code == 452


def test_an_upgrade_counts_by_the_new_plan_at_once(quota):
    quota.account(plan="trial")
    ticket = quota.login().ticket
    quota.sent(ticket)
    quota.sent(ticket)
    assert quota.mail(ticket).code == 550
    quota.ask("account.set", account="acme", plan="bigger")
    assert quota.mail(ticket).recipients == 3
    for _ in range(3):
        quota.sent(ticket)
    assert quota.mail(ticket).code == 550
    assert quota.usage()["messages"] == 3


def test_the_letter_of_a_plan_without_periods_promises_no_reset(quota):
    quota.account(plan="once", reference="owner@acme.test")
    ticket = quota.login().ticket
    for words in (b"When all of it is used mail is refused.",
                  b"From now on mail is refused. Ask your provider if you need more."):
        quota.sent(ticket, state=None)
        letter = quota.qmgr.expect("ipc_account_notice", 10, skip=("ipc_charged",
                                                                   "ipc_charges_query"))
        quota.qmgr.send("ipc_account_noticed", tag=letter.tag)
        assert words in letter.content and b"until the reset" not in letter.content


def test_volume_with_a_minimum_charge_and_a_package(quota):
    quota.account(plan="volume")
    ticket = quota.login().ticket
    assert quota.mail(ticket, size=1).recipients == 100
    assert quota.mail(ticket, size=250000).recipients == 4
    quota.sent(ticket, recipients=4, size=250000)
    assert quota.mail(ticket, size=1).code == 550
    quota.ask("grant.add", account="acme", amount="500KB", bought=True)
    assert quota.mail(ticket, size=250000).recipients == 2
    quota.sent(ticket, recipients=1, size=250000)
    (grant,), _ = quota.ask("grant.list", account="acme")
    assert grant["used"] == 250000 and grant["bought"] is True
    assert quota.usage()["granted_bytes"] == 250000


def test_what_is_left_of_a_package_ends_with_its_year(quota):
    """Bought for a month, credited until the end of that year: bought in December, it lapses."""
    quota.account(plan="credited")
    quota.ask("grant.add", account="acme", amount="5GB", bought=True)
    (grant,), _ = quota.ask("grant.list", account="acme")
    assert grant["until"] == quota.usage()["end"]
    year = datetime.datetime.now(datetime.timezone.utc).year
    def at(*date):
        return int(datetime.datetime(*date, tzinfo=datetime.timezone.utc).timestamp())
    over = {"type": "grant", "account": "acme", "amount": 5000000000, "used": 0, "unit": "bytes",
            "bought": True}
    quota.ask("import", records=[
        over | {"grant": 1000, "from": at(year - 1, 12, 1), "until": at(year, 1, 1)},
        over | {"grant": 2000, "from": at(year - 2, 11, 1), "until": at(year - 2, 12, 1)}])
    # nobody has asked for its usage since
    credits = [g for g in quota.ask("grant.list", account="acme")[0] if "credit" in g.get("note", "")]
    assert [(g["amount"], g["until"]) for g in credits] == [(5000000000, at(year - 1, 1, 1))]


def test_overage_in_blocks(quota):
    quota.account(plan="burst", reference="owner@acme.test")
    ticket = quota.login().ticket
    assert quota.sent(ticket, recipients=6).code == 0
    usage = quota.usage()
    assert usage["overage"] == 1 and usage["overage_blocks"] == 1 and usage["percent"] == 120


def test_a_plan_that_ends(quota):
    quota.account(plan="ending", reference="owner@acme.test", ends=int(time.time()) + 3)
    answer = quota.login()
    assert answer.status == OK
    deadline = time.monotonic() + 10
    while quota.mail(answer.ticket).code == 0:
        assert time.monotonic() < deadline
    assert b"plan has ended" in quota.mail(answer.ticket).text
    quota.ask("account.set", account="acme", ends="2099-12-31")
    assert quota.mail(answer.ticket).code == 0


def test_warning_on_the_last_day():
    q = Quota(PLANS)
    q.account(plan="ending", reference="owner@acme.test", ends=int(time.time()) + 80000)
    q.stop(remove=False)
    q = q.again(PLANS)
    letter = q.qmgr.expect("ipc_account_notice", 10)
    assert b"The plan of account acme ends in 1 day\r\n" in letter.content
    q.stop()


def test_warning_before_the_end():
    q = Quota(PLANS)
    q.account(plan="ending", reference="owner@acme.test", ends=int(time.time()) + 6 * 86400)
    q.stop(remove=False)
    q = q.again(PLANS)  # looks at all plans' ends when it starts
    letter = q.qmgr.expect("ipc_account_notice", 10)
    assert b"The plan of account acme ends in 6 days" in letter.content
    q.qmgr.send("ipc_account_noticed", tag=letter.tag)
    q.stop(remove=False)
    q = q.again(PLANS)
    assert q.qmgr.receive(2.5) is None, "the warning was sent again"
    q.stop()


class Days:
    """The wall time of quota, in days before the end of an account's plan. Ends of plans are looked
    at in every full hour."""

    def __init__(self, place, days):
        self.faults = fault_points.Faults(place)
        self.end = int(time.time()) + days * 86400

    def left(self, days, hours=0):
        self.faults.clear()
        self.faults.shift("wall", int(self.end - days * 86400 + hours * 3600 - time.time()))


def told(quota, days, seconds=10):
    """The next warning is of so many days; None: there is no more."""
    letter = quota.qmgr.expect("ipc_account_notice", seconds) if days else quota.qmgr.receive(2.5)
    if not days:
        assert letter is None, letter.content
        return
    quota.qmgr.send("ipc_account_noticed", tag=letter.tag)
    assert f"plan of account acme ends in {days} day".encode() in letter.content


SHORTER = PLANS.replace("{30, 7, 1}", "{14, 3}")


@pytest.mark.skipif(not fault_points.available(), reason="built without fault points")
@pytest.mark.parametrize("change", ["account", "file"])
@pytest.mark.parametrize("first,then", [(21, (14, 3)), (7, (3,)), (2, ())])
def test_warnings_go_on_with_another_list_of_days(place, change, first, then):
    """What was told with the plan before, by its own list of days, is no reason to tell nothing
    more: the account gets another plan, or the operator writes another list."""
    clock = Days(place, 40)
    clock.left(first, 1 if first == 7 else 0)
    quota = Quota(PLANS, environment=clock.faults.environment)
    try:
        quota.account(plan="ending", reference="owner@acme.test", ends=clock.end)
        clock.left(first, 2)
        told(quota, first)
        if change == "account":
            quota.ask("account.set", account="acme", plan="shorter")
        else:
            quota.master.table("plans_file", 0, "plans.conf", SHORTER)
        clock.left(first, 4)
        told(quota, None)
        for days in then:
            clock.left(days, -2)
            told(quota, None)
            clock.left(days, 2)
            told(quota, days)
        clock.left(1, 12)
        told(quota, None)
    finally:
        quota.stop()


@pytest.mark.skipif(not fault_points.available(), reason="built without fault points")
def test_warnings_that_an_older_record_has_as_told(place):
    """It has bits, by their places in the plan's list."""
    clock = Days(place, 40)
    clock.left(7, 1)
    quota = Quota(PLANS, environment=clock.faults.environment)
    try:
        quota.ask("import", records=[{"type": "account", "account": "acme", "plan": "ending",
                                      "reference": "owner@acme.test", "ends": clock.end,
                                      "warned": 3}])
        clock.left(7, 3)
        told(quota, None)
        clock.left(1, 3)
        told(quota, 1)
    finally:
        quota.stop()


def test_reload_with_another_plan(quota):
    quota.account(plan="mailbox")
    ticket = quota.login().ticket
    quota.sent(ticket)
    quota.master.table("plans_file", 0, "plans.conf", "plan mailbox { recipients = 7 }\n")
    quota.master.wait_log("1 plans read from")
    assert quota.mail(ticket).recipients == 7
    quota.master.table("plans_file", 0, "plans.conf", "plan mailbox { recipients = x }\n")
    quota.master.wait_log("plans.conf:1: recipients = x")
    assert quota.mail(ticket).recipients == 7


def test_what_changes_in_plans_conf_is_in_the_audit_log(quota):
    """Also what has changed while quota was away; the first plans of all are no change."""
    def told():
        return [(a["what"], a["request"]) for a in quota.ask("audit.list")[0]
                if a["what"].startswith("plan ")]
    mailbox = "plan mailbox { recipients = 7 }\n"
    assert told() == []
    quota.account()
    quota.master.table("plans_file", 0, "plans.conf", PLANS)  # once more, as it is
    plans(quota, PLANS + "plan fresh { messages = 5 }\n")
    assert told() == [("plan fresh", "added in plans.conf")]
    plans(quota, PLANS + "plan fresh { messages = 6\n size = 2MB\n alerts = {50, 75}\n"
          " zone = \"Europe/Berlin\"\n period_report = yes }\n")
    assert told()[1:] == [("plan fresh", "changed in plans.conf: zone UTC -> Europe/Berlin, "
                           "messages 5 -> 6, size none -> 2000000, alerts 80, 90, 100 -> 50, 75, "
                           "period_report none -> yes")]
    quota.stop(remove=False)
    quota.__dict__.update(quota.again(mailbox).__dict__)
    last = told()[2:]
    assert ("plan fresh", "taken out of plans.conf") in last and len(last) > 2
    assert any(what == "plan mailbox" and "recipients" in text for what, text in last)
    before = len(told())
    plans(quota, mailbox)
    quota.master.table("plans_file", 0, "plans.conf", "plan x { recipients = x }\n")
    quota.master.wait_log("plans.conf:1: recipients = x")
    assert len(told()) == before


def plans(quota, text):
    said = f"{text.count('plan ')} plans read from"
    before = quota.master.log().count(said)
    quota.master.table("plans_file", 0, "plans.conf", text)
    wait_until(lambda: quota.master.log().count(said) > before, 10, said)


def test_a_plan_that_is_not_there_any_more_stops_its_mail(quota):
    """Never: without limit. What was taken before is counted where it belongs."""
    quota.account(plan="bigger", reference="owner@acme.test")
    quota.account("sub", "other", domain="sub.test", parent="acme")
    quota.account("free", "third", domain="free.test")
    tickets = {user: quota.login(user).ticket for user in ("web", "other", "third")}
    taken = quota.reserve(tickets["web"])
    start = quota.usage()["start"]
    assert start > 0
    plans(quota, "plan mailbox { }\n")
    quota.master.wait_log("account acme has plan bigger, which is not in")
    for user, domain in (("web", "acme"), ("other", "sub")):
        answer = quota.mail(tickets[user], f"a@{domain}.test")
        assert answer.code == 451 and b"the plan of account acme" in answer.text
        answer = quota.reserve(tickets[user], sender=f"a@{domain}.test",
                               authors=[f"a@{domain}.test"])
        assert answer.code == 451
    assert quota.mail(tickets["third"], "a@free.test").code == 0
    quota.charge(taken.id, owner=taken.owner)  # was on its way
    quota.settle(taken.id)
    usage = quota.usage()
    assert (usage["start"], usage["messages"], usage["plan"]) == (start, 1, "bigger")
    assert usage["plan_missing"] is True
    shown = quota.one("account.show", account="sub")
    assert "plan bigger of account acme is not in" in shown["refused"]
    listed = {a["account"]: a.get("plan_missing", False) for a in quota.ask("account.list")[0]}
    assert listed == {"acme": True, "sub": False, "free": False}
    assert quota.ask("status")[1]["accounts_without_plan"] == 1
    used, _ = quota.ask("plan.used")
    assert used == [{"plan": "bigger", "accounts": 1, "names": ["acme"]}]
    quota.ask("account.set", account="acme", note="all else can be changed")
    # no word of the old limits is left after a restart: what is counted still has its place
    quota.kill()
    quota.__dict__.update(quota.again("plan mailbox { }\n").__dict__)
    ticket = quota.login().ticket
    assert quota.mail(ticket).code == 451
    late = new_id()
    quota.charge(late, owner="acme/web")
    assert quota.usage()["start"] == start and quota.usage()["messages"] == 2
    (period,) = [p for p in quota.ask("usage.report", account="acme")[0] if p["owner"] == "acme"]
    assert (period["plan"], period["limit"], period["messages"]) == ("bigger", 3, 2)
    plans(quota, PLANS)
    quota.master.wait_log("the plans of all accounts are in")
    assert quota.usage()["messages"] == 2 and "plan_missing" not in quota.usage()
    assert quota.mail(ticket).recipients == 1
    plans(quota, "plan mailbox { }\n")
    assert quota.mail(ticket).code == 451
    quota.ask("account.set", account="acme", plan="mailbox")
    assert quota.ask("status")[1]["accounts_without_plan"] == 0
    assert quota.mail(ticket).code == 0


def test_bought_volume_waits_for_the_plan_that_credits_it(quota):
    """A grant does not end, without its credit, while the plan is missing."""
    quota.account(plan="credited")
    end = int(time.time()) + 2
    quota.ask("grant.add", account="acme", amount="5GB", bought=True, until=end)
    plans(quota, "plan mailbox { }\n")
    ticket = quota.login().ticket
    wait_until(lambda: time.time() > end + 1, 10, "the grant's end")
    assert quota.mail(ticket).code == 451
    assert [g.get("over") for g in quota.ask("grant.list", account="acme")[0]] == [None]
    plans(quota, PLANS)
    assert quota.mail(ticket).code == 0
    grants, _ = quota.ask("grant.list", account="acme")
    assert [g["amount"] for g in grants if not g.get("over")] == [5000000000]
