"""What a stolen password, and an smtpd that was taken over, can do: the spike guard,
reservations, owners of messages."""
import base64
import json
import math
import os
import time

import pytest
import faults as fault_points
from accounts_rig import (CLIENT, FAILED, FRESH, HELD, HELD_RATE, NONE, OK, TEMPORARY, TOO_MANY,
                          Quota, Refused)
from ipc import BUILD, Closed
from memory import in_memory
from postern import wait_until
from qmgr_peers import new_id

PLANS = """
plan guarded { spike_factor = 10
 spike_minimum = 50
 spike_action = hold }
plan slowed { spike_factor = 10
 spike_minimum = 50
 spike_action = slow }
plan hard { messages = 10
 at_limit = block }
plan queued { account_rate = {2/minute}
 rate_action = queue }
plan each { user_rate = {1/minute}
 rate_action = queue }
plan both { account_rate = {2/minute}
 rate_action = queue
 spike_factor = 10
 spike_minimum = 3
 spike_action = hold }
"""
HOLD, HOLD_RATE = 32, 128
OTHERS = ("ipc_charged", "ipc_charges_query", "ipc_account_notice")
HOUR = 3600
needs_clock = pytest.mark.skipif(not fault_points.available(), reason="built without fault points")


@pytest.fixture
def quota():
    q = Quota(PLANS)
    yield q
    q.stop()


class Clock:
    """quota's wall time, in seconds after the full hour that follows the test's start."""

    def __init__(self, place):
        self.faults = fault_points.Faults(place)
        self.base = int(HOUR - time.time() % HOUR) + 2
        self.environment = self.faults.environment

    def at(self, seconds):
        self.faults.clear()
        self.faults.shift("wall", self.base + seconds)

    def quota(self, directory=None):
        return Quota(PLANS, None, directory, environment=self.environment)


@pytest.fixture
def timed(place):
    """quota, and its wall time."""
    clock = Clock(place)
    clock.at(0)
    quota = clock.quota()
    yield quota, clock
    quota.stop()


def released(quota, count=1):
    """The next messages that quota lets go; qmgr answers."""
    ids = []
    for _ in range(count):
        ids.append(quota.qmgr.expect("ipc_charges_release", 10, skip=OTHERS).id.decode())
        quota.qmgr.send("ipc_charges_released", id=ids[-1])
    return ids


