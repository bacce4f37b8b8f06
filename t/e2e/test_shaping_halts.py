"""Destinations that the operator has suspended: whatever comes later, nothing goes there."""
import json
import os

import pytest

import faults as fault_points
from faults import Faults
from postern import Postern, wait_until
from qmgr_peers import RECIPIENT
from test_qmgr_operator import Control
from test_shaping import refusal, rules
from test_shaping_brakes import later
from test_shaping_memory import Again, place  # noqa: F401 pylint: disable=unused-import
from test_shaping_why import command
from test_sources import A, B, TWO, sources

HOUR, DAY = 3600, 86400
FILE = "shaping.suspensions"
RULES = """
default { start_rate = "10000/s" start_connections = 100 connections = 200 }
provider goog { mx = {".goog.test"} }
domain own.test { connections = 3 }
"""
HELD = r"{}: .*status=deferred \(delivery temporarily suspended: by the operator: {}\)"


@pytest.fixture
def c():
    control = Control()
    rules(control, RULES)
    control.q.wait_log("providers.conf: 1 providers, 0 rules")
    yield control
    control.stop()


def target(host, last=9):
    return [dict(host=host, address=bytes([127, 9, 9, last]), port=25, preference=10)]


def act(c, action, destination="d.test", **more):
    return c.ask(request="shaping.act", action=action, destination=destination, **more)


def suspend(c, destination="d.test", **more):
    lines = act(c, "suspend", destination, **{"seconds": HOUR, "reason": "legal", **more})
    assert "error" not in lines[-1], lines
    return lines


def is_held(c, id, reason="legal"):
    c.q.wait_log(HELD.format(id, reason))


def saved(directory, text=b"d.test"):
    file = os.path.join(directory, "spool", FILE)

    def there():
        try:
            with open(file, "rb") as f:
                return text in f.read()
        except FileNotFoundError:
            return False
    wait_until(there, 10, "the file")


def again(place):
    c = Again(place)
    rules(c, RULES)
    c.q.wait_log("providers.conf: 1 providers, 0 rules")
    return c


def test_F11_before_any_mail_and_after_a_kill(place):
    """Nothing has been sent there, and nothing is, also after kill -9."""
    first = again(place)
    suspend(first)
    suspend(first, "goog", reason="delisting")
    saved(place, b"goog")
    first.q.kill()
    second = again(place)
    q = second.q
    shown = [x["suspension"] for x in second.ask(request="shaping.list") if "suspension" in x]
    assert [(s["name"], s["reason"]) for s in shown] == [("d.test", "legal"), ("goog", "delisting")]
    assert all(HOUR - 60 < s["suspended_for"] <= HOUR for s in shown)
    assert second.ask(request="shaping.show", destination="d.test")[0]["suspension"]["name"] == "d.test"
    id = q.commit(["a@d.test"])
    q.resolved()
    is_held(second, id)
    lines = second.ask(request="shaping.show", destination="mx.d.test")
    assert lines[0]["state"] == "suspended by hand" and lines[0]["suspended_as"] == "d.test"
    assert "error" not in act(second, "resume")[-1]
    job = q.job()  # what waits goes at once
    assert job.id == id.encode()
    q.result(job)
    saved(place, b"goog")
    second.end()


def test_one_that_was_resumed_is_over_after_a_kill(place):
    first = again(place)
    suspend(first)
    saved(place)
    assert act(first, "resume")[1]["action"] == "resume"
    file = os.path.join(place, "spool", FILE)
    wait_until(lambda: b"d.test" not in open(file, "rb").read(), 10, "the file")
    first.q.kill()
    second = again(place)
    id = second.q.commit(["a@d.test"])
    second.q.resolved()
    job = second.q.job()
    assert job.id == id.encode()
    second.q.result(job)
    second.end()


def test_a_provider_with_its_sections_and_later_sites(c):
    q = c.q
    first = q.commit(["a@g1.test"])
    q.resolved(targets=target("a.goog.test"), site="a.goog.test")
    q.result(q.job())
    q.wait_log(f"{first}: removed")
    suspend(c, "GOOG")
    for domain, host in (("own.test", "b.goog.test"), ("g3.test", "c.goog.test")):
        id = q.commit([f"a@{domain}"])
        q.resolved(targets=target(host, 10), site=host)
        is_held(c, id)
    elsewhere = q.commit(["a@e.test"])
    q.resolved()
    assert q.job().id == elsewhere.encode()


