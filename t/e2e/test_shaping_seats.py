"""What one account may use of one destination: deliveries at a time and a rate, over all
sources and classes, by providers.conf and by what quota says of the account."""
import random
import shutil
import tempfile
import time

import pytest

from patience import stretched
from postern import wait_until
from qmgr_peers import TARGET
from test_qmgr_operator import Control
from test_shaping import NO_CONNECTION, refusal, rules
from test_shaping_wholes import TWO
from test_sources import sources

BULK = 2
BASE = """
default { start_rate = "100000/s" start_connections = 20 connections = 20 %s }
provider big { mx = {".big.test"} %s }
"""


def limit(c, everyone="", big="", reloads=0):
    rules(c, BASE % (everyone, big))
    wait_until(lambda: c.q.count("providers.conf: 1 providers") == reloads + 1, 10, "the rules")


@pytest.fixture
def c():
    c = Control()
    yield c
    c.stop()


def to_big(c, names, **fields):
    """A message for each at the provider; the first one is looked up."""
    ids = []
    for name in names:
        ids.append(c.q.commit([f"{name}@d.test"], **fields))
        if not getattr(c, "known", False):
            c.q.resolved(site=b"mx1.big.test", targets=[dict(TARGET, host="mx1.big.test")])
            c.known = True
    return ids


def none(c, seconds=0.1):
    assert c.q.relay.receive(seconds) is None


def why(c, id):
    return c.ask(request="shaping.why", id=id)[0]


def lane(c):
    return c.ask(request="shaping.show", destination="big")[0]


def test_an_account_has_so_many_connections_and_others_go_on(c):
    limit(c, big="account_connections_max = 2")
    ids = to_big(c, [f"a{n}" for n in range(5)], account="acme/web")
    jobs = [c.q.job(), c.q.job()]
    none(c)
    other = to_big(c, ["b"], account="other")
    job = c.q.job()
    assert job.id.decode() == other[0]  # nobody stands behind it
    c.q.result(job)
    left = [id for id in ids if id.encode() not in {j.id for j in jobs}]
    line = why(c, left[-1])
    assert line["state"] == "account_limit"
    assert line["waits"] == "in line: account acme has its 2 of 2 connections at big"
    assert line["before_it"] == 2
    assert lane(c)["accounts"] == [dict(account="acme", in_flight=2, connections=2, waiting=3)]
    assert lane(c)["configured"]["account_connections_max"] == 2
    seen = set()
    while jobs:
        job = jobs.pop(0)
        seen.add(job.id.decode())
        c.q.result(job)
        if len(seen) + len(jobs) < len(ids):
            jobs.append(c.q.job())
            none(c, 0.02)
    assert seen == set(ids)


def test_it_counts_over_all_sources_and_classes(c):
    limit(c, big="account_connections_max = 3")
    sources(c, TWO)
    ids = to_big(c, [f"a{n}" for n in range(12)], account="acme")
    ids += to_big(c, [f"c{n}" for n in range(12)], account="acme", mail_class=BULK)
    jobs = [c.q.job() for _ in range(3)]
    none(c)
    used, seen = set(), set()
    while jobs:
        job = jobs.pop(0)
        used.add(job.source)
        seen.add(job.id.decode())
        c.q.result(job)
        if len(seen) + len(jobs) < len(ids):
            jobs.append(c.q.job())
    none(c)
    assert seen == set(ids) and len(used) == 2


def test_a_site_or_domain_may_say_otherwise_and_counts_for_itself(c):
    rules(c, BASE % ("", "account_connections_max = 1") + "domain e.test { account_connections_max = 2 }\n")
    c.q.wait_log("providers.conf: 1 providers")
    to_big(c, ["a1", "a2"], account="acme")
    first = c.q.job()
    none(c)
    for n in range(3):
        c.q.commit([f"a{n}@e.test"], account="acme")
        if n == 0:
            c.q.resolved(site=b"mx1.big.test", targets=[dict(TARGET, host="mx1.big.test")])
    jobs = [c.q.job(), c.q.job()]
    none(c)
    for job in (first, *jobs):
        c.q.result(job)
    for _ in range(2):
        c.q.result(c.q.job())


