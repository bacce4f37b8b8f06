"""resolve against a DNS server that behaves, and one that does not."""
import os
import socket
import time

import dns.message as dns_message
import pytest

from dnsserver import DnsServer
from ipc import FakeMaster, expand, parameters
from patience import stretched
from postern import wait_until

OK, TEMPORARY, PERMANENT = 0, 1, 2


class Resolve:
    def __init__(self, directory, dns, environment=None, **config):
        self.dns = dns
        values = {"resolver_nameservers": dns.address, "resolver_permit_networks": "127.0.0.0/8",
                  "resolver_timeout": "3", "inet_protocols": "ipv4",
                  "smtp_tls_mta_sts": "no"}
        values.update(config)
        self.config = values
        self.master = FakeMaster("resolve", values, directory=directory, environment=environment)
        self.qmgr = self.master.peer("qmgr")
        self.tag = 0

    def send(self, recipient):
        self.tag += 1
        self.qmgr.send("ipc_resolve_request", tag=self.tag, recipient=recipient)
        return self.tag

    def reload(self, **changes):
        values = {**parameters(), "myhostname": "relay.test", **self.config, **changes}
        fd = os.memfd_create("config")
        os.write(fd, "".join(f"{k} = {v}\n" for k, v in expand(values).items()).encode())
        os.lseek(fd, 0, os.SEEK_SET)
        self.master.master.send("ipc_config", fd, generation=2)
        os.close(fd)

    def ask(self, recipient, timeout=10):
        tag = self.send(recipient)
        reply = self.qmgr.expect("ipc_resolve_reply", timeout)
        assert reply.tag == tag
        return reply


def hosts(reply):
    return [t.host.decode() for t in reply.targets]


def addresses(reply):
    return [socket.inet_ntop(socket.AF_INET if len(t.address) == 4 else socket.AF_INET6, t.address)
            for t in reply.targets]


def refused(reply, code, enhanced):
    assert (reply.code, reply.enhanced.decode()) == (code, enhanced), reply
    assert reply.status == (PERMANENT if code >= 500 else TEMPORARY)
    assert reply.targets == [] and reply.text


@pytest.fixture
def dns():
    server = DnsServer()
    server.add("mx1.test", "A", "127.0.0.11")
    server.add("mx2.test", "A", "127.0.0.12")
    server.add("mx3.test", "A", "127.0.0.13")
    yield server
    server.stop()


@pytest.fixture
def start(place, dns):
    running = []

    def make(**config):
        running.append(Resolve(place, dns, **config))
        return running[-1]
    yield make
    for r in running:
        r.master.stop()


# ---- what works ----------------------------------------------------------------------------

def test_mx_by_preference(dns, start):
    dns.add("a.test", "MX", "20 mx2.test", "10 mx1.test", "20 mx3.test")
    reply = start().ask("user@A.Test")
    assert reply.status == OK and reply.scope == 0
    assert addresses(reply)[0] == "127.0.0.11"
    assert sorted(addresses(reply)[1:]) == ["127.0.0.12", "127.0.0.13"]
    assert [t.preference for t in reply.targets] == [10, 20, 20]
    assert [t.port for t in reply.targets] == [25, 25, 25]
    assert reply.nexthop == b"a.test"
    assert reply.site == b"mx1.test,mx2.test,mx3.test"
    assert 200 < reply.ttl <= 300


def test_equal_preferences_are_tried_in_random_order(dns, start):
    seen = set()
    for i in range(40):
        dns.add(f"d{i}.test", "MX", "10 mx1.test", "10 mx2.test")
    r = start()
    for i in range(40):
        reply = r.ask(f"u@d{i}.test")
        seen.add(tuple(hosts(reply)))
        assert reply.site == b"mx1.test,mx2.test"
    assert len(seen) == 2


def test_domains_with_one_mx_set_share_a_site(dns, start):
    dns.add("a.test", "MX", "10 mx1.test", "20 mx2.test")
    dns.add("b.test", "MX", "5 MX2.test", "6 mx1.test")
    dns.add("c.test", "MX", "10 mx1.test")
    r = start()
    sites = [r.ask(f"u@{d}.test").site for d in "abc"]
    assert sites[0] == sites[1] != sites[2]


