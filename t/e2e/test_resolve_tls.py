"""What resolve says about TLS: levels and tables, DANE, MTA-STS."""
import tempfile

import pytest

from certs import Authority
from policyhost import PolicyHost
from postern import wait_until
from signedzone import SignedZones
from test_resolve_dns import Resolve, dns, start  # noqa: F401

NONE, MAY, ENCRYPT, DANE, DANE_ONLY, VERIFY, SECURE, FORBIDDEN = range(8)
CONFIG, TABLE, BY_DANE, BY_STS = range(4)
AUTHENTIC, TESTING = 1, 2
DIGEST = "00" * 32


def rules(reply):
    return {r.host.decode(): r for r in reply.tls}


def only(reply):
    assert len(reply.tls) == 1, reply.tls
    return reply.tls[0]


# ---- levels and tables -------------------------------------------------------------------

TABLE_TEXT = """
none.test            none
encrypt.test         encrypt protocols=>=TLSv1.3 ciphers=high
.parent.test         verify
secure.test          secure
named.test           secure match=a.example:dot-nexthop:hostname servername=nexthop
[mx1.test]           encrypt
[mx1.test]:2525      secure match=nexthop
[127.0.0.11]         encrypt
bad.test             strong
"""


def test_levels(dns, start):
    dns.add("a.test", "MX", "10 mx1.test")
    rule = only(start().ask("u@a.test"))
    assert (rule.host, rule.level, rule.origin, rule.flags) == (b"", MAY, CONFIG, 0)
    assert rule.servername == b"hostname"


@pytest.mark.parametrize("level,number,names", [
    ("none", None, None), ("encrypt", ENCRYPT, b""), ("verify", VERIFY, b"hostname"),
    ("secure", SECURE, b"a.test:.a.test"), ("dane", MAY, b""), ("dane-only", FORBIDDEN, b"")])
def test_level_of_main_cf(dns, start, level, number, names):
    dns.add("a.test", "MX", "10 mx1.test")
    reply = start(smtp_tls_security_level=level).ask("u@a.test")
    if number is None:
        assert reply.tls == []
        return
    assert (only(reply).level, only(reply).names) == (number, names)


def test_policy_table(dns, start):
    for name in ("none", "encrypt", "x.parent", "parent", "secure", "named", "bad"):
        dns.add(f"{name}.test", "MX", "10 mx1.test")
    spec = "texthash:/etc/postern/tls_policy"
    r = start(smtp_tls_policy_maps=spec, transport_maps="inline:{ host.test=smtp:[mx1.test], "
              "port.test=smtp:[mx1.test]:2525, addr.test=smtp:[127.0.0.11], "
              "lmtp.test=lmtp:[mx1.test] }")
    r.master.table("smtp_tls_policy_maps", 0, spec, TABLE_TEXT)
    assert r.ask("u@none.test").tls == []
    rule = only(r.ask("u@encrypt.test"))
    assert (rule.level, rule.origin, rule.protocols, rule.ciphers) == \
        (ENCRYPT, TABLE, b">=TLSv1.3", b"high")
    assert only(r.ask("u@x.parent.test")).level == VERIFY
    assert only(r.ask("u@parent.test")).level == MAY  # ".parent.test" is for what is below
    assert only(r.ask("u@secure.test")).names == b"secure.test:.secure.test"
    rule = only(r.ask("u@named.test"))
    assert (rule.names, rule.servername) == (b"a.example:.named.test:hostname", b"named.test")
    assert (only(r.ask("u@host.test")).level, only(r.ask("u@host.test")).flags) == \
        (ENCRYPT, AUTHENTIC)
    assert only(r.ask("u@port.test")).names == b"mx1.test"
    assert only(r.ask("u@addr.test")).level == ENCRYPT
    assert (only(r.ask("u@lmtp.test")).level, only(r.ask("u@lmtp.test")).origin) == \
        (ENCRYPT, TABLE)
    reply = r.ask("u@bad.test")
    assert only(reply).level == FORBIDDEN and reply.ttl <= 30
    r.master.wait_log(r'error: smtp_tls_policy_maps: "strong" is no level; there are none, may')


