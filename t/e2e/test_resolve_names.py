"""resolve tells smtpd the names of clients."""
import ipaddress

import pytest

from dnsserver import DnsServer
from ipc import Closed, FakeMaster

FOUND, NONE, MISMATCH, TEMPORARY = range(4)


class Resolve:
    def __init__(self, directory, dns, **config):
        self.config = {"resolver_nameservers": dns.address, **config}
        self.master = FakeMaster("resolve", self.config, directory=directory)
        self.smtpd = self.master.peer("smtpd")
        self.tag = 0

    def send(self, address, channel=None):
        self.tag += 1
        (channel or self.smtpd).send("ipc_name_request", tag=self.tag,
                                     address=ipaddress.ip_address(address).packed)
        return self.tag

    def ask(self, address, timeout=10):
        tag = self.send(address)
        reply = self.smtpd.expect("ipc_name_reply", timeout)
        assert reply.tag == tag
        return reply.status, reply.host.decode()


def reverse(address):
    return ipaddress.ip_address(address).reverse_pointer


@pytest.fixture
def dns():
    server = DnsServer()
    yield server
    server.stop()


@pytest.fixture
def resolve(place, dns):
    r = Resolve(place, dns)
    yield r
    r.master.stop()


def name(dns, address, *names, confirmed=True):
    """What DNS says about a client."""
    dns.add(reverse(address), "PTR", *(n + "." for n in names))
    for n in names if confirmed else ():
        dns.add(n, "AAAA" if ":" in address else "A", address)


@pytest.mark.parametrize("address", ["192.0.2.1", "127.0.0.5", "10.1.2.3", "192.168.0.9",
                                     "2001:db8::25", "fd00::1"])
def test_a_name_that_has_the_address(dns, resolve, address):
    name(dns, address, "Mail.Example.test")
    assert resolve.ask(address) == (FOUND, "mail.example.test")


def test_this_host_is_localhost(resolve):
    assert resolve.ask("127.0.0.1") == (FOUND, "localhost")
    assert resolve.ask("::1") == (FOUND, "localhost")


def test_no_name(dns, resolve):
    assert resolve.ask("192.0.2.1") == (NONE, "")
    dns.exists(reverse("192.0.2.2"))
    assert resolve.ask("192.0.2.2") == (NONE, "")


def test_a_name_that_lacks_the_address_is_a_claim(dns, resolve):
    name(dns, "192.0.2.1", "mail.bank.test", confirmed=False)
    dns.add("mail.bank.test", "A", "192.0.2.99")
    name(dns, "192.0.2.2", "nowhere.test", confirmed=False)
    name(dns, "2001:db8::1", "v4.test", confirmed=False)
    dns.add("v4.test", "A", "192.0.2.1")
    for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
        assert resolve.ask(address) == (MISMATCH, "")


def test_of_several_names_the_first_that_is_true(dns, resolve):
    name(dns, "192.0.2.1", "d.test", "b.test", "c.test")
    name(dns, "192.0.2.1", "a.test", confirmed=False)
    assert resolve.ask("192.0.2.1") == (FOUND, "b.test")


def test_many_names_cost_a_bounded_number_of_questions(dns, resolve):
    names = [f"n{i:02}.test" for i in range(40)]
    name(dns, "192.0.2.1", *names, confirmed=False)
    dns.add(names[10], "A", "192.0.2.1")
    assert resolve.ask("192.0.2.1") == (MISMATCH, "")
    assert [n for n in names if dns.asked(n)] == names[:4]


def test_servfail_says_nothing(dns, resolve):
    dns.servfail(reverse("192.0.2.1"))
    assert resolve.ask("192.0.2.1") == (TEMPORARY, "")
    name(dns, "192.0.2.2", "a.test", confirmed=False)
    dns.servfail("a.test")
    assert resolve.ask("192.0.2.2") == (TEMPORARY, "")


@pytest.mark.parametrize("label", [b"m\x01il", b"m\nil", b"m\x00il", b"m il", b"m[il", b"a/b",
                                   b"\x1b[31m", b"unknown[127.0.0.1]"])
def test_B68_names_with_other_bytes_are_refused(dns, resolve, label):
    dns.raw(reverse("192.0.2.1"), "PTR", [bytes([len(label)]) + label + b"\x04test\0"])
    assert resolve.ask("192.0.2.1") == (NONE, "")


def test_B68_a_label_of_65_bytes_is_refused(dns, resolve):
    def stretch(wire, tcp):
        return wire.replace(b"\x3f" + b"a" * 63, b"\x41" + b"a" * 65)
    name(dns, "192.0.2.1", "a" * 63 + ".test")
    dns.mangle(reverse("192.0.2.1"), stretch)
    status, text = resolve.ask("192.0.2.1", 15)
    assert status in (NONE, TEMPORARY) and text == ""


def test_answers_are_kept_and_equal_questions_share_one(dns, resolve):
    name(dns, "192.0.2.1", "a.test")
    dns.delay(reverse("192.0.2.1"), 0.3)
    for _ in range(50):
        resolve.send("192.0.2.1")
    replies = [resolve.smtpd.expect("ipc_name_reply") for _ in range(50)]
    assert {r.host for r in replies} == {b"a.test"}
    assert sorted(r.tag for r in replies) == list(range(1, 51))
    assert resolve.ask("192.0.2.1") == (FOUND, "a.test")
    assert dns.asked(reverse("192.0.2.1")) == 1 and dns.asked("a.test") == 1


def test_a_silent_server_ends_in_an_answer_and_does_not_keep_mail_waiting(dns, resolve):
    clients = [f"198.51.{i // 200}.{i % 200}" for i in range(400)]
    for address in clients:
        dns.silent(reverse(address))
        resolve.send(address)
    qmgr = resolve.master.peer("qmgr")
    dns.add("a.test", "MX", "10 mx.a.test")
    dns.add("mx.a.test", "A", "8.8.8.8")
    qmgr.send("ipc_resolve_request", tag=1, recipient="user@a.test")
    assert qmgr.expect("ipc_resolve_reply", 5).status == 0
    replies = [resolve.smtpd.expect("ipc_name_reply", 20) for _ in clients]
    assert {(r.status, r.host) for r in replies} == {(TEMPORARY, b"")}


def test_an_smtpd_that_goes_leaves_its_questions_behind(dns, resolve):
    dns.delay(reverse("192.0.2.1"), 0.5)
    name(dns, "192.0.2.1", "a.test")
    other = resolve.master.peer("smtpd", slot=1)
    resolve.send("192.0.2.1", other)
    other.close()
    assert resolve.ask("192.0.2.1") == (FOUND, "a.test")


def test_B89_smtpd_can_ask_for_nothing_else(resolve):
    for frame, values in (("ipc_resolve_request", {"tag": 1, "recipient": "user@a.test"}),
                          ("ipc_name_request", {"tag": 1, "address": b"12345"}),
                          ("ipc_name_request", {"tag": 1, "address": b""})):
        bad = resolve.master.peer("smtpd", slot=2)
        bad.send(frame, **values)
        with pytest.raises(Closed):
            bad.receive()
    assert resolve.ask("192.0.2.1") == (NONE, "")
