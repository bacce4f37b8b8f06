"""Bare line ends and NUL, by the rules, on their way to other people's servers; 50 MB to a
server that writes files."""
import os
import subprocess

import pytest

from peers import Dovecot, Exim, Opensmtpd, Postfix, assert_same, data, needs_root, without_trace
from postern import Postern, free_port, wait_until
from sink import Sink
from test_cases_bodies import read_dumps
from test_peers_deliver import BODIES, HEADER

BARE = {"LF": b"one\ntwo\r\n", "CR": b"one\rtwo\r\n", "CR.CRLF": b"one\r\r\ntwo\r\n",
        "CRLF.LF": b"one\r\n\ntwo\r\n", "LF.LF": b"one\n\ntwo\n\n", "last CR": b"one\r"}
NUL = HEADER + b"\r\none\0two\r\n"


def data_end(content):
    """A dot behind a bare LF ends nothing (B01)."""
    return b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n"


def hand_in(c, verb, recipient, content):
    """One message exactly as it is; the last reply's code."""
    for code, text in (c.mail("a@src.test", ["BODY=8BITMIME"]), c.rcpt(recipient)):
        assert code == 250, text
    if verb == "BDAT":
        c.send(b"BDAT %d LAST\r\n" % len(content) + content)
    else:
        assert c.docmd("DATA")[0] == 354
        c.send(content + data_end(content))
    return c.getreply()[0]


def arrives(name, verb):
    """Each bare CR and LF is a line's end (B01, B02)."""
    text = BARE[name] + (data_end(BARE[name])[:-3] if verb == "DATA" else b"")
    text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return HEADER.replace(b"\r\n", b"\n") + b"\n" + text


def hand_in_all(p, verb):
    """What arrives with the rule for old devices; what has NUL does not even then."""
    with p.client(60) as c:
        c.ehlo()
        for i, name in enumerate(BARE):
            assert hand_in(c, verb, f"r{i}@dst.test", HEADER + b"\r\n" + BARE[name]) == 250, name
        assert hand_in(c, verb, "r30@dst.test", NUL) == 550
    wait_until(lambda: p.log().count("status=sent") >= len(BARE), 60, "all deliveries")
    return [arrives(name, verb) for name in BARE]


@needs_root
@pytest.mark.parametrize("verb", ("DATA", "BDAT"))
@pytest.mark.parametrize("kind", (Postfix, Exim, Opensmtpd, Dovecot))
def test_B01_B02_B05_bare_ends_and_NUL_before_servers(place, kind, verb):
    with kind(place) as server:
        transport = "lmtp" if kind is Dovecot else "smtp"
        with Postern(
                os.path.join(place, "relay"), smtpd_forbid_bare_newline="normalize",
                transport_maps=f"inline:{{ dst.test={transport}:[127.0.0.1]:{server.port} }}") as p:
            expected_all = hand_in_all(p, verb)
            got = dict(server.wait(len(BARE)))
            assert sorted(got) == sorted(f"r{i}" for i in range(len(BARE)))
            for i, name in enumerate(BARE):
                assert_same(name, without_trace(got[f"r{i}"]), expected_all[i])


@pytest.mark.parametrize("verb", ("DATA", "BDAT"))
def test_B01_B02_B05_bare_ends_and_NUL_before_aiosmtpd(place, verb):
    with Sink() as sink, Postern(place, relayhost=f"[127.0.0.1]:{sink.port}",
                                 smtpd_forbid_bare_newline="normalize") as p:
        expected_all = hand_in_all(p, verb)
        got = {m.recipients[0]: m.content for m in sink.wait(len(BARE))}
        assert len(sink.messages) == len(BARE)
        for i, name in enumerate(BARE):
            assert_same(name, without_trace(got[f"r{i}@dst.test"]),
                        expected_all[i].replace(b"\n", b"\r\n"))


@pytest.mark.parametrize("verb", ("DATA", "BDAT"))
def test_B01_B02_B05_bare_ends_and_NUL_are_refused(place, verb):
    """The rule for all others: nothing of it reaches a server."""
    with Sink() as sink, Postern(place, relayhost=f"[127.0.0.1]:{sink.port}") as p:
        with p.client(60) as c:
            c.ehlo()
            for name, body in BARE.items():
                assert hand_in(c, verb, "r@dst.test", HEADER + b"\r\n" + body) == 550, name
            assert hand_in(c, verb, "r@dst.test", NUL) == 550
            assert hand_in(c, verb, "good@dst.test", BODIES["plain"]) == 250
        sink.wait(1)
        assert [m.recipients for m in sink.messages] == [["good@dst.test"]]


def test_50_MB_reach_smtp_sink(place):
    """Its files tell what came; it takes no BDAT."""
    dumps, port = os.path.join(place, "dumps"), free_port()
    os.mkdir(dumps)
    os.chmod(dumps, 0o777)
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    with subprocess.Popen(["smtp-sink", *user, "-d", f"{dumps}/%M.", f"127.0.0.1:{port}", "100"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sink:
        try:
            with Postern(os.path.join(place, "relay"), relayhost=f"[127.0.0.1]:{port}",
                         message_size_limit="60m", minimal_backoff_time="1s",
                         destination_suspend_time="1s") as p:
                for name in ("50 MB", "dots"):
                    with p.client(120) as c:
                        c.ehlo()
                        assert c.mail("a@src.test")[0] == c.rcpt(f"{name[0]}@dst.test")[0] == 250
                        assert data(c, BODIES[name])[0] == 250
                wait_until(lambda: p.log().count("status=sent") == 2, 120, "both deliveries")
                got = read_dumps(dumps)
                for name in ("50 MB", "dots"):
                    assert_same(name, got[f"{name[0]}@dst.test"],
                                BODIES[name].replace(b"\r\n", b"\n"))
        finally:
            sink.terminate()