def nothing_released(quota, seconds=2.5):
    """Through more than two of quota's looks at what is held, which are a second apart."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        message = quota.qmgr.receive(left)
        assert message is None or message.name in OTHERS, message


def letter(quota, subject):
    """The next one; qmgr takes it."""
    while True:
        message = quota.qmgr.expect("ipc_account_notice", 10,
                                    skip=("ipc_charged", "ipc_charges_query"))
        quota.qmgr.send("ipc_account_noticed", tag=message.tag)
        if subject in message.content:
            return message.content


# ---- the spike guard -------------------------------------------------------------------


def test_spike_is_held_and_told(quota):
    quota.account(plan="guarded", reference="owner@acme.test")
    ticket = quota.login().ticket
    assert quota.sent(ticket, recipients=50).flags == 0
    assert quota.sent(ticket, state=None).flags == HOLD
    content = letter(quota, b"Unusual volume of account acme")
    assert b"held back until your provider has looked" in content
    usage = quota.usage()
    assert usage["spike"] is True and usage["hour_limit"] == 50
    assert usage["spike_until"] - usage["spike_since"] == 86400
    assert quota.reserve(ticket).flags == HOLD
    assert "far above its usual" in quota.master.log()
    assert "postern account unguard acme" in quota.master.log()


def test_spike_is_slowed_to_a_rate(quota):
    quota.account(plan="slowed", reference="owner@acme.test")
    ticket = quota.login().ticket
    assert quota.mail(ticket).recipients == 50
    quota.sent(ticket, recipients=45)
    answer = quota.mail(ticket)
    assert answer.recipients == 5 and answer.more_code == 450
    assert quota.reserve(ticket, recipients=6).code == 450
    content = letter(quota, b"Unusual volume of account acme")
    assert b"No more than 50 messages an hour" in content
    quota.sent(ticket, recipients=5)
    answer = quota.mail(ticket)
    assert answer.code == 450 and b"far more than its usual" in answer.text
    assert quota.usage()["spike"] is True
    # what a hundred connections reserve at the same time is one rate, too
    quota.ask("account.unguard", account="acme")
    codes = [quota.reserve(ticket, recipients=10).code for _ in range(10)]
    assert codes == [0] * 5 + [450] * 5


@needs_clock
@pytest.mark.parametrize("plan", ["guarded", "slowed"])
def test_spike_against_a_history(place, plan):
    """Fifty an hour are usual; then somebody sends as much as goes, over full hours."""
    clock = Clock(place)
    quota = clock.quota()
    quota.account(plan=plan, reference="owner@acme.test")
    quota.ask("account.unguard", account="acme", usual=40)
    for hour in range(30):
        clock.at(hour * HOUR)
        answer = quota.sent(quota.login().ticket, recipients=50)
        assert answer.flags == 0
    clock.at(30 * HOUR)
    usage = quota.usage()
    assert usage["spike"] is False and 40 < usage["usual_hour"] < 50
    limit, free = usage["hour_limit"], 0
    assert 400 < limit < 500
    for hour in range(30, 30 + 26):
        for minute in (1, 59):
            clock.at(hour * HOUR + 60 * minute)
            ticket = quota.login().ticket
            for _ in range(4):
                answer = quota.reserve(ticket, recipients=100)
                if answer.code == 0:
                    quota.charge(answer.id, owner=answer.owner, recipients=100,
                                     flags=FRESH | (HELD if answer.flags else 0))
                    free += 0 if answer.flags else 100
                if plan == "guarded" and hour > 30:
                    assert answer.flags == HOLD, f"let go at {minute} minutes past hour {hour}"
        assert quota.usage()["hour_limit"] <= limit
    assert quota.usage()["spike"] is True
    assert free <= limit * (1 if plan == "guarded" else 26)
    # the owner is told when it began, and a day later
    assert quota.master.log().count("Unusual volume of account acme (letter") == 2
    # it goes on after a crash, and ends when an operator says so
    quota.kill()
    again = clock.quota(quota.directory)
    quota.__dict__.update(again.__dict__)
    assert quota.usage()["spike"] is True
    quota.ask("account.unguard", account="acme")
    assert quota.usage()["spike"] is False
    assert quota.sent(quota.login().ticket).flags == 0
    quota.stop()


def below(quota, plan):
    """A login of a sub-account whose own plan limits nothing."""
    quota.account("top", None, domain=None, plan=plan, reference="owner@acme.test")
    quota.account(parent="top")
    return quota.login()


def test_guard_of_an_account_above_holds(quota):
    ticket = below(quota, "guarded").ticket
    assert quota.sent(ticket, recipients=50).flags == 0
    assert quota.sent(ticket, state=None).flags == HOLD
    assert quota.usage("top")["spike"] is True and quota.usage()["spike"] is False
    assert b"Account top at" in letter(quota, b"Unusual volume of account top")
    assert "postern account unguard top" in quota.master.log()
    quota.ask("account.unguard", account="top")
    assert quota.sent(ticket).flags == 0


def test_guard_of_an_account_above_slows(quota):
    ticket = below(quota, "slowed").ticket
    quota.sent(ticket, recipients=45)
    assert quota.mail(ticket).recipients == 5
    assert quota.reserve(ticket, recipients=6).code == 450
    quota.sent(ticket, recipients=5)
    answer = quota.mail(ticket)
    assert answer.code == 450 and b"account top sends far more" in answer.text
    assert quota.usage("top")["spike"] is True
    letter(quota, b"Unusual volume of account top")


def test_size_and_recipients_of_an_account_above():
    quota = Quota("plan wide { size = 9KB\n recipients = 3 }\n"
                  "plan narrow { size = 5KB\n recipients = 4 }\n")
    login = below(quota, "wide")
    assert (login.size_limit, login.recipient_limit) == (9000, 3)
    quota.ask("account.set", account="acme", plan="narrow")
    login = quota.login()
    assert (login.size_limit, login.recipient_limit) == (5000, 3)  # announced at EHLO
    assert quota.mail(login.ticket, size=5001).code == 552
    assert quota.mail(login.ticket, size=5000).recipients == 3
    assert quota.reserve(login.ticket, size=5001).code == 552
    assert quota.reserve(login.ticket, recipients=4).code == 452
    assert quota.reserve(login.ticket, recipients=3, size=5000).code == 0
    quota.ask("account.set", account="acme", plan="")
    assert quota.mail(login.ticket, size=9001).code == 552
    quota.stop()


def test_operator_says_what_is_usual(quota):
    quota.account(plan="guarded")
    quota.ask("account.unguard", account="acme", usual="700")
    assert quota.usage()["hour_limit"] == 7000
    assert quota.sent(quota.login().ticket, recipients=6999).flags == 0
    for wrong in ("many", -1, "1.5"):
        with pytest.raises(Refused, match="messages that the account sends in an hour"):
            quota.ask("account.unguard", account="acme", usual=wrong)
    with pytest.raises(Refused, match="no account nobody"):
        quota.ask("account.unguard", account="nobody")
    audit, _ = quota.ask("audit.list")
    assert audit[-1]["what"] == "spike guard of account acme"


# ---- reservations ----------------------------------------------------------------------


def test_what_was_reserved_is_what_is_given_back(quota):
    """Whatever the plan says by then."""
    quota.account(plan="hard")
    ticket = quota.login().ticket
    for plan in ("plan hard { bytes = 100KB\n byte_minimum = 10KB\n at_limit = block }\n",
                 "plan hard { bytes = 100KB\n at_limit = block }\n"):
        ids = [quota.reserve(ticket, recipients=2).id for _ in range(3)]
        assert quota.usage()["reserved"] == 6
        quota.master.table("plans_file", 0, "plans.conf", plan)
        quota.master.wait_log("1 plans read from")
        for id in ids:
            quota.smtpd.send("ipc_release", id=id)
        quota.mail(ticket)  # is answered after that
        assert quota.usage()["reserved"] == 0
    assert quota.mail(ticket, size=1000).recipients == 100
    assert quota.mail(ticket, size=100000).recipients == 1


def test_reservation_of_an_account_that_is_moved(quota):
    """Below another account, while a message is on its way."""
    quota.account(plan="hard")
    quota.ask("account.add", account="top", plan="hard")
    ticket = quota.login().ticket
    id = quota.reserve(ticket, recipients=5).id
    quota.ask("account.set", account="acme", parent="top")
    quota.smtpd.send("ipc_release", id=id)
    quota.mail(ticket)  # is answered after that
    assert quota.usage()["reserved"] == 0 and quota.usage("top")["reserved"] == 0
    assert quota.mail(quota.login().ticket).recipients == 10


def test_one_smtpd_cannot_touch_what_another_reserved(quota):
    quota.account(plan="hard")
    ticket = quota.login().ticket
    answer = quota.reserve(ticket, recipients=5)
    other = quota.master.peer("smtpd", 1)
    other.expect("ipc_quota_state")
    # its ID is in use: refused, and neither channel suffers
    other.send("ipc_reserve", tag=1, ticket=ticket, id=answer.id, client=b"", sender="a@acme.test",
               authors=[], recipients=1, size=1)
    refused = other.expect("ipc_reserved")
    assert refused.code == 451 and b"in use" in refused.text
    assert quota.mail(ticket).recipients == 5
    other.send("ipc_release", id=answer.id)
    with pytest.raises(Closed):
        other.receive(10)
    assert quota.usage()["reserved"] == 5
    assert "wants to give back what another has reserved" in quota.master.log()
    # one that ends does not take with it what it has reserved: qmgr may have the message
    quota.smtpd.close()
    assert quota.usage()["reserved"] == 5
    # nor does one that comes back break a rule when it gives back what it reserved before
    quota.smtpd = quota.master.peer("smtpd")
    quota.smtpd.expect("ipc_quota_state")
    quota.smtpd.send("ipc_release", id=answer.id)
    assert quota.mail(ticket).code == 0
    assert quota.usage()["reserved"] == 5
    quota.charge(answer.id, owner=answer.owner, recipients=5)
    assert quota.usage()["reserved"] == 0 and quota.usage()["messages"] == 5


def test_owner_in_commit_is_compared_with_the_reservation(quota):
    """smtpd's word in COMMIT is not what is paid by."""
    quota.account(plan="hard")
    quota.account("victim", user="v", domain="victim.test", plan="hard")
    answer = quota.reserve(quota.login().ticket, recipients=2, size=1000)
    quota.charge(answer.id, owner="victim/v", recipients=2)
    assert quota.usage("victim")["messages"] == 0 and quota.usage()["messages"] == 2
    assert quota.usage(user="web")["messages"] == 2
    assert f"{answer.id}: ALARM: smtpd 0 (process" in quota.master.log()
    assert "charged to acme/web" in quota.master.log()
    # less than there is: what is in the spool is paid, and never less than was reserved
    answer = quota.reserve(quota.login().ticket, recipients=1, size=50)
    quota.charge(answer.id, recipients=4, size=10)
    usage = quota.usage()
    assert usage["messages"] == 6 and usage["bytes"] == 2 * 1000 + 4 * 50
    assert quota.master.log().count("ALARM") == 2
    # an honest one gives no alarm
    quota.sent(quota.login().ticket)
    assert quota.master.log().count("ALARM") == 2


