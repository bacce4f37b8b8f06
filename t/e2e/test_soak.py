"""The soak in short, and proof that its checker would notice: CASES, the
checker's invariant. The long one is t/fault/soak."""
import json
import os
import random
import subprocess
import sys

import pytest

FAULT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fault")
sys.path.insert(0, FAULT)

from logs import tail  # noqa: E402
from postern import BIN, Postern, free_port  # noqa: E402
from soak_check import Copy, Facts, Kill, judge  # noqa: E402
from soak_clients import ACKED, MAYBE, OPEN, REFUSED, Message  # noqa: E402
from soak_memory import Memory, figures_of  # noqa: E402

OK, OTHER, NO = "n1.k0.ok@dst.test", "n1.k1.ok@dst.test", "n1.k2.no@dst.test"
ID = "1yKZT61x2nz0001"


def test_random_kills_lose_nothing():
    """A fixed seed: the blows are the same each time, what they hit is not."""
    done = subprocess.run([os.path.join(FAULT, "soak"), "--seconds", "20", "--seed", "20261122",
                           "--rate", "80", "--pause", "0.1", "1.2"],
                          capture_output=True, text=True, timeout=400, check=False)
    # progress tells nothing, but what it says at the end does
    told = [l for l in done.stderr.splitlines() if "submitted" not in l]
    assert done.returncode == 0, done.stdout + tail("\n".join(told), 150)
    report = json.loads(done.stdout)
    assert report["lost"] == report["unexplained"] == report["wrong"] == report["spool"] == 0
    assert report["acknowledged"] > 100 and sum(report["killed"].values()) >= 5


def test_F16_usage_is_what_was_delivered_whatever_is_killed():
    """The same with accounts: logins over TLS, quota among the victims."""
    done = subprocess.run([os.path.join(FAULT, "soak"), "--accounts", "--seconds", "20", "--seed",
                           "20261124", "--rate", "60", "--pause", "0.1", "1.0"],
                          capture_output=True, text=True, timeout=400, check=False)
    told = [l for l in done.stderr.splitlines() if "submitted" not in l]
    assert done.returncode == 0, done.stdout + tail("\n".join(told), 150)
    report = json.loads(done.stdout)
    assert report["wrong"] == 0 and report["killed"].get("quota", 0) >= 1
    delivered, refunded = (sum(u[i] for u in report["usage"].values()) for i in (0, 1))
    assert (delivered, refunded) == (report["recipients_delivered"], report["recipients_bounced"])
    assert delivered > 100


def copy(at, recipients=(OK,), fate="out", id=ID, **more):
    return Copy(at - 0.01, at, at + 0.01, fate, id, list(recipients), 1, **more)


def notice(at, reported=(NO,), id=ID + "F0"):
    return copy(at, ["s1@src.test"], id=id, reported=tuple(reported))


def facts(deliveries=(), notices=(), recipients=(OK,), state=ACKED, **more):
    m = Message(1, list(recipients), 10, state, ID if state == ACKED else "", 100.0)
    events = more.pop("events", {})
    return Facts({1: m}, list(deliveries), list(notices), events, more.pop("kills", []),
                 more.pop("stops", []), **more)


def kill(at, *services):
    return Kill(at, at + 0.01, services)


TWICE = [copy(101), copy(105)]
HUNG_UP = [copy(101, fate="gone"), copy(105)]
LOGGED = {(ID, OK): [101.1]}

GOOD = {
    "delivered": facts([copy(101)]),
    "refused, with a notice": facts([copy(101)], [notice(102)], (OK, NO)),
    "in the spool": facts(spool={ID}),
    "never acknowledged": facts(state=MAYBE),
    "not answered, and delivered": facts([copy(101)], state=MAYBE),
    "our 250 was lost": facts([copy(101, fate="dropped"), copy(105)]),
    "relay died before its result": facts(TWICE, kills=[kill(102, "relay")]),
    "qmgr died before its mark": facts(TWICE, kills=[kill(101.5, "qmgr")], events=LOGGED),
    "relay died before our 250": facts(HUNG_UP, kills=[kill(101, "relay")]),
    "everything died": facts(TWICE, kills=[kill(101.02, "master", "qmgr", "relay")]),
    "relay was stopped, then killed": facts(TWICE, kills=[kill(104.5, "relay")],
                                            stops=[(101, 103)]),
}
BAD = {
    "nothing came": facts(),
    "one recipient is missing": facts([copy(101)], recipients=(OK, OTHER)),
    "not answered, and half delivered": facts([copy(101)], recipients=(OK, OTHER), state=MAYBE),
    "refused without notice": facts(recipients=(NO,)),
    "twice without a reason": facts(TWICE),
    "twice, and only bounce died": facts(TWICE, kills=[kill(102, "bounce", "smtpd")]),
    "twice, and master died": facts(TWICE, kills=[kill(102, "master")]),
    "relay hung up before our 250, and lives": facts(HUNG_UP),
    "relay hung up before our 250, and died later": facts(HUNG_UP, kills=[kill(101.5, "relay")]),
    "the kill came too late": facts(TWICE, kills=[kill(104.5, "relay")]),
    "the kill came long after the event": facts(TWICE, kills=[kill(102.5, "qmgr")], events=LOGGED),
    "two notices": facts([], [notice(102), notice(104)], (NO,)),
    "two notices under two IDs": facts([], [notice(102), notice(103, id=ID + "F1")], (NO,),
                                       kills=[kill(102, "qmgr")]),
    "a notice about what was delivered": facts([copy(101)], [notice(102, [OK])]),
    "delivered though refused": facts([copy(101)], state=REFUSED),
    "delivered though never ended": facts([copy(101)], state=OPEN),
    "damaged": facts([copy(101)], damaged=[(1, "the body is another one")]),
    "quarantined": facts(corrupt={ID}),
}