@pytest.mark.skipif(not fault_points.available(), reason="built without fault points")
def test_another_address_of_the_same_host(place):
    faults = Faults(place)
    c = Control(environment=faults.environment)
    c.faults = faults
    q = c.q
    q.commit(["a@d.test"])
    q.resolved(ttl=1)
    q.result(q.job())
    suspend(c)
    later(c, 400)
    id = q.commit(["b@d.test"])
    q.resolved(targets=target("mx.d.test"))
    is_held(c, id)
    suspend(c, "mx.e.test")  # by the name of the site
    id = q.commit(["a@e.test"])
    q.resolved(targets=target("mx.e.test", 11))
    is_held(c, id)
    c.stop()


def test_one_source_is_suspended_and_the_others_go_on(c):
    q = c.q
    sources(c, TWO.replace("helo = b.relay.test", "helo = b.relay.test weight = 1").replace(
        "helo = a.relay.test", "helo = a.relay.test weight = 1000"))
    first = q.commit(["a@d.test"])
    q.resolved()
    job = q.job()
    assert job.source == A
    suspend(c, source="127.0.0.11")
    ids = [q.commit(["b@d.test"]) for _ in range(5)]
    jobs = [q.job() for _ in ids]
    assert {j.source for j in jobs} == {B}, first
    lanes = {x["source"]: x for x in c.ask(request="shaping.list", all=True) if "source" in x}
    assert lanes["127.0.0.11"]["state"] == "suspended by hand"
    assert lanes["127.0.0.12"]["state"] != "suspended by hand"
    suspend(c, source="b", reason="second")  # by its name; "spare" takes over
    ids = [q.commit(["c@d.test"]) for _ in range(3)]
    assert {q.job().source for _ in ids} == {bytes([127, 0, 0, 13])}
    error = act(c, "resume", source="127.0.0.99")[-1]["error"]
    assert "suspended by hand as d.test" in error
    assert act(c, "suspend", source="127.0.0.99")[-1]["error"].startswith("There is no source 127.0.0.99")


def test_a_retry_leaves_the_source_that_was_suspended(c):
    q = c.q
    sources(c, TWO.replace("helo = b.relay.test", "helo = b.relay.test weight = 1").replace(
        "helo = a.relay.test", "helo = a.relay.test weight = 1000"))
    id = q.commit(["a@d.test"])
    q.resolved()
    job = q.job()
    q.result(job, outcomes=refusal(451, "4.7.1 come again", 7), scope=RECIPIENT)
    q.wait_log(f"{id}: .*status=deferred")
    suspend(c, source="127.0.0.11")
    c.act("flush", id)
    assert q.job().source == B


def test_neither_flush_nor_reset_ends_it(c):
    q = c.q
    q.commit(["a@d.test"])
    q.resolved()
    q.result(q.job())
    suspend(c)
    id = q.commit(["b@d.test"])
    is_held(c, id)
    for ask in (lambda: c.act("flush", id), lambda: act(c, "reset"),
                lambda: c.ask(request="queue.action", action="flush", all=True)):
        ask()
    assert q.count(HELD.format(id, "legal")) >= 1
    assert c.ask(request="shaping.show", destination="d.test")[0]["state"] == "suspended by hand"
    why = c.ask(request="shaping.why", id=id)[0]
    assert why["state"] == "suspended_by_hand" and why["suspension"]["reason"] == "legal"
    assert HOUR - 60 < why["ends_in"] <= HOUR
    act(c, "resume")
    assert q.job().id == id.encode()


def test_what_is_in_line_leaves_it(c):
    q = c.q
    rules(c, RULES + "domain d.test { start_connections = 1 connections = 1 }\n")
    wait_until(lambda: q.log().count("providers.conf: 1 providers") == 2, 10, "the rules")
    ids = [q.commit(["a@d.test"]) for _ in range(3)]
    q.resolved()
    job = q.job()
    suspend(c)
    for id in ids:
        if id.encode() != job.id:
            is_held(c, id)
    q.result(job)
    act(c, "resume")
    assert {q.job().id.decode()} < set(ids)


def test_resume_sends_a_sender_s_mail(c):
    q = c.q
    c.ask(request="shaping.act", action="suspend", destination="all", account="shop")
    id = q.commit(["a@d.test"], account="shop")
    q.resolved()
    q.wait_log(rf"{id}: .*suspended for account shop")
    c.ask(request="shaping.act", action="resume", destination="all", account="shop")
    assert q.job().id == id.encode()