def test_implicit_mx(dns, start):
    dns.add("plain.test", "A", "127.0.0.20")
    reply = start().ask("u@plain.test")
    assert (reply.status, addresses(reply)) == (OK, ["127.0.0.20"])
    assert reply.site == b"plain.test"


def test_mx_without_addresses_is_no_reason_to_use_the_domain_itself(dns, start):
    dns.add("a.test", "MX", "10 gone.test")
    dns.add("a.test", "A", "127.0.0.20")
    refused(start().ask("u@a.test"), 550, "5.4.4")


def test_cname(dns, start):
    dns.add("alias.test", "CNAME", "real.test")
    dns.add("real.test", "MX", "10 mxalias.test")
    dns.add("mxalias.test", "CNAME", "mx1.test")
    reply = start().ask("u@alias.test")
    assert addresses(reply) == ["127.0.0.11"]


def test_address_families(dns, start):
    dns.add("a.test", "MX", "10 six.test")
    dns.add("six.test", "AAAA", "2a00::1")
    dns.add("six.test", "A", "127.0.0.30")
    r = start(inet_protocols="all", smtp_address_preference="ipv6")
    assert addresses(r.ask("u@a.test")) == ["2a00::1", "127.0.0.30"]


def test_address_literals(start):
    r = start(resolver_permit_networks="127.0.0.9/32")
    reply = r.ask("u@[8.8.8.8]")
    assert (reply.status, addresses(reply), reply.site) == (OK, ["8.8.8.8"], b"[8.8.8.8]")
    assert addresses(r.ask("u@[IPv6:2a00::1]")) == ["2a00::1"]
    assert addresses(r.ask("u@[127.0.0.9]")) == ["127.0.0.9"]
    refused(r.ask("u@[127.0.0.1]"), 550, "5.4.6")
    refused(r.ask("u@[not.an.address]"), 550, "5.1.2")


def test_idn(dns, start):
    dns.add("xn--bcher-kva.test", "MX", "10 mx1.test")
    reply = start().ask("user@bücher.test")
    assert (reply.status, reply.nexthop) == (OK, b"xn--bcher-kva.test")


def test_port(dns, start):
    dns.add("a.test", "MX", "10 mx1.test")
    reply = start(smtp_tcp_port="2525").ask("u@a.test")
    assert reply.targets[0].port == 2525 and reply.site == b"mx1.test"


def test_answers_are_remembered_and_equal_questions_shared(dns, start):
    dns.add("a.test", "MX", "10 mx1.test")
    dns.delay("a.test", 0.3)
    r = start()
    tags = [r.send(f"user{i}@a.test") for i in range(200)]
    got = [r.qmgr.expect("ipc_resolve_reply").tag for _ in tags]
    assert sorted(got) == tags
    r.ask("other@a.test")
    assert dns.asked("a.test") == 1


def test_ttl_is_obeyed(dns, start):
    dns.add("a.test", "MX", "10 mx1.test", ttl=1)
    r = start(resolver_min_ttl="0")
    first, began = r.ask("u@a.test"), time.monotonic()
    assert first.ttl == 1
    while dns.asked("a.test") < 2:
        assert r.ask("u@a.test").status == OK
        assert time.monotonic() - began < stretched(10)
    assert time.monotonic() > began + 0.9, "asked again too early"


def test_disabled_dns(dns, start):
    dns.add("a.test", "MX", "10 mx1.test")
    refused(start(disable_dns_lookups="yes").ask("u@a.test"), 451, "4.3.5")
    assert dns.queries == []


# ---- what is refused or waits --------------------------------------------------------------

def test_B58_malformed_rdata_is_dropped(dns, start):
    dns.raw("odd.test", "MX", [b"", b"\0", b"\0\12", b"\0\12\5"])
    dns.raw("mixed.test", "MX", [b"\0\12", b"\0\12\3mx1\4test\0"])
    r = start()
    refused(r.ask("u@odd.test"), 451, "4.4.3")
    reply = r.ask("u@mixed.test")
    assert (reply.status, hosts(reply)) == (OK, ["mx1.test"])
    dns.add("good.test", "MX", "10 mx1.test")
    assert r.ask("u@good.test").status == OK