def test_smtpd_that_skips_the_guard_s_hold(quota):
    quota.account(plan="guarded")
    ticket = quota.login().ticket
    quota.sent(ticket, recipients=50)
    held = quota.sent(ticket, state=None)
    assert held.flags == HOLD and "ALARM" not in quota.master.log()
    answer = quota.reserve(ticket)
    quota.charge(answer.id, owner=answer.owner)
    assert f"{answer.id}: ALARM: smtpd 0" in quota.master.log()
    assert "was told to have it held" in quota.master.log()


@needs_clock
def test_mail_that_nobody_reserved(place):
    """After a start there may be some; later it is an smtpd's lie, or a message that the queue
    manager found, which is none."""
    faults = fault_points.Faults(place)
    quota = Quota(PLANS, environment=faults.environment)
    quota.account(plan="hard")
    quota.charge(new_id())
    faults.shift("mono", 1500)
    quota.charge(new_id(), flags=0)
    assert "ALARM" not in quota.master.log()
    id = new_id()
    quota.charge(id)
    assert f"{id}: ALARM: it was committed as mail of acme/web, which nobody had reserved" in \
        quota.master.log()
    assert quota.usage()["messages"] == 3
    quota.stop()


def test_a_charged_id_that_is_reserved_again_counts_once(quota):
    """An smtpd that names a message of before, so that its repetition counts anew."""
    quota.account(plan="hard")
    ticket = quota.login().ticket
    id = quota.sent(ticket).id
    quota.kill()
    quota.__dict__.update(quota.again(PLANS).__dict__)
    assert quota.reserve(ticket, id=id).code == 0
    quota.charge(id, flags=0)  # qmgr has found it
    assert quota.usage()["messages"] == 1 and quota.usage()["reserved"] == 0


