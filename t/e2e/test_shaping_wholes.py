"""Limits over all source addresses of a provider together, and rules that speak of all of
them (scope "provider")."""
import ctypes
import time

import pytest

from postern import wait_until
from qmgr_peers import TARGET, new_id
from test_qmgr_operator import Ahead, Control
from test_shaping import MAIL, refusal, rules, show
from test_shaping_memory import Again, place  # noqa: F401 pylint: disable=unused-import
from test_shaping_why import command
from test_sources import sources

TWO = """
source a { ipv4 = 127.0.0.11 }
source b { ipv4 = 127.0.0.12 }
pool default { sources = {a, b} }
"""
BASE = """
default { start_rate = "1000/s" start_connections = 20 connections = 20 }
provider big { mx = {".big.test"} %s }
rule all { code = '^4' text = 'all of you' scope = "provider" dimension = "rate" action = "slow" outcome = "retry"
  matches = {"421 all of you"} }
rule away { code = '^4' text = 'go away all' scope = "provider" action = "suspend" for = "1h" outcome = "retry"
  matches = {"421 go away all"} }
"""


def start(limits, ahead):
    c = Control(ahead=ahead)
    rules(c, BASE % limits)
    c.q.wait_log("providers.conf: 1 providers, 2 rules")
    sources(c, TWO)
    return c


@pytest.fixture
def started():
    running = []

    def begin(limits="", ahead=None):
        running.append(start(limits, ahead))
        return running[-1]
    yield begin
    for c in running:
        c.stop()


XXHASH = ctypes.CDLL("libxxhash.so.0").XXH3_64bits_withSeed
XXHASH.restype = ctypes.c_uint64
XXHASH.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]


def id_for(source):
    """A queue ID whose message goes from the first source, or the second: it is by the ID
    that qmgr takes one of a pool. Left to chance, all of a test's messages may meet at one."""
    while True:
        id = new_id()
        if XXHASH(id.encode(), len(id), 0) % 2 == source:
            return id


def commit(c, count):
    ids = []
    for n in range(count):
        ids.append(c.q.commit([f"a{n}@d.test"], id=id_for(n % 2)))
        if n == 0:
            c.q.resolved(site=b"mx1.big.test", targets=[dict(TARGET, host="mx1.big.test")])
    return ids


def both(c):
    return c.ask(request="shaping.show", destination="big")[:-1]


def test_connections_over_all_sources(started):
    """Three at a time, though each of the two sources might have twenty."""
    c = started("total_connections = 3")
    q = c.q
    ids = commit(c, 12)
    under_way, seen, used = [q.job() for _ in range(3)], set(), set()
    assert show(c, "big")["all_sources"] == dict(show(c, "big")["all_sources"], in_flight=3, concurrency=3)
    assert show(c, "big")["state_code"] == "all_sources"
    while under_way:
        assert q.relay.receive(0.05) is None  # not one more
        job = under_way.pop(0)
        seen.add(job.id.decode())
        used.add(job.source)
        q.result(job)
        if len(seen) + len(under_way) < len(ids):
            under_way.append(q.job())
    assert seen == set(ids) and len(used) == 2
    wait_until(lambda: show(c, "big")["all_sources"]["in_flight"] == 0, 10, "the end of all")


def test_sources_take_turns_where_one_delivery_may_be_under_way(started):
    """Also the one whose delivery is over: it goes behind the other."""
    c = started()
    rules(c, BASE.replace("1000/s", "100000/s") % "total_connections = 1")
    wait_until(lambda: c.q.count("providers.conf: 1 providers, 2 rules") == 2, 10, "the rules")
    ids = commit(c, 20)
    first = c.q.job()
    wait_until(lambda: sum(lane["queued"] for lane in both(c)) == len(ids) - 1, 10, "all in line")
    in_line = [lane["queued"] for lane in both(c)]
    used, seen, job = [first.source], {first.id.decode()}, first
    for _ in ids[1:]:
        c.q.result(job)
        job = c.q.job()
        used.append(job.source)
        seen.add(job.id.decode())
    c.q.result(job)
    assert seen == set(ids)
    while_both = used[1:2 * min(in_line)]
    again = sum(x == y for x, y in zip(while_both, while_both[1:]))
    assert again <= 1, (in_line, "".join(chr(86 + x[3]) for x in used))