@pytest.mark.parametrize("change", [
    pytest.param(lambda w, tcp: w[:12], id="header-only"),
    pytest.param(lambda w, tcp: w[:-3], id="truncated"),
    pytest.param(lambda w, tcp: w[:12] + b"\xc0\x0c" + w[14:], id="B59-loop"),
    pytest.param(lambda w, tcp: w[:-2] + b"\xff\xff", id="B59-past-the-end"),
    pytest.param(lambda w, tcp: bytes([w[0] ^ 1]) + w[1:], id="B60-wrong-id"),
    pytest.param(lambda w, tcp: w[:13] + b"x" + w[14:], id="B60-wrong-question"),
])
def test_B59_B60_unusable_messages_defer(dns, start, change):
    dns.add("abc.test", "MX", "10 mx1.test")
    dns.mangle("abc.test", change)
    refused(start().ask("u@abc.test"), 451, "4.4.3")


@pytest.mark.parametrize("change,used", [
    pytest.param(lambda w: bytes([w[0] ^ 1]) + w[1:], ["mx1.test"], id="wrong-id"),
    # whoever knows the id as well can have it tried again later, but not send mail away
    pytest.param(lambda w: w[:13] + b"x" + w[14:], [], id="wrong-question"),
])
def test_B60_an_answer_to_another_question_is_not_used(dns, start, change, used):
    """Somebody guesses, and is faster than the server."""
    dns.add("abc.test", "MX", "10 mx1.test")
    evil = DnsServer()
    evil.add("abc.test", "MX", "10 mx2.test")
    try:
        dns.mangle("abc.test", lambda w, tcp: [change(forged(evil, w)), w])
        reply = start().ask("u@abc.test")
    finally:
        evil.stop()
    assert hosts(reply) == used and reply.status == (OK if used else TEMPORARY)


def forged(evil, wire):
    """What `evil` answers to the question of this answer, under its id."""
    question = dns_message.from_wire(wire)
    asked = dns_message.make_query(question.question[0].name, question.question[0].rdtype)
    return wire[:2] + evil.answer(asked.to_wire(), tcp=False)[2:]


@pytest.mark.parametrize("length", [1, 11, 60000])
def test_B61_tcp_with_a_lying_length(dns, start, length):
    dns.add("big.test", "MX", *(f"10 host{i:03}.test" for i in range(200)))
    dns.tcp_length = length
    refused(start().ask("u@big.test"), 451, "4.4.3")


def test_B62_null_mx(dns, start):
    dns.add("null.test", "MX", "0 .")
    dns.add("null.test", "A", "127.0.0.20")
    dns.add("both.test", "MX", "0 .", "10 mx1.test")
    r = start()
    refused(r.ask("u@null.test"), 556, "5.1.10")
    assert hosts(r.ask("u@both.test")) == ["mx1.test"]


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "10.0.0.1", "192.168.1.1",
                                     "169.254.169.254"])
def test_B63_private_addresses(dns, start, address):
    dns.add("bad.test", "A", address)
    dns.add("a.test", "MX", "10 bad.test")
    r = start(resolver_permit_networks="")
    reply = r.ask("u@a.test")
    refused(reply, 550, "5.4.6")
    assert address.encode() in reply.text
    refused(r.ask("u@bad.test"), 550, "5.4.6")


def test_B63_private_address_beside_a_public_one(dns, start):
    dns.add("bad.test", "A", "10.0.0.1")
    dns.add("fine.test", "A", "8.8.8.8")
    dns.add("a.test", "MX", "10 bad.test", "20 fine.test")
    assert hosts(start(resolver_permit_networks="").ask("u@a.test")) == ["fine.test"]


def test_B63_ipv6(dns, start):
    for i, address in enumerate(["::1", "fd00::1", "fe80::1", "::ffff:127.0.0.1"]):
        dns.add(f"six{i}.test", "AAAA", address)
    r = start(inet_protocols="all", resolver_permit_networks="")
    for i in range(4):
        refused(r.ask(f"u@six{i}.test"), 550, "5.4.6")
    refused(r.ask("u@localhost"), 550, "5.4.6")


def test_B63_ourselves(dns, start):
    dns.add("self.test", "MX", "10 relay.test", "20 mx1.test")
    dns.add("backup.test", "MX", "10 mx1.test", "20 relay.test", "20 mx2.test", "30 mx3.test")
    dns.add("relay.test", "A", "127.0.0.1")
    r = start(myhostname="relay.test")
    refused(r.ask("u@self.test"), 550, "5.4.6")
    assert hosts(r.ask("u@backup.test")) == ["mx1.test"]