def test_lmtp_next_hops(dns, start):
    dns.add("a.test", "MX", "10 mx1.test")
    routes = ("inline:{ host.test=lmtp:[mx1.test], plain.test=lmtp:[mx2.test], "
              "socket.test=lmtp:unix:/run/lmtp, port.test=lmtp:[mx1.test]:2400 }")
    r = start(transport_maps=routes, lmtp_permit_sockets="/run/lmtp")
    for name in ("host", "port", "socket"):
        assert r.ask(f"u@{name}.test").tls == [], name
    assert only(r.ask("u@a.test")).level == MAY  # SMTP has its own level


def test_lmtp_next_hops_with_tls(dns, start):
    dns.add("a.test", "MX", "10 mx1.test")
    routes = ("inline:{ host.test=lmtp:[mx1.test], plain.test=lmtp:[mx2.test], "
              "socket.test=lmtp:unix:/run/lmtp, port.test=lmtp:[mx1.test]:2400 }")
    table = "inline:{ {[mx1.test] = none}, {[mx1.test]:2400 = secure match=hostname} }"
    r = start(transport_maps=routes, lmtp_permit_sockets="/run/lmtp", smtp_tls_policy_maps=table,
              lmtp_tls_security_level="verify", smtp_tls_security_level="none")
    rule = only(r.ask("u@plain.test"))
    assert (rule.level, rule.origin, rule.names) == (VERIFY, CONFIG, b"hostname")
    assert r.ask("u@host.test").tls == [] and r.ask("u@a.test").tls == []
    assert (only(r.ask("u@port.test")).level, only(r.ask("u@port.test")).names) == \
        (SECURE, b"hostname")
    assert r.ask("u@socket.test").tls == []


def test_rules_of_several_next_hops(dns, start):
    r = start(smtp_tls_policy_maps="inline:{ {[mx1.test] = encrypt}, {[mx2.test] = none} }",
              transport_maps="inline:{ {list.test = smtp:[mx1.test] [mx2.test] [mx3.test]} }")
    reply = r.ask("u@list.test")
    assert {h: r.level for h, r in rules(reply).items()} == {"mx1.test": ENCRYPT, "mx3.test": MAY}


# ---- DANE ----------------------------------------------------------------------------------

ZONE = f"""
ns A 127.0.0.1
dane MX 10 mx.dane
mx.dane A 127.0.0.11
_25._tcp.mx.dane TLSA 3 1 1 {DIGEST}
_25._tcp.mx.dane TLSA 0 1 1 {DIGEST}
none MX 10 mx.none
mx.none A 127.0.0.12
unusable MX 10 mx.unusable
mx.unusable A 127.0.0.13
_25._tcp.mx.unusable TLSA 1 1 1 {DIGEST}
two MX 10 mx.dane
two MX 20 mx.half
mx.half A 127.0.0.14
_tcp.mx.half NS ns
_tcp.mx.half DS 12345 13 2 {DIGEST}
half MX 10 mx.half
away MX 10 mx.plain
host A 127.0.0.15
_25._tcp.host TLSA 3 1 1 {DIGEST}
alias MX 10 mx.alias
mx.alias CNAME middle.alias
middle.alias CNAME real.alias
real.alias A 127.0.0.18
_25._tcp.real.alias TLSA 3 1 1 {DIGEST}
_25._tcp.mx.alias TLSA 3 1 2 {DIGEST}{DIGEST}
own MX 10 mx.own
mx.own CNAME mx.none
_25._tcp.mx.own TLSA 3 1 1 {DIGEST}
out MX 10 mx.out
mx.out CNAME mx.plain
_25._tcp.mx.out TLSA 3 1 1 {DIGEST}
outside MX 10 alias.plain
cut MX 10 mx.cut
mx.cut CNAME mx.half
_25._tcp.mx.cut TLSA 3 1 1 {DIGEST}
plain NS ns
bogus NS ns
bogus DS 12345 13 2 {DIGEST}
"""
PLAIN = f"""
@ MX 10 mx
@ MX 20 mx.dane.test.
mx A 127.0.0.16
alias CNAME mx
_25._tcp.alias TLSA 3 1 1 {DIGEST}
_25._tcp.mx TLSA 3 1 1 {DIGEST}
"""
BOGUS = "@ MX 10 mx\nmx A 127.0.0.17\n"
HALF = f"_25 TLSA 3 1 1 {DIGEST}\n"


