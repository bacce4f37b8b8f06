"""What brakes on one sender do to mail that waits behind them, for how long, and what is
left of them after restarts, set clocks, changed addresses and full disks."""
import os

import pytest

import faults as fault_points
from postern import wait_until
from qmgr_peers import checksum
from test_qmgr_operator import Ahead, Control
from test_shaping import MAIL, refusal, rules, show
from test_shaping_memory import Again, place  # noqa: F401 pylint: disable=unused-import

pytestmark = pytest.mark.skipif(not fault_points.available(), reason="built without fault points")

HOUR, YEAR = 3600, 365 * 86400
RULES = """
default { start_rate = "100/s" start_connections = 3 connections = 4 }
rule away { text = 'go away' scope = "account" action = "suspend" for = "10h"
  outcome = "retry" matches = {"451 go away"} }
rule slow { text = 'too fast' scope = "account" dimension = "rate" action = "set"
  value = "1/s" outcome = "retry" matches = {"451 too fast"} }
rule domain-slow { text = 'domain' scope = "dkim" dimension = "rate" action = "set"
  value = "1/s" outcome = "retry" matches = {"421 domain"} }
rule domain-away { text = 'unwanted' scope = "dkim" action = "suspend" for = "1h"
  outcome = "retry" matches = {"421 unwanted"} }
"""


@pytest.fixture
def c(place):
    ahead = Ahead(place)
    control = Control(ahead=ahead)
    control.faults = ahead.faults
    rules(control, RULES)
    control.q.wait_log("providers.conf: 0 providers, 4 rules")
    yield control
    control.stop()


def later(c, seconds):
    """The monotonic clock goes on; returns when qmgr has seen it."""
    if c.q.ahead:
        c.q.ahead.move(seconds)
        return
    c.past = getattr(c, "past", 0) + seconds
    c.faults.clear()
    c.faults.shift("mono", c.past)
    c.ask(request="shaping.list")


def refuse(c, text, code=451, **fields):
    """A first message, refused with that text; it is in line again."""
    id = c.q.commit(["a@d.test"], **fields)
    c.q.resolved(ttl=10 ** 8)
    c.q.result(c.q.job(), scope=1, outcomes=refusal(code, text, MAIL))
    return id


def act(c, action, **more):
    return c.ask(request="shaping.act", action=action, **{"destination": "d.test", **more})[-1]


def brake(c):
    (found,) = show(c)["brakes"]
    return found


def test_a_slowed_senders_mail_goes_when_the_brake_is_off(c):
    """However much of it there is: it has its place in line, not a time in some days."""
    q = c.q
    ids = [refuse(c, "too fast", account="shop")]
    q.wait_log("account shop slowed to 1.000/s")
    ids += [q.commit(["a@d.test"], account="shop") for _ in range(300)]
    wait_until(lambda: brake(c).get("in_line", 0) > 295, 10, "messages in the brake's line")
    later(c, 300)  # all of it at the rate: the first, and what two seconds allow at once
    why = c.ask(request="shaping.why", id=ids[-1])[0]
    assert "sender is slowed down" in why["waits"] and why["before_it"] > 290
    assert why["brake"]["in_line"] > 290
    later(c, HOUR)  # nothing was refused since
    got = set()
    while len(got) < len(ids):
        job = q.job()
        got.add(job.id.decode())
        q.result(job)
    assert got == set(ids)
    q.wait_log("account shop is not slowed any more")


def test_old_mail_goes_before_new(c):
    q = c.q
    old = [refuse(c, "too fast", account="shop")]
    q.wait_log("account shop slowed")
    old += [q.commit(["a@d.test"], account="shop") for _ in range(2)]
    wait_until(lambda: brake(c).get("in_line") == 3, 10, "three in line")
    fresh = q.commit(["a@d.test"], account="shop")
    order = []
    while fresh not in order:
        job = q.job()
        order.append(job.id.decode())
        q.result(job)
    assert order == old + [fresh]


def test_mail_in_a_brakes_line_expires_and_warns(c):
    q = c.q
    first = refuse(c, "too fast", account="shop")
    q.wait_log("account shop slowed")
    waits = q.commit(["a@d.test"], account="shop")
    wait_until(lambda: brake(c).get("in_line") == 2, 10, "two in line")
    act(c, "suspend", account="shop", reason="x")  # so that nothing of it goes
    q.wait_log(f"{waits}: .*suspended for account shop: by the operator: x")
    later(c, 6 * 86400)
    q.resolved()
    q.wait_log(f"{waits}: from=<s@client.test>, status=expired", 20)
    assert first