def test_B63_permitted_networks(dns, start):
    dns.add("in.test", "A", "10.0.0.1")
    assert start(resolver_permit_networks="10.0.0.0/8").ask("u@in.test").status == OK


def test_B63_what_the_operator_configured_is_allowed(start):
    reply = start(resolver_permit_networks="", relayhost="[127.0.0.1]:2526").ask("u@any.test")
    assert (reply.status, addresses(reply), reply.targets[0].port) == (OK, ["127.0.0.1"], 2526)
    assert reply.site == b"[127.0.0.1]:2526"


def test_B64_cname_chain(dns, start):
    for i in range(50):
        dns.add(f"c{i}.test", "CNAME", f"c{i + 1}.test")
    dns.add("c50.test", "MX", "10 mx1.test")
    dns.add("loop.test", "CNAME", "pool.test")
    dns.add("pool.test", "CNAME", "loop.test")
    r = start()
    refused(r.ask("u@c0.test"), 451, "4.4.3")
    refused(r.ask("u@loop.test"), 451, "4.4.3")


def test_B65_500_records(dns, start):
    dns.add("many.test", "MX", "10 wide.test")
    dns.add("wide.test", "A", *(f"127.1.{i // 256}.{i % 256}" for i in range(500)))
    dns.add("hosts.test", "MX", *(f"10 h{i:03}.test" for i in range(500)))
    for i in range(500):
        dns.add(f"h{i:03}.test", "A", f"127.2.{i // 256}.{i % 256}")
    r = start(resolver_timeout="10")
    reply = r.ask("u@many.test")
    assert sorted(addresses(reply)) == sorted(f"127.1.0.{i}" for i in range(50))
    reply = r.ask("u@hosts.test")
    assert sorted(hosts(reply)) == [f"h{i:03}.test" for i in range(50)]
    # another day the server gives them in another order
    dns.add("again.test", "MX", "10 ediw.test")
    dns.add("ediw.test", "A", *(f"127.1.{i // 256}.{i % 256}" for i in reversed(range(500))))
    dns.add("stsoh.test", "MX", *(f"10 h{i * 7 % 500:03}.test" for i in range(500)))
    assert sorted(addresses(r.ask("u@again.test"))) == sorted(f"127.1.0.{i}" for i in range(50))
    assert sorted(hosts(r.ask("u@stsoh.test"))) == sorted(hosts(reply))


def test_B66_nxdomain_and_servfail_are_never_confused(dns, start):
    dns.servfail("broken.test")
    dns.exists("empty.test")
    dns.add("half.test", "MX", "10 broken.test")
    dns.add("two.test", "MX", "10 broken.test", "20 mx1.test")
    dns.servfail("mxfail.test", "MX")
    dns.add("mxfail.test", "A", "127.0.0.20")
    r = start()
    refused(r.ask("u@missing.test"), 550, "5.1.2")
    refused(r.ask("u@empty.test"), 550, "5.1.2")
    refused(r.ask("u@broken.test"), 451, "4.4.3")
    refused(r.ask("u@half.test"), 451, "4.4.3")
    refused(r.ask("u@mxfail.test"), 451, "4.4.3")
    reply = r.ask("u@two.test")
    assert hosts(reply) == ["mx1.test"] and reply.ttl <= 15


def test_B66_timeout_defers(dns, start):
    dns.silent("dead.test")
    r = start(resolver_timeout="1")
    began = time.monotonic()
    refused(r.ask("u@dead.test"), 451, "4.4.3")
    assert time.monotonic() - began < stretched(3)


def test_B68_bad_names(dns, start):
    r = start()
    for name in ["a b.test", "a/b.test", "a\0b.test", "x" * 64 + ".test", "a" * 250 + ".test",
                 "a..test", "", ".", "1.2.3.4", "[", "é" * 60 + ".test", "\udcff.test"]:
        reply = r.ask(f"user@{name}".encode("utf-8", "surrogateescape"))
        if name:  # without a domain it is ours
            refused(reply, 550, "5.1.2")
    assert [q for q in dns.queries if "relay" not in str(q[0])] == []