@pytest.fixture(scope="module")
def zones():
    with SignedZones({"test": ZONE, "plain.test": PLAIN, "bogus.test": BOGUS,
                      "_tcp.mx.half.test": HALF}, signed=["test"]) as served:
        yield served


@pytest.fixture
def validating(zones):
    with tempfile.TemporaryDirectory(prefix="postern-") as place:
        r = Resolve(place, zones, resolver_trust_anchor=zones.anchor, resolver_timeout="10",
                    smtp_tls_security_level="dane", smtp_tls_mta_sts="no")
        yield r
        r.master.stop()


def test_dane_records(validating):
    found = rules(validating.ask("u@dane.test"))
    assert set(found) == {"mx.dane.test", ""}
    host = found["mx.dane.test"]
    assert (host.level, host.origin, host.flags) == (DANE, BY_DANE, AUTHENTIC)
    assert host.names == b"hostname:dane.test"
    assert [(t.usage, t.selector, t.matching, t.data) for t in host.tlsa] == [(3, 1, 1, b"\0" * 32)]
    assert (found[""].level, found[""].flags) == (MAY, AUTHENTIC)


def test_dane_without_records(validating):
    assert (only(validating.ask("u@none.test")).level,
            only(validating.ask("u@none.test")).flags) == (MAY, AUTHENTIC)


def test_dane_with_unusable_records_encrypts(validating):
    assert rules(validating.ask("u@unusable.test"))["mx.unusable.test"].level == ENCRYPT


def test_B67_tlsa_without_dnssec_is_not_used(validating):
    # neither the host's zone nor the domain's is signed
    assert only(validating.ask("u@plain.test")).level == MAY
    assert only(validating.ask("u@plain.test")).flags == 0
    # the domain's is
    assert only(validating.ask("u@away.test")).level == MAY


def test_B67_bogus_answers_defer(validating):
    reply = validating.ask("u@bogus.test", 15)
    assert (reply.code, reply.enhanced) == (451, b"4.4.3")


def test_B67_a_bogus_tlsa_answer_is_no_downgrade(validating):
    found = rules(validating.ask("u@half.test", 15))
    assert found["mx.half.test"].level == FORBIDDEN
    assert found["mx.half.test"].why == b"the lookup of its TLSA records failed"
    found = rules(validating.ask("u@two.test", 15))
    assert (found["mx.dane.test"].level, found["mx.half.test"].level) == (DANE, FORBIDDEN)


def test_dane_of_a_domain_without_mx(validating):
    assert rules(validating.ask("u@host.test"))["host.test"].level == DANE


def test_dane_of_an_alias(validating):
    """RFC 7672 section 2.2.2: records where the aliases end go before those of the name
    that the MX record has."""
    host = rules(validating.ask("u@alias.test"))["mx.alias.test"]
    assert (host.level, host.origin) == (DANE, BY_DANE)
    assert [(t.usage, t.selector, t.matching) for t in host.tlsa] == [(3, 1, 1)]
    assert host.names == b"hostname:alias.test:real.alias.test"
    assert host.servername == b"real.alias.test"
    # none there: those of the host's own name
    host = rules(validating.ask("u@own.test"))["mx.own.test"]
    assert (host.level, host.names, host.servername) == (DANE, b"hostname:own.test", b"hostname")