def test_an_ended_suspension_hides_no_slower_rate(c):
    q = c.q
    refuse(c, "domain", 421, account="shop", signer="news.test")
    q.wait_log("domain news.test slowed to 1.000/s")
    q.result(q.job())
    act(c, "suspend", account="shop", seconds=5)
    later(c, 6)
    ids = [q.commit(["a@d.test"], account="shop", signer="news.test") for _ in range(4)]
    why = c.ask(request="shaping.why", id=ids[-1])[0]
    assert why["brake"]["who"] == "news.test" and why["brake"]["rate"] == 1


def test_an_ended_suspension_by_hand_silences_no_rule(c):
    q = c.q
    q.commit(["a@d.test"], account="bank")
    q.resolved(ttl=10 ** 8)
    q.result(q.job())
    act(c, "suspend", account="shop", seconds=5)
    later(c, 6)
    q.commit(["a@d.test"], account="shop")
    q.result(q.job(), scope=1, outcomes=refusal(451, "too fast", MAIL))
    q.wait_log("account shop slowed to 1.000/s")


def test_suspensions_grow_up_to_a_day_and_one_message_tries(c):
    """10, 20 and then 24 hours; at the end of each one message goes, alone."""
    q = c.q
    refuse(c, "go away", account="shop")
    q.commit(["a@d.test"], account="shop")
    for hours, ask in ((10, False), (20, True), (24, True), (24, True)):
        wait_until(lambda h=hours: brake(c).get("suspended_for", 0) > (h - 0.1) * HOUR, 10, f"{hours} hours")
        later(c, hours * HOUR + 1)
        later(c, 5000)  # what was deferred has come back
        if ask:
            q.resolved(ttl=10 ** 8)
        job = q.job()
        wait_until(lambda: brake(c).get("in_line") == 1, 10, "the other one in line")
        assert brake(c)["probing"]
        q.result(job, scope=1, outcomes=refusal(451, "go away", MAIL))
    wait_until(lambda: brake(c).get("suspended_for", 0) > 23 * HOUR, 10, "a day")
    later(c, 24 * HOUR + 1)
    later(c, 5000)
    q.resolved(ttl=10 ** 8)
    q.result(q.job())
    q.wait_log("suspension of account shop is over: a message was taken; now ")
    q.result(q.job())


def test_a_reason_is_kept_whole_or_refused(place):
    reason = "x" * 298 + "é"
    first = Again(place)
    q = first.q
    assert "at most 300 bytes" in act(first, "suspend", account="shop", reason=reason + "x")["error"]
    first.ask(request="shaping.act", action="suspend", destination="all", account="shop", reason=reason)
    first.end()
    second = Again(place)
    q = second.q
    id = q.commit(["b@d.test"], account="shop")
    q.resolved(ttl=10 ** 8)
    q.wait_log(rf"{id}: .*suspended for account shop: by the operator: {'x' * 298}")
    assert show(second)["brakes"][0]["reason"] == reason
    second.end()


def test_no_suspension_is_dropped_for_its_words(place):
    """A file of before, with a reason that was cut in a letter."""
    text = ('{"kind":"account","place":"","name":"all destinations","who":"shop","reason":"%s",'
            '"by_hand":true,"until":0}\n' % ("x" * 299 + "\ufffd\ufffd")).encode()
    os.makedirs(os.path.join(place, "spool"), exist_ok=True)
    with open(os.path.join(place, "spool", "shaping.brakes"), "wb") as f:
        f.write(text + b"sum %016x\n" % checksum(text))
    c = Again(place)
    id = c.q.commit(["b@d.test"], account="shop")
    c.q.resolved(ttl=10 ** 8)
    c.q.wait_log(rf"{id}: .*suspended for account shop: by the operator: xxx")
    c.end()


def test_F21_a_file_that_could_not_be_written_is_written_later(c):
    """Else a restart would forget the suspension."""
    file = os.path.join(c.q.directory, "spool", "shaping.brakes")
    os.mkdir(file + ".new")
    c.ask(request="shaping.act", action="suspend", destination="all", account="shop")
    c.q.wait_log("shaping.brakes: cannot be written, and is behind")
    os.rmdir(file + ".new")
    later(c, 11)
    wait_until(lambda: os.path.exists(file), 10, "the file")
    with open(file, "rb") as f:
        assert b'"shop"' in f.read()