def test_B68_bad_mx_host_names_are_dropped(dns, start):
    dns.raw("a.test", "MX", [b"\0\12\3a/b\4test\0", b"\0\12\3a b\4test\0", b"\0\12\3a\0b\4test\0",
                             b"\0\24\3mx1\4test\0"])
    assert hosts(start().ask("u@a.test")) == ["mx1.test"]


def test_F32_failures_are_remembered(dns, start):
    dns.servfail("broken.test")
    r = start()
    refused(r.ask("u@broken.test"), 451, "4.4.3")
    asked = dns.asked("broken.test")
    for i in range(300):
        refused(r.ask(f"u{i}@broken.test"), 451, "4.4.3")
    assert dns.asked("broken.test") == asked


def test_F32_dead_dns_defers_all_and_good_answers_come_again(dns, start):
    for i in range(600):
        dns.silent(f"d{i}.test")
    dns.add("good.test", "MX", "10 mx1.test")
    r = start(resolver_timeout="2")
    for i in range(600):
        r.send(f"u@d{i}.test")
    for _ in range(600):
        refused(r.qmgr.expect("ipc_resolve_reply", 10), 451, "4.4.3")
    wait_until(lambda: r.ask("u@good.test").status == OK, 40, "a good answer")


def test_F32_slow_domains_do_not_take_all_the_places(dns, start):
    """Their questions stay with libunbound when nobody waits for them any more."""
    for i in range(300):
        dns.delay(f"s{i}.test", 16)
    for i in range(20):
        dns.add(f"good{i}.test", "MX", "10 mx1.test")
    r = start(resolver_timeout="4")
    assert r.ask("u@good0.test").status == OK
    for i in range(300):
        r.send(f"u@s{i}.test")
    for _ in range(300):
        refused(r.qmgr.expect("ipc_resolve_reply", 10), 451, "4.4.3")
    assert [r.ask(f"u@good{i}.test").status for i in range(1, 20)] == [OK] * 19


# ---- the process ---------------------------------------------------------------------------

def test_B89_garbage_closes_that_channel_only(dns, start):
    dns.add("a.test", "MX", "10 mx1.test")
    r = start()
    r.qmgr.send("ipc_committed", tag=1)
    with pytest.raises(Exception):
        while True:
            assert r.qmgr.receive(5) is not None
    r.qmgr = r.master.peer("qmgr")
    assert r.ask("u@a.test").status == OK


def test_a_new_qmgr_gets_its_answers(dns, start):
    dns.add("a.test", "MX", "10 mx1.test")
    dns.delay("a.test", 0.5)
    r = start()
    r.send("u@a.test")
    r.qmgr.close()
    r.qmgr = r.master.peer("qmgr")
    assert r.ask("u@a.test").status == OK


def test_stop_while_lookups_are_under_way(dns, start):
    dns.silent("dead.test")
    r = start()
    for i in range(10):
        r.send(f"u@dead.test")
        r.send(f"u@sub{i}.dead.test")
    wait_until(lambda: dns.asked("dead.test"), 10, "a question")


def test_reload_takes_new_servers_and_answers_what_was_asked(dns, start):
    dns.add("old.test", "MX", "10 mx1.test")
    dns.delay("old.test", 0.5)
    other = DnsServer()
    other.add("new.test", "A", "127.0.0.77")
    try:
        r = start()
        r.send("u@old.test")
        wait_until(lambda: dns.asked("old.test"), 10, "a question")
        r.reload(resolver_nameservers=other.address, resolver_permit_networks="127.0.0.0/8")
        assert hosts(r.qmgr.expect("ipc_resolve_reply")) == ["mx1.test"]
        assert addresses(r.ask("u@new.test")) == ["127.0.0.77"]
        r.reload(resolver_nameservers=other.address, resolver_permit_networks="")
        wait_until(lambda: r.ask("u@new.test").code == 550, 10, "the new configuration")
    finally:
        other.stop()


def test_drain_answers_what_was_asked(dns, start):
    dns.add("slow.test", "MX", "10 mx1.test")
    dns.delay("slow.test", 0.5)
    r = start()
    r.send("u@slow.test")
    wait_until(lambda: dns.asked("slow.test"), 10, "a question")
    r.master.master.send("ipc_drain", seconds=10)
    assert hosts(r.qmgr.expect("ipc_resolve_reply")) == ["mx1.test"]
    assert r.master.process.wait(5) == 0
