"""What is one destination for what is learned: MX names, whose addresses may change with each
DNS answer, and other names of the same addresses."""
import pytest

import faults as fault_points
from postern import wait_until
from qmgr_peers import TARGET
from test_shaping_brakes import c, later  # noqa: F401 pylint: disable=unused-import
from test_shaping_memory import place  # noqa: F401 pylint: disable=unused-import

pytestmark = pytest.mark.skipif(not fault_points.available(), reason="built without fault points")


def at(*numbers):
    return [dict(TARGET, host="mx.d.test", address=b"\x7f\x05\x05" + bytes([n])) for n in numbers]


def lanes(c):
    """Destinations and how many messages each has, under way or in line."""
    return sorted((lane["destination"], lane["queued"] + lane["in_flight"])
                  for lane in c.ask(request="shaping.list", all=True)[:-1]
                  if "destination" in lane)  # else it is a suspension by hand


def deliver(c, domain, *numbers):
    """One message, whose route is asked about anew; it is under way afterwards."""
    later(c, 2)
    c.q.commit(["a@" + domain])
    c.q.resolved(ttl=1, targets=at(*numbers))
    return c.q.job()


def test_addresses_that_rotate_are_one_destination(c):
    """Three of eight addresses in each answer, kept for a second: limits are learned for the MX
    names, and a suspension holds whatever the addresses are."""
    jobs = [deliver(c, "d.test", n, n + 1, n + 2) for n in (1, 2, 4)]
    assert lanes(c) == [("mx.d.test", 3)]
    for job in jobs:
        c.q.result(job)
    wait_until(lambda: lanes(c) == [("mx.d.test", 0)], 10, "the results")
    c.ask(request="shaping.act", action="suspend", destination="mx.d.test", seconds=3600, reason="x")
    later(c, 2)
    id = c.q.commit(["a@d.test"])
    c.q.resolved(ttl=1, targets=at(7, 8, 9))
    c.q.wait_log(rf"{id}: .*suspended")
    assert [name for name, _ in lanes(c)] == ["mx.d.test"]


def test_other_names_of_the_same_addresses_are_the_same_destination(c):
    """Until they lead elsewhere; the first name keeps what was learned."""
    jobs = [deliver(c, "one.test", 1, 2), deliver(c, "two.test", 2, 1)]
    assert lanes(c) == [("mx.one.test", 2)]
    jobs.append(deliver(c, "two.test", 3))
    assert lanes(c) == [("mx.one.test", 2), ("mx.two.test", 1)]
    jobs.append(deliver(c, "one.test", 9))
    assert lanes(c) == [("mx.one.test", 3), ("mx.two.test", 1)]
    for job in jobs:
        c.q.result(job)
    wait_until(lambda: lanes(c) == [("mx.one.test", 0), ("mx.two.test", 0)], 10, "the results")
    c.q.result(deliver(c, "three.test", 9))
    wait_until(lambda: lanes(c) == [("mx.one.test", 0), ("mx.two.test", 0)], 10, "the result")