# ---- messages that are held for their account's rate -----------------------------------------


@needs_clock
def test_what_the_guard_holds_is_not_the_rate_s(timed):
    quota, clock = timed
    quota.account(plan="both", reference="owner@acme.test")
    ticket = quota.login().ticket
    answers = [quota.sent(ticket, state=None) for _ in range(4)]
    assert [a.flags for a in answers] == [0, 0, HOLD_RATE, HOLD]
    nothing_released(quota)
    clock.at(10 * 60)
    assert released(quota) == [answers[2].id]
    nothing_released(quota)


@needs_clock
def test_each_user_waits_for_its_own_turn(timed):
    """The rate of a user, with rate_action = queue."""
    quota, clock = timed
    quota.account(plan="each")
    quota.ask("user.add", login="two", account="acme", password="secret")
    one, two = quota.login().ticket, quota.login("two").ticket
    answers = [quota.sent(ticket, state=None) for ticket in (one, one, two, one)]
    assert [a.flags for a in answers] == [0, HOLD_RATE, 0, HOLD_RATE]
    nothing_released(quota)
    clock.at(65)
    assert released(quota) == [answers[1].id]
    nothing_released(quota)
    clock.at(125)
    assert released(quota) == [answers[3].id]


@needs_clock
def test_held_mail_outlives_crashes(timed):
    quota, clock = timed
    quota.account(plan="queued")
    ticket = quota.login().ticket
    answers = [quota.sent(ticket, state=None) for _ in range(3)]
    lost = quota.reserve(ticket)  # quota dies before qmgr tells of it
    assert [a.flags for a in answers] + [lost.flags] == [0, 0, HOLD_RATE, HOLD_RATE]
    quota.kill()
    quota.__dict__.update(clock.quota(quota.directory).__dict__)
    quota.charge(lost.id, flags=3)
    quota.charge(answers[2].id, flags=2)  # qmgr has found it after its own crash
    assert released(quota) == [lost.id]  # nobody knows its turn any more
    nothing_released(quota)
    clock.at(70)
    assert released(quota) == [answers[2].id]
    # qmgr loses the word, with the power: it tells that the message is still held
    quota.charge(answers[2].id, flags=2)
    assert released(quota) == [answers[2].id]
    assert quota.usage()["messages"] == 4


@needs_clock
def test_mail_of_a_suspended_account_stays_held(timed):
    quota, clock = timed
    quota.account(plan="queued")
    ticket = quota.login().ticket
    answers = [quota.sent(ticket, state=None) for _ in range(3)]
    quota.ask("account.set", account="acme", status="suspended")
    clock.at(70)
    nothing_released(quota)
    quota.ask("account.set", account="acme", status="active")
    clock.at(200)
    assert released(quota) == [answers[2].id]


# ---- ...and other rates ----------------------------------------------------------------------

