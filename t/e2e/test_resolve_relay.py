"""The whole relay with real DNS answers: what resolve says is what senders get."""
import asyncio
import os
import re
import threading
import time

import pytest

from dnsserver import DnsServer
from postern import Postern, pause, wait_until
from sink import Sink

OUTCOMES = [
    ("a@dst.test", r"relay=mx\.test\[127\.0\.0\.1\]:\d+, .*dsn=2\.0\.0, status=sent"),
    ("a@null.test", r"relay=none, .*dsn=5\.1\.10, status=bounced \(domain null\.test accepts no mail"),
    ("a@missing.test", r"dsn=5\.1\.2, status=bounced \(domain missing\.test does not exist"),
    ("a@dead.test", r"dsn=4\.4\.3, status=deferred \(DNS lookup of MX for dead\.test failed"),
    ("a@[10.0.0.1]", r"dsn=5\.4\.6, status=bounced \(\[10\.0\.0\.1\] is no public address"),
    ("a@map.test", r"relay=127\.0\.0\.1\[127\.0\.0\.1\]:\d+, .*status=sent"),
    ("a@void.test", r"relay=none, .*dsn=2\.0\.0, status=sent \(gone\)"),
    ("a@bad.test", r"dsn=5\.7\.1, status=bounced \(not here\)"),
]


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    place = tmp_path_factory.mktemp("relay")
    for p in [place, *place.parents][:3]:
        os.chmod(p, 0o755)
    dns = DnsServer()
    dns.add("dst.test", "MX", "10 mx.test")
    dns.add("mx.test", "A", "127.0.0.1")
    dns.add("null.test", "MX", "0 .")
    dns.servfail("dead.test")
    with Sink() as sink:
        table = place / "transport"
        table.write_text(f"map.test smtp:[127.0.0.1]:{sink.port}\n"
                         "void.test discard:gone\nbad.test error:5.7.1 not here\n")
        table.chmod(0o644)
        with Postern(str(place), resolver_nameservers=dns.address,
                     resolver_permit_networks="127.0.0.0/8", smtp_tcp_port=str(sink.port),
                     transport_maps=f"texthash:{table}") as p:
            yield p
    dns.stop()


@pytest.mark.parametrize("recipient,line", OUTCOMES)
def test_B62_B63_B66_outcome(relay, recipient, line):
    queue_id = relay.send("s@src.test", [recipient], b"Subject: x\r\n\r\nhello\r\n")
    relay.wait_log(f"{queue_id}: to=<{recipient.replace('[', '.').replace(']', '.')}>, .*{line}")


class Waiting(Sink):
    """Answers the end of data only when `go` is set."""

    def __init__(self):
        self.go = threading.Event()
        super().__init__()

    async def handle_DATA(self, server, session, envelope):
        await asyncio.get_running_loop().run_in_executor(None, self.go.wait, 60)
        return await super().handle_DATA(server, session, envelope)


def test_F32_answers_that_hold_for_less_time_than_the_others_take(tmp_path):
    """A message to two domains of one server waits in line until both must be looked up again; that
    takes one of them longer than the other one's answer holds."""
    for p in [tmp_path, *tmp_path.parents][:3]:
        os.chmod(p, 0o755)
    dns = DnsServer()
    dns.add("mx.test", "A", "127.0.0.1")
    dns.add("busy.test", "MX", "10 mx.test")
    for name, seconds in [("one.test", 1.0), ("two.test", 2.8)]:
        dns.add(name, "MX", "10 mx.test", ttl=1)
        dns.delay(name, seconds, "MX")
    with Waiting() as sink:
        with Postern(str(tmp_path), resolver_nameservers=dns.address, resolver_min_ttl="1s",
                     resolver_permit_networks="127.0.0.0/8", smtp_tcp_port=str(sink.port),
                     default_destination_concurrency_limit="1", initial_destination_concurrency="1") as p:
            p.send("x@other.test", ["a@busy.test"], b"Subject: 1\r\n\r\nhello\r\n")
            wait_until(lambda: "a@busy.test" in sink.attempts, what="a delivery that takes long")
            both = p.send("s@src.test", ["a@one.test", "a@two.test"], b"Subject: 2\r\n\r\nhello\r\n")
            wait_until(lambda: re.search("in line.*", p.ctl("shaping", "why", both)) and
                       "DNS" not in p.ctl("shaping", "why", both), 60, "both in line")
            end = time.monotonic() + 2.5  # both answers are out of date
            while time.monotonic() < end:
                pause()
            sink.go.set()
            p.wait_log(rf"{both}: to=<a@two.test>, .*status=sent", 40)
            assert sorted(sink.wait(2)[1].recipients) == ["a@one.test", "a@two.test"]
    dns.stop()
