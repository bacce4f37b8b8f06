"""MTA-STS policies over time: they are fetched anew before they expire, and nothing that
lasts longer than they do lets mail go without them."""
import tempfile

import pytest

import faults as fault_points
from certs import Authority
from faults import Faults
from policyhost import PolicyHost
from postern import wait_until
from test_resolve_dns import dns, start  # noqa: F401
from test_resolve_tls import CONFIG, MAY, VERIFY, only
from test_tls_out import MAIL, attempt, relay, tls_sink

pytestmark = pytest.mark.skipif(not fault_points.available(), reason="built without fault points")

HOUR, DAY = 3600, 86400


@pytest.fixture(scope="module")
def ca():
    with tempfile.TemporaryDirectory(prefix="postern-") as place:
        authority = Authority(place)
        authority.host = authority.server("mta-sts.a.test", "mta-sts.sts.test")
        authority.bad = authority.server("other.example")
        yield authority


@pytest.fixture
def host(ca):
    with PolicyHost(ca.host) as server:
        yield server


class Clock:
    """Both clocks of a process, so many seconds after its start. The monotonic one first:
    what the wall clock makes due then has all its time."""

    def __init__(self, place):
        self.faults = Faults(place)

    def __call__(self, seconds):
        self.faults.shift("mono", seconds)
        self.faults.shift("wall", seconds)


@pytest.fixture
def clock(place):
    return Clock(place)


@pytest.fixture
def sts(dns, start, host, ca, clock):
    """A resolve that has got the policy of a.test, once. DNS answers are not kept."""
    dns.add("a.test", "MX", "10 mx1.test", ttl=3600)
    dns.add("_mta-sts.a.test", "TXT", '"v=STSv1; id=1;"', ttl=0)
    dns.add("mta-sts.a.test", "A", "127.0.0.1")

    def again():
        r = start(environment=clock.faults.environment, smtp_tls_mta_sts="yes",
                  smtp_tls_mta_sts_port=str(host.port), resolver_timeout="10")
        r.master.table("smtp_tls_CAfile", 0, "ca.pem", ca.pem)
        return r

    def make(max_age=DAY):
        host.policy("a.test", max_age=max_age)
        r = again()
        assert only(r.ask("u@a.test")).level == VERIFY
        assert len(host.asked) == 1
        return r
    make.again = again
    return make


def asked(host, count):
    wait_until(lambda: len(host.asked) >= count, 20, f"fetch {count} of the policy")
    assert len(host.asked) == count


def settled(r, count):
    """So many fetches are over, by what the log says about failed ones."""
    wait_until(lambda: r.master.log().count("stays in use, until") >= count, 20, "the warning")


def test_B75_a_policy_is_fetched_anew_before_it_expires(sts, host, clock):
    """Mail or no mail; and with mail there is no moment without it."""
    r = sts()
    clock(11 * HOUR)
    assert only(r.ask("u@a.test")).level == VERIFY
    assert len(host.asked) == 1
    clock(13 * HOUR)  # half of its life is over, and nobody asks
    asked(host, 2)
    for n, seconds in enumerate((26, 39, 52)):
        clock(seconds * HOUR)
        assert only(r.ask("u@a.test")).level == VERIFY, seconds
        asked(host, 3 + n)


def test_B75_around_the_end_of_a_policy(sts, host, clock):
    """Every quarter of an hour, over three ends of what was fetched first."""
    r = sts()
    for at in range(23 * HOUR, 73 * HOUR, 900):
        clock(at)
        assert only(r.ask("u@a.test")).level == VERIFY, at


def test_B75_a_policy_server_that_is_down(sts, host, clock):
    """It is asked again and again while the policy holds; the policy holds to its end, and
    not a second longer; and a server that is back is believed at once."""
    r = sts()
    host.answer("a.test", status=503)
    clock(13 * HOUR)
    asked(host, 2)
    settled(r, 1)
    clock(15 * HOUR)  # an eighth of eleven hours later
    asked(host, 3)
    settled(r, 2)
    r.master.wait_log(r"warning: MTA-STS policy of a\.test: .*answers with status 503; the one "
                      r"that is known stays in use, until \d{4}-\d\d-\d\d \d\d:\d\d UTC$")
    clock(DAY - 30)
    reply = r.ask("u@a.test")
    assert only(reply).level == VERIFY and reply.ttl <= 30
    clock(DAY + 10)
    reply = r.ask("u@a.test")
    assert (only(reply).level, only(reply).origin) == (MAY, CONFIG)
    assert reply.ttl <= 300  # it is tried again then
    r.master.wait_log(r"MTA-STS policy of a\.test: it has expired")
    host.policy("a.test")
    clock(DAY + 400)
    assert only(r.ask("u@a.test")).level == VERIFY


