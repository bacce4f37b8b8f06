"""Shaping as the operator sees it: rules that act on replies, limits and causes that can
be asked for, suspension by hand, and rule files that are wrong."""
import os
import signal
import subprocess
import time

import pytest

from ipc import as_bytes
from postern import BIN, Postern, wait_until
from qmgr_peers import DEFERRED, FAILED, new_id
from test_qmgr_operator import Control

RULES = """
default { start_rate = "100/s" start_connections = 3 connections = 4 }
rule too-fast { code = '^4' text = 'slow down' dimension = "rate" action = "slow" outcome = "retry"
  matches = {"421 4.7.0 slow down"} }
rule blocked { code = '^5' text = 'blocked' stage = {"mail"} action = "suspend" for = "2h"
  outcome = "retry" matches = {"550 5.7.1 blocked"} }
"""
GREETING, MAIL, RCPT, DOT = 2, 6, 7, 9


def rules(c, text=RULES):
    c.q.master.table("provider_config_file", 0, "a.conf", b"%d a.conf\n" % len(text) + as_bytes(text))


@pytest.fixture
def c():
    c = Control()
    rules(c)
    c.q.wait_log("providers.conf: 0 providers, 2 rules")
    yield c
    c.stop()


def refusal(code, text, stage, status=DEFERRED, local=0):
    return dict(status=status, code=code, enhanced="", text=text, stage=stage, local=local)


def test_a_refusal_slows_and_the_message_stays_in_line(c):
    q = c.q
    id = q.commit(["a@d.test"])
    q.resolved()
    job = q.job()
    q.result(job, outcomes=refusal(421, "4.7.0 slow down", MAIL), scope=2)
    q.wait_log(r"shaping mx.d.test: rate cut: .* rule too-fast \(a.conf:3\): .*slow down")
    assert q.job().id == id.encode()  # at once, not after minimal_backoff_time
    lane = c.ask(request="shaping.show", destination="d.test")[0]
    assert lane["rate"] < 100 and lane["concurrency"] == 3
    assert lane["events"][-1]["rule"] == "too-fast" and lane["events"][-1]["where"] == "a.conf:3"
    assert "slow down" in lane["last_refusal"]


def test_a_few_that_are_let_in_keep_the_destination_open(c):
    """A server that serves one at a time and drops the others without a word, met for the first
    time by three."""
    q = c.q
    for n in range(3):
        q.commit([f"a{n}@d.test"])
    q.resolved()
    jobs = [q.job() for _ in range(3)]
    for job in jobs[:2]:
        q.result(job, outcomes=refusal(0, "lost connection while receiving the greeting", GREETING, local=1), scope=2,
                 use_count=0)
    wait_until(lambda: c.ask(request="shaping.show", destination="d.test")[0]["in_flight"] == 1, 10, "two results")
    lane = c.ask(request="shaping.show", destination="d.test")[0]
    assert lane["queued"] == 2, lane  # in line again, not put off
    q.result(jobs[2])
    dropped = {job.id for job in jobs[:2]}
    for _ in range(2):  # at once, and one after the other
        job = q.job()
        dropped.remove(job.id)
        lane = c.ask(request="shaping.show", destination="d.test")[0]
        assert lane["concurrency"] == 1 and lane["in_flight"] == 1, lane
        q.result(job)


def test_nobody_let_in_suspends_the_destination(c):
    q = c.q
    for n in range(3):
        q.commit([f"a{n}@d.test"])
    q.resolved()
    for job in [q.job() for _ in range(3)]:
        q.result(job, outcomes=refusal(0, "lost connection while receiving the greeting", GREETING, local=1), scope=2,
                 use_count=0)
    wait_until(lambda: c.ask(request="shaping.show", destination="d.test")[0]["state"].endswith("cannot be reached"), 10,
               "the suspension")
    wait_until(lambda: c.ask(request="shaping.show", destination="d.test")[0]["queued"] == 0, 10, "all are deferred")


