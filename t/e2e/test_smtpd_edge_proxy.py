"""Listeners behind a load balancer: the PROXY protocol, versions 1 and 2."""
import socket
import struct

import pytest

from smtpd_rig import OK, Client, Smtpd

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PROXY, STRANGER = "127.0.0.1", "127.0.0.9"
IN_NETWORKS = b"PROXY TCP4 192.0.2.7 192.0.2.1 40001 25\r\n"
ELSEWHERE = b"PROXY TCP4 203.0.113.7 192.0.2.1 40001 25\r\n"


def v2(source="192.0.2.7", extra=b"", command=0x21, length=None):
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    addresses = socket.inet_pton(family, source) * 2 + struct.pack("!HH", 40001, 25)
    kind = 0x21 if family == socket.AF_INET6 else 0x11
    size = len(addresses) + len(extra) if length is None else length
    return SIGNATURE + struct.pack("!BBH", command, kind, size) + addresses + extra


@pytest.fixture(scope="module")
def smtpd():
    with Smtpd(connect=False, mynetworks="192.0.2.0/24 [2001:db8::]/32 127.0.0.1/32",
               smtpd_upstream_proxy_protocol="haproxy", smtpd_proxy_networks=PROXY,
               smtpd_upstream_proxy_timeout="1s", smtpd_client_connection_count_limit="3",
               smtpd_client_event_limit_exceptions="") as s:
        s.qmgr = s.master.peer("qmgr")
        s.qmgr.send("ipc_spool_state", state=OK, commit_credit=100, byte_credit=1 << 24)
        yield s


def connect(smtpd, header, source=PROXY):
    c = Client(smtpd.port, greet=False, source=source)
    c.send(header)
    return c


def relay_reply(client):
    assert client.reply()[0] == 220
    client.expect("EHLO client.test", "250")
    client.expect("MAIL FROM:<a@src.test>", "250")
    return client.command("RCPT TO:<b@dst.test>")[0]


@pytest.mark.parametrize("header, code, name", [
    (IN_NETWORKS, 250, "192.0.2.7"),
    (ELSEWHERE, 554, "203.0.113.7"),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 25\r\n", 250, "2001:db8::1"),
    (b"PROXY TCP6 ::ffff:192.0.2.9 ::1 1 25\r\n", 250, "192.0.2.9"),
    (v2(), 250, "192.0.2.7"),
    (v2("203.0.113.8", extra=b"\x04\0\x02ab"), 554, "203.0.113.8"),
    (v2("2001:db8::1"), 250, "2001:db8::1"),
    # the proxy itself is in mynetworks, but who is behind it need not be
    (b"PROXY UNKNOWN\r\n", 554, "127.0.0.1"),
    (v2(command=0x20), 554, "127.0.0.1"),
])
def test_the_client_is_whom_the_proxy_names(smtpd, header, code, name):
    with connect(smtpd, header) as c:
        assert relay_reply(c) == code
        c.command("QUIT")
    smtpd.wait_log(rf"disconnect from unknown\[{name}\] ")


def test_message_is_of_the_real_client(smtpd):
    with connect(smtpd, IN_NETWORKS) as c:
        assert relay_reply(c) == 250
        c.data(b"Subject: x\r\n\r\nx\r\n.\r\n")
        commit = smtpd.accept(c)
    assert commit.client == b"unknown[192.0.2.7]"
    assert b"from client.test (unknown [192.0.2.7])" in commit.prefix


def test_header_in_pieces(smtpd):
    with connect(smtpd, b"") as c:
        for byte in v2(extra=b"\x04\0\x02ab"):
            c.send(bytes([byte]))
        assert relay_reply(c) == 250


def test_limits_hold_for_the_real_client(smtpd):
    clients = [connect(smtpd, ELSEWHERE) for _ in range(3)]
    for c in clients:
        assert c.reply()[0] == 220
    with connect(smtpd, ELSEWHERE) as c:
        assert c.reply()[0] == 421
    with connect(smtpd, IN_NETWORKS) as c:
        assert c.reply()[0] == 220
    for c in clients:
        c.sock.close()


def test_B35_proxy_header_from_a_stranger(smtpd):
    with connect(smtpd, b"", source=STRANGER) as c:
        assert c.closed()
    smtpd.wait_log(rf"warning: smtpd_proxy_networks .* unknown\[{STRANGER}\]: connection closed")


@pytest.mark.parametrize("header", [
    b"EHLO client.test\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 40001\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 40001 25 " + b"x" * 200,
    v2(length=11),
    v2(length=0xffff),
    v2(extra=b"\x04\0\x09ab"),
    v2(command=0x25),
])
def test_B35_bad_proxy_header(smtpd, header):
    with connect(smtpd, header) as c:
        assert c.closed()


@pytest.mark.parametrize("header", [b"", b"PROXY TCP4 192.", v2()[:20], v2(length=100)])
def test_B35_truncated_proxy_header(smtpd, header):
    with connect(smtpd, header) as c:
        assert c.closed()
    with connect(smtpd, header) as c:
        c.sock.shutdown(socket.SHUT_WR)
        assert c.closed()


def test_client_that_talks_behind_the_header_before_the_greeting(smtpd):
    with connect(smtpd, IN_NETWORKS + b"EHLO client.test\r\n") as c:
        assert c.reply()[0] == 554
        assert c.closed()