def test_B75_a_policy_server_that_comes_back_in_time(sts, host, clock):
    r = sts()
    host.answer("a.test", status=503)
    clock(13 * HOUR)
    asked(host, 2)
    settled(r, 1)
    host.policy("a.test")
    clock(15 * HOUR)
    asked(host, 3)
    clock(DAY + HOUR)
    assert only(r.ask("u@a.test")).level == VERIFY


def test_B75_answers_end_with_the_policy(sts, host, clock):
    """A life shorter than what DNS lets its answers live: no rule lives longer than it."""
    r = sts(max_age=100)
    reply = r.ask("u@a.test")
    assert only(reply).level == VERIFY and reply.ttl <= 100
    host.answers.clear()
    clock(80)
    assert only(r.ask("u@a.test")).level == VERIFY
    host.policy("a.test")
    clock(130)
    assert only(r.ask("u@a.test")).level == VERIFY


def test_B75_a_policy_that_is_over_at_once_holds_a_minute(sts, host, clock):
    r = sts(max_age=0)
    host.answers.clear()
    clock(40)
    assert only(r.ask("u@a.test")).level == VERIFY


def test_B75_dns_that_fails_does_not_end_a_policy(sts, host, dns, clock):
    """As long as its server is there."""
    r = sts()
    dns.servfail("_mta-sts.a.test")
    for n, seconds in enumerate((13, 26, 39)):
        clock(seconds * HOUR)
        asked(host, 2 + n)
        assert only(r.ask("u@a.test")).level == VERIFY, seconds


def test_a_domain_that_takes_its_record_away(sts, host, dns, clock):
    """What it said holds as long as it said, and is not fetched any more."""
    r = sts()
    dns.remove("_mta-sts.a.test")
    before = dns.asked("_mta-sts.a.test")
    clock(23 * HOUR)
    wait_until(lambda: dns.asked("_mta-sts.a.test") != before, 20, "a question")
    assert only(r.ask("u@a.test")).level == VERIFY
    clock(DAY + 10)
    assert only(r.ask("u@a.test")).level == MAY
    assert len(host.asked) == 1 and "warning: MTA-STS" not in r.master.log()


def test_B75_after_a_restart(sts, host, clock):
    """A policy that is due is fetched anew, whether there is mail or not."""
    r = sts()
    r.master.master.send("ipc_drain", seconds=10)
    wait_until(lambda: r.master.process.poll() is not None, 10, "its end")
    clock(20 * HOUR)
    again = sts.again()
    asked(host, 2)
    clock(30 * HOUR)
    assert only(again.ask("u@a.test")).level == VERIFY


def test_B75_no_mail_passes_by_a_policy(place, dns, ca, host, clock):
    """Through the whole relay: a server with another's certificate gets nothing, on the
    days after the first neither."""
    dns.add("sts.test", "MX", "10 mx.test")
    dns.add("mx.test", "A", "127.0.0.1")
    dns.add("mta-sts.sts.test", "A", "127.0.0.1")
    dns.add("_mta-sts.sts.test", "TXT", '"v=STSv1; id=1"', ttl=3600)
    host.policy("sts.test", mx=("mx.test",))
    with tls_sink(ca.bad) as sink, \
            relay(place, dns, sink, ca, smtp_tls_mta_sts_port=str(host.port),
                  environment=clock.faults.environment) as p:
        for at in (0, DAY - 2400, DAY + 900, DAY + 1300, 2 * DAY + 2000):
            clock(at)
            event = attempt(p, p.send("s@src.test", ["r@sts.test"], MAIL))
            assert event["event"] == "deferred" and "(MTA-STS)" in event["text"], (at, event)
        assert sink.messages == []