def test_a_rate_of_one_account_leaves_the_others_alone(c):
    limit(c, big='account_message_rate = "10/s"')
    to_big(c, ["a"], account="acme")
    c.q.result(c.q.job())
    ids = to_big(c, [f"a{n}" for n in range(8)], account="acme")
    other = to_big(c, [f"b{n}" for n in range(3)], account="other")
    began, seen = time.monotonic(), []
    assert [a["rate"] for a in lane(c)["accounts"] if a["account"] == "acme"] == [10]
    for _ in range(len(ids) + len(other)):
        job = c.q.job()
        seen.append((job.id.decode(), time.monotonic() - began))
        c.q.result(job)
    assert {id for id, _ in seen} == set(ids + other)
    times = dict(seen)
    assert 0.5 < max(times[id] for id in ids) < 5
    assert max(times[id] for id in other) < max(times[id] for id in ids)


def test_limits_that_change_hold_for_what_waits_already(c):
    """More, none, and fewer than there are under way."""
    limit(c, big="account_connections_max = 1")
    ids = to_big(c, [f"a{n}" for n in range(9)], account="acme")
    jobs = [c.q.job()]
    none(c)
    limit(c, big="account_connections_max = 3", reloads=1)
    jobs += [c.q.job(), c.q.job()]
    none(c)
    limit(c, big="account_connections_max = 1", reloads=2)
    c.q.result(jobs.pop())
    c.q.result(jobs.pop())
    none(c)
    c.q.result(jobs.pop())
    jobs = [c.q.job()]
    none(c)
    limit(c, reloads=3)
    jobs += [c.q.job() for _ in range(5)]
    for job in jobs:
        c.q.result(job)
    c.q.wait_files([])
    assert len(ids) == 9


def test_a_limit_that_begins_counts_what_is_under_way(c):
    limit(c)
    to_big(c, [f"a{n}" for n in range(4)], account="acme")
    jobs = [c.q.job() for _ in range(4)]
    limit(c, big="account_connections_max = 2", reloads=1)
    to_big(c, ["x", "y"], account="acme")
    for left in (3, 2):
        c.q.result(jobs.pop())
        none(c, 0.05)
        assert len(jobs) == left
    c.q.result(jobs.pop())
    jobs.append(c.q.job())
    none(c, 0.05)
    for job in jobs:
        c.q.result(job)
    c.q.result(c.q.job())


def test_suspended_mail_of_an_account_that_waits_for_a_seat_is_deferred(c):
    limit(c, big="account_connections_max = 1")
    ids = to_big(c, ["a1", "a2", "a3"], account="acme")
    job = c.q.job()
    c.ask(request="shaping.act", action="suspend", destination="big", reason="test")
    c.q.wait_log("status=deferred")
    for id in ids[1:]:
        c.q.wait_log(rf"{id}: .*status=deferred \(delivery temporarily suspended")
    c.q.result(job)
    c.ask(request="shaping.act", action="resume", destination="big")
    assert c.q.job().id.decode() in ids[1:]
    none(c)


