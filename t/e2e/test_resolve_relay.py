"""The whole relay with real DNS answers: what resolve says is what senders get."""
import os

import pytest

from dnsserver import DnsServer
from postern import Postern
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