def test_none_is_forgotten_while_more_comes(started):
    """Mail that comes just as a place is free takes no other's."""
    c = started('total_message_rate = "40/s"\n total_connections = 2')
    q, ids, seen, under_way = c.q, [], set(), []
    for n in range(80):
        ids.append(q.commit([f"a{n}@d.test"]))
        if n == 0:
            q.resolved(site=b"mx1.big.test", targets=[dict(TARGET, host="mx1.big.test")])
        job = q.job() if n % 3 == 2 else None
        if job:
            under_way.append(job)
        if len(under_way) == 2:
            seen.add(under_way[0].id.decode())
            q.result(under_way.pop(0))
    while len(seen) < len(ids):
        job = under_way.pop(0) if under_way else q.job()
        seen.add(job.id.decode())
        q.result(job)
    assert seen == set(ids)


def test_a_limit_that_is_taken_off_holds_nothing_any_more(started):
    """Though no delivery ends meanwhile."""
    c = started('total_message_rate = "1/h"')
    ids = commit(c, 3)
    first = c.q.job()
    assert c.q.relay.receive(0.1) is None
    rules(c, BASE % "")
    jobs = [first] + [c.q.job() for _ in range(2)]
    assert {job.id.decode() for job in jobs} == set(ids)
    for job in jobs:
        c.q.result(job)


def test_a_rate_over_all_sources(started):
    c = started('total_message_rate = "10/s"')
    began = time.monotonic()  # the first may go while the others are committed
    commit(c, 11)
    used = set()
    for _ in range(11):
        job = c.q.job()
        used.add(job.source)
        c.q.result(job)
    assert time.monotonic() - began > 0.8 and len(used) == 2


def test_new_connections_over_all_sources(started):
    """A tenth of a minute's may come at once: of both sources together."""
    c = started('total_connection_rate = "20/min"')
    commit(c, 8)
    jobs = [c.q.job() for _ in range(2)]
    assert not any(job.reuse_only for job in jobs) and c.q.relay.receive(0.2) is None
    for job in jobs:
        c.q.result(job, connections=1, opened=1)
    began = time.monotonic()
    jobs = [c.q.job() for _ in range(2)]  # each source uses the connection that it has, at once
    assert all(job.reuse_only for job in jobs) and len({job.source for job in jobs}) == 2
    assert c.q.relay.receive(0.2) is None and time.monotonic() - began < 2.5  # a token takes 3 s


def test_a_rule_about_the_provider_slows_all_sources(started, tmp_path):
    c = started(ahead=Ahead(tmp_path))
    q = c.q
    commit(c, 1)
    q.result(q.job(), scope=1, outcomes=refusal(421, "all of you are too fast", MAIL))
    q.wait_log(r"shaping big, all sources: rate cut: .*rule all \(a.conf:4\): .*all of you")
    q.result(q.job())
    lane = show(c, "big")
    assert lane["events"] == [] and lane["rate"] == 1000  # it is not about this source
    assert 0 < lane["all_sources"]["rate"] < 100


def test_all_sources_are_told_to_stay_away(started):
    c = started()
    q = c.q
    commit(c, 30)
    jobs = [q.job() for _ in range(30)]
    first = jobs.pop()
    q.result(first, scope=1, outcomes=refusal(421, "go away all", MAIL))
    q.wait_log("shaping mx1.big.test|shaping big: suspended: told to stay away")
    wait_until(lambda: all(lane["suspended"] for lane in both(c)), 10, "both lanes")
    assert len(both(c)) == 2 and show(c, "big")["all_sources"]["suspended_for"] > 3000
    for job in jobs:
        q.result(job)
    id = q.commit(["late@d.test"])
    q.wait_log(rf"{id}: to=<late@d.test>, .*status=deferred \(delivery temporarily suspended")
    c.ask(request="shaping.act", action="resume", destination="big")  # which sends what waited
    job = q.job()
    while job.id != id.encode():
        q.result(job)
        job = q.job()
    q.result(job)
    q.wait_log(rf"{id}: .*status=sent")


def test_a_reload_takes_the_limit_off(started):
    c = started("total_connections = 1")
    q = c.q
    ids = commit(c, 4)
    first = q.job()
    assert q.relay.receive(0.05) is None
    rules(c, BASE % "")
    wait_until(lambda: q.count("providers.conf: 1 providers, 2 rules") == 2, 10, "the rules")
    q.result(first)
    jobs = [q.job() for _ in range(3)]
    assert {j.id.decode() for j in jobs + [first]} == set(ids)