OTHER_RATES = """
plan free { }
plan double { account_rate = {4/minute}
 rate_action = queue }
plan half { account_rate = {1/minute}
 rate_action = queue }
"""


def six(quota, user="web"):
    """Two a minute: two go, and four wait for the two minutes that follow."""
    ticket = quota.login(user).ticket
    answers = [quota.sent(ticket, state=None) for _ in range(6)]
    assert [a.flags for a in answers] == 2 * [0] + 4 * [HOLD_RATE]
    nothing_released(quota, 1.5)
    return [a.id for a in answers[2:]]


def by_account(quota, name):
    quota.ask("account.set", account="acme", plan=name)


def by_import(quota, name):
    quota.ask("import", records=[{"type": "account", "account": "acme", "plan": name}])


@pytest.fixture
def six_held(timed):
    quota, clock = timed
    quota.master.table("plans_file", 0, "plans.conf", PLANS + OTHER_RATES)
    quota.ask("account.add", account="top")
    quota.account(plan="queued")
    return quota, clock, six(quota)


@needs_clock
@pytest.mark.parametrize("way", [by_account, by_import])
def test_held_mail_goes_when_the_account_s_plan_has_no_rate(six_held, way):
    quota, _, held = six_held
    way(quota, "free")
    assert released(quota, 4) == held
    assert quota.sent(quota.login().ticket, state=None).flags == 0
    nothing_released(quota)


@needs_clock
def test_held_mail_goes_when_the_plan_itself_has_no_rate_any_more(six_held):
    quota, _, held = six_held
    quota.master.table("plans_file", 0, "plans.conf", "plan queued { }\n")
    assert released(quota, 4) == held
    nothing_released(quota)


@needs_clock
def test_held_mail_keeps_its_order_at_a_higher_and_at_a_lower_rate(six_held):
    quota, clock, held = six_held
    by_account(quota, "double")  # four a minute: two have gone
    assert released(quota, 2) == held[:2]
    nothing_released(quota)
    by_account(quota, "half")  # four have gone in this minute
    nothing_released(quota)
    late = quota.sent(quota.login().ticket, state=None)
    assert late.flags == HOLD_RATE
    clock.at(4 * 60 + 5)
    assert released(quota) == held[2:3]
    nothing_released(quota)
    clock.at(5 * 60 + 5)
    assert released(quota) == held[3:]
    nothing_released(quota)
    clock.at(6 * 60 + 5)
    assert released(quota) == [late.id]
    nothing_released(quota)


@needs_clock
def test_parked_mail_that_qmgr_tells_of_again_goes_once(six_held):
    """A qmgr that was started again knows it as held for the rate; it was taken back since."""
    quota, _, held = six_held

    def turns():
        return sorted((r["id"], r["until"]) for r in quota.ask("export")[0] if r["type"] == "held")
    quota.ask("account.set", account="acme", status="suspended")
    by_account(quota, "half")
    parked = sorted((i, 0) for i in held)
    wait_until(lambda: turns() == parked, 20, "it to be taken back")
    quota.charges([dict(id=i, owner="acme/web", arrival=1, size=1000, recipients=1,
                        flags=HELD_RATE) for i in held])
    assert turns() == parked
    by_account(quota, "free")
    quota.ask("account.set", account="acme", status="active")
    assert released(quota, 4) == held
    nothing_released(quota)


@needs_clock
def test_held_mail_at_the_rate_of_the_file_s_new_version(six_held):
    quota, clock, held = six_held
    quota.master.table("plans_file", 0, "plans.conf",
                       "plan queued { account_rate = {3/minute}\n rate_action = queue }\n")
    assert released(quota) == held[:1]
    nothing_released(quota)
    clock.at(65)
    assert released(quota, 3) == held[1:]
    nothing_released(quota)


@needs_clock
def test_held_mail_of_an_account_below_the_one_whose_rate_is_another(timed):
    quota, _ = timed
    quota.master.table("plans_file", 0, "plans.conf", PLANS + OTHER_RATES)
    quota.ask("account.add", account="top", plan="queued")
    quota.account(parent="top")
    held = six(quota)
    quota.ask("account.set", account="top", plan="free")
    assert released(quota, 4) == held
    nothing_released(quota)


@needs_clock
def test_users_held_mail_at_another_rate(timed):
    quota, clock = timed
    quota.account(plan="each")
    ticket = quota.login().ticket
    answers = [quota.sent(ticket, state=None) for _ in range(4)]
    assert [a.flags for a in answers] == [0] + 3 * [HOLD_RATE]
    quota.master.table("plans_file", 0, "plans.conf",
                       "plan each { user_rate = {2/minute}\n rate_action = queue }\n")
    assert released(quota) == [answers[1].id]
    nothing_released(quota)
    clock.at(65)
    assert released(quota, 2) == [a.id for a in answers[2:]]


