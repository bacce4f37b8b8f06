"""Limits over all source addresses of a provider together, and rules that speak of all of
them (scope "provider")."""
import time

import pytest

from postern import wait_until
from qmgr_peers import TARGET
from test_qmgr_operator import Control
from test_shaping import MAIL, refusal, rules, show
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


def start(limits):
    c = Control()
    rules(c, BASE % limits)
    c.q.wait_log("providers.conf: 1 providers, 2 rules")
    sources(c, TWO)
    return c


@pytest.fixture
def started():
    running = []

    def begin(limits=""):
        running.append(start(limits))
        return running[-1]
    yield begin
    for c in running:
        c.stop()


def commit(c, count):
    ids = []
    for n in range(count):
        ids.append(c.q.commit([f"a{n}@d.test"]))
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
    commit(c, 11)
    began = time.monotonic()
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
    jobs = [c.q.job() for _ in range(2)]
    assert all(job.reuse_only for job in jobs) and c.q.relay.receive(0.2) is None


def test_a_rule_about_the_provider_slows_all_sources(started):
    c = started()
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
    c.ask(request="shaping.act", action="resume", destination="big")
    c.act("flush", id)
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