def test_names_that_are_none(c):
    error = act(c, "suspend", "gmial")[-1]["error"]
    assert error.startswith("gmial is no provider of providers.conf")
    for i in range(200):
        suspend(c, f"d{i}.test")
    assert "as many as there may be" in act(c, "suspend", "one-more.test")[-1]["error"]
    suspend(c, "d7.test", reason="anew")  # known already
    act(c, "resume", "d7.test")
    suspend(c, "one-more.test")


@pytest.mark.skipif(not fault_points.available(), reason="built without fault points")
@pytest.mark.parametrize("seconds", [365 * DAY, -DAY])
def test_F30_F31_the_clock_is_set(place, seconds):
    faults = Faults(place)
    c = Control(environment=faults.environment)
    c.faults = faults
    suspend(c)
    c.faults.shift("wall", seconds)
    id = c.q.commit(["a@d.test"])
    c.q.resolved(ttl=10 ** 8)
    is_held(c, id)
    lane = c.ask(request="shaping.show", destination="d.test")[0]
    assert HOUR - 60 < lane["suspended_for"] <= HOUR
    later(c, HOUR + 700)
    assert c.q.job().id == id.encode()
    c.stop()


def test_a_damaged_file_is_kept_aside(place):
    first = again(place)
    suspend(first)
    first.end()
    kept = os.path.join(place, "spool", FILE)
    with open(kept, "r+b") as f:
        text = f.read()
        f.seek(0)
        f.write(text.replace(b"d.test", b"e.test"))
    second = again(place)
    second.q.wait_log("shaping: suspensions of destinations by hand are forgotten: "
                      f"{FILE} is damaged")
    assert os.path.exists(kept + ".damaged")
    second.end()


def test_F21_a_file_that_could_not_be_written_is_written_later(c):
    file = os.path.join(c.q.directory, "spool", FILE)
    os.mkdir(file + ".new")
    suspend(c)
    c.q.wait_log(f"{FILE}: cannot be written, and is behind")
    os.rmdir(file + ".new")
    wait_until(lambda: os.path.exists(file), 20, "the file")


def test_the_operator_s_words(place):
    """The whole relay and its command."""
    with Postern(place) as p:
        out = p.ctl("shaping", "suspend", "d.test", "--for", "1h", "--reason", "legal hold")
        assert out == "  d.test suspended by hand for 1h00m: legal hold\n", out
        p.ctl("shaping", "suspend", "e.test", "--reason", "until asked")
        out = p.ctl("shaping", "list")
        assert "Suspended by hand:\n  d.test suspended by hand for " in out
        assert "  e.test suspended by hand until it is resumed: until asked\n" in out
        id = p.send("x@s.test", ["r@d.test"], b"Subject: x\r\n\r\nx\r\n")
        assert p.ctl("shaping", "resume", "e.test") == (
            "ended:  e.test suspended by hand until it is resumed: until asked\ne.test: resumed\n")
        assert json.loads(p.ctl("shaping", "list", "--json").splitlines()[-1])["suspension"]["name"] == "d.test", id


def test_a_resume_names_each_suspension_that_it_ends(c):
    """Also that of one source alone, which has its own name and reason."""
    sources(c, TWO)
    c.q.commit(["a@goog.test"])
    c.q.resolved(targets=target("mx.goog.test"))
    suspend(c, "goog", reason="delisting")
    suspend(c, "goog", source="a", reason="warm-up", seconds=2 * HOUR)
    suspend(c, "own.test", reason="other")
    lines = [x["ended"] for x in act(c, "resume", "goog") if "ended" in x]
    assert {(x["name"], x["source"], x["reason"]) for x in lines} == {("goog", "", "delisting"), ("goog", "a", "warm-up")}
    c.q.wait_log(r"shaping goog from a: the suspension by hand is ended by uid \d+: warm-up")
    suspend(c, "goog", reason="delisting")
    suspend(c, "goog", source="b", reason="slow", seconds=2 * HOUR)
    out = command(c, "shaping", "resume", "goog")
    assert "ended:  goog suspended by hand for " in out and ": delisting\n" in out, out
    assert "ended:  goog from b suspended by hand for 2h: slow\n" in out or "for 1h59m: slow\n" in out, out
    out = command(c, "shaping", "list")
    assert "own.test suspended by hand" in out and "goog suspended" not in out, out