@needs_clock
def test_other_rates_while_quota_did_not_run(six_held):
    """plans.conf is edited, and all of it started again."""
    quota, clock, held = six_held
    quota.kill()
    quota.__dict__.update(Quota("plan queued { }\n", None, quota.directory,
                                environment=clock.environment).__dict__)
    assert released(quota, 4) == held
    nothing_released(quota)


@needs_clock
@pytest.mark.parametrize("visit", range(5))
def test_F16_a_kill_while_held_mail_gets_other_turns(six_held, visit):
    quota, clock, held = six_held
    clock.faults.set("kv.apply", fault_points.KILL, skip=visit)
    try:
        by_account(quota, "double")
    except (AssertionError, OSError):
        pass  # it died before it answered
    wait_until(lambda: quota.master.process.poll() is not None, 20, "its end")
    clock.at(0)
    quota.kill()
    quota.__dict__.update(Quota(PLANS + OTHER_RATES, None, quota.directory,
                                environment=clock.environment).__dict__)
    by_account(quota, "double")  # the first may not have been heard
    assert released(quota, 2) == held[:2]
    nothing_released(quota)
    clock.at(65)
    assert released(quota, 2) == held[2:]


# ---- logins ------------------------------------------------------------------------------------


def test_B16_challenges_of_before_are_no_way_around_the_limits(quota):
    """Thirty exchanges are begun, then thirty proofs come."""
    quota.account()
    tags = []
    for _ in range(30):
        tags.append(quota.next_tag())
        quota.smtpd.send("ipc_auth_scram", tag=tags[-1], client=CLIENT, message="n,,n=web,r=x")
    nonces = {m.tag: m.message.decode().split(",")[0] for m in
              (quota.smtpd.expect("ipc_auth_challenge") for _ in tags)}
    answers = []
    for tag in tags:
        proof = base64.b64encode(bytes(32)).decode()
        quota.smtpd.send("ipc_auth_response", tag=tag, message=f"c=biws,{nonces[tag]},p={proof}")
        answers.append(quota.smtpd.expect("ipc_auth_result").status)
    assert answers == 20 * [FAILED] + 10 * [TOO_MANY]


def test_B16_passwords_that_were_queued_together(quota):
    """Sixty guesses at once, the right one last."""
    quota.account()
    guesses = [f"guess{i}" for i in range(60)] + ["secret"]
    for guess in guesses:
        quota.smtpd.send("ipc_auth_password", tag=quota.next_tag(), client=CLIENT, user="web",
                         password=guess, flags=1)
    answers = [quota.smtpd.expect("ipc_auth_result", 60).status for _ in guesses]
    assert answers.count(FAILED) == 20 and answers.count(TOO_MANY) == len(guesses) - 20


def outside(quota, good, user="web", client=CLIENT):
    quota.smtpd.send("ipc_auth_outside", tag=quota.next_tag(), client=client, user=user, good=good)
    return quota.smtpd.expect("ipc_auth_result")


def test_B16_failures_that_dovecot_reports():
    quota = Quota(PLANS, config={"smtpd_sasl_type": "dovecot"})
    assert outside(quota, 1).status == NONE
    delays = [a.delay for a in (outside(quota, 0) for _ in range(20)) if a.status == FAILED]
    assert len(delays) == 20 and delays == sorted(delays) and delays[-1] == 10000
    assert outside(quota, 0).status == TOO_MANY
    assert outside(quota, 1).status == TOO_MANY  # a right guess is not told
    assert outside(quota, 1, user="two", client=b"\xc6\x33\x64\x01").status == NONE
    # a name that no user of ours could have is nobody's in particular
    for n in range(21):
        outside(quota, 0, user="a b", client=bytes([203, 0, 113, n + 1]))
    assert outside(quota, 1, user="c d", client=b"\xc6\x33\x64\x02").status == NONE
    with pytest.raises(Closed):
        outside(quota, 2)
    quota.smtpd = quota.master.peer("smtpd", 1)
    quota.stop()


def test_reports_of_others_without_others(quota):
    """An smtpd that was taken over makes nobody known by it."""
    answer = outside(quota, 1)
    assert answer.status == TEMPORARY and b"main.cf" in answer.reason