def test_the_first_cut_of_a_free_limit_is_measured(started):
    """What was taken lately over all sources, not a constant."""
    c = started()
    q = c.q
    ids, began = commit(c, 200), time.monotonic()
    for n in range(len(ids)):
        q.result(q.job())
    q.commit(["last@d.test"])
    job = q.job()
    q.wait_log(f"{ids[-1]}: removed")
    taken = len(ids) / max(1.0, time.monotonic() - began)  # below a second it is a burst
    q.result(job, scope=1, outcomes=refusal(421, "all of you are too fast", MAIL))
    q.wait_log("shaping big, all sources: rate cut")
    all_sources = show(c, "big")["all_sources"]
    failed = all_sources["learned"]["rate_failed"]
    assert failed > 20 and 0.5 * taken < failed <= len(ids) + 1, (failed, taken)
    assert 0.5 * failed < all_sources["rate"] < failed, all_sources


def again(place):
    c = Again(place)
    rules(c, BASE % "total_connections = 7")
    c.q.wait_log("providers.conf: 1 providers, 2 rules")
    sources(c, TWO)
    return c


def cut(c):
    commit(c, 1)
    c.q.result(c.q.job(), scope=1, outcomes=refusal(421, "all of you are too fast", MAIL))
    c.q.wait_log("shaping big, all sources: rate cut")
    c.q.result(c.q.job())
    return show(c, "big")["all_sources"]


def test_what_was_learned_over_all_sources_outlives_qmgr(place):
    c = again(place)
    before = cut(c)
    c.end()
    c = again(place)
    commit(c, 1)
    c.q.result(c.q.job())
    after = show(c, "big")["all_sources"]
    assert after["learned"]["rate_failed"] == before["learned"]["rate_failed"] and after["rate"] < 1000
    assert after["concurrency"] == 7  # configured, and nothing was learned of it
    c.end()


def test_what_was_learned_over_all_sources_is_exported_and_imported(place, started):
    c = again(place)
    before = cut(c)
    [mine] = [line["learned"] for line in c.ask(request="shaping.export")[:-1]
              if line["learned"].get("source") == "all"]
    assert mine["name"] == "big" and mine["key"] == "provider big"
    assert mine["rate_failed"] == before["learned"]["rate_failed"]
    c.end()
    other = started()
    assert other.ask(request="shaping.import", learned=[mine])[-1]["taken"] == 1
    commit(other, 1)
    other.q.result(other.q.job())
    assert show(other, "big")["all_sources"]["learned"]["rate_failed"] == mine["rate_failed"]
    mine |= {"rate_failed": 3, "when": time.time()}
    assert other.ask(request="shaping.import", learned=[mine])[-1]["taken"] == 1  # at once
    assert show(other, "big")["all_sources"]["learned"]["rate_failed"] == 3


def test_a_suspension_over_all_sources_outlives_qmgr(place):
    c = again(place)
    commit(c, 1)
    c.q.result(c.q.job(), scope=1, outcomes=refusal(421, "go away all", MAIL))
    c.q.wait_log("shaping big, all sources: suspended: told to stay away")
    c.end()
    c = again(place)
    commit(c, 1)
    c.q.wait_log("status=deferred")
    assert 3000 < show(c, "big")["all_sources"]["suspended_for"] <= 3600
    c.end()


def test_show_says_it_in_words(started, tmp_path):
    """What is in force, learned and configured over all sources, the state, and why."""
    c = started('total_connections = 7\n total_message_rate = "500/s"\n total_connection_rate = "60/min"',
                Ahead(tmp_path))
    q = c.q
    commit(c, 1)
    q.result(q.job(), scope=1, outcomes=refusal(421, "all of you are too fast", MAIL))
    q.wait_log("shaping big, all sources: rate cut")
    q.result(q.job())
    q.commit(["b@d.test"])
    q.result(q.job(), scope=1, outcomes=refusal(421, "go away all", MAIL))
    q.wait_log("shaping big, all sources: suspended")
    out = command(c, "shaping", "show", "big")
    assert out.count("over all source addresses of big") == 1
    assert "  over all source addresses of big: suspended: it refuses everything or told us to stay away; 0" in out
    assert "    next probe in 59m" in out
    assert "    connections  1   configured: at most 7\n" in out  # the probe
    assert "    new connections a minute  60   configured: at most 60\n" in out
    assert " it refused " in out and "configured: at most 500\n" in out
    assert "    last refusal: " in out and "go away all" in out
    assert "rate cut from 500.00 to " in out and "  by rule all, a.conf:6\n" in out, out
    assert "  suspended: told to stay away 3600.0s  by rule away, a.conf:8\n" in out
