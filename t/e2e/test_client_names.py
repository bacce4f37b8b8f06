"""smtpd_peername_lookup: who a client is, in logs, Received and event log."""
import os
import re
import signal
import socket
import threading
import time

import pytest
from dnsserver import DnsServer
from postern import Postern, wait_until
from sink import Sink

MESSAGE = b"Subject: x\r\n\r\nbody\r\n"


@pytest.fixture
def dns():
    server = DnsServer()
    yield server
    server.stop()


@pytest.fixture
def sink():
    with Sink() as s:
        yield s


@pytest.fixture
def relay(place, dns, sink):
    with Postern(place, relayhost=f"[127.0.0.1]:{sink.port}", smtpd_peername_lookup="yes",
                 smtpd_peername_timeout="2s", resolver_nameservers=dns.address) as p:
        p.wait_log(r"master\[\d+\]: ready: ")
        yield p


def name(dns, address, host, has=None):
    dns.add(".".join(reversed(address.split("."))) + ".in-addr.arpa", "PTR", host + ".")
    dns.add(host, "A", has or address)


class Session:
    """A client from an address, up to the greeting."""

    def __init__(self, relay, source):
        begun = time.monotonic()
        self.sock = socket.create_connection(("127.0.0.1", relay.port), 20, (source, 0))
        self.file = self.sock.makefile("rb")
        self.greeting = self.file.readline().decode()
        self.waited = time.monotonic() - begun

    def command(self, text):
        self.sock.sendall(text + b"\r\n")
        line = self.file.readline()
        while line[3:4] == b"-":
            line = self.file.readline()
        return int(line[:3])

    def submit(self):
        assert self.command(b"EHLO client.test") == 250
        assert self.command(b"MAIL FROM:<a@src.test>") == 250
        assert self.command(b"RCPT TO:<b@dst.test>") == 250
        assert self.command(b"DATA") == 354
        assert self.command(MESSAGE + b".") == 250
        self.close()

    def close(self):
        self.command(b"QUIT")
        self.file.close()
        self.sock.close()


def connect_as(relay, address, expected):
    """Connects from the address; the log calls it `expected`."""
    s = Session(relay, address)
    assert s.greeting.startswith("220 ")
    relay.wait_log(rf"smtpd\[\d+\]: connect from {re.escape(expected)}$")
    s.close()
    relay.wait_log(rf"smtpd\[\d+\]: disconnect from {re.escape(expected)} quit=1 commands=1$")
    return s.waited


def test_the_name_goes_into_logs_received_and_events(relay, dns, sink):
    name(dns, "127.0.0.5", "Client.Example.test")
    Session(relay, "127.0.0.5").submit()
    who = "client.example.test[127.0.0.5]"
    (message,) = sink.wait(1)
    assert b"Received: from client.test (client.example.test [127.0.0.5])" in message.content
    relay.wait_log(rf"smtpd\[\d+\]: [0-9A-Za-z]+: client={re.escape(who)}$")
    relay.wait_log(rf"smtpd\[\d+\]: connect from {re.escape(who)}$")
    relay.wait_log(rf"smtpd\[\d+\]: disconnect from {re.escape(who)} ehlo=1 mail=1 rcpt=1 "
                   r"data=1 quit=1 commands=5$")
    wait_until(lambda: [e for e in relay.events() if e.get("client") == who], 10, "the event")


def test_loopback_is_localhost(relay):
    connect_as(relay, "127.0.0.1", "localhost[127.0.0.1]")


def test_who_has_no_true_name_is_unknown(relay, dns):
    name(dns, "127.0.0.6", "mail.bank.test", has="192.0.2.1")
    dns.servfail("7.0.0.127.in-addr.arpa")
    dns.raw("8.0.0.127.in-addr.arpa", "PTR", [b"\x03m\nx\x04test\0"])
    for last in (6, 7, 8, 9):
        connect_as(relay, f"127.0.0.{last}", f"unknown[127.0.0.{last}]")
    assert "bank" not in relay.log()


def test_a_silent_server_delays_the_greeting_within_the_limit(relay, dns):
    dns.silent("6.0.0.127.in-addr.arpa")
    waited = connect_as(relay, "127.0.0.6", "unknown[127.0.0.6]")
    assert 1 < waited < 4  # 2 s, looked at every second


def test_others_are_greeted_while_one_waits(relay, dns):
    dns.silent("6.0.0.127.in-addr.arpa")
    slow = threading.Thread(target=Session, args=(relay, "127.0.0.6"))
    slow.start()
    wait_until(lambda: dns.asked("6.0.0.127.in-addr.arpa"), 10, "the question")
    assert connect_as(relay, "127.0.0.1", "localhost[127.0.0.1]") < 1
    slow.join()


def test_B37_who_talks_during_the_lookup_is_refused(relay, dns):
    dns.delay("6.0.0.127.in-addr.arpa", 0.5)
    with socket.create_connection(("127.0.0.1", relay.port), 20, ("127.0.0.6", 0)) as s:
        s.sendall(b"EHLO early.test\r\n")
        assert s.recv(512).startswith(b"554 ")


def test_a_client_that_leaves_during_the_lookup(relay, dns):
    dns.delay("6.0.0.127.in-addr.arpa", 0.3)
    socket.create_connection(("127.0.0.1", relay.port), 20, ("127.0.0.6", 0)).close()
    relay.wait_log(r"lost connection after CONNECT from unknown\[127.0.0.6\]$")
    connect_as(relay, "127.0.0.1", "localhost[127.0.0.1]")


def test_when_resolve_dies_sessions_go_on(relay, dns):
    dns.silent("6.0.0.127.in-addr.arpa")
    done = []
    slow = threading.Thread(target=lambda: done.append(Session(relay, "127.0.0.6")))
    slow.start()
    wait_until(lambda: dns.asked("6.0.0.127.in-addr.arpa"), 10, "the question")
    (pid,) = relay.pids("resolve")
    os.kill(pid, signal.SIGKILL)
    slow.join(10)
    assert done[0].greeting.startswith("220 ") and done[0].waited < 2

    def named():
        Session(relay, "127.0.0.1").close()
        return relay.log().count("connect from localhost[127.0.0.1]") > 1
    wait_until(named, 10, "names from the new process")


def test_the_parameter_can_be_set_for_one_service(place, dns):
    name(dns, "127.0.0.5", "a.test")
    with Postern(place, start=False, relayhost="[127.0.0.1]:1",
                 resolver_nameservers=dns.address) as p:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            other = s.getsockname()[1]
        p.master_cf += (f"127.0.0.1:{other} inet n - y - 1 smtpd\n"
                        "    -o smtpd_peername_lookup=yes\n")
        p.write_config()
        p.start()
        p.wait_log(r"master\[\d+\]: ready: ")
        connect_as(p, "127.0.0.5", "unknown[127.0.0.5]")
        assert dns.asked("5.0.0.127.in-addr.arpa") == 0
        p.port = other
        connect_as(p, "127.0.0.5", "a.test[127.0.0.5]")