@pytest.mark.skipif(os.getuid() != 0, reason="another process's memory is read")
def test_B14_quota_wipes_passwords(quota):
    secret = "0verl00ked-Pa55word"
    quota.account(password="another")
    for _ in range(2):
        assert quota.login(password=secret).status == FAILED
    assert in_memory(quota.master.process.pid, secret.encode()) == 0
    assert in_memory(quota.master.process.pid, b"acme.test")  # it can be seen


# ---- sessions of a stolen password ---------------------------------------------------------


def proxy_login(quota, user="web"):
    """A user whom a proxy names."""
    quota.smtpd.send("ipc_client_account", tag=quota.next_tag(), client=b"", user=user)
    return quota.smtpd.expect("ipc_auth_result")


def over(quota, ticket):
    """Both questions of a message, with the ticket of a login before."""
    mail, reserve = quota.mail(ticket), quota.reserve(ticket)
    assert mail.code == reserve.code
    return mail.code


def test_a_new_password_ends_sessions(quota):
    quota.account()
    ticket = quota.login().ticket
    quota.ask("user.add", login="two", account="acme", password="secret")
    other = quota.login("two").ticket
    assert over(quota, ticket) == 0
    quota.ask("user.set", login="web", password="other")
    assert over(quota, ticket) == 421
    assert over(quota, other) == 0
    assert over(quota, quota.login(password="other").ticket) == 0
    # the same password once more is a new one, too: who shall be out is out
    ticket = quota.login(password="other").ticket
    quota.ask("user.set", login="web", password="other")
    assert over(quota, ticket) == 421
    # a note is none
    ticket = quota.login(password="other").ticket
    quota.ask("user.set", login="web", note="x")
    assert over(quota, ticket) == 0


def test_suspension_ends_sessions(quota):
    """Also after it is taken back."""
    quota.account()
    ticket = quota.login().ticket
    quota.ask("user.set", login="web", status="suspended")
    assert over(quota, ticket) == 550
    quota.ask("user.set", login="web", status="active")
    assert over(quota, ticket) == 421
    ticket = quota.login().ticket
    quota.ask("account.add", account="top")
    quota.ask("account.set", account="acme", parent="top")
    ticket = quota.login().ticket
    quota.ask("account.set", account="top", status="suspended")
    assert over(quota, ticket) == 550
    quota.ask("account.set", account="top", status="active")
    assert over(quota, ticket) == 421
    ticket = quota.login().ticket
    quota.ask("account.set", account="acme", reference="a@acme.test")
    assert over(quota, ticket) == 0


def test_who_may_not_use_any_sender_any_longer(quota):
    """smtpd was told not to collect authors: it is told anew."""
    quota.account()
    ticket = quota.login().ticket
    quota.ask("account.set", account="acme", any_sender=True)
    assert over(quota, ticket) == 0
    ticket = quota.login().ticket
    quota.ask("account.set", account="acme", any_sender=False)
    assert over(quota, ticket) == 421


def test_deletion_ends_sessions(quota):
    """Also when a user of that name comes back."""
    quota.account()
    ticket = quota.login().ticket
    quota.ask("user.delete", login="web")
    assert over(quota, ticket) == 550
    quota.ask("user.add", login="web", account="acme", password="secret")
    assert over(quota, ticket) == 421


def test_import_ends_the_sessions_of_those_it_changes(quota):
    quota.account()
    quota.ask("user.add", login="two", account="acme", password="secret")
    tickets = {user: quota.login(user).ticket for user in ("web", "two")}
    records, _ = quota.ask("export")
    quota.ask("import", records=records)
    assert [over(quota, t) for t in tickets.values()] == [0, 0]
    for r in records:
        if r.get("login") == "two":
            r["hash"] = next(r["hash"] for r in records if r.get("login") == "web")
            r.pop("scram", None)
    quota.ask("import", records=records)
    assert over(quota, tickets["web"]) == 0 and over(quota, tickets["two"]) == 421


def test_sessions_outlive_a_crash_and_a_step_of_the_clock(quota):
    quota.account()
    ticket = quota.login().ticket
    quota.kill()
    quota.__dict__.update(quota.again(PLANS).__dict__)
    assert over(quota, ticket) == 0


@needs_clock
def test_ticket_is_good_for_one_session(place):
    clock = Clock(place)
    quota = clock.quota()
    quota.account()
    ticket = quota.login().ticket
    clock.faults.shift("wall", 86400)
    assert over(quota, ticket) == 0
    clock.faults.clear()
    clock.faults.shift("wall", 86400 + 700)
    assert over(quota, ticket) == 421
    quota.stop()


