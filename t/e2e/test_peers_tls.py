"""Other people's programs and Postern over TLS, in both directions: each verifies the
other's certificate, and bodies arrive as they were sent."""
import os
import re
import shutil

import pytest

from certs import Authority
from peers import Exim, Opensmtpd, Postfix, needs_root
from postern import Postern, free_port, wait_until
from sink import Sink
from test_peers_deliver import BODIES, check_all, submit_all
from test_peers_submit import CLIENTS, SENDER, Tls, check, send

NAMES = [n for n in BODIES if BODIES[n].startswith(b"From:") and n != "no separator"]
SPEAKERS = [n for n, c in CLIENTS.items() if c.speaks_tls]
SERVERS = (Postfix, Exim, Opensmtpd)


@pytest.fixture
def authority(place):
    """Signs a certificate for 127.0.0.1; `chain_file` is what Postern takes: key and chain."""
    folder = os.path.join(place, "certificates")
    os.mkdir(folder)
    ca = Authority(folder)
    ca.good = ca.server("127.0.0.1", "localhost")
    ca.chain_file = os.path.join(folder, "chain-file")
    with open(ca.chain_file, "wb") as out:
        os.fchmod(out.fileno(), 0o600)
        for part in (ca.good.key, ca.good.chain):
            with open(part, "rb") as f:
                shutil.copyfileobj(f, out)
    return ca


@pytest.fixture
def relay(place, authority):
    """With STARTTLS on p.port, and TLS from the first byte on p.tls_port."""
    with Sink() as sink:
        p = Postern(os.path.join(place, "relay"), start=False, message_size_limit="60m",
                    relayhost=f"[127.0.0.1]:{sink.port}", smtpd_tls_security_level="may",
                    smtpd_tls_chain_files=authority.chain_file)
        p.sink, p.tls_port = sink, free_port()
        p.master_cf += (f"127.0.0.1:{p.tls_port} inet n - y - 1 smtpd\n"
                        "  -o smtpd_tls_wrappermode=yes\n")
        p.write_config()
        p.start()
        with p:
            yield p


@pytest.mark.parametrize("mode", ("starttls", "tls"))
@pytest.mark.parametrize("name", SPEAKERS)
def test_bodies_from(place, relay, authority, name, mode):
    tls = Tls(mode, authority.certificate)
    names = NAMES if name == "curl" else [n for n in NAMES if n != "50 MB"]
    for i, body in enumerate(names):
        done = send(CLIENTS[name], relay, place, f"r{i}@dst.test", BODIES[body], tls,
                    relay.tls_port if mode == "tls" else relay.port)
        assert done.returncode == 0, (body, done.stdout, done.stderr)
    relay.sink.wait(len(names), 60)
    check(relay.sink, names)
    assert relay.log().count("TLS connection established from ") == len(names)
    for m in relay.sink.messages:
        assert re.match(rb"Received: from client\.test .*?\r\n\t\(using TLSv1\.[23] with cipher ",
                        m.content), m.content[:300]


@pytest.mark.parametrize("name", SPEAKERS)
def test_clients_refuse_a_certificate_that_they_do_not_trust(place, relay, authority, name):
    """Or the tests before would prove nothing about it."""
    other = Authority(os.path.dirname(authority.certificate), "other")
    if name == "smtplib":
        with pytest.raises(OSError):
            send(CLIENTS[name], relay, place, "r@dst.test", BODIES["plain"],
                 Tls("starttls", other.certificate))
    else:
        done = send(CLIENTS[name], relay, place, "r@dst.test", BODIES["plain"],
                    Tls("starttls", other.certificate))
        assert done.returncode != 0
    assert relay.log().count("queue active") == 0


@needs_root
@pytest.mark.parametrize("kind", SERVERS)
def test_bodies_from_a_server_with_postern_as_smarthost(place, relay, authority, kind):
    with kind(place, relayhost=relay.port, certificate=authority.good) as server:
        for i, name in enumerate(NAMES):
            server.submit(SENDER, f"r{i}@dst.test", BODIES[name], ["BODY=8BITMIME"])
        relay.sink.wait(len(NAMES), 120)
        check(relay.sink, NAMES)
    assert all(b"(using TLSv1.3 with cipher " in m.content[:400] for m in relay.sink.messages)


@needs_root
@pytest.mark.parametrize("kind", (Postfix, Exim))
def test_bodies_reach(place, authority, kind):
    """Behind a verified certificate only. Not OpenSMTPD: Debian's cannot do its part of a
    handshake with OpenSSL 3, with any client. Not LMTP, which Postern speaks in clear."""
    with kind(place, certificate=authority.good) as server:
        with Postern(
                os.path.join(place, "relay"), message_size_limit="60m",
                transport_maps=f"inline:{{ dst.test=smtp:[127.0.0.1]:{server.port} }}",
                smtp_tls_security_level="verify", smtp_tls_CAfile=authority.certificate) as p:
            submit_all(p, NAMES)
            got = server.wait(len(NAMES))
            wait_until(lambda: p.log().count(": removed") == len(NAMES), 30, "their end")
            used = [e["tls"] for e in p.events() if e["event"] == "delivered"]
            assert len(used) == len(NAMES), used
            assert all(u.startswith("TLSv1.3 with cipher ") for u in used), used
            p.wait_log(r"Verified TLS connection established to 127\.0\.0\.1\[127")
        check_all(kind, got, NAMES)


@needs_root
def test_nothing_reaches_a_server_with_a_certificate_of_others(place, authority):
    other = Authority(os.path.dirname(authority.certificate), "other")
    with Postfix(place, certificate=authority.good) as server, Postern(
            os.path.join(place, "relay"), relayhost=f"[127.0.0.1]:{server.port}",
            smtp_tls_security_level="verify", smtp_tls_CAfile=other.certificate) as p:
        p.send(SENDER, ["r0@dst.test"], BODIES["plain"])
        p.wait_log(r"to=<r0@dst\.test>, .*dsn=4\.7\.5, status=deferred ")
        assert server.messages() == [] and "queue active" not in server.output()