def test_B67_dane_of_an_alias_that_leaves_what_is_signed(validating):
    # the alias is signed, where it ends is not: the records of the own name hold
    host = rules(validating.ask("u@out.test"))["mx.out.test"]
    assert (host.level, host.names) == (DANE, b"hostname:out.test")
    # the alias itself is not signed
    assert only(validating.ask("u@outside.test")).level == MAY
    # where it ends nobody can tell: the own name's records are no way round that
    host = rules(validating.ask("u@cut.test", 15))["mx.cut.test"]
    assert (host.level, host.why) == (FORBIDDEN, b"the lookup of its TLSA records failed")


def test_dane_only(zones, place):
    r = Resolve(place, zones, resolver_trust_anchor=zones.anchor, resolver_timeout="10",
                smtp_tls_security_level="dane-only")
    assert only(r.ask("u@none.test")).level == FORBIDDEN
    found = rules(r.ask("u@dane.test"))
    assert (found["mx.dane.test"].level, found[""].level) == (DANE, FORBIDDEN)
    r.master.stop()


def test_without_a_trust_anchor_there_is_no_dane(zones, place):
    r = Resolve(place, zones, smtp_tls_security_level="dane", smtp_tls_mta_sts="no")
    assert only(r.ask("u@dane.test")).level == MAY
    r.master.stop()


# ---- MTA-STS --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca():
    with tempfile.TemporaryDirectory(prefix="postern-") as place:
        yield Authority(place)


@pytest.fixture
def host(ca):
    with PolicyHost(ca.server("mta-sts.a.test", "mta-sts.b.test", "mta-sts.c.test")) as server:
        yield server


@pytest.fixture
def sts(dns, start, host, ca):
    def make(**config):
        r = start(**{"smtp_tls_mta_sts_port": str(host.port), "resolver_timeout": "10",
                     "resolver_min_ttl": "0s", "smtp_tls_mta_sts": "yes", **config})
        r.master.table("smtp_tls_CAfile", 0, "ca.pem", ca.pem)
        return r
    for name in ("a", "b", "c", "d"):
        dns.add(f"{name}.test", "MX", "10 mx1.test", "20 mx2.test")
        dns.add(f"_mta-sts.{name}.test", "TXT", f'"v=STSv1; id=1{name};"')
        dns.add(f"mta-sts.{name}.test", "A", "127.0.0.1")
    return make


def test_sts_enforce(sts, host):
    host.policy("a.test", mx=("mx1.test", "*.example"))
    found = rules(sts().ask("u@a.test"))
    assert set(found) == {"", "mx2.test"}
    rest = found[""]
    assert (rest.level, rest.origin, rest.flags, rest.names, rest.servername) == \
        (VERIFY, BY_STS, AUTHENTIC, b"hostname", b"hostname")
    assert found["mx2.test"].level == FORBIDDEN
    assert found["mx2.test"].why == b"the domain's MTA-STS policy does not name it"


def test_sts_testing_and_none(sts, host):
    host.policy("a.test", mode="testing")
    host.policy("b.test", mode="none", mx=())
    r = sts()
    found = rules(r.ask("u@a.test"))
    assert (found[""].level, found[""].origin, found[""].flags) == (MAY, BY_STS, TESTING)
    assert (found["mx2.test"].level, found["mx2.test"].flags) == (MAY, TESTING)
    assert (only(r.ask("u@b.test")).level, only(r.ask("u@b.test")).origin) == (MAY, CONFIG)


def test_sts_is_fetched_once_for_an_id(sts, host, dns):
    host.policy("a.test")
    r = sts()
    for n in range(3):
        assert rules(r.ask(f"u{n}@a.test"))[""].level == VERIFY
    assert host.asked == ["a.test"]


def test_sts_survives_a_restart_and_its_server(sts, host, dns, place):
    host.policy("a.test", mx=("mx1.test", "mx2.test"))
    r = sts()
    assert only(r.ask("u@a.test")).level == VERIFY
    r.master.master.send("ipc_drain", seconds=10)  # writes down what it knows
    wait_until(lambda: r.master.process.poll() is not None, 10, "its end")
    host.answers.clear()
    dns.remove("_mta-sts.a.test")
    again = sts()
    assert only(again.ask("u@a.test")).level == VERIFY
    assert host.asked == ["a.test"]