def test_other_addresses_of_the_destination(c):
    """Others in DNS: it is the same place to suspend at."""
    q = c.q
    q.commit(["a@d.test"], account="bank")
    q.resolved(ttl=1)
    q.result(q.job())
    act(c, "suspend", account="shop", reason="x")
    later(c, 400)
    q.commit(["a@d.test"], account="bank")
    q.resolved(targets=[dict(host="mx.d.test", address=b"\x7f\x09\x09\x09", port=25, preference=10)])
    q.result(q.job())
    id = q.commit(["a@d.test"], account="shop")
    q.wait_log(rf"{id}: .*suspended for account shop: by the operator: x")
    assert "error" not in act(c, "resume", account="shop")


def test_resume_where_no_mail_has_been(place):
    first = Again(place)
    q = first.q
    q.commit(["a@d.test"], account="bank")
    q.resolved(ttl=10 ** 8)
    q.result(q.job())
    act(first, "suspend", account="shop", destination="d.test")
    first.end()
    second = Again(place)
    error = act(second, "resume", account="shop", destination="mx.d.test")["error"]
    assert "suspended by hand at d.test: 'postern shaping resume d.test --account shop'" in error
    done = act(second, "resume", account="shop", destination="d.test")
    assert "error" not in done
    id = second.q.commit(["a@d.test"], account="shop")
    second.q.resolved()
    job = second.q.job()
    assert job.id == id.encode()
    second.q.result(job)
    second.end()


@pytest.mark.parametrize("seconds", [10 * YEAR, -YEAR])
def test_F30_F31_the_clock_is_set(c, seconds):
    """A suspension by hand neither ends nor becomes longer by it, and mail looks after its age."""
    q = c.q
    act(c, "suspend", destination="all", account="shop", seconds=HOUR)
    c.faults.shift("wall", seconds)
    id = q.commit(["a@d.test"], account="shop")
    q.resolved(ttl=10 ** 8)
    q.wait_log(rf"{id}: .*suspended for account shop")
    assert 3000 < brake(c)["suspended_for"] <= HOUR
    next_in = c.ask(request="shaping.why", id=id)[0]["next_in"]
    assert 0 < next_in < 4500


def test_mail_comes_back_to_see_whether_it_is_still_suspended(c):
    """For good by hand, and resumed: it is sent soon, not in a year."""
    q = c.q
    act(c, "suspend", destination="all", account="shop")
    id = q.commit(["a@d.test"], account="shop")
    q.resolved(ttl=10 ** 8)
    q.wait_log(rf"{id}: .*suspended for account shop")
    act(c, "resume", destination="all", account="shop")
    later(c, 5000)
    assert q.job().id == id.encode()


def test_the_same_for_a_destination(c):
    q = c.q
    q.commit(["a@d.test"])
    q.resolved(ttl=10 ** 8)
    q.result(q.job())
    act(c, "suspend")
    id = q.commit(["b@d.test"])
    q.wait_log(rf"{id}: .*suspended: by the operator")
    act(c, "resume")
    later(c, 5000)
    assert q.job().id == id.encode()


def test_the_operator_has_places_of_its_own(c):
    """However many senders rules speak of."""
    q = c.q
    for i in range(1001):
        q.commit(["a@d.test"], account="shop", signer=f"d{i}.test")
        if i == 0:
            q.resolved(ttl=10 ** 8)
        q.result(q.job(), scope=1, outcomes=refusal(421, "unwanted", MAIL))
    q.wait_log("mx.d.test: a sender is not slowed down alone: too many are already")
    assert "error" not in act(c, "suspend", account="other")
    for i in range(2999):
        assert "error" not in act(c, "suspend", destination="all", account=f"a{i}"), i
    error = act(c, "suspend", destination="all", account="one-more")["error"]
    assert error.startswith("There are too many suspensions")


def test_a_domain_in_capitals(c):
    q = c.q
    act(c, "suspend", destination="all", domain="News.Test", reason="x")
    id = q.commit(["a@d.test"], account="shop", signer="news.test")
    q.resolved(ttl=10 ** 8)
    q.wait_log(rf"{id}: .*suspended for domain news.test: by the operator: x")