@pytest.mark.parametrize("name", GOOD)
def test_checker_accepts(name):
    v = judge(GOOD[name])
    assert v.good, v


@pytest.mark.parametrize("name", BAD)
def test_checker_notices(name):
    assert not judge(BAD[name]).good


@pytest.mark.parametrize("service", ["qmgr", "relay"])
@pytest.mark.parametrize("backlog", ["steady", "growing", "up and down"])
@pytest.mark.parametrize("kib_per_minute,grows", [(0, False), (100, False), (600, True)])
def test_growing_memory_is_noticed(kib_per_minute, grows, backlog, service):
    """Ten minutes of a process whose memory goes up and down, and maybe up. What the
    queue takes is not counted: 1 KiB a recipient, in a relay's case kept when the queue is
    short again."""
    memory, longest, dice = Memory(list, list), 0, random.Random(1)
    for t in range(0, 600, 2):
        count = {"steady": 1000, "growing": 4 * t + dice.randrange(200),
                 "up and down": dice.randrange(2000)}[backlog]
        longest = max(longest, count)
        size = 8000 + t / 60 * kib_per_minute + (t * 7919) % 100
        heap = size + count if service == "qmgr" else None
        memory.samples[1, service].append(
            (t, 9000, size + longest, count, heap, dice.randrange(count // 8 + 1)))
    services, growing = memory.report(256)
    assert bool(growing) == grows, growing
    judged = "heap" if service == "qmgr" else "pss"
    assert abs(services[service][f"{judged}_slope_kib_per_min"] - kib_per_minute) < 60
    assert abs(services[service]["rss_slope_kib_per_min"]) < 0.01


@pytest.mark.parametrize("service,grows", [("qmgr", False), ("relay", True)])
def test_what_the_allocator_keeps_is_no_leak_of_the_queue_manager(service, grows):
    """Its PSS climbs while what it has allocated does not."""
    memory = Memory(list, list)
    for t in range(0, 600, 2):
        memory.samples[1, service].append(
            (t, 9000, 8000 + 20 * t, 500, 4000 + t % 7 if service == "qmgr" else None, 100))
    assert bool(memory.report(256)[1]) == grows


def test_a_restarted_process_begins_anew():
    """Ten lives of four and a half minutes, each larger than the one before, none of which
    grows after its first minutes; in these each does."""
    memory = Memory(list, list)
    for life in range(10):
        for t in range(0, 270, 2):
            memory.samples[life, "qmgr"].append(
                (life * 300 + t, 9000, 9000, 500, 1000 * life + 20 * min(t, 110) + t % 5, 100))
    services, growing = memory.report(256)
    assert not growing and services["qmgr"]["processes"] == 10


def test_waiting_recipients_are_counted(place):
    with Postern(place, relayhost=f"[127.0.0.1]:{free_port()}") as p:
        p.send("a@src.test", [f"r{i}@dst.test" for i in range(30)], b"Subject: x\r\n\r\n")
        p.send("b@src.test", ["recipient@dst.test"], b"Subject: x\r\n\r\n")
        p.wait_log(r"to=<recipient@dst\.test>.*status=deferred")
        found = figures_of(p)
        assert found.recipients == 31 and found.pid in p.pids("qmgr")
        with open(os.path.join(BIN, "qmgr"), "rb") as program:
            told = b"__asan_init" not in program.read()  # its allocator does not tell
        assert 100 < found.heap_kib < 20_000 if told else found.heap_kib == 0