def test_words_of_our_own_match_no_rule(c):
    q = c.q
    q.commit(["a@d.test"])
    q.resolved()
    q.result(q.job(), outcomes=refusal(0, "lost connection: slow down", DOT, local=1), scope=1)
    q.wait_log("status=deferred")
    assert c.ask(request="shaping.show", destination="d.test")[0]["events"] == []


def test_many_replies_about_mailboxes_do_not_slow_the_site(c):
    """Greylisting in words that no rule knows: with pauses before the whole site, each
    for one message, hundreds of first attempts would take days."""
    q = c.q
    for i in range(40):
        q.commit([f"a{i}@d.test"])
        if i == 0:
            q.resolved()
        q.result(q.job(), outcomes=dict(refusal(450, "4.2.0 come again", RCPT), enhanced="4.2.0"))
    lane = c.ask(request="shaping.show", destination="d.test")[0]
    assert lane["events"] == [] and not lane["suspended"], lane


def test_a_block_returns_no_mail(c):
    q = c.q
    id = q.commit(["a@d.test"])
    q.resolved()
    q.result(q.job(), outcomes=refusal(550, "5.7.1 blocked", MAIL, FAILED), scope=1)
    q.wait_log(rf"{id}: to=<a@d.test>, .*status=deferred")
    assert q.bounce.receive(0.2) is None
    lane = c.ask(request="shaping.show", destination="d.test")[0]
    assert lane["suspended"] and 7000 < lane["suspended_for"] <= 7200


def test_suspend_and_resume_by_hand(c):
    q = c.q
    q.commit(["a@d.test"])
    q.resolved()
    q.result(q.job())
    lane = c.ask(request="shaping.act", action="suspend", destination="d.test", seconds=3600,
                 reason="a test")[0]
    assert lane["state"] == "suspended by hand"
    id = q.commit(["b@d.test"])
    q.wait_log(rf"{id}: .*status=deferred \(delivery temporarily suspended: by the operator: a test\)")
    assert "by the operator" in c.ask(request="shaping.why", id=id)[0]["because"]
    c.ask(request="shaping.act", action="resume", destination="d.test")
    assert q.job().id == id.encode()


def test_set_reset_and_what_is_not_there(c):
    q = c.q
    q.commit(["a@d.test"])
    q.resolved()
    q.result(q.job())
    assert c.ask(request="shaping.act", action="set", destination="mx.d.test", rate=5)[0]["rate"] == 5
    for wrong in ({"rate": 1e-9}, {"rate": 2e6}, {"rate": -1}, {"rate": "5"}, {"connections": 0.4},
                  {"connections": 2000000}, {"messages": 1.5}):
        answer = c.ask(request="shaping.act", action="set", destination="mx.d.test", **wrong)
        assert "whole numbers from 1 to 10000" in answer[-1].get("error", ""), (wrong, answer)
    assert c.ask(request="shaping.show", destination="mx.d.test")[0]["rate"] == 5
    assert c.ask(request="shaping.act", action="reset", destination="mx.d.test")[0]["rate"] == 100
    assert "error" in c.ask(request="shaping.act", action="shake", destination="mx.d.test")[-1]
    assert "There is no destination" in c.ask(request="shaping.show", destination="x.test")[-1]["error"]
    assert "no such message" in c.ask(request="shaping.why", id=new_id())[-1]["error"]


def test_a_bad_set_of_rules_leaves_the_old_one(c):
    rules(c, "rule x { text = '(' matches = {\"421 x\"} }")
    c.q.wait_log(r"the rules stay as they are: a.conf:1: ")
    test_a_refusal_slows_and_the_message_stays_in_line(c)


def test_senders_share_a_slow_destination(c):
    """A bulk sender's queue does not stand before another sender's message."""
    q = c.q
    many = [q.commit(["a@d.test"], sender="news@bulk.test") for _ in range(20)]
    q.resolved()
    under_way = [q.job() for _ in range(3)]
    one = q.commit(["b@d.test"], sender="hello@small.test")
    for job in under_way:
        q.result(job)
    next_ones = [q.job().id.decode() for _ in range(3)]
    assert one in next_ones, (one, next_ones, many)


