"""Postern delivers to other people's servers: every body arrives as it was sent,
over DATA, over BDAT where the server takes it, and by LMTP."""
import os
import re
import smtplib

import pytest

from peers import Dovecot, Exim, Opensmtpd, Postfix, assert_same, data, needs_root, without_trace
from postern import Postern, wait_until

HEADER = (b"From: a@src.test\r\nTo: r@dst.test\r\nSubject: body\r\n"
          b"Date: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <body@src.test>\r\n")
LINE = b"0123456789" * 7 + b"\r\n"
BODIES = {
    "plain": HEADER + b"\r\nhello\r\n",
    "dots": HEADER + b"\r\n.\r\n..\r\n...\r\n.\r\n\r\n.x\r\nx.\r\n.\r\n",
    "line of 998": HEADER + b"\r\n" + b"x" * 998 + b"\r\n",
    "line of 999": HEADER + b"\r\n" + b"y" * 999 + b"\r\n",
    "line of 20 KB": HEADER + b"\r\n." + b"z" * 20000 + b"\r\n.\r\n",
    "8-bit": HEADER + b"\r\n" + bytes(range(0x80, 0x100)) + b"\r\n",
    "blank lines": HEADER + b"\r\n\r\n\r\na\r\n\r\n\r\n",
    "empty": b"",
    "no separator": HEADER,
    "header without a body": HEADER + b"\r\n",
    "no header": b"\r\njust text\r\n",
    "text where a header should be": b"just text\r\n.\r\nand more\r\n",
    "50 MB": HEADER + b"\r\n" + (b"." + LINE) * (50 * 1000 * 1000 // (len(LINE) + 1)),
}
# An empty line, so that no text becomes part of the header that Postern begins.
ARRIVES = {"text where a header should be": b"\r\n" + BODIES["text where a header should be"]}


def submit_all(p, names):
    """Sends the bodies, number i to ri@dst.test."""
    with p.client(120) as c:
        c.ehlo()
        for i, name in enumerate(names):
            for code, text in (c.mail("a@src.test", ["BODY=8BITMIME"]), c.rcpt(f"r{i}@dst.test"),
                               data(c, BODIES[name])):
                assert code == 250, (name, code, text)


def expected(server, name):
    """What that server stores, with LF: the body, but for what it is known to add."""
    content = ARRIVES.get(name, BODIES[name]).replace(b"\r\n", b"\n")
    if server is Exim and name in ("empty", "no separator"):
        return content + b"\n"  # it separates the header from nothing
    return content


def check_all(server, got, names):
    assert sorted(u for u, _ in got) == sorted(f"r{i}" for i in range(len(names)))
    for user, content in got:
        name = names[int(user[1:])]
        have, want = without_trace(content), expected(server, name)
        if server is Opensmtpd:
            have = re.sub(rb"(?m)^(Date|Message-ID): [^\n]*\n", b"", have)
            want = re.sub(rb"(?m)^(Date|Message-ID): [^\n]*\n", b"", want)
        assert_same(name, have, want)


def offers_chunking(server):
    hello = smtplib.LMTP if isinstance(server, Dovecot) else smtplib.SMTP
    with hello("127.0.0.1", server.port, "client.test", timeout=60) as c:
        c.ehlo()
        return c.has_extn("chunking")


def deliver(place, kind, verb, names):
    """All bodies through Postern to that server, by that verb; what the server stored."""
    with kind(place) as server:
        assert offers_chunking(server) or verb == "DATA", "the server takes no BDAT"
        transport = "lmtp" if kind is Dovecot else "smtp"
        with Postern(
                os.path.join(place, "relay"), message_size_limit="60m",
                transport_maps=f"inline:{{ dst.test={transport}:[127.0.0.1]:{server.port} }}",
                smtp_discard_ehlo_keywords="CHUNKING" if verb == "DATA" else "") as p:
            submit_all(p, names)
            got = server.wait(len(names))
            wait_until(lambda: p.log().count(": removed") == len(names), 30, "their end")
            assert p.log().count("status=sent") == len(names)
            assert len(server.messages()) == len(names)
        return got, server.output()


@needs_root
@pytest.mark.parametrize("verb", ("DATA", "BDAT"))
def test_bodies_reach_postfix(place, verb):
    got, log = deliver(place, Postfix, verb, list(BODIES))
    check_all(Postfix, got, list(BODIES))
    wanted, other = ("data", "bdat") if verb == "DATA" else ("bdat", "data")
    assert re.search(rf" {wanted}=\d", log) and not re.search(rf" {other}=\d", log)


@needs_root
@pytest.mark.parametrize("verb", ("DATA", "BDAT"))
def test_bodies_reach_exim(place, verb):
    got, log = deliver(place, Exim, verb, list(BODIES))
    check_all(Exim, got, list(BODIES))
    arrivals = re.findall(r"<= a@src\.test.*", log)
    assert len(arrivals) == len(BODIES)
    assert all((" K " in line) == (verb == "BDAT") for line in arrivals), arrivals


@needs_root
def test_bodies_reach_opensmtpd(place):
    got, _ = deliver(place, Opensmtpd, "DATA", list(BODIES))
    check_all(Opensmtpd, got, list(BODIES))


@needs_root
@pytest.mark.parametrize("verb", ("DATA", "BDAT"))
def test_bodies_reach_dovecot_by_lmtp(place, verb):
    got, _ = deliver(place, Dovecot, verb, list(BODIES))
    check_all(Dovecot, got, list(BODIES))