def test_not_one_too_many_and_none_forgotten_whatever_happens(c):
    """Bursts of several accounts, from two sources, with refusals, deletions and messages that
    come back untried: test builds also check that whoever waits will be woken."""
    most, seed = 3, random.randrange(1 << 30)
    rnd = random.Random(seed)
    limit(c, big=f'account_connections_max = {most} connection_rate = "600/min" total_connections = 7')
    sources(c, TWO)
    waiting, under_way, done = set(), {}, set()
    accounts = ["acme", "other", "third"]
    limits = {name: 0 for name in accounts}
    owner = {}

    def take(timeout):
        job = c.q.relay.receive(timeout)
        if job is None or job.name != "ipc_deliver":
            return False
        name = owner[job.id.decode()]
        under_way[job.id.decode()] = job
        limits[name] += 1
        assert limits[name] <= most, (name, limits, seed)
        return True

    def finish():
        id = rnd.choice(list(under_way))
        job = under_way.pop(id)
        limits[owner[id]] -= 1
        if job.reuse_only and rnd.random() < 0.5:
            c.q.result(job, scope=NO_CONNECTION, outcomes=refusal(0, "no connection may be opened at the moment", 1, local=1))
        else:
            done.add(id)
            waiting.discard(id)
            c.q.result(job)

    for n in range(300):
        if rnd.random() < 0.5:
            name = rnd.choice(accounts)
            (id,) = to_big(c, [f"r{n}"], account=name, mail_class=rnd.choice([0, 1, 2]))
            owner[id] = name
            waiting.add(id)
        while take(0.001):
            pass
        if under_way and rnd.random() < 0.5:
            finish()
    deadline = time.monotonic() + 60
    while waiting and time.monotonic() < deadline:
        while take(0.02):
            pass
        if under_way:
            finish()
    assert not waiting, (len(waiting), seed)


# ---- by account ---------------------------------------------------------------------------


@pytest.fixture
def asking():
    c = Control(dict(accounts_enable="yes"))
    c.quota = c.q.add_quota()
    c.quota.expect("ipc_token_key")
    c.quota.send("ipc_charges_ready", credit=64)
    yield c
    c.quota.close()
    c.stop()


def tell(c, account="acme", connections=0, recipients_a_day=0):
    assert c.quota.expect("ipc_account_ask", skip=("ipc_charges",)).account == account.encode()
    c.quota.send("ipc_account_pool", account=account, pool="", connections=connections,
                 recipients_a_day=recipients_a_day)


def test_quota_says_how_much_an_account_may_and_a_change_holds_within_seconds(asking):
    c = asking
    limit(c, big="account_connections_max = 4")
    c.q.commit(["a0@d.test"], account="acme")
    tell(c, connections=1)
    c.q.resolved(site=b"mx1.big.test", targets=[dict(TARGET, host="mx1.big.test")])
    c.known = True
    to_big(c, [f"a{n}" for n in range(8)], account="acme")
    jobs = [c.q.job()]
    none(c)
    assert lane(c)["accounts"] == [dict(account="acme", in_flight=1, connections=1, waiting=8)]
    for connections, more in ((3, 2), (100, 1)):  # 100: providers.conf is stricter
        c.quota.send("ipc_account_pool", account="", pool="", connections=0, recipients_a_day=0)
        tell(c, connections=connections)
        jobs += [c.q.job(timeout=3) for _ in range(more)]
        none(c)
    for job in jobs:
        c.q.result(job)
    for _ in range(5):
        c.q.result(c.q.job())


def test_a_rate_by_quota(asking):
    c = asking
    limit(c)
    c.q.commit(["a0@d.test"], account="acme")
    tell(c, recipients_a_day=5 * 86400)
    c.q.resolved(site=b"mx1.big.test", targets=[dict(TARGET, host="mx1.big.test")])
    c.known = True
    ids = to_big(c, [f"a{n}" for n in range(6)], account="acme")
    began = time.monotonic()
    for _ in range(len(ids) + 1):
        c.q.result(c.q.job())
    assert 0.8 < time.monotonic() - began < stretched(6)


def test_many_changes_do_not_make_a_storm_of_questions(asking):
    c = asking
    limit(c)
    c.q.commit(["a0@d.test"], account="acme")
    tell(c, connections=1)
    c.q.resolved(site=b"mx1.big.test", targets=[dict(TARGET, host="mx1.big.test")])
    job, asked, end = c.q.job(), 0, time.monotonic() + 3
    while time.monotonic() < end:
        c.quota.send("ipc_account_pool", account="", pool="", connections=0, recipients_a_day=0)
        got = c.quota.receive(0.02)
        if got is not None and got.name == "ipc_account_ask":
            asked += 1
            c.quota.send("ipc_account_pool", account="acme", pool="", connections=1, recipients_a_day=0)
    assert 1 <= asked <= 4
    c.q.result(job)
