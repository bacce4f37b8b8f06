"""The clock is set, or the host is suspended, while mail is in the queue."""
import json
import os
import time

import pytest

import faults as fault_points
from faults import Faults
from postern import Postern, wait_until
from sink import Sink

pytestmark = pytest.mark.skipif(not fault_points.available(), reason="built without fault points")

CONTENT = b"Subject: clock\r\n\r\nbody\r\n"
YEARS = 10 * 365 * 86400
BUSY = "450 4.2.2 mailbox full"  # about the recipient: no reason to slow down


@pytest.fixture
def sink():
    with Sink() as s:
        yield s


def relay(place, sink, **config):
    faults = Faults(place)
    options = dict(minimal_backoff_time="600", maximal_backoff_time="4000", **config)
    return faults, Postern(place, relayhost=f"[127.0.0.1]:{sink.port}",
                           environment=faults.environment, **options)


def listed(p):
    return [json.loads(l) for l in p.ctl("queue", "list", "--json").splitlines()]


def deferred(p, count):
    """The queue once so many messages in it wait for their next attempt."""
    def there():
        queue = [m for m in listed(p) if m["status"] == "deferred"]
        return queue if len(queue) == count else None
    return wait_until(there, 60, f"{count} deferred messages")


def nexts(queue):
    return [m["recipients"][0]["next"] for m in queue]


def tried(sink, address):
    return sink.attempts.count(address)


def test_F30_ten_years_ahead(place, sink):
    """Nothing is due, late or expired by it; it needs age and an attempt."""
    sink.replies = {"a@dst.test": BUSY}
    faults, p = relay(place, sink, delay_warning_time="1h")
    with p:
        p.send("s@src.test", ["a@dst.test"], CONTENT)
        deferred(p, 1)
        faults.shift("wall", YEARS)
        p.send("s@src.test", ["b@dst.test"], CONTENT)
        assert sink.wait(1)[0].recipients == ["b@dst.test"]
        assert tried(sink, "a@dst.test") == 1
        p.ctl("queue", "flush")
        wait_until(lambda: tried(sink, "a@dst.test") == 2, 20, "the second attempt")
        [m] = deferred(p, 1)
        assert m["recipients"][0]["attempts"] == 2
        assert "expired" not in p.log() and "notification" not in p.log()


def test_F30_ten_years_ahead_over_a_restart(place, sink):
    """What is old by the clock alone is tried before it is given up."""
    sink.replies = {"a@dst.test": BUSY}
    faults, p = relay(place, sink)
    with p:
        id = p.send("s@src.test", ["a@dst.test"], CONTENT)
        deferred(p, 1)
        p.stop()
        faults.shift("wall", YEARS)
        sink.replies = {}
        p.start()
        assert sink.wait(1)[0].recipients == ["a@dst.test"]
        p.wait_log(rf"{id}: removed$")
        assert "expired" not in p.log()


def test_F30_the_clock_was_wrong_and_is_right_again(place, sink):
    """An attempt that was planned by the wrong clock is not ten years away."""
    sink.replies = {"a@dst.test": BUSY}
    faults, p = relay(place, sink)
    with p:
        faults.shift("wall", YEARS)
        p.send("s@src.test", ["a@dst.test"], CONTENT)
        deferred(p, 1)
        p.kill()
        faults.clear()
        p.start()
        [m] = deferred(p, 1)
        assert 0 < m["recipients"][0]["next"] - time.time() < 4400


def test_time_on_hold_is_no_part_of_the_lifetime(place, sink):
    """Held for longer than maximal_queue_lifetime, a message gets all of its attempts after the
    release, over a restart too; then it is returned."""
    sink.replies = {"a@dst.test": BUSY}
    faults, p = relay(place, sink, maximal_queue_lifetime="5d")

    def day(number):
        faults.shift("wall", int(number * 86400))
        faults.shift("mono", int(number * 86400))

    def attempts(number):
        def made():
            listed(p)  # qmgr looks at the clock
            return tried(sink, "a@dst.test") == number
        wait_until(made, 30, f"attempt {number}")
    with p:
        id = p.send("s@src.test", ["a@dst.test"], CONTENT)
        deferred(p, 1)
        p.ctl("queue", "hold", id)
        day(6)
        p.ctl("queue", "release", id)
        attempts(2)
        deferred(p, 1)
        [why] = [json.loads(l) for l in p.ctl("shaping", "why", id, "--json").splitlines()
                 if "expires" in l]
        assert 0 <= why["expires"] - why["arrival"] - 11 * 86400 < 600, why
        p.kill()
        day(10)
        p.start()
        attempts(3)
        deferred(p, 1)
        assert "expired" not in p.log()
        day(11.2)
        attempts(4)
        p.wait_log(f"{id}: from=<s@src.test>, status=expired, returned to sender")