def test_sts_operator_has_the_last_word(sts, host):
    host.policy("a.test")
    r = sts(smtp_tls_policy_maps="inline:{ a.test=may }")
    assert (only(r.ask("u@a.test")).level, host.asked) == (MAY, [])


BAD = {
    "oversize": dict(body=b"version: STSv1\nmode: enforce\nmx: mx1.test\nmax_age: 86400\n"
                     + b"x: y\n" * 20000),
    "redirected": dict(status=302, headers={"Location": "https://mta-sts.b.test/"}),
    "html": dict(headers={"Content-Type": "text/html"},
                 body=b"version: STSv1\nmode: enforce\nmx: mx1.test\nmax_age: 86400\n"),
    "broken": dict(body=b"version: STSv1\nmode: maybe\n"),
    "missing": dict(status=404),
}
WHY = {"oversize": "it is longer than 65536 bytes", "redirected": "answers with status 302",
       "html": "it is not text/plain", "broken": 'unknown mode "maybe"',
       "missing": "answers with status 404"}


@pytest.mark.parametrize("kind", BAD)
def test_B75_bad_policy_is_none(sts, host, kind):
    host.policy("b.test")
    host.answer("a.test", **BAD[kind])
    r = sts()
    assert only(r.ask("u@a.test")).level == MAY
    r.master.wait_log(f"warning: MTA-STS policy of a.test: .*{WHY[kind]}; mail goes without one")
    assert host.asked == ["a.test"]


def test_B75_bad_certificate(sts, host):
    host.policy("d.test")  # which the certificate does not name
    r = sts()
    assert only(r.ask("u@d.test")).level == MAY
    r.master.wait_log("warning: MTA-STS policy of d.test: SSL: .*; mail goes without one")
    assert host.asked == []


@pytest.mark.parametrize("kind", [*BAD, "bad certificate"])
def test_B75_the_cached_policy_stays(sts, host, dns, ca, kind):
    """Whatever is wrong with its successor."""
    host.policy("a.test", mx=("mx1.test", "mx2.test"))
    r = sts()
    assert only(r.ask("u@a.test")).level == VERIFY
    r.master.master.send("ipc_drain", seconds=10)
    wait_until(lambda: r.master.process.poll() is not None, 10, "its end")
    dns.remove("_mta-sts.a.test")
    dns.add("_mta-sts.a.test", "TXT", '"v=STSv1; id=2a;"')
    with PolicyHost(ca.server("mta-sts.stranger.test")) as stranger:
        if kind == "bad certificate":
            stranger.policy("a.test", mode="none")
            again = sts(smtp_tls_mta_sts_port=str(stranger.port))
        else:
            host.answer("a.test", **BAD[kind])
            again = sts()
        assert only(again.ask("u@a.test")).level == VERIFY
        again.master.wait_log("the one that is known stays in use")


def test_B75_a_policy_server_that_hangs(sts, dns, host):
    import socket
    with socket.create_server(("127.0.0.1", 0)) as silent:
        r = sts(smtp_tls_mta_sts_timeout="1s")
        host.policy("a.test")
        r.reload(smtp_tls_mta_sts_port=str(silent.getsockname()[1]),
                 smtp_tls_mta_sts_timeout="1s")
        wait_until(lambda: only(r.ask("u@c.test")).level == MAY, 10, "an answer")
        r.master.wait_log(r"MTA-STS policy of c\.test: .*; mail goes without one")


def test_sts_records_that_are_none(sts, host, dns):
    host.policy("a.test")
    dns.add("_mta-sts.a.test", "TXT", '"v=STSv1; id=2;"')  # two of them
    assert only(sts().ask("u@a.test")).level == MAY
    assert host.asked == []