def test_user_of_a_proxy_is_out_like_others():
    quota = Quota(PLANS, config={"smtpd_authorized_xclient_hosts": "192.0.2.9"})
    quota.account()
    ticket = proxy_login(quota).ticket
    assert over(quota, ticket) == 0
    quota.ask("user.set", login="web", status="suspended")
    quota.ask("user.set", login="web", status="active")
    assert over(quota, ticket) == 421
    assert over(quota, proxy_login(quota).ticket) == 0
    quota.stop()


def test_a_user_that_is_deleted_or_suspended_while_its_password_is_hashed(quota):
    """The hash comes later than the other change; that one stays."""
    quota.account()
    second = Quota.__new__(Quota)
    second.__dict__.update(quota.__dict__)
    second.connect()
    for request, members in [("user.set", {"status": "suspended"}), ("user.delete", {})]:
        quota.ask("user.set", login="web", status="active")
        quota.connection.sendall(json.dumps(
            {"request": "user.set", "login": "web", "password": "fresh"}).encode() + b"\n")
        second.ask(request, login="web", **members)
        answer = json.loads(quota.lines.readline())
        if request == "user.delete":
            assert "deleted meanwhile" in answer["error"] or "no user" in answer["error"]
            with pytest.raises(Refused):
                quota.ask("user.show", login="web")
        else:
            assert answer == {"done": True}
            assert quota.one("user.show", login="web")["status"] == "suspended"
    second.connection.close()


def test_B16_one_smtpd_alone_locks_nobody_out_of_the_others(quota):
    """It may have been taken over: it can name any user and any address."""
    quota.account()
    other = quota.master.peer("smtpd", 1)
    other.expect("ipc_quota_state")

    def guess(channel, password="wrong", client=CLIENT):
        channel.send("ipc_auth_password", tag=quota.next_tag(), client=client, user="web",
                     password=password, flags=1)
        return channel.expect("ipc_auth_result", 30).status
    answers = [guess(other) for _ in range(25)]
    assert answers == 20 * [FAILED] + 5 * [TOO_MANY]
    assert guess(other, "secret") == TOO_MANY
    for client in (CLIENT, b"\x0a\x00\x00\x01"):
        assert guess(quota.smtpd, "secret", client) == OK
    # what both see counts together: half of the limit is that of the other one
    elsewhere = b"\x0a\x00\x00\x02"
    answers = [guess(quota.smtpd, client=elsewhere) for _ in range(12)]
    assert answers == 10 * [FAILED] + 2 * [TOO_MANY]


# ---- a qmgr that was taken over ---------------------------------------------------------------------


def resident(quota):
    """Bytes of its own memory."""
    with open(f"/proc/{quota.master.process.pid}/status", encoding="ascii") as f:
        return next(int(l.split()[1]) * 1024 for l in f if l.startswith("RssAnon:"))


def sanitized():
    with open(os.path.join(BUILD, "bin", "quota"), "rb") as program:
        return b"__asan_init" in program.read()


def test_charges_of_very_many_recipients_are_written_in_parts(quota):
    """More than a batch holds, and more than quota wants to have in memory."""
    quota.account()
    most = math.inf if sanitized() else 60 << 20  # its allocator keeps what is freed
    before = resident(quota)
    ids = [new_id() for _ in range(400)]
    quota.charges([dict(id=i, owner="acme/web", arrival=1, size=1000, recipients=200000,
                        flags=FRESH) for i in ids])
    assert quota.usage()["messages"] == len(ids) * 200000
    assert resident(quota) - before < most
    quota.charges((), [dict(id=i, state=1, recipients=b"") for i in ids])
    assert quota.usage()["delivered"] == len(ids) * 200000
    assert resident(quota) - before < most


def test_charges_whose_recipients_alternate_are_written_in_parts(quota):
    """Such a record has a megabyte, and one frame touches as many as do not fit into a batch."""
    quota.account()
    ids = [new_id() for _ in range(70)]
    quota.charges([dict(id=i, owner="acme/web", arrival=1, size=1, recipients=200000, flags=FRESH)
                   for i in ids])
    parts = [b"".join(n.to_bytes(4, "little") for n in range(at, at + 50000, 2))
             for at in range(0, 200000, 50000)]
    for id in ids:
        for part in parts:
            quota.charges((), [dict(id=id, state=1, recipients=part)], wait=part is parts[-1])
    quota.charges((), [dict(id=i, state=1, recipients=b"\1\0\0\0") for i in ids])
    assert quota.usage()["delivered"] == len(ids) * 100001
    quota.kill()
    quota.__dict__.update(quota.again(PLANS).__dict__)
    assert quota.usage()["delivered"] == len(ids) * 100001