def test_F31_a_day_back(place, sink):
    """IDs stay unique, also those of a process that did not know the time before;
    retries keep their pace."""
    sink.replies = {"late@dst.test": BUSY}
    faults, p = relay(place, sink)
    p.stop()
    p.write_config(minimal_backoff_time="2", maximal_backoff_time="2")
    p.start()
    with p:
        ids = [p.send("s@src.test", [f"a{i}@dst.test"], CONTENT) for i in range(50)]
        p.send("s@src.test", ["late@dst.test"], CONTENT)
        wait_until(lambda: tried(sink, "late@dst.test") == 1, 20, "the first attempt")
        faults.shift("wall", -86400)
        ids += [p.send("s@src.test", [f"b{i}@dst.test"], CONTENT) for i in range(50)]
        [smtpd] = p.pids("smtpd")
        os.kill(smtpd, 9)
        wait_until(lambda: p.pids("smtpd") not in ([], [smtpd]), 20, "another smtpd")
        wait_until(p._answers, 20, "a greeting")
        ids += [p.send("s@src.test", [f"c{i}@dst.test"], CONTENT) for i in range(50)]
        assert len(set(ids)) == 150
        wait_until(lambda: tried(sink, "late@dst.test") >= 3, 20, "retries at their pace")
        sink.replies = {}
        got = [m.recipients[0] for m in sink.wait(151)]
        assert sorted(got) == sorted({*got}) and len(got) == 151


def test_F47_suspended_for_an_hour(place, sink):
    """All retries of that hour are due at once: they are made under the site's limits,
    nobody is taken for dead, and the next ones are spread."""
    count, limit = 40, 4
    sink.replies = lambda address: BUSY
    # a site that says 450 to everybody is slowed down, here for moments only
    faults, p = relay(place, sink, shaping_time_divisor="1000",
                      default_destination_concurrency_limit=str(limit),
                      initial_destination_concurrency=str(limit))
    with p:
        for i in range(count):
            p.send("s@src.test", [f"a{i}@dst.test"], CONTENT)
        deferred(p, count)
        assert len(sink.attempts) == count
        faults.shift("mono", 3600)
        faults.shift("wall", 3600)
        wait_until(lambda: len(sink.attempts) >= 2 * count, 60, "the second attempts")
        queue = deferred(p, count)
        assert len(sink.attempts) == 2 * count
        waits = [t - time.time() - 3600 for t in nexts(queue)]
        assert min(waits) > 1000 and max(waits) < 1400  # 20 minutes, ten percent either way
        assert max(waits) - min(waits) > 120
        assert len({round(w) for w in waits}) > count / 2
        assert "does not respond" not in p.log() and "panic" not in p.log()
        used = [int(l.split("conn_use=")[1].split(",")[0]) for l in p.log().splitlines()
                if "conn_use=" in l]
        assert used  # sessions were kept: no burst of connections


def test_F47_suspended_where_the_monotonic_clock_stands_still(place, sink):
    """As Linux does it: the wall clock jumps, and no retry is early."""
    sink.replies = lambda address: BUSY if address.startswith("a") else None
    faults, p = relay(place, sink, shaping_time_divisor="1000")
    with p:
        for i in range(20):
            p.send("s@src.test", [f"a{i}@dst.test"], CONTENT)
        before = sorted(nexts(deferred(p, 20)))
        faults.shift("wall", 3600)
        p.send("s@src.test", ["b@dst.test"], CONTENT)
        sink.wait(1)
        after = sorted(nexts(deferred(p, 20)))
        assert len(sink.attempts) == 21
        assert all(abs(y - x - 3600) < 3 for x, y in zip(before, after))
        assert max(before) - min(before) > 20
