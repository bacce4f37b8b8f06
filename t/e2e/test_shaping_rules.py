"""What rules of providers.conf do: counting (after, fraction), alerts."""
import pytest

from qmgr_peers import DEFERRED
from test_qmgr_operator import Control
from test_shaping import DOT, MAIL, RCPT, refusal, rules, show

BASE = 'default { start_rate = "100/s" start_connections = 3 connections = 4 }\n'


def start(text, count, **config):
    c = Control(config=config) if config else Control()
    rules(c, BASE + text)
    c.q.wait_log(f"providers.conf: 0 providers, {count} rules")
    return c


@pytest.fixture
def started():
    """Starts qmgr with rules; stops it at the end."""
    running = []

    def begin(*args, **config):
        running.append(start(*args, **config))
        return running[-1]
    yield begin
    for c in running:
        c.stop()


THIRD = """rule third { code = '^4' text = 'slow down' dimension = "rate" action = "slow" outcome = "retry"
  after = 3 within = "1m" matches = {"421 slow down"} }
"""


def refuse(c, text="slow down", **fields):
    """The next delivery is refused at MAIL."""
    job = c.q.job()
    c.q.result(job, scope=1, outcomes=refusal(421, text, MAIL))
    return job


def test_a_rule_acts_from_the_third_time_in_a_minute_on(started):
    """Whose refusal is only counted waits as after any deferral: the lane was not slowed, so
    to be in line again at once would be to knock until the rule acts."""
    c = started(THIRD, 1)
    q = c.q
    for n in range(2):
        id = q.commit([f"a{n}@d.test"])
        if n == 0:
            q.resolved()
        assert refuse(c).id == id.encode()
        q.wait_log(rf"{id}: .*status=deferred")
        assert q.relay.receive(0.2) is None  # it is not tried again at once
        why = c.ask(request="shaping.why", id=id)[0]
        assert why["state"] == "retry" and why["next_in"] > 200
    assert show(c)["events"] == [] and show(c)["rate"] >= 100
    third = q.commit(["a3@d.test"])
    refuse(c)
    q.wait_log("shaping mx.d.test: rate cut: .*rule third")
    assert q.job().id == third.encode()  # the lane was told: it waits there, for its rate


SENDERS = """rule sender { code = '^4' text = 'your account' scope = "account" action = "suspend" for = "1h"
  outcome = "retry" after = 3 within = "1m" matches = {"421 your account"} }
"""


def test_who_is_refused_for_the_third_time_is_suspended_and_not_who_comes_third(started):
    c = started(SENDERS, 1)
    q = c.q
    for n, account in enumerate(["shop", "shop", "bank", "shop"]):
        id = q.commit([f"a{n}@d.test"], account=account)
        if n == 0:
            q.resolved()
        job = q.job()
        assert job.id == id.encode() and q.count("suspended for 3600") == 0
        q.result(job, scope=1, outcomes=refusal(421, "your account is too fast", MAIL))
        q.wait_log(rf"{id}: .*status=deferred")
    q.wait_log("shaping mx.d.test: account shop suspended for 3600.0s, rule sender")
    good = q.commit(["b@d.test"], account="bank")
    assert q.job().id == good.encode()


FRACTION = """rule part { code = '^4' text = 'hm' stage = {"dot"} dimension = "rate" action = "slow" outcome = "retry"
  fraction = 0.3 samples = 10 matches = {"452 hm"} }
"""


@pytest.mark.parametrize("every, acts", [(2, True), (5, False)])
def test_a_rule_acts_where_a_fraction_of_enough_attempts_is_refused(started, every, acts):
    c = started(FRACTION, 1)
    q = c.q
    for n in range(24):
        q.commit([f"a{n}@d.test"])
        if n == 0:
            q.resolved()
        refused = n % every == 0
        job = q.job()
        q.result(job, **(dict(outcomes=refusal(452, "hm", DOT)) if refused else {}))
        q.wait_log(rf"to=<a{n}@d.test>.*status=")
        if q.count("rate cut"):
            break
    if acts:
        q.wait_log("shaping mx.d.test: rate cut: .*rule part")
        assert n >= 8  # ten attempts, from the first refusal on
    else:
        assert show(c)["events"] == []


ALERTS = """rule look { code = '^5' text = 'look here' scope = "recipient" alert = true matches = {"550 look here"} }
rule there { code = '^5' text = 'look there' scope = "recipient" alert = true matches = {"550 look there"} }
"""


def test_an_alert_is_mailed_to_the_operator_once_an_event(started):
    """Two events in turn, ten times: one line in the log for each, and one mail with both."""
    c = started(ALERTS, 2, error_notice_recipient="root@ops.test")
    q = c.q
    for n in range(10):
        q.commit([f"a{n}@d.test"])
        if n == 0:
            q.resolved()
        words = "look here \x1b[2J" if n % 2 else "look there"
        q.result(q.job(), outcomes=refusal(550, words, RCPT, DEFERRED))
    q.wait_log(r"warning: mx.d.test: says something that needs attention \(rule there, a.conf:3\): 550 look there")
    ask = q.resolve.expect("ipc_resolve_request", 60)  # half a minute later
    assert ask.recipient == b"root@ops.test"
    q.resolve.send("ipc_resolve_reply", tag=ask.tag, status=0, scope=0, ttl=300, transport=0, nexthop=b"ops.test",
                   site=b"mx.ops.test", targets=[dict(host="mx.ops.test", address=b"\x7f\x01\x01\x01", port=25,
                                                      preference=10)])
    job = q.job()
    while job.sender:  # those that are tried again
        job = q.job()
    mail = job.prefix + job.body
    assert [r.address for r in job.recipients] == [b"root@ops.test"]
    assert b"Auto-Submitted: auto-generated" in mail and b"\x1b" not in mail
    assert mail.count(b"550 look there") == 1 and mail.count(b"550 look here") == 1
    assert q.count("rule look, a.conf:2") == q.count("rule there, a.conf:3") == 1