def test_numbers_by_hand_are_looked_at_before_they_are_sent(tmp_path):
    p = Postern(str(tmp_path), start=False)
    for wrong in (("--connections", "0.4"), ("--connections", "2000000"), ("--messages", "0"),
                  ("--rate", "1e-9"), ("--rate", "0.01/d"), ("--rate", "-5"), ("--rate", "nan")):
        done = p.ctl("shaping", "set", "d.test", *wrong, check=False)
        assert done.returncode == 2 and f"{wrong[0]} takes " in done.stderr, (wrong, done)


def test_what_the_server_announces_is_shown(c):
    """LIMITS MAILMAX (RFC 9422): relay obeys it, show says so."""
    q = c.q
    q.commit(["a@d.test"])
    q.resolved()
    q.result(q.job(), mail_max=3)
    learned = c.ask(request="shaping.show", destination="mx.d.test")[0]["learned"]
    assert learned["messages_announced"] == 3
    q.commit(["b@d.test"])
    q.result(q.job(), mail_max=0)
    learned = c.ask(request="shaping.show", destination="mx.d.test")[0]["learned"]
    assert "messages_announced" not in learned


def test_master_refuses_bad_rules_and_the_command_tells_where(tmp_path):
    good, bad = tmp_path / "good.conf", tmp_path / "bad.conf"
    good.write_text(RULES)
    bad.write_text(RULES + "\nrule y { text = 'y' matches = {\"421 x\"} }\n")
    p = Postern(str(tmp_path / "relay"), start=False, provider_config_file=str(good))
    assert "2 rules, 0 errors" in p.ctl("provider", "check")
    tried = p.ctl("provider", "test", str(bad), check=False)
    assert tried.returncode == 1 and "bad.conf:8: rule y: does not match its sample" in tried.stdout
    p.write_config(provider_config_file=str(bad))

    def refused():
        done = subprocess.run([os.path.join(BIN, "master"), "-t", "-c", p.directory], check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode != 0, done.stdout
        return done.stdout

    assert "bad.conf:8: rule y: does not match its sample: 421 x" in refused()
    bad.write_text("default { conections = 3 }\n")
    assert "bad.conf:1: " in refused()


def test_a_bad_sample_is_refused_on_reload_as_at_start(tmp_path):
    """The rules in use stay, and the log says where the mistake is."""
    file = tmp_path / "p.conf"
    file.write_text(RULES)
    with Postern(str(tmp_path / "relay"), provider_config_file=str(file)) as p:
        p.wait_log("2 rules")
        file.write_text(RULES + "\nrule y { text = 'y' matches = {\"421 x\"} }\n")
        p.ctl("reload", check=False)
        p.process.send_signal(signal.SIGHUP)  # whatever the command says beforehand
        p.wait_log("reload: .*p.conf:8: rule y: does not match its sample: 421 x")
        assert "3 rules" not in p.log()


GREY = """
rule greylisted { code = '^4' text = 'greylisted' stage = {"rcpt"} scope = "recipient" greylist = true
  retry_after = "2s" matches = {"450 greylisted"} }
"""


def wait_for(c, id):
    """Seconds until the next attempt of a message's recipient, as the operator sees it."""
    return c.ask(request="shaping.why", id=id)[0]["next_in"]


def test_greylisting_is_learned_and_not_hammered(c):
    """The second recipient is not tried before the age at which the first one was taken; who
    is due goes before new mail."""
    q = c.q
    rules(c, RULES.replace("start_connections = 3 connections = 4", "connections = 1") + GREY)
    q.wait_log("providers.conf: 0 providers, 3 rules")
    began = time.monotonic()  # ages are compared with our own clock: a busy machine is late
    first = q.commit(["a@d.test"])
    q.resolved()
    for _ in range(2):  # refused at once, and after two seconds
        job = q.job()
        assert job.id == first.encode()
        q.result(job, outcomes=refusal(450, "greylisted", RCPT))
    asked = time.monotonic()
    second = q.commit(["b@d.test"])
    job = q.job()
    refused = time.monotonic() - began
    assert job.id == second.encode()
    q.result(job, outcomes=refusal(450, "greylisted", RCPT))
    q.wait_log(rf"{second}: to=<b@d.test>, .*status=deferred")
    left = wait_for(c, second)
    assert left + time.monotonic() - asked > 2.5  # two seconds are known to be in vain
    lane = c.ask(request="shaping.show", destination="d.test")[0]
    assert lane["rate"] >= 100 and not lane["events"]  # says nothing about the destination
    job = q.job()
    assert job.id == first.encode()
    new = [q.commit([f"c{n}@d.test"]) for n in range(3)]
    wait_until(lambda: "in line" in c.ask(request="shaping.why", id=second)[0]["waits"], 20,
               "the second message's time")
    q.result(job)
    assert q.job().id == second.encode(), new  # though the others were in line before
    lane = c.ask(request="shaping.show", destination="d.test")[0]
    learned, passed = lane["learned"], time.monotonic() - began
    assert 2 < learned["greylist_refused"] < refused + 1
    assert learned["greylist_refused"] + 1.5 <= learned["greylist_passed"] < passed + 1


def test_what_nobody_understands_may_be_greylisting(c):
    """Temporary refusals of recipients that no rule knows: those that are tried again go
    first, and when they are taken it is not a matter of the rate."""
    q = c.q
    rules(c, RULES)
    ids = []
    for n in range(3):
        ids.append(q.commit([f"a{n}@d.test"]))
        if n == 0:
            q.resolved()
        q.result(q.job(), outcomes=refusal(450, "who are you", RCPT))
    for id in ids:
        q.wait_log(rf"{id}: .*status=deferred")
        c.act("flush", id)
        q.result(q.job())
        q.wait_log(rf"{id}: .*status=sent")
    for n in range(40):
        id = q.commit([f"b{n}@d.test"])
        job = None
        while not job or job.id != id.encode():  # earlier ones are tried again meanwhile
            job = q.job()
            q.result(job, outcomes=refusal(450, "who are you", RCPT))
        q.wait_log(rf"{id}: .*status=deferred")
    lane = c.ask(request="shaping.show", destination="d.test")[0]
    assert lane["rate"] >= 100 and not lane["events"]


NONE, MAY, ENCRYPT, SECURE = 0, 1, 2, 6
CONFIG, TABLE = 0, 1


def levels(job):
    return {(r.host, r.level) for r in job.tls}


@pytest.mark.parametrize("wish, rules_before, after", [
    ("encrypt", [], {(b"", ENCRYPT)}),
    ("encrypt", [dict(level=MAY, origin=CONFIG)], {(b"", ENCRYPT)}),
    ("encrypt", [dict(level=MAY, origin=TABLE)], {(b"", MAY)}),
    ("encrypt", [dict(level=SECURE, origin=CONFIG)], {(b"", SECURE)}),
    ("encrypt", [dict(host="mx.d.test", level=MAY, origin=CONFIG)], {(b"mx.d.test", ENCRYPT), (b"", ENCRYPT)}),
    ("may", [], {(b"", MAY)}),
    ("none", [dict(level=MAY, origin=CONFIG)], {(b"", NONE)}),
    ("none", [dict(level=ENCRYPT, origin=CONFIG)], {(b"", ENCRYPT)}),
])
def test_what_is_configured_reaches_the_connections(c, wish, rules_before, after):
    q = c.q
    rules(c, RULES + 'domain d.test { tls = "%s" recipients_per_message = 7 idle_time = "1500ms" '
                     'messages_per_connection = 9 }\n' % wish)
    wait_until(lambda: q.log().count("providers.conf: 0 providers") == 2, 10, "the rules")
    q.commit(["a@d.test"])
    q.resolved(tls=rules_before)
    job = q.job()
    assert (job.recipients_max, job.idle_seconds, job.session_messages) == (7, 2, 9)
    assert levels(job) == after


# ---- new connections, early signs, what nobody understands ------------------------------

NO_CONNECTION = 4  # enum failure_scope
LOST = 2           # enum connection_change


def show(c, name="d.test"):
    return c.ask(request="shaping.show", destination=name)[0]


def test_new_connections_are_limited(c):
    """Without a token a delivery may only use a connection that is open; while there is none
    it waits. If that one is gone meanwhile it is in line again, as the first."""
    q = c.q
    rules(c, RULES + 'domain d.test { connection_rate = "2/min" }\n')
    wait_until(lambda: q.log().count("providers.conf: 0 providers") == 2, 10, "the rules")
    ids = [q.commit([f"a{n}@d.test"]) for n in range(3)]
    q.resolved()
    first = q.job()
    assert first.reuse_only == 0
    assert q.relay.receive(0.1) is None  # nothing is sent that cannot go
    wait_until(lambda: "new connection" in show(c)["state"], 10, "the reason")
    assert 0 < show(c)["next_in"] <= 30
    q.result(first, connections=1, use_count=1, opened=1)  # its connection stays
    second = q.job()
    assert (second.id, second.reuse_only) == (ids[1].encode(), 1)
    assert q.relay.receive(0.1) is None  # one connection, one delivery
    q.result(second, scope=NO_CONNECTION, outcomes=refusal(0, "none", 1, local=1))
    assert q.relay.receive(0.1) is None
    q.relay.send("ipc_connection", lane=second.lane, change=LOST)
    assert q.relay.receive(0.1) is None
    rules(c, RULES + 'domain d.test { connection_rate = "600/min" }\n')
    again = q.job()
    assert (again.id, again.reuse_only) == (ids[1].encode(), 0)
    q.result(again, connections=1, opened=1)
    third = q.job()
    assert third.id == ids[2].encode()
    q.result(third, use_count=3)
    for id in ids:
        q.wait_log(rf"{id}: .*status=sent")
    assert show(c)["configured"]["connection_rate"] == 10


def test_a_peer_that_claims_not_to_have_tried_is_checked(c):
    q = c.q
    q.commit(["a@d.test"])
    q.resolved()
    q.result(q.job(), scope=NO_CONNECTION, outcomes=refusal(0, "none", 1, local=1))
    q.wait_log("RESULT: not tried, of a job that may open a connection")


def test_an_answer_of_a_job_that_was_not_tried_is_not_taken(c):
    q = c.q
    rules(c, RULES + 'domain d.test { connection_rate = "2/min" }\n')
    wait_until(lambda: q.log().count("providers.conf: 0 providers") == 2, 10, "the rules")
    for n in range(2):
        q.commit([f"a{n}@d.test"])
    q.resolved()
    q.result(q.job(), connections=1, opened=1)
    q.result(q.job(), scope=NO_CONNECTION)
    q.wait_log("RESULT: not tried, though recipient 0 has an answer")


def test_connections_that_nobody_can_have_opened(c):
    q = c.q
    q.commit(["a@d.test"])
    q.resolved()
    q.result(q.job(), connections=1 << 31)
    q.wait_log("RESULT: 2147483648 connections for one job")


def test_a_rule_learns_the_rate_of_connections(c):
    q = c.q
    rules(c, RULES + """rule too-often { text = 'too often' dimension = "connection_rate"
        action = "slow" outcome = "retry" matches = {"421 you connect too often"} }""")
    q.wait_log("providers.conf: 0 providers, 3 rules")
    q.commit(["a@d.test"])
    q.resolved()
    q.result(q.job(), scope=2, connections=1, outcomes=refusal(421, "you connect too often", 2))
    q.wait_log("shaping mx.d.test: new connections cut: .*rule too-often")
    lane = show(c)
    assert lane["learned"]["connection_rate"] > 0 and lane["rate"] == 100, lane
    assert lane["concurrency"] == 3


def test_large_messages_are_no_sign_of_a_slow_server(c):
    """How long a message takes is a matter of its size; how long a command of its envelope
    takes is the server's."""
    q = c.q
    for n in range(60):
        q.commit([f"a{n}@d.test"])
        if n == 0:
            q.resolved()
        large, slow = n >= 15, n >= 40
        q.result(q.job(), transfer_us=20000000 if large else 50000, reply_us=3000000 if slow else 20000)
        if n == 39:
            q.wait_log("a39@d.test.*status=sent")
            assert not show(c)["strained"] and show(c)["events"] == []
    q.wait_log(r"shaping mx.d.test: it takes long to answer: no growth: 0.0\d -> ")


def test_slow_greetings_hold_growth_and_refuse_nothing(c):
    q = c.q
    usual, slow = dict(use_count=1, connections=1, greeting_us=20000, transfer_us=50000), 3000000
    for n in range(30):
        q.commit([f"a{n}@d.test"])
        if n == 0:
            q.resolved()
        q.result(q.job(), **(usual if n < 15 else dict(usual, greeting_us=slow)))
    q.wait_log(r"shaping mx.d.test: it takes long to answer: no growth: 0.0\d -> ")
    lane = show(c)
    assert lane["strained"] and lane["greeting_seconds"]["now"] > 0.5 > lane["greeting_seconds"]["usual"]
    assert not lane["suspended"] and lane["rate"] >= 100
    assert "long to answer" in lane["state"] or "rate" in lane["state"]


def test_a_limit_at_the_dot_in_unknown_words_is_the_rate(c):
    """Some are taken, others not, whoever the recipient is: an experiment tells."""
    q = c.q
    cut = r"shaping mx.d.test: rate cut: .*hm"
    for n in range(40):
        q.commit([f"a{n}@d.test"])
        if n == 0:
            q.resolved()
        job = q.job()
        if n % 2 and n > 8:
            q.result(job, outcomes=refusal(452, "4.3.1 hm", DOT), use_count=n + 1, taken_count=n // 2)
        else:
            q.result(job, use_count=n + 1, taken_count=n // 2)
        if q.count(cut):
            break
    q.wait_log(cut)
    assert show(c)["rate"] < 100


def test_a_connection_that_has_had_enough_at_MAIL(c):
    """Refused twice after as many messages, without a 421: not the rate but the connection."""
    q = c.q
    for n in range(2):
        id = q.commit([f"a{n}@d.test"])
        if n == 0:
            q.resolved()
        q.result(q.job(), outcomes=refusal(451, "enough", MAIL), scope=1, use_count=16, taken_count=15)
        q.wait_log(rf"{id}: .*status=deferred")
        c.act("flush", id)
        again = q.job()
        assert again.id == id.encode()
        q.result(again)
    q.wait_log("shaping mx.d.test: messages per connection cut: .* -> 15.00: .*enough")
    assert show(c)["learned"]["messages_per_connection"] == 15


# ---- classes, and the share of one account ------------------------------------------------

NORMAL, TRANSACTIONAL, BULK = 0, 1, 2  # enum mail_class


def order_of(c, jobs):
    """The class of each message, as they are delivered one after the other."""
    q, classes = c.q, []
    for _ in range(jobs):
        job = q.job()
        classes.append(job.sender.split(b"@")[0])
        q.result(job)
    return classes


def test_classes_share_an_account_by_weight(c):
    """Transactional mail goes first, by its weight, and bulk mail never starves."""
    q = c.q
    rules(c, RULES.replace("start_connections = 3 connections = 4", "start_connections = 1 connections = 1"))
    wait_until(lambda: q.log().count("providers.conf: 0 providers") == 2, 10, "the rules")
    q.commit(["a@d.test"], account="shop")
    q.resolved()
    first = q.job()  # the others wait behind it
    for name, mail_class in (("bulk", BULK), ("normal", NORMAL), ("urgent", TRANSACTIONAL)):
        for n in range(32):
            q.commit([f"{name}{n}@d.test"], sender=f"{name}@shop.test", account="shop", mail_class=mail_class)
    q.result(first)
    order = order_of(c, 33)[1:]
    share = {name: order.count(name) for name in (b"urgent", b"normal", b"bulk")}
    assert 22 <= share[b"urgent"] <= 25 and 5 <= share[b"normal"] <= 8 and 1 <= share[b"bulk"] <= 3, order
    rest = order_of(c, 96 - 33)
    assert rest.count(b"bulk") >= 28 and rest[-1] == b"bulk"


def test_accounts_go_before_classes_at_a_full_destination(c):
    """Who calls all of its mail transactional has no larger share than others."""
    q = c.q
    rules(c, RULES.replace("start_connections = 3 connections = 4", "start_connections = 1 connections = 1"))
    wait_until(lambda: q.log().count("providers.conf: 0 providers") == 2, 10, "the rules")
    q.commit(["a@d.test"], account="shop")
    q.resolved()
    first = q.job()
    for n in range(20):
        for name, mail_class in (("loud", TRANSACTIONAL), ("quiet", NORMAL), ("bulky", BULK)):
            q.commit([f"{name}{n}@d.test"], sender=f"{name}@x.test", account=name, mail_class=mail_class)
    q.result(first)
    order = order_of(c, 31)[1:]
    assert {order.count(name) for name in (b"loud", b"quiet", b"bulky")} == {10}, order


def test_an_account_has_its_share_in_all_of_its_classes(c):
    """Its bulk mail does not go while the normal mail of others waits."""
    q = c.q
    rules(c, RULES + "domain d.test { account_connections = 1 start_connections = 2 connections = 2 }\n")
    wait_until(lambda: q.log().count("providers.conf: 0 providers") == 2, 10, "the rules")
    for n in range(6):
        q.commit([f"a{n}@d.test"], account="busy", sender="busy@x.test", mail_class=BULK)
        if n == 0:
            q.resolved()
    held = [q.job(), q.job()]
    for n in range(3):
        q.commit([f"b{n}@d.test"], account="other", sender="other@y.test")
    q.result(held[1])
    for _ in range(3):
        job = q.job()
        assert job.sender == b"other@y.test"
        q.result(job)
    assert q.job().sender == b"busy@x.test"


def test_what_comes_back_to_a_suspended_destination_is_deferred(c):
    """Not tried for want of a connection, and suspended meanwhile: it does not stay in memory."""
    q = c.q
    rules(c, RULES + 'domain d.test { connection_rate = "1/min" }\n')
    wait_until(lambda: q.log().count("providers.conf: 0 providers") == 2, 10, "the rules")
    ids = [q.commit(["a@d.test"])]
    q.resolved()
    q.result(q.job(), connections=1, opened=1)
    ids.append(q.commit(["a@d.test"]))
    jobs = [q.job()]
    assert jobs[-1].reuse_only
    c.ask(request="shaping.act", action="suspend", destination="d.test", reason="x")
    q.result(jobs[-1], scope=NO_CONNECTION, outcomes=refusal(0, "none", 1, local=1))
    q.wait_log(rf"{ids[-1]}: .*status=deferred \(delivery temporarily suspended: by the operator: x")


def test_an_account_has_its_share_of_connections_while_others_wait(c):
    q = c.q
    rules(c, RULES + "domain d.test { account_connections = 1 start_connections = 2 connections = 2 }\n")
    wait_until(lambda: q.log().count("providers.conf: 0 providers") == 2, 10, "the rules")
    for n in range(6):
        q.commit([f"a{n}@d.test"], account="busy", sender="busy@x.test")
        if n == 0:
            q.resolved()
    held = [q.job(), q.job()]  # nobody else waits: both
    for n in range(4):
        q.commit([f"b{n}@d.test"], account="other", sender="other@y.test")
    q.result(held[1])
    job = q.job()
    assert job.sender == b"other@y.test"  # the first of busy's is still under way
    for _ in range(3):
        q.result(job)
        job = q.job()
        assert job.sender == b"other@y.test"
    q.result(job)
    assert q.job().sender == b"busy@x.test"
