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
from soak_check import Copy, Facts, Kill, judge  # noqa: E402
from soak_clients import ACKED, MAYBE, OPEN, REFUSED, Message  # noqa: E402
from soak_memory import Memory  # noqa: E402

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


@pytest.mark.parametrize("backlog", ["steady", "growing", "up and down"])
@pytest.mark.parametrize("kib_per_minute,grows", [(0, False), (100, False), (600, True)])
def test_growing_memory_is_noticed(kib_per_minute, grows, backlog):
    """Ten minutes of a process whose memory goes up and down, and maybe up. What the
    queue takes is not counted: 1 KiB a message, kept when the queue is short again."""
    memory, longest, dice = Memory(list, list), 0, random.Random(1)
    for t in range(0, 600, 2):
        count = {"steady": 1000, "growing": 4 * t + dice.randrange(200),
                 "up and down": dice.randrange(2000)}[backlog]
        longest = max(longest, count)
        memory.samples[1, "qmgr"].append(
            (t, 9000, 8000 + t / 60 * kib_per_minute + (t * 7919) % 100 + longest, count))
    services, growing = memory.report(256)
    assert bool(growing) == grows, growing
    assert abs(services["qmgr"]["pss_slope_kib_per_min"] - kib_per_minute) < 60
    assert abs(services["qmgr"]["rss_slope_kib_per_min"]) < 0.01
